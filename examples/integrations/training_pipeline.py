"""The last step of a training pipeline: waits for the training's result and starts the workflow with it.

    python examples/integrations/training_pipeline.py --run /runs/fin-2024-05 --base pvc://models/llama-3.2-3b --name fin-2024-05

The training job writes its adapter to RUN/adapter and, as its very last act, RUN/result.json:
    {"status": "succeeded", "metrics": {"training_loss": 0.15}, "dataset": "financial_dataset_v2", "version": "2.1.0"}
The adapter is copied to the cluster, its digest is checked there, and the figures become descriptive fields of the LoRAAdapter.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from lora_client import AdapterSource, ClientError, LoRAClient, Progress, Workflow, WorkflowRequest

LOOK_AGAIN_SECONDS = 1.0


def wait_for_result(run: Path, *, seconds: float) -> dict[str, Any]:
    """The training's result.

    Raises:
        SystemExit: it did not come in time, or says that the training failed; nothing is deployed.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            result = dict(json.loads((run / "result.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, json.JSONDecodeError):  # not there yet, or being written just now
            if time.monotonic() > deadline:
                sys.exit(f"{run}/result.json: did not come in {seconds:g} s; is the training still running?")
            time.sleep(LOOK_AGAIN_SECONDS)
            continue
        if result.get("status") != "succeeded":
            sys.exit(
                f"{run}/result.json: status is {result.get('status')!r}, expected 'succeeded'; nothing is deployed"
            )
        return result


def request_of(result: dict[str, Any], options: argparse.Namespace) -> WorkflowRequest:
    """What shall be built and served."""
    described = {
        "version": result.get("version"),
        "trainedOnDataset": result.get("dataset"),
        "trainingMetrics": result.get("metrics"),
    }
    return WorkflowRequest(
        name=options.name,
        base=options.base,
        adapters=[AdapterSource(source=options.run / "adapter")],
        store=options.store,
        deployment=options.deployment,
        validation={"mode": options.validation_mode},
        runtime={"profile": options.profile}
        | ({"resources": {"limits": {"nvidia.com/gpu": 1}}} if options.gpu else {}),
        describe={key: value for key, value in described.items() if value},
    )


async def start(request: WorkflowRequest, *, timeout_seconds: float) -> Workflow:
    """Runs the workflow, telling every step."""

    def copied(progress: Progress) -> None:
        print(f"{progress.stage}: {progress.share:.0%}", flush=True)

    def seen(workflow: Workflow) -> None:
        print(f"{workflow.state}: {workflow.message}", flush=True)

    async with LoRAClient.connect() as client:
        return await client.run_workflow(request, timeout_seconds=timeout_seconds, copied=copied, seen=seen)


def main() -> int:
    """0: it serves; 2: bad input; 3: a gate failed, or the rollout was rolled back; 1: try again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="the training's output directory")
    parser.add_argument("--base", required=True)
    parser.add_argument("--name", required=True, help="of the LoRAAdapter: a new one for every training")
    parser.add_argument("--deployment", default=None, help="of the LoRADeployment; the adapter's name by default")
    parser.add_argument("--store", default="pvc://models/artifacts")
    parser.add_argument("--profile", default="vllm")
    parser.add_argument("--no-gpu", dest="gpu", action="store_false")
    parser.add_argument("--validation-mode", default="Standard")
    parser.add_argument("--wait", type=float, default=86400.0, help="seconds to wait for the training")
    parser.add_argument("--timeout", type=float, default=7200.0, help="seconds for the workflow")
    options = parser.parse_args()
    request = request_of(wait_for_result(options.run, seconds=options.wait), options)
    try:
        workflow = asyncio.run(start(request, timeout_seconds=options.timeout))
    except ClientError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0 if workflow.succeeded else 3


if __name__ == "__main__":
    sys.exit(main())
