"""Adapters that are refused: their config, their tensors, and what both say of the base."""
# ruff: noqa: E501 (a row of a table is a line)

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lora_job.cli import run
from tests.job.models import factors, write_adapter
from tests.job.refusing import Harm, Place, Row, check_refused, ids

pytestmark = pytest.mark.engine

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
Q = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"
TABLE = "base_model.model.model.embed_tokens"
Factors = dict[str, torch.Tensor]


def config(**fields: Any) -> Harm:
    return lambda place: write_adapter(place.adapter, **fields)


def without(field: str) -> Harm:
    def harm(place: Place) -> None:
        path = place.adapter / CONFIG
        path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != field}))

    return harm


def raw_config(text: str) -> Harm:
    return lambda place: (place.adapter / CONFIG).write_text(text)


def tensors(change: Callable[[Factors], object], **fields: Any) -> Harm:
    def harm(place: Place) -> None:
        found = factors()
        change(found)
        write_adapter(place.adapter, found, **fields)

    return harm


def removed(*names: str) -> Harm:
    return tensors(lambda found: [found.pop(name) for name in names])


def replaced(name: str, tensor: torch.Tensor) -> Harm:
    return tensors(lambda found: found.update({name: tensor}))


def renamed(old: str, new: str) -> Harm:
    return tensors(lambda found: found.update({new: found.pop(old)}))


def tokens(indices: object, *, rows: int) -> Harm:
    return tensors(lambda found: found.update({EMBEDDING: torch.ones(rows, 32)}), trainable_token_indices=indices)


def embedding_beside_factors(change: Callable[[torch.Tensor], object], *, dtype: torch.dtype = torch.bfloat16) -> Harm:
    """Factors of the embedding, and the copy of it that PEFT stores beside them."""

    def harm(place: Place) -> None:
        (copy,) = (
            found["model.embed_tokens.weight"].to(dtype)
            for path in place.base.glob("*.safetensors")
            if "model.embed_tokens.weight" in (found := load_file(path))
        )
        change(copy)
        trained = {f"{TABLE}.lora_embedding_A": torch.ones(4, 64), f"{TABLE}.lora_embedding_B": torch.ones(32, 4)}
        write_adapter(place.adapter, factors() | trained | {f"{TABLE}.base_layer.weight": copy})

    return harm


def as_pickle(place: Place) -> None:
    (place.adapter / WEIGHTS).unlink()
    (place.adapter / "adapter_model.bin").write_bytes(b"\x80\x04.")


def pipe(name: str) -> Harm:
    return lambda place: ((place.adapter / name).unlink(), os.mkfifo(place.adapter / name))


def linked_out(place: Place) -> None:
    target = place.root / "elsewhere.safetensors"
    (place.adapter / WEIGHTS).rename(target)
    (place.adapter / WEIGHTS).symlink_to(target)


def no_directory(place: Place) -> None:
    place.adapter.rename(place.root / "gone")


def a_file(place: Place) -> None:
    no_directory(place)
    place.adapter.write_text("x")


def alpha(text: str) -> Harm:
    return raw_config(f'{{"peft_type": "LORA", "r": 4, "lora_alpha": {text}, "base_model_name_or_path": "tiny-base"}}')


def row(title: str, reason: str, words: tuple[str, ...], harm: Harm) -> Row:
    return Row(title=title, reason=reason, words=words, harm=harm)


SLOW = {"(([a-z0-9._]+)+)+!": 8}
CONFIGS = [
    row("no config", "SourceNotFound", (CONFIG,), lambda place: (place.adapter / CONFIG).unlink()),
    row("a config that is not JSON", "MalformedAdapterConfig", (CONFIG, "JSON"), raw_config("{")),
    row("a config that is a list", "MalformedAdapterConfig", (CONFIG, "list"), raw_config("[]")),
    row("a config with a field twice", "MalformedAdapterConfig", (CONFIG, "'r'", "twice"), raw_config('{"r": 4, "r": 8}')),
    row("a config that is nested without end", "MalformedAdapterConfig", (CONFIG, "nesting"), raw_config('{"r":' + "[" * 50_000 + "]" * 50_000 + "}")),
    row("a config that is a pipe", "NotARegularFile", (CONFIG,), pipe(CONFIG)),
    row("another kind of adapter", "UnsupportedAdapter", (CONFIG, "peft_type", "IA3"), config(peft_type="IA3")),
    row("no kind of adapter", "UnsupportedAdapter", (CONFIG, "peft_type"), without("peft_type")),
    row("a field nobody knows", "UnsupportedAdapter", (CONFIG, "use_magic"), config(use_magic=True)),
    row("aLoRA", "UnsupportedAdapter", (CONFIG, "alora_invocation_tokens"), config(alora_invocation_tokens=[1])),
    row("Arrow", "UnsupportedAdapter", (CONFIG, "arrow_config"), config(arrow_config={"top_k": 2})),
    row("KaSA", "UnsupportedAdapter", (CONFIG, "kasa_config"), config(kasa_config={"beta": 1})),
    row("X-LoRA", "UnsupportedAdapter", (CONFIG, "peft_type", "XLORA"), config(peft_type="XLORA")),
    row("replicated layers", "UnsupportedAdapter", (CONFIG, "layer_replication"), config(layer_replication=[[0, 2]])),
    row("block-diagonal factors", "UnsupportedAdapter", (CONFIG, "use_bdlora"), config(use_bdlora=True)),
    row("QA-LoRA", "UnsupportedAdapter", (CONFIG, "use_qalora"), config(use_qalora=True)),
    row("LoftQ settings", "UnsupportedAdapter", (CONFIG, "loftq_config"), config(loftq_config={"loftq_bits": 4})),
    *(
        row(f"a base that {start} changed", "UnsupportedAdapter", (CONFIG, "init_lora_weights", start), config(init_lora_weights=start))
        for start in ("pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga")
    ),
    row("no alpha", "InvalidAlpha", (CONFIG, "lora_alpha", "missing"), without("lora_alpha")),
    row("alpha 0", "InvalidAlpha", (CONFIG, "lora_alpha", "found 0"), alpha("0")),
    row("a negative alpha", "InvalidAlpha", (CONFIG, "lora_alpha", "-8"), alpha("-8")),
    row("alpha that is not a number", "MalformedAdapterConfig", (CONFIG, "NaN"), alpha("NaN")),
    row("an alpha beyond every range", "InvalidAlpha", (CONFIG, "lora_alpha"), alpha("1e999")),
    row("an alpha of 400 digits", "InvalidAlpha", (CONFIG, "lora_alpha"), alpha("9" * 400)),
    row("alpha in quotes", "InvalidAlpha", (CONFIG, "lora_alpha", "'8'"), alpha('"8"')),
    row("alpha true", "InvalidAlpha", (CONFIG, "lora_alpha"), alpha("true")),
    row("no rank", "MalformedAdapterConfig", (CONFIG, "'r'"), without("r")),
    row("rank 0", "MalformedAdapterConfig", (CONFIG, "'r'", "found 0"), config(r=0)),
    row("half a rank", "MalformedAdapterConfig", (CONFIG, "'r'", "4.5"), config(r=4.5)),
    row("another rank than the tensors have", "RankMismatch", ("down_proj", "rank 4", CONFIG, "8"), config(r=8)),
    row("another rank by pattern", "RankMismatch", ("v_proj", "rank 4", "16"), config(rank_pattern={"v_proj": 16})),
    row("a pattern that is no regular expression", "MalformedAdapterConfig", (CONFIG, "rank_pattern", "'('"), config(rank_pattern={"(": 8})),
    row("a pattern that Python warns of", "MalformedAdapterConfig", (CONFIG, "alpha_pattern", "[[a]"), config(alpha_pattern={"[[a]": 8})),
    row("a pattern that never ends", "MalformedAdapterConfig", (CONFIG, "did not match within", "simpler"), config(alpha_pattern=SLOW)),
    row("patterns that are a list", "MalformedAdapterConfig", (CONFIG, "rank_pattern", "list"), config(rank_pattern=["q_proj"])),
    row("alpha 0 by pattern", "InvalidAlpha", (CONFIG, "alpha_pattern.q_proj"), config(alpha_pattern={"q_proj": 0})),
    row("rank 0 by pattern", "MalformedAdapterConfig", (CONFIG, "rank_pattern.q_proj"), config(rank_pattern={"q_proj": 0})),
    row("a flag that is a list", "MalformedAdapterConfig", (CONFIG, "use_rslora"), config(use_rslora=[1])),
    row("a flag that is a word", "MalformedAdapterConfig", (CONFIG, "use_dora"), config(use_dora="yes")),
    row("modules_to_save that is a word", "MalformedAdapterConfig", (CONFIG, "modules_to_save"), config(modules_to_save="lm_head")),
    row("a token that is named twice", "TokenIndex", (CONFIG, "trainable_token_indices", "twice"), config(trainable_token_indices=[1, 1])),
    row("a negative token", "MalformedAdapterConfig", (CONFIG, "trainable_token_indices"), config(trainable_token_indices=[-1])),
    row("tokens that are words", "MalformedAdapterConfig", (CONFIG, "trainable_token_indices"), config(trainable_token_indices={"embed_tokens": ["a"]})),
    row("a base that is a number", "MalformedAdapterConfig", (CONFIG, "base_model_name_or_path"), config(base_model_name_or_path=7)),
    row("another base", "WrongBase", (CONFIG, "base_model_name_or_path", "other-base", "tiny-base"), config(base_model_name_or_path="org/other-base")),
    row("another directory as the base", "WrongBase", (CONFIG, "/models/other", "tiny-base"), config(base_model_name_or_path="/models/other")),
    row("no base", "WrongBase", (CONFIG, "no base model", "merge.allowUnverifiedBase: true", "--allow-unverified-base"), without("base_model_name_or_path")),
]  # fmt: skip
TENSORS = [
    row("no weights", "SourceNotFound", (WEIGHTS, "missing"), lambda place: (place.adapter / WEIGHTS).unlink()),
    row("weights that exist only as a pickle", "PicklesOnly", ("adapter_model.bin", "pickle"), as_pickle),
    row("weights that are a pipe", "NotARegularFile", (WEIGHTS,), pipe(WEIGHTS)),
    row("weights that are a link out of the directory", "SymlinkEscapes", (WEIGHTS,), linked_out),
    row("no directory", "SourceNotFound", ("adapter", "no such directory", "gone/", "tiny-base/"), no_directory),
    row("a file instead of a directory", "SourceNotFound", ("adapter", "found a file"), a_file),
    row("no tensors", "UnmatchedKeys", (WEIGHTS, "no tensor"), tensors(dict.clear)),
    row("A without B", "MalformedAdapter", (WEIGHTS, "q_proj", "lora_A but not lora_B"), removed(B)),
    row("B without A", "MalformedAdapter", (WEIGHTS, "q_proj", "lora_B but not lora_A"), removed(A)),
    row("A and B of different rank", "RankMismatch", ("q_proj", "rank 3", "rank 4"), replaced(A, torch.ones(3, 32))),
    row("factors for more inputs", "ShapeMismatch", ("q_proj", "[32, 32]", "[32, 33]"), replaced(A, torch.ones(4, 33))),
    row("factors for fewer outputs", "ShapeMismatch", ("q_proj", "[32, 32]", "[31, 32]"), replaced(B, torch.ones(31, 4))),
    row("factors of a convolution", "UnsupportedAdapter", ("q_proj", "convolution"), replaced(A, torch.ones(4, 32, 3, 3))),
    row("factors without a number in them", "UnsupportedAdapter", ("q_proj", "[4, 0]"), replaced(A, torch.ones(4, 0))),
    row("factors of whole numbers", "MalformedAdapter", (WEIGHTS, A, "I64"), replaced(A, torch.ones(4, 32, dtype=torch.int64))),
    row("NaN in A", "NotFinite", (WEIGHTS, A), replaced(A, torch.full((4, 32), math.nan))),
    row("Inf in B", "NotFinite", (WEIGHTS, B), replaced(B, torch.full((32, 4), -math.inf))),
    row("one NaN among many numbers", "NotFinite", (WEIGHTS, B), tensors(lambda found: found[B][7, 3].fill_(math.nan))),
    row("a name that no LoRA tensor has", "UnmatchedKeys", (WEIGHTS, "surprise"), replaced("surprise", torch.ones(2))),
    row("a module the base does not have", "UnmatchedKeys", ("layers.7", "another model"), tensors(lambda found: found.update({A.replace("s.0", "s.7"): torch.ones(4, 32), B.replace("s.0", "s.7"): torch.ones(32, 4)}))),
    row("only modules the base does not have", "WrongBase", ("layers.7", "another model"), tensors(lambda found: (found.clear(), found.update({A.replace("s.0", "s.7"): torch.ones(4, 32), B.replace("s.0", "s.7"): torch.ones(32, 4)})))),
    row("one A in two spellings", "DuplicateTarget", (A, "default"), tensors(lambda found: found.update({A.replace("lora_A", "lora_A.default"): found[A].clone()}))),
    row("one module under two prefixes", "DuplicateTarget", ("q_proj",), tensors(lambda found: found.update({f"base_model.model.{name}": found[name].clone() for name in (A, B)}))),
    row("one module with and without its model's prefix", "DuplicateTarget", ("q_proj",), tensors(lambda found: found.update({name.replace("model.model.model", "model.model"): found[name].clone() for name in (A, B)}))),
    row("use_dora without magnitudes", "MalformedAdapter", (WEIGHTS, "down_proj", "lora_magnitude_vector", "use_dora"), config(use_dora=True)),
    row("magnitudes without use_dora", "MalformedAdapter", (WEIGHTS, "q_proj", "lora_magnitude_vector", "use_dora"), replaced(f"{Q}.lora_magnitude_vector", torch.ones(32))),
    row("another base's embedding beside factors of it", "WrongBase", (WEIGHTS, f"{TABLE}.base_layer.weight", "other numbers"), embedding_beside_factors(lambda copy: copy[63, 31].add_(0.01))),
    row("a magnitude without factors", "MalformedAdapter", (WEIGHTS, "q_proj", "lora_magnitude_vector", "no factors"), tensors(lambda found: (found.clear(), found.update({f"{Q}.lora_magnitude_vector": torch.ones(32)})), use_dora=True)),
    row("a base weight of a module the base does not have", "UnmatchedKeys", ("layers.7", "another model"), replaced(f"{Q.replace('s.0', 's.7')}.base_layer.weight", torch.ones(32, 32))),
    row("only a base weight the base does not have", "WrongBase", ("layers.7", "another model"), tensors(lambda found: (found.clear(), found.update({f"{Q.replace('s.0', 's.7')}.base_layer.weight": torch.ones(32, 32)})))),
    row("factors of a linear layer and of an embedding on one module", "DuplicateTarget", (WEIGHTS, "q_proj", "lora_A", "lora_embedding_A"), tensors(lambda found: found.update({f"{Q}.lora_embedding_A": torch.ones(4, 32), f"{Q}.lora_embedding_B": torch.ones(32, 4)}))),
    row("factors of an embedding on a linear layer", "MalformedAdapter", (WEIGHTS, "q_proj", "embedding"), tensors(lambda found: (found.pop(A), found.pop(B), found.update({f"{Q}.lora_embedding_A": torch.ones(4, 32), f"{Q}.lora_embedding_B": torch.ones(32, 4)})))),
    row("a trained bias of B without B", "MalformedAdapter", (WEIGHTS, "lora_B.bias"), replaced("base_model.model.lm_head.lora_B.bias", torch.ones(64))),
]  # fmt: skip


EMBEDDING = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
TOKENS = [
    row("a token beyond the vocabulary", "TokenIndex", ("embed_tokens", "9999", "64 rows"), tokens([1, 9999], rows=2)),
    row("more rows than tokens", "TokenIndex", (EMBEDDING, "[3, 32]", "2 tokens"), tokens([1, 2], rows=3)),
    row("rows and no tokens named", "TokenIndex", (CONFIG, "trainable_token_indices"), tokens(None, rows=2)),
]


@pytest.mark.parametrize("row", TOKENS, ids=ids(TOKENS))
def test_token_rows_are_refused(place: Place, capsys: pytest.CaptureFixture[str], row: Row) -> None:
    row.harm(place)
    check_refused(place, capsys, reason=row.reason, words=row.words)


@pytest.mark.parametrize("row", CONFIGS, ids=ids(CONFIGS))
def test_a_config_is_refused(place: Place, capsys: pytest.CaptureFixture[str], row: Row) -> None:
    row.harm(place)
    check_refused(place, capsys, reason=row.reason, words=row.words)


@pytest.mark.parametrize("row", TENSORS, ids=ids(TENSORS))
def test_tensors_are_refused(place: Place, capsys: pytest.CaptureFixture[str], row: Row) -> None:
    row.harm(place)
    check_refused(place, capsys, reason=row.reason, words=row.words)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_a_copy_of_the_base_s_embedding_is_accepted_in_the_dtype_it_was_trained_in(
    place: Place, dtype: torch.dtype
) -> None:
    embedding_beside_factors(lambda copy: copy, dtype=dtype)(place)
    assert run(place.arguments("merge")) == 0


def test_another_base_can_be_allowed_and_is_warned_of(place: Place) -> None:
    write_adapter(place.adapter, base_model_name_or_path="org/other-base")
    assert run([*place.arguments("inspect"), "--allow-unverified-base"]) == 0
    assert run([*place.arguments("merge"), "--allow-unverified-base"]) == 0
    assert [warning["code"] for warning in warnings_of(place.output)] == ["UnverifiedBase"]


def test_a_b_of_zeros_is_warned_of_and_not_refused(place: Place) -> None:
    found = factors()
    found[B].zero_()
    write_adapter(place.adapter, found)
    assert run(place.arguments("merge")) == 0
    (warning,) = warnings_of(place.output)
    assert warning["code"] == "ZeroDelta"
    assert "1 of 6 modules (model.layers.0.self_attn.q_proj)" in warning["message"]


def test_pickles_beside_the_weights_are_neither_read_nor_copied(place: Place) -> None:
    for root in (place.base, place.adapter):
        for name in ("training_args.bin", "optimizer.pt", "original.pth"):
            (root / name).write_bytes(b"not even a pickle")
    assert run(place.arguments("merge")) == 0
    assert [path.name for path in place.output.iterdir() if path.suffix in {".bin", ".pt", ".pth"}] == []


def test_alpha_by_pattern_follows_the_first_that_matches(place: Place) -> None:
    """The patterns are compiled once: the order of the file must survive that."""
    write_adapter(place.adapter, alpha_pattern={"layers.0.self_attn.q_proj": 4, "q_proj": 16})
    from lora_job.merge.adapter_config import read_adapter_config  # noqa: PLC0415

    read = read_adapter_config(place.adapter)
    scales = [read.scale_of(f"model.layers.{layer}.self_attn.q_proj", rank=4) for layer in (0, 1)]
    assert [*scales, read.scale_of("lm_head", rank=4)] == [1.0, 4.0, 2.0]


def warnings_of(output: Path) -> list[dict[str, str]]:
    return list(json.loads((output / "merge.json").read_text())["warnings"])
