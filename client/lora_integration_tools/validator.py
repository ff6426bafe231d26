"""Validating without a cluster: a merged model's directory → `lora-job validate`."""

import json
import tempfile
from pathlib import Path
from uuid import uuid4

from lora_integration_tools.job_engine import run_job
from lora_integration_tools.records import ValidationResult
from lora_integration_tools.words import ModelQuality, ValidationMode

__all__ = ["LoRAModelValidator"]


class LoRAModelValidator:
    """`base_model_path` and `adapter_path` are found in the model's merge.json where they are not given."""

    def __init__(self, *, base_model_path: str = "", adapter_path: str = "") -> None:
        self._sources = (*(("--base", base_model_path) if base_model_path else ()),
                         *(("--adapter", adapter_path) if adapter_path else ()))  # fmt: skip

    def validate_model(
        self, model_path: str, validation_mode: ValidationMode | str = ValidationMode.STANDARD
    ) -> ValidationResult:
        """Measures the model. `.success` says whether every gate was passed; `.error` why nothing could be measured."""
        mode = ValidationMode(validation_mode)
        identity = f"validation-{uuid4().hex[:12]}"
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / f"{identity}.json"
            arguments = [
                "validate",
                "--model",
                str(model_path),
                *self._sources,
                "--mode",
                str(mode),
                "--report",
                str(report),
            ]
            ended = run_job(*arguments)
            if report.is_file():
                return ValidationResult.from_report(json.loads(report.read_text(encoding="utf-8")))
        return ValidationResult(
            validation_id=identity,
            model_path=str(model_path),
            validation_mode=str(mode),
            success=False,
            overall_score=0.0,
            quality_grade=ModelQuality.POOR,
            error=ended.sentence,
            details={"exit_code": ended.code},
        )
