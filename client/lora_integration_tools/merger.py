"""Merging without a cluster: MergeConfiguration → `lora-job merge`."""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from lora_integration_tools.job_engine import run_job
from lora_integration_tools.records import MergeConfiguration
from lora_integration_tools.words import MergeStrategy

__all__ = ["LoRAModelMerger", "local_quantization", "local_strategy"]

LOGGER = logging.getLogger("lora_integration_tools")


class LoRAModelMerger:
    """Holds nothing; one may serve many merges."""

    def merge_lora_adapter(self, config: MergeConfiguration) -> tuple[bool, str, dict[str, Any]]:
        """(success, output_path, stats). The output directory must not exist yet, or be empty, or hold this very build.

        stats is the merge report of `lora-job` with `merge_id`; on failure it holds `error` and `exit_code`, and output_path is
        empty, because nothing was published.
        """
        info = config.adapter_info
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            ended = run_job(
                "merge",
                *("--base", info.base_model_path, "--adapter", info.adapter_path, "--output", config.output_path),
                *("--strategy", local_strategy(MergeStrategy(config.merge_strategy), adapters=1)),
                *("--quantization", local_quantization(config), "--report", str(report)),
            )
            if ended.code != 0:
                stats = {
                    "merge_id": config.merge_id,
                    "success": False,
                    "error": ended.sentence,
                    "exit_code": ended.code,
                }
                return False, "", stats
            return (
                True,
                config.output_path,
                {"merge_id": config.merge_id, **json.loads(report.read_text(encoding="utf-8"))},
            )


def local_strategy(strategy: MergeStrategy, *, adapters: int) -> str:
    """The strategy to really use: a turn between two adapters has no meaning for one, where it equals linear."""
    if strategy is MergeStrategy.SLERP and adapters == 1:
        LOGGER.warning("slerp turns between two adapters; with one adapter it equals linear, which is used")
        return str(MergeStrategy.LINEAR)
    return str(strategy)


def local_quantization(config: MergeConfiguration) -> str:
    """lora-job's word."""
    if not config.enable_quantization:
        return "none"
    return {4: "bnb-nf4", 8: "bnb-int8"}[config.quantization_bits]
