"""Every Python example in docs/sdk.md and docs/migration.md runs as it stands, one after another, against one cluster."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lora_client.names import ADAPTER, CONTROLLER_REVISION, LORA_DEPLOYMENT
from tests.client.objects import adapter, conditions, deployment, finished, stored_revision, version
from tests.client.simulated_operator import SimulatedOperator
from tests.fakes.api_server import FakeApiServer

DOCS = Path(__file__).parents[2] / "docs"


def examples(page: str) -> list[str]:
    return re.findall(
        r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )


@pytest.fixture
def cluster(api: FakeApiServer) -> FakeApiServer:
    """fin-assistant has served an older adapter; financial-analysis-v3 is ready."""
    api.put(LORA_DEPLOYMENT, deployment("fin-assistant", ref="older"))
    api.put(CONTROLLER_REVISION, stored_revision("fin-assistant", "01d0", number=1, adapter="older"))
    status = {
        "phase": "Stable",
        "stable": version("01d0", adapter="older"),
        "history": [finished("01d0", name="fin-assistant", adapter="older")],
        "conditions": conditions(ready="True", reason="Stable"),
    }
    api.set_status(LORA_DEPLOYMENT, "fin-assistant", status)
    operator = SimulatedOperator(api).attach()
    api.put(ADAPTER, adapter("financial-analysis-v3"))
    operator._adapter(api.peek(ADAPTER, "financial-analysis-v3"))
    return api


RUN = "import json, sys\nfor code in json.loads(sys.argv[1]): exec(compile(code, 'example', 'exec'), {'__name__': '__main__'})"


async def run(code: list[str], *, kubeconfig: Path) -> str:
    """What the examples print, each in a namespace of its own."""
    environment = os.environ | {"KUBECONFIG": str(kubeconfig)}
    line = [sys.executable, "-W", "error", "-c", RUN, json.dumps(code)]
    done = await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        pytest.param(
            "sdk.md",
            [
                "completed\nTrue ('http://fin-assistant.finance.svc/v1/chat/completions',)",
                "financial-analysis-v2 completed\nStable True financial-analysis-v2\nReady 0.9 excellent []",
                "nothing to promote: no rollout is running",
                "Accepted",
                "stable {}",
            ],
            id="the SDK's page",
        ),
        pytest.param(
            "migration.md",
            ["True []\ncompleted", "pvc://models/artifacts/financial-analysis-v3\nserves what served before"],
            id="the migration page",
        ),
    ],
)
async def test_the_examples_run_and_print_what_they_promise(
    page: str, printed: list[str], cluster: FakeApiServer, kubeconfig: Path
) -> None:
    code = examples(page)
    assert len(code) >= len(printed) - 1
    output = await run(code, kubeconfig=kubeconfig)
    assert [words for words in printed if words not in output] == [], output
