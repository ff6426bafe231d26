"""`python -m lora_integration_tools --action workflow|merge|validate|status …`: one result JSON on stdout, logs on stderr.

Exit codes: 0 success, 2 bad input, 3 a quality gate failed or a rollout was rolled back, 1 anything that may work another time.
"""

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any
from uuid import uuid4

from lora_integration_tools.words import DeploymentStrategy, LoRAAdapterType, MergeStrategy, ValidationMode

__all__ = ["main"]

Outcome = tuple[Mapping[str, Any] | list[Any], int]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lora_integration_tools",
        description="Merge and validate LoRA adapters on this machine, or run whole workflows on the current context's cluster.",
        epilog="merge and validate need no cluster. Paths: a directory, pvc://CLAIM/PATH, s3://…, hf://…, oci://… (workflow). "
        "For workflow --output-path is the store, pvc://CLAIM/PATH; for validate it is the merged model.",
    )
    add = parser.add_argument
    add("--action", required=True, choices=["workflow", "merge", "validate", "status"], help="what to do")
    add("--adapter-path", default="", help="the LoRA adapter")
    add("--base-model-path", default="", help="the base model it was trained on")
    add("--output-path", default="", help="where the merged model goes, or lies")
    add("--adapter-name", default="", help="name of the adapter; its directory's name by default")
    add("--adapter-type", default=str(LoRAAdapterType.FINANCIAL_ANALYSIS), help="what it is for, in a word")
    add("--merge-strategy", default="linear", choices=[str(one) for one in MergeStrategy], help="linear by default")
    add("--quantization", action="store_true", help="quantize the merged model")
    add("--quantization-bits", type=int, default=8, choices=[4, 8], help="8: bnb-int8 (default), 4: bnb-nf4")
    add(
        "--validation-mode",
        default="standard",
        choices=[str(one) for one in ValidationMode],
        help="standard by default",
    )
    add(
        "--deployment-strategy",
        default="replace",
        choices=[str(one) for one in DeploymentStrategy],
        help="replace by default",
    )
    add("--target-env", default="staging", choices=["staging", "production"], help="staging by default")
    add("--workflow-id", default="", help="status: only this workflow; workflow: its id, a UUID4")
    add("--force-deploy", action="store_true", help="deploy although a score, safety, regression or effect gate failed")
    return parser


def _merge(options: argparse.Namespace) -> Outcome:
    from lora_integration_tools.merger import LoRAModelMerger  # noqa: PLC0415 - so that --help is quick
    from lora_integration_tools.records import MergeConfiguration  # noqa: PLC0415 - as above

    info = _info(options, needed=("adapter_path", "base_model_path", "output_path"))
    config = MergeConfiguration(
        merge_id=str(uuid4()),
        adapter_info=info,
        output_path=options.output_path,
        merge_strategy=options.merge_strategy,
        enable_quantization=options.quantization,
        quantization_bits=options.quantization_bits,
    )
    success, path, stats = LoRAModelMerger().merge_lora_adapter(config)
    result = {
        "action": "merge",
        "success": success,
        "output_path": path,
        "stats": stats,
        "error": stats.get("error", ""),
    }
    return result, int(stats.get("exit_code", 0))


def _validate(options: argparse.Namespace) -> Outcome:
    from lora_integration_tools.validator import LoRAModelValidator  # noqa: PLC0415 - so that --help is quick

    _need(options, "output_path")
    validator = LoRAModelValidator(base_model_path=options.base_model_path, adapter_path=options.adapter_path)
    result = validator.validate_model(options.output_path, options.validation_mode)
    code = int(result.details.get("exit_code", 0 if result.success else 3))
    return {"action": "validate", **result.to_dict()}, code


def _workflow(options: argparse.Namespace) -> Outcome:
    from lora_integration_tools.orchestrator import STORE, LoRAIntegrationOrchestrator  # noqa: PLC0415 - so that --help is quick
    from lora_integration_tools.records import DeploymentConfiguration  # noqa: PLC0415 - as above
    from lora_integration_tools.translation import object_name  # noqa: PLC0415 - as above

    info = _info(options, needed=("adapter_path", "base_model_path"))
    config = DeploymentConfiguration(
        deployment_id=object_name(info.adapter_name),
        deployment_strategy=options.deployment_strategy,
        target_environment=options.target_env,
        force_deploy=options.force_deploy,
    )
    running = LoRAIntegrationOrchestrator(store=options.output_path or STORE).execute_full_integration_workflow(
        info,
        validation_mode=options.validation_mode,
        deployment_config=config,
        merge_strategy=options.merge_strategy,
        enable_quantization=options.quantization,
        quantization_bits=options.quantization_bits,
        workflow_id=options.workflow_id or None,
    )
    result = asyncio.run(running)
    return {"action": "workflow", **result}, int(result["exit_code"])


def _status(options: argparse.Namespace) -> Outcome:
    from lora_integration_tools.orchestrator import LoRAIntegrationOrchestrator  # noqa: PLC0415 - so that --help is quick

    orchestrator = LoRAIntegrationOrchestrator()
    if not options.workflow_id:
        return {"action": "status", "success": True, "workflows": orchestrator.list_workflows()}, 0
    found = orchestrator.get_workflow_status(options.workflow_id)
    known = "adapter" in found  # asking succeeded, whatever the workflow's state
    return {"action": "status", **found, "success": known}, 0 if known else int(found["exit_code"])


def _info(options: argparse.Namespace, *, needed: Sequence[str]) -> Any:
    from lora_integration_tools.making import create_lora_adapter_info  # noqa: PLC0415 - so that --help is quick

    _need(options, *needed)
    name = options.adapter_name or PurePath(options.adapter_path).name
    return create_lora_adapter_info(name, options.adapter_type, options.base_model_path, options.adapter_path)


def _need(options: argparse.Namespace, *names: str) -> None:
    missing = [f"--{name.replace('_', '-')}" for name in names if not getattr(options, name)]
    if missing:
        raise ValueError(f"--action {options.action}: found no {', '.join(missing)}; add it")


_ACTIONS: dict[str, Callable[[argparse.Namespace], Outcome]] = {
    "merge": _merge, "validate": _validate, "workflow": _workflow, "status": _status
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one action; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    from lora_client.errors import ClientError  # noqa: PLC0415 - so that --help is quick

    result: Mapping[str, Any] | list[Any]
    try:
        result, code = _ACTIONS[options.action](options)
    except ClientError as error:
        result, code = {"action": options.action, "success": False, "error": str(error)}, error.exit_code
    except ValueError as error:
        result, code = {"action": options.action, "success": False, "error": str(error)}, 2
    sys.stdout.write(json.dumps(result, ensure_ascii=False, indent=2) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
