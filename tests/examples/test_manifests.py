"""The manifests of examples/: they fit together and point at what the example folder holds."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from convert_base import MODEL_NAME

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ADAPTER_MANIFESTS = ("adapter-v1", "adapter-v2", "adapter-broken")


def manifest(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ADAPTER_MANIFESTS)
def test_an_adapter_manifest_points_at_the_example_base_and_a_committed_adapter(name: str) -> None:
    spec = manifest(name)["spec"]
    assert spec["base"]["source"]["pvc"]["path"] == MODEL_NAME
    assert [(EXAMPLES / "finance_lora" / used["source"]["pvc"]["path"]).is_dir() for used in spec["adapters"]] == [True]


def test_the_deployment_serves_an_adapter_of_its_own_namespace() -> None:
    deployment = manifest("deployment")
    adapters = {manifest(name)["metadata"]["name"]: manifest(name) for name in ADAPTER_MANIFESTS}
    served = adapters[deployment["spec"]["adapterRef"]["name"]]
    assert served["metadata"]["namespace"] == deployment["metadata"]["namespace"] == "finance"


def test_every_manifest_of_an_adapter_says_that_its_gates_are_not_the_defaults() -> None:
    for name in ADAPTER_MANIFESTS:
        text = (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")
        assert "0.8 and 0.95" in text
