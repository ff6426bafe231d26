"""Every architecture: adapters of PEFT on its linear layers, merged, against float64 and against the live model."""

from pathlib import Path

import pytest
import torch

from tests.job.cases import oracle
from tests.job.cases.case import make
from tests.job.cases.families import FAMILIES

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "several files"])
@pytest.mark.parametrize("family", FAMILIES)
def test_merged_tensors_are_float64_rounded_once(tmp_path: Path, family: str, sharded: bool) -> None:
    case = make(tmp_path, family, {}, dtype=torch.bfloat16, sharded=sharded)
    assert (len(list(case.base.glob("*.safetensors"))) > 1) == sharded
    case.check_tensors(oracle.expected(case.live, oracle.read(case.base), on_disk=FAMILIES[family].on_disk))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_merged_model_answers_as_the_live_adapter(tmp_path: Path, family: str) -> None:
    case = make(tmp_path, family, {"use_rslora": True})
    case.check_tensors(oracle.expected(case.live, oracle.read(case.base), on_disk=FAMILIES[family].on_disk))
    case.check_logits()
