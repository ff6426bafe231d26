"""The real model of the engine tests: SmolLM2-135M-Instruct, converted once, and small adapters trained once.

Everything lives in the user's cache directory, outside of the repository.
"""

import json
import os
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .tiny import Tiny

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "finance_lora"
CACHE = Path("~/.cache/lora-operator").expanduser()

Merge = Callable[..., Path]


@pytest.fixture(scope="session")
def base_model() -> Path:
    """The converted base model."""
    target = CACHE / "models" / "smollm2-135m-instruct"
    convert = runpy.run_path(str(EXAMPLE / "convert_base.py"))["convert"]
    convert(target)
    return target


@pytest.fixture(scope="session")
def finance_adapter() -> Path:
    """The adapter of the example."""
    return EXAMPLE / "adapters" / "v1"


def merge(base: Path, adapter: Path | None, target: Path, *, scale: float = 1.0, skip: str = "") -> Path:
    """base + adapter by a few lines of its own: what is validated must not be made by what validates it.

    `adapter` None forgets it; `skip` leaves out the modules whose name holds it.
    """
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - as above

    shutil.copytree(base, target)
    if adapter is None:
        return target
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors, factors = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    for key in (key for key in factors if key.endswith(".lora_B.weight")):
        name = key.removeprefix("base_model.model.").replace(".lora_B.weight", ".weight")
        if skip and skip in name:
            continue
        change = factors[key].double() @ factors[key.replace("lora_B", "lora_A")].double()
        exact = tensors[name].double() + scale * config["lora_alpha"] / config["r"] * change
        tensors[name] = exact.to(tensors[name].dtype)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.fixture(scope="session")
def merged(base_model: Path, finance_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base + adapter, correct."""
    return merge(base_model, finance_adapter, tmp_path_factory.mktemp("models") / "merged")


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A directory for whole models, gone after the test: pytest keeps its own of the last three runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture
def copy_of_base(base_model: Path, tmp_path: Path) -> Path:
    """A copy of the base to damage."""
    return Path(shutil.copytree(base_model, tmp_path / "model"))


def edit_json(path: Path, **changes: object) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


@pytest.fixture(scope="session")
def tiny(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> "Tiny":
    """The small model with its adapter."""
    from .tiny import make  # noqa: PLC0415 - torch takes seconds

    return make(tmp_path_factory.mktemp("tiny"), base_model)
