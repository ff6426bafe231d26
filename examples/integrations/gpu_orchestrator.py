"""A GPU orchestrator that deploys adapters by path: one line per adapter in, one line per result out.

    python examples/integrations/gpu_orchestrator.py --base pvc://models/llama-3.2-3b --parallel 2 <<< 'pvc://models/adapters/fin-v2'

Each adapter is merged, validated and served on the GPU class that is asked for. Adapters of one name feed one LoRADeployment, so
a second version of it is rolled out over the first. Everything the cluster decides (free GPUs, gates, rollback) stays with
the operator; this program only asks and tells.
"""

import argparse
import asyncio
import json
import logging
import re
import sys
from pathlib import PurePosixPath
from typing import Any

from lora_integration_tools import (
    DeploymentConfiguration,
    DeploymentStrategy,
    LoRAAdapterType,
    LoRAIntegrationOrchestrator,
    create_lora_adapter_info,
)

DEVICE = "nvidia.com/gpu"
PRODUCT = "nvidia.com/gpu.product"


def runtime(options: argparse.Namespace) -> dict[str, Any]:
    """The model server of one pod: profile, GPUs, and the kind of GPU where that matters."""
    found: dict[str, Any] = {"profile": options.profile}
    if options.gpus:
        found["resources"] = {"limits": {DEVICE: options.gpus}}
    if options.gpu_product:
        found["nodeSelector"] = {PRODUCT: options.gpu_product}
    return found


def service_of(adapter_path: str) -> str:
    """`…/fin-v2` and `…/fin-v3` are versions of the service `fin`."""
    return re.sub(r"[-_]?v?\d+(\.\d+)*$", "", PurePosixPath(adapter_path).name) or "adapter"


async def deploy(adapter_path: str, options: argparse.Namespace) -> dict[str, Any]:
    """One adapter from its path to its endpoint."""
    info = create_lora_adapter_info(
        PurePosixPath(adapter_path).name, LoRAAdapterType.FINANCIAL_ANALYSIS, options.base, adapter_path
    )
    config = DeploymentConfiguration(
        deployment_id=service_of(adapter_path),
        deployment_strategy=DeploymentStrategy.REPLACE,
        custom_parameters={"runtime": runtime(options)},
        target_environment="production",
        force_deploy=options.force_deploy,
    )
    orchestrator = LoRAIntegrationOrchestrator(store=options.store)
    answer = await orchestrator.execute_full_integration_workflow(
        info, validation_mode=options.validation_mode, deployment_config=config, timeout_seconds=options.timeout
    )
    served = answer["final_deployment"] or {}
    return {
        "adapter": adapter_path,
        "success": answer["success"],
        "deployment_id": served.get("deployment_id", ""),
        "endpoints": served.get("service_endpoints", []),
        "errors": answer["errors"],
    }


async def deploy_all(paths: list[str], options: argparse.Namespace) -> int:
    """At most `--parallel` at a time, in the order in which they were named; the number that failed."""
    slots = asyncio.Semaphore(options.parallel)
    failed = 0

    async def one(path: str) -> dict[str, Any]:
        async with slots:
            return await deploy(path, options)

    for result in asyncio.as_completed([one(path) for path in paths]):
        found = await result
        failed += not found["success"]
        print(json.dumps(found, ensure_ascii=False), flush=True)
    return failed


def main() -> int:
    """Reads adapter paths from the arguments, or from standard input, one a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapters", nargs="*", help="paths of adapters; from standard input when none is given")
    parser.add_argument("--base", required=True, help="the base model")
    parser.add_argument("--store", default="pvc://models/artifacts", help="where artifacts go")
    parser.add_argument("--profile", default="vllm")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of one pod")
    parser.add_argument("--gpu-product", default="", help="e.g. NVIDIA-GeForce-RTX-4070")
    parser.add_argument("--validation-mode", default="standard")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=7200.0, help="seconds for one adapter")
    parser.add_argument("--force-deploy", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    paths = options.adapters or [line.strip() for line in sys.stdin if line.strip()]
    return 3 if asyncio.run(deploy_all(paths, options)) else 0


if __name__ == "__main__":
    sys.exit(main())
