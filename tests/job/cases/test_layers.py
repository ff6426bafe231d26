"""Every kind of layer and of trained tensor that PEFT saves, merged, against float64 and against the live model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.job.cases import oracle
from tests.job.cases.case import Case, make, merge
from tests.job.cases.families import FAMILIES, HIDDEN, VOCABULARY, load, logits

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def exact(case: Case) -> oracle.Tensors:
    return oracle.expected(case.live, oracle.read(case.base), on_disk=FAMILIES[case.family].on_disk)


PATTERNS = {
    "rank_pattern": {"layers.0.self_attn.q_proj": 2, r".*\.1\..*v_proj": 8, "q_proj": 3},
    "alpha_pattern": {"layers.0.self_attn.q_proj": 40, "q_proj": 5},
    "use_rslora": True,
}
LINEAR: list[Any] = [
    ("llama", {}, "alpha / r"),
    ("llama", {"use_rslora": True}, "alpha / sqrt(r)"),
    ("llama", PATTERNS, "patterns: the first that matches decides rank, alpha and so the scale"),
    ("llama", {"use_dora": True}, "DoRA of linear layers"),
    ("qwen2", {"use_dora": True, "use_rslora": True}, "DoRA beside biases"),
    ("gpt2", {"fan_in_fan_out": True}, "Conv1D, square matrices among them"),
    ("gpt2", {"fan_in_fan_out": True, "use_dora": True}, "DoRA of Conv1D: one length for each column"),
    ("llama", {"target_modules": ["embed_tokens", "q_proj"]}, "an embedding that is not shared"),
    ("llama", {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True}, "DoRA of an embedding"),
    ("llama", {"target_modules": ["lm_head", "q_proj"]}, "a head that is not shared"),
    ("gpt_neox", {"target_modules": ["embed_in", "query_key_value"]}, "an embedding of another name"),
    ("phi", {"lora_bias": True}, "biases of factors are scaled and added"),
    ("phi", {"bias": "all"}, "all biases were trained, those of norms too"),
    ("opt", {"bias": "lora_only"}, "biases of the adapted layers were trained"),
    ("gpt2", {"bias": "all", "fan_in_fan_out": True}, "biases beside Conv1D"),
    ("llama", {"modules_to_save": ["norm"]}, "saved modules: every norm's name ends so"),
    ("llama", {"modules_to_save": ["lm_head", "embed_tokens"]}, "saved head and embedding"),
    ("qwen3", {"modules_to_save": ["mlp"], "target_modules": ["q_proj"]}, "saved modules that have modules of their own"),
    ("llama", {"trainable_token_indices": [3, 63, 0]}, "trained tokens of the embedding"),
    ("llama", {"trainable_token_indices": {"embed_tokens": [5], "lm_head": [6, 2]}}, "trained tokens by module"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "config"), [row[:2] for row in LINEAR], ids=[row[2] for row in LINEAR])
def test_merged_is_float64_rounded_once_and_answers_as_the_live_adapter(
    tmp_path: Path, family: str, config: dict[str, Any]
) -> None:
    case = make(tmp_path, family, config, tie_word_embeddings=False)
    case.check_tensors(exact(case))
    case.check_logits()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("family", "config"),
    [
        pytest.param("llama", {"use_dora": True}, id="DoRA"),
        pytest.param("gpt2", {"use_dora": True, "fan_in_fan_out": True}, id="DoRA by column"),
        pytest.param("llama", {"target_modules": ["embed_tokens"]}, id="an embedding"),
        pytest.param("phi", {"bias": "all", "lora_bias": False}, id="biases"),
        pytest.param("llama", {"trainable_token_indices": [1, 7]}, id="tokens"),
    ],
)
def test_sixteen_bits_are_rounded_once_too(
    tmp_path: Path, family: str, config: dict[str, Any], dtype: torch.dtype
) -> None:
    case = make(tmp_path, family, config, dtype=dtype, tie_word_embeddings=False)
    case.check_tensors(exact(case))


# -- embedding and head that are one tensor -----------------------------------------------------------------------------


def settings(case: Case) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((case.output / "config.json").read_text())
    return found


TIED: list[Any] = [
    ("qwen3", {"target_modules": ["embed_tokens"]}, "embed_tokens", "factors of the embedding alone"),
    ("qwen3", {"target_modules": ["lm_head"]}, "lm_head", "factors of the head alone"),
    ("gpt2", {"target_modules": ["wte"]}, "transformer.wte", "factors of GPT-2's embedding"),
    ("opt", {"target_modules": ["lm_head"]}, "lm_head", "factors of OPT's head"),
    ("qwen3", {"target_modules": ["embed_tokens", "lm_head"]}, "embed_tokens", "factors of both"),
    ("gemma2", {"modules_to_save": ["lm_head"]}, "lm_head", "a saved head"),
    ("qwen3", {"modules_to_save": ["embed_tokens"]}, "embed_tokens", "a saved embedding"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "config"), [row[:2] for row in TIED], ids=[row[3] for row in TIED])
def test_a_shared_embedding_and_head_part_ways_when_one_of_them_changes(
    tmp_path: Path, family: str, config: dict[str, Any]
) -> None:
    case = make(tmp_path, family, config, tie_word_embeddings=True)
    assert settings(case)["tie_word_embeddings"] is False
    found = oracle.read(case.output)
    wanted = exact(case)
    assert "lm_head.weight" in found
    if "lm_head.weight" not in wanted:  # it stays what it was, in a tensor of its own
        wanted["lm_head.weight"] = oracle.read(case.base)[f"{FAMILIES[family].embedding}.weight"].double()
    case.check_tensors(wanted)
    case.check_logits()


def test_trained_tokens_leave_embedding_and_head_one_tensor(tmp_path: Path) -> None:
    case = make(tmp_path, "qwen3", {"trainable_token_indices": [4, 9]}, tie_word_embeddings=True)
    assert settings(case)["tie_word_embeddings"] is True
    assert "lm_head.weight" not in oracle.read(case.output)
    case.check_tensors(exact(case))
    case.check_logits()


# -- vocabularies that grew ---------------------------------------------------------------------------------------------

GROWN = VOCABULARY + 5


def grow(model: Any) -> None:
    model.resize_token_embeddings(GROWN, mean_resizing=False)


@pytest.mark.parametrize("tied", [False, True], ids=["separate head", "shared head"])
@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="factors of other layers"),
        pytest.param({"target_modules": ["embed_tokens", "q_proj"]}, id="factors of the embedding"),
        pytest.param({"modules_to_save": ["embed_tokens", "lm_head"]}, id="saved embedding and head"),
        pytest.param({"trainable_token_indices": [2, VOCABULARY + 1]}, id="trained tokens"),
    ],
)
def test_a_vocabulary_that_grew_comes_from_the_adapter(tmp_path: Path, config: dict[str, Any], tied: bool) -> None:
    if "target_modules" in config and not tied:
        config = {**config, "modules_to_save": ["lm_head"]}  # PEFT saves the grown head of itself only without factors
    case = make(tmp_path, "qwen3", config, before=grow, tie_word_embeddings=tied)
    assert settings(case)["vocab_size"] == GROWN
    found = oracle.read(case.output)
    assert found["model.embed_tokens.weight"].shape == (GROWN, HIDDEN)
    case.check_logits()


# -- modules the base does not have -------------------------------------------------------------------------------------


def test_a_classifier_that_the_base_lacks_is_added(tmp_path: Path) -> None:
    kind = transformers.AutoModelForSequenceClassification
    config = {"task_type": "SEQ_CLS", "target_modules": ["q_proj"]}
    plain = make(tmp_path, "llama", config, kind=kind, before=None)
    # The base of a classifier is a plain language model: its file has no score.
    base = oracle.read(plain.base)
    head = base.pop("score.weight")
    from safetensors.torch import save_file  # noqa: PLC0415

    save_file(base, plain.base / "model.safetensors", metadata={"format": "pt"})
    again = Case(**{**vars(plain), "output": tmp_path / "again"})
    assert merge(again) == 0
    found = oracle.read(again.output)
    assert not torch.equal(found["score.weight"], head)
    assert torch.equal(found["score.weight"], oracle.read(plain.output)["score.weight"])
    ids = torch.arange(8).reshape(1, -1)
    with torch.inference_mode():
        ours, theirs = load(again.output, kind=plain.kind)(ids).logits, plain.live(ids).logits
    assert torch.allclose(ours, theirs, atol=1e-4)
    codes = {warning["code"] for warning in json.loads((again.output / "merge.json").read_text())["warnings"]}
    assert "TensorAdded" in codes


# -- spellings ----------------------------------------------------------------------------------------------------------


def respell(case: Case, change: Any) -> None:
    from safetensors.torch import save_file  # noqa: PLC0415

    tensors = {change(name): tensor for name, tensor in oracle.read(case.adapter).items()}
    save_file(tensors, case.adapter / "adapter_model.safetensors")


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda name: name.replace(old, new)


MLP = {"modules_to_save": ["mlp"], "target_modules": ["q_proj"]}
SPELLINGS: list[Any] = [
    (replaced("lora_A.weight", "lora_A.default.weight"), {}, "the adapter's name in factors"),
    (lambda name: f"base_model.model.{name}", {}, "a doubled prefix"),
    (lambda name: name.removeprefix("base_model.model."), {}, "no prefix"),
    (replaced("magnitude_vector", "magnitude_vector.default.weight"), {"use_dora": True}, "DoRA's newer keys"),
    (replaced("norm.weight", "norm.modules_to_save.default.weight"), {"modules_to_save": ["norm"]}, "saved modules"),
    (replaced("mlp.", "mlp.modules_to_save."), MLP, "parts of saved modules"),
]


@pytest.mark.parametrize(("change", "config"), [row[:2] for row in SPELLINGS], ids=[row[2] for row in SPELLINGS])
def test_other_spellings_of_the_same_adapter_give_the_same_model(
    tmp_path: Path, change: Any, config: dict[str, Any]
) -> None:
    case = make(tmp_path, "llama", config)
    before = oracle.read(case.adapter).keys()
    respell(case, change)
    assert oracle.read(case.adapter).keys() != before
    again = Case(**{**vars(case), "output": tmp_path / "again"})
    assert merge(again) == 0
    ours, theirs = oracle.read(again.output), oracle.read(case.output)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_hub_names_without_the_models_prefix_are_found(tmp_path: Path) -> None:
    """GPT-2 on the hub was saved from the bare model: no `transformer.`, and buffers that nothing loads."""
    from safetensors.torch import save_file  # noqa: PLC0415

    case = make(tmp_path, "gpt2", {"fan_in_fan_out": True})
    bare = {name.removeprefix("transformer."): tensor for name, tensor in oracle.read(case.base).items()}
    bare["h.0.attn.bias"] = torch.tril(torch.ones(64, 64)).reshape(1, 1, 64, 64)
    save_file(bare, case.base / "model.safetensors", metadata={"format": "pt"})
    again = Case(**{**vars(case), "output": tmp_path / "again"})
    assert merge(again) == 0
    assert oracle.read(again.output).keys() == bare.keys()
    assert torch.allclose(logits(again.reloaded()), logits(case.live), atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"target_modules": ["embed_tokens", "q_proj"]}, id="factors of the embedding"),
        pytest.param({"target_modules": ["embed_tokens", "lm_head"]}, id="factors of both"),
        pytest.param({"modules_to_save": ["embed_tokens"]}, id="a saved embedding"),
    ],
)
def test_embedding_and_head_stay_one_tensor_when_training_kept_them_so(tmp_path: Path, config: dict[str, Any]) -> None:
    case = make(tmp_path, "qwen3", {**config, "ensure_weight_tying": True}, tie_word_embeddings=True)
    assert settings(case)["tie_word_embeddings"] is True
    assert "lm_head.weight" not in oracle.read(case.output)
    case.check_logits()


def test_a_weight_that_was_trained_as_a_parameter_is_taken_as_it_lies(tmp_path: Path) -> None:
    """PEFT does not turn the product for a parameter of Conv1D; square ones would hide it."""
    config = {
        "target_modules": [],
        "target_parameters": ["attn.c_proj.weight", "mlp.c_fc.weight"],
        "rank_pattern": {r".*c_proj\.weight": 2},
    }
    case = make(tmp_path, "gpt2", config)
    case.check_tensors(oracle.experts(case.live))
    case.check_logits()
