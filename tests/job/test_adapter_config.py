"""Rank and scale of a module, by PEFT's rule: the first pattern in the order of the file that matches the end of the name."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_job.merge.adapter_config import read_adapter_config

MODULE = "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("config", "rank", "scale"),
    [
        pytest.param({}, 4, 2.0, id="nothing said of modules"),
        pytest.param({"use_rslora": True}, 4, 4.0, id="rank-stabilised"),
        pytest.param({"alpha_pattern": {"q_proj": 16}}, 4, 4.0, id="an alpha of its own"),
        pytest.param({"alpha_pattern": {"v_proj": 16}}, 4, 2.0, id="another module's alpha"),
        pytest.param({"alpha_pattern": {"proj": 16}}, 4, 2.0, id="part of a name is not a name"),
        pytest.param({"alpha_pattern": {"q_proj": 16, ".*": 99}}, 4, 4.0, id="the first that matches"),
        pytest.param(
            {"alpha_pattern": {".*": 12, "q_proj": 16}}, 4, 3.0, id="the first, also when a better one follows"
        ),
        pytest.param({"rank_pattern": {r"layers\.1\..*": 16}}, 16, 0.5, id="a rank of its own, so another scale"),
        pytest.param(
            {"rank_pattern": {"q_proj": 16}, "use_rslora": True}, 16, 2.0, id="rank-stabilised by its own rank"
        ),
    ],
)
def test_rank_and_scale(tmp_path: Path, config: dict[str, Any], rank: int, scale: float) -> None:
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    found = read_adapter_config(tmp_path)
    assert found.rank_of(MODULE) == rank
    assert found.scale_of(MODULE, rank=rank) == pytest.approx(scale)
