"""Files beside the weights: which come along, which are changed, and which stay where they are."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_job.cli import run
from lora_job.merge.pipeline import MergeRequest, inspect_sources
from lora_job.merge.recipe import Recipe
from tests.job.models import CONFIG
from tests.job.refusing import Place

pytestmark = pytest.mark.engine

BASE_FILES = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "special_tokens_map.json",
    "LICENSE.txt",
    "NOTICE",
)
IGNORED = ("README.md", "training_args.bin", "optimizer.pt", "consolidated.pth", "modeling_custom.py", "notes.txt")


def give(root: Path, *names: str, text: str = '{"of": "%s"}') -> None:
    for name in names:
        (root / name).write_text(text % root.name if "%" in text else text)


def merged(place: Place) -> dict[str, str]:
    """What is published beside weights, index and manifest, by file name."""
    assert run(place.arguments("merge")) == 0
    left_out = (".safetensors", ".index.json")
    return {
        path.name: path.read_text()
        for path in place.output.iterdir()
        if not path.name.endswith(left_out) and path.name != "merge.json"
    }


def vocabulary(root: Path, **tokens: int) -> None:
    (root / "tokenizer.json").write_text(json.dumps({"model": {"vocab": tokens}, "added_tokens": []}))


def codes(place: Place) -> list[str]:
    return [warning["code"] for warning in json.loads((place.output / "merge.json").read_text())["warnings"]]


def test_settings_of_generation_and_processors_and_the_licence_are_the_bases(place: Place) -> None:
    give(place.base, *BASE_FILES)
    give(place.adapter, "generation_config.json", "preprocessor_config.json", "LICENSE.txt")
    found = merged(place)
    assert found.keys() == {*BASE_FILES, "config.json"}
    assert {found[name] for name in BASE_FILES} == {'{"of": "tiny-base"}'}


def test_training_state_program_code_and_what_nobody_knows_stay_behind_and_are_listed(place: Place) -> None:
    give(place.base, *IGNORED)
    give(place.adapter, *IGNORED)
    request = MergeRequest(base=place.base, adapters=(place.adapter,), recipe=Recipe(weights=(1.0,)))
    assert set(inspect_sources(request).sidecars.ignored) == set(IGNORED)
    assert merged(place).keys() == {"config.json"}


def test_a_tokenizer_comes_whole_from_the_adapter_when_it_has_one(place: Place) -> None:
    vocabulary(place.base, a=0, b=1)
    vocabulary(place.adapter, a=0, b=1, c=2)
    give(place.base, "special_tokens_map.json", "merges.txt")
    give(place.adapter, "special_tokens_map.json")
    found = merged(place)
    assert json.loads(found["tokenizer.json"])["model"]["vocab"] == {"a": 0, "b": 1, "c": 2}
    assert found["special_tokens_map.json"] == '{"of": "adapter"}'
    assert "merges.txt" not in found


def test_special_tokens_without_a_tokenizer_do_not_replace_the_bases(place: Place) -> None:
    vocabulary(place.base, a=0)
    give(place.base, "special_tokens_map.json")
    give(place.adapter, "special_tokens_map.json")
    assert merged(place)["special_tokens_map.json"] == '{"of": "tiny-base"}'


@pytest.mark.parametrize("tokenizer", [False, True], ids=["the base's tokenizer", "the adapter's tokenizer"])
def test_the_template_that_both_have_stays(place: Place, tokenizer: bool) -> None:
    vocabulary(place.base, a=0)
    if tokenizer:
        vocabulary(place.adapter, a=0)
    for root in (place.base, place.adapter):
        (root / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ x }}", "eos_token": "a"}))
    found = merged(place)
    config = json.loads(found["tokenizer_config.json"])
    assert found.get("chat_template.jinja", config.get("chat_template")) == "{{ x }}"
    assert config["eos_token"] == "a"


@pytest.mark.parametrize(
    ("changes", "warned", "left"),
    [
        pytest.param({}, [], CONFIG, id="nothing to change: the base's bytes"),
        pytest.param(
            {"quantization_config": {"quant_method": "gptq"}},
            ["QuantizationConfigDropped"],
            CONFIG,
            id="a quantization that the weights no longer have",
        ),
    ],
)
def test_config_json_is_the_bases_but_for_what_is_not_true_of_the_result(
    place: Place, changes: dict[str, Any], warned: list[str], left: dict[str, Any]
) -> None:
    text = json.dumps({**CONFIG, **changes}, indent=5)
    (place.base / "config.json").write_text(text)
    found = merged(place)["config.json"]
    assert json.loads(found) == left
    assert (found == text) == (not changes)
    assert codes(place) == warned
