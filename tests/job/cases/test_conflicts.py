"""Several adapters in one weighted sum: what adds up, and what cannot be true at once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lora_job.merge.pipeline import MergeRequest, inspect_sources, merge_sources
from lora_job.merge.recipe import Recipe, Strategy
from lora_job.outcome import Refused
from tests.job.cases import oracle
from tests.job.models import BASE_NAME, CONFIG, HIDDEN, LAYERS, VOCABULARY, factors, write_adapter, write_base

pytestmark = pytest.mark.engine
PREFIX = "base_model.model."


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / BASE_NAME)


def request(base: Path, *adapters: Path, output: Path | None = None, **recipe: Any) -> MergeRequest:
    settings = {"weights": (1.0,) * len(adapters), **recipe}
    return MergeRequest(base=base, adapters=adapters, recipe=Recipe(**settings), output=output)


def embedding_factors(*, rows: int = VOCABULARY) -> oracle.Tensors:
    return {
        f"{PREFIX}model.embed_tokens.lora_embedding_A": torch.randn(4, rows),
        f"{PREFIX}model.embed_tokens.lora_embedding_B": torch.randn(HIDDEN, 4),
    }


def tokens(*indices: int, name: str = "model.embed_tokens") -> oracle.Tensors:
    return {f"{PREFIX}{name}.token_adapter.trainable_tokens_delta": torch.randn(len(indices), HIDDEN)}


def saved(name: str = "model.embed_tokens", *, rows: int = VOCABULARY) -> oracle.Tensors:
    return {f"{PREFIX}{name}.weight": torch.randn(rows, HIDDEN)}


def test_adapters_of_other_ranks_and_modules_add_up(base: Path, tmp_path: Path) -> None:
    first = write_adapter(tmp_path / "a", factors(modules=("q_proj", "v_proj")))
    second = write_adapter(tmp_path / "b", factors(rank=2, seed=9, modules=("q_proj", "down_proj")), r=2, lora_alpha=3)
    third = write_adapter(tmp_path / "c", tokens(3, 1), trainable_token_indices=[3, 1])
    recipe = {"strategy": Strategy.TASK_ARITHMETIC, "weights": (0.5, -2.0, 1.0), "scale": 0.7}
    merge_sources(request(base, first, second, third, output=tmp_path / "out", **recipe))
    before, found = oracle.read(base), oracle.read(tmp_path / "out")
    wanted = {name: tensor.double() for name, tensor in before.items()}
    for folder, factor in ((first, 0.5 * 0.7 * 2.0), (second, -2.0 * 0.7 * 1.5)):
        parts = oracle.read(folder)
        for key in (key for key in parts if "lora_B" in key):
            name = key.removeprefix(PREFIX).replace(".lora_B", "")
            wanted[name] = wanted[name] + factor * (
                parts[key].double() @ parts[key.replace("lora_B", "lora_A")].double()
            )
    rows = oracle.read(third)[f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta"]
    wanted["model.embed_tokens.weight"][[3, 1]] = rows.double()  # a whole value: neither weight nor scale act on it
    for name, tensor in found.items():
        assert oracle.misses(tensor, wanted[name], before=before[name]) <= 1e-3, name


def test_a_weight_of_zero_leaves_out_deltas_and_keeps_what_was_saved_whole(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a", factors() | saved(), modules_to_save=["embed_tokens"])
    merge_sources(request(base, adapter, output=tmp_path / "out", weights=(0.0,)))
    before, found = oracle.read(base), oracle.read(tmp_path / "out")
    changed = {name for name, tensor in found.items() if not torch.equal(tensor, before[name])}
    assert changed == {"model.embed_tokens.weight"}


Made = tuple[oracle.Tensors, dict[str, Any]]
SAVED = {"modules_to_save": ["embed_tokens"]}
NORM = f"{PREFIX}model.layers.0.input_layernorm"
TWICE = factors() | {f"{PREFIX}{key}": value for key, value in factors().items()}
NO_BIAS = factors() | {f"{PREFIX}model.layers.0.self_attn.q_proj.lora_B.bias": torch.ones(HIDDEN)}
NORM_BIAS = {f"{NORM}.bias": torch.ones(HIDDEN)}
WIDE_NORM = {f"{NORM}.weight": torch.ones(HIDDEN + 1)}
SCORE = {f"{PREFIX}score.weight": torch.ones(2, HIDDEN)}


def token(*indices: int) -> Made:
    return tokens(*indices), {"trainable_token_indices": list(indices)}


CONFLICTS: list[tuple[list[Made], str, str, str]] = [
    ([(saved(), SAVED), (saved(), SAVED)], "ConflictingAdapters", "embed_tokens", "two saved embeddings"),
    ([(saved(), SAVED), (embedding_factors(), {})], "ConflictingAdapters", "embed_tokens", "a saved embedding and factors of it"),
    ([token(1), (embedding_factors(), {})], "ConflictingAdapters", "embed_tokens", "tokens and factors of one embedding"),
    ([token(1), token(2)], "ConflictingAdapters", "rows", "tokens of two adapters"),
    ([token(VOCABULARY)], "TokenIndex", "64 rows", "a token outside of the vocabulary"),
    ([(tokens(1), {"trainable_token_indices": [1, 2]})], "TokenIndex", "2 tokens", "more tokens than rows"),
    ([(tokens(1), {})], "TokenIndex", "does not say which", "tokens that nobody names"),
    ([(TWICE, {})], "DuplicateTarget", "down_proj", "one tensor under two names"),
    ([(NO_BIAS, {"lora_bias": True})], "MissingBias", "q_proj", "a bias to add to that the base does not have"),
    ([(NORM_BIAS, {"bias": "all"})], "WrongBase", "input_layernorm.bias", "a trained bias that the base does not have"),
    ([(WIDE_NORM, {})], "ShapeMismatch", "[33]", "a saved module of another width"),
    ([(saved(rows=70), SAVED)], "VocabularyMismatch", "70", "a head that was not resized with the embedding"),
    ([(SCORE, {})], "WrongBase", "score.weight", "a module that the base does not have and that was not saved"),
    ([(embedding_factors(rows=65), {})], "ShapeMismatch", "[65, 32]", "embedding factors for another vocabulary"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("adapters", "reason", "words"), [row[:3] for row in CONFLICTS], ids=[row[3] for row in CONFLICTS]
)
def test_what_cannot_be_is_refused_by_name(
    base: Path, tmp_path: Path, adapters: list[Made], reason: str, words: str
) -> None:
    folders = [
        write_adapter(tmp_path / f"a{number}", tensors, **config) for number, (tensors, config) in enumerate(adapters)
    ]
    with pytest.raises(Refused) as refused:
        inspect_sources(request(base, *folders))
    assert refused.value.reason == reason
    assert words in str(refused.value)


def test_trained_tokens_of_a_shared_head_and_factors_of_it_are_refused(base: Path, tmp_path: Path) -> None:
    (base / "config.json").write_text(json.dumps(CONFIG | {"tie_word_embeddings": True}))
    head = f"{PREFIX}lm_head"
    both = {f"{head}.lora_A.weight": torch.ones(4, HIDDEN), f"{head}.lora_B.weight": torch.ones(VOCABULARY, 4)}
    adapters = [
        write_adapter(tmp_path / "a", tokens(3), trainable_token_indices=[3]),
        write_adapter(tmp_path / "b", both),
    ]
    with pytest.raises(Refused, match="trained tokens"):
        inspect_sources(request(base, *adapters))


def dora() -> oracle.Tensors:
    magnitudes = {
        key.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(
            factors()[key.replace("lora_A", "lora_B")].shape[0]
        )
        for key in factors()
        if "lora_A" in key
    }
    return factors() | magnitudes


@pytest.mark.parametrize(
    "recipe",
    [{"weights": (0.5,)}, {"scale": 2.0}, {"weights": (1.0, 1.0)}],
    ids=["a weight", "a scale", "a second adapter"],
)
def test_dora_is_merged_alone_or_not_at_all(base: Path, tmp_path: Path, recipe: dict[str, Any]) -> None:
    adapters = [write_adapter(tmp_path / "a", dora(), use_dora=True)]
    inspect_sources(request(base, *adapters))
    adapters += [write_adapter(tmp_path / "b")] * (len(recipe.get("weights", (1.0,))) - 1)
    with pytest.raises(Refused, match="DoRA"):
        inspect_sources(request(base, *adapters, **recipe))


def test_a_plan_says_what_becomes_of_every_tensor(base: Path, tmp_path: Path) -> None:
    """In the base's order, each tensor once, the untouched ones from the kernel."""
    (base / "config.json").write_text(json.dumps(CONFIG | {"tie_word_embeddings": True}))
    adapter = write_adapter(tmp_path / "a", factors() | tokens(3), trainable_token_indices=[3])
    plan = inspect_sources(request(base, adapter)).plan
    # The head is in the file although the config shares it: it follows the embedding.
    assert plan.counts == {"COPY": LAYERS, "LORA": 3 * LAYERS, "ROWS": 2}
    assert {step.name for step in plan.steps} == oracle.read(base).keys()


def test_norms_and_biases_may_be_saved_whole(base: Path, tmp_path: Path) -> None:
    norm = torch.randn(HIDDEN)
    adapter = write_adapter(tmp_path / "a", factors() | {f"{NORM}.weight": norm}, modules_to_save=["input_layernorm"])
    merge_sources(request(base, adapter, output=tmp_path / "out"))
    found = oracle.read(tmp_path / "out")["model.layers.0.input_layernorm.weight"]
    assert torch.equal(found, norm.bfloat16())


def test_a_source_that_is_no_number_is_refused_while_it_is_copied(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a", factors() | {f"{NORM}.weight": torch.full((HIDDEN,), torch.nan)})
    with pytest.raises(Refused, match=r"input_layernorm.weight"):
        merge_sources(request(base, adapter, output=tmp_path / "out"))
    save_file(factors(), tmp_path / "a" / "adapter_model.safetensors")
    merge_sources(request(base, adapter, output=tmp_path / "out"))
