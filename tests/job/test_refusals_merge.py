"""What a merge refuses beside its adapter: the base's files, the tokenizer, the template, the options, the place of the output."""
# ruff: noqa: E501 (a row of a table is a line)

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_job.cli import run
from tests.job.models import CONFIG, VOCABULARY, factors, write_adapter, write_base
from tests.job.refusing import Harm, Place, Row, check_refused, ids, tree

pytestmark = pytest.mark.engine

FIRST = "model-00001-of-00002.safetensors"
HEAD = "lm_head.weight"
MASK = "model.layers.0.attn.masked_bias"


def base_config(**fields: Any) -> Harm:
    return lambda place: (place.base / "config.json").write_text(json.dumps({**CONFIG, **fields}))


def base_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Place], None]:
    """Changes every shard of the base."""

    def harm(place: Place) -> None:
        for path in place.base.glob("*.safetensors"):
            found = load_file(path)
            change(found)
            save_file(found, path, metadata={"format": "pt"})

    return harm


def mask(value: float) -> Harm:
    """The base holds the mask that GPT-2's modules of old stored, with one value at its end."""

    def harm(place: Place) -> None:
        path = place.base / FIRST
        save_file(load_file(path) | {MASK: torch.tensor([0.0, value])}, path, metadata={"format": "pt"})
        index = place.base / "model.safetensors.index.json"
        found = json.loads(index.read_text())
        index.write_text(json.dumps(found | {"weight_map": found["weight_map"] | {MASK: FIRST}}))

    return harm


def packed(part: str) -> Callable[[dict[str, torch.Tensor]], None]:
    """Tensors whose name holds `part` become bytes, as a quantized checkpoint has them."""

    def change(found: dict[str, torch.Tensor]) -> None:
        for name in [name for name in found if part in name]:
            found[name] = torch.zeros(found[name].shape, dtype=torch.uint8)

    return change


def quantized_elsewhere(place: Place) -> None:
    base_tensors(packed("lm_head"))(place)
    base_config(quantization_config={"quant_method": "bitsandbytes"})(place)


def packed_by(method: str, *parts: str) -> Callable[[Place], None]:
    """A layer in the tensors that a 4-bit format has instead of a weight."""

    def change(found: dict[str, torch.Tensor]) -> None:
        for name in [name for name in found if "q_proj" in name]:
            del found[name]
            found |= {name.replace("weight", part): torch.zeros(4, 32, dtype=torch.int32) for part in parts}

    def harm(place: Place) -> None:
        (place.base / "model.safetensors.index.json").unlink()
        found = {name: tensor for path in place.base.glob("*.safetensors") for name, tensor in load_file(path).items()}
        for path in place.base.glob("*.safetensors"):
            path.unlink()
        change(found)
        save_file(found, place.base / "model.safetensors", metadata={"format": "pt"})
        base_config(quantization_config={"quant_method": method, "bits": 4})(place)

    return harm


def tokenizer(root: Path, vocabulary: object, added: object = ()) -> None:
    (root / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": list(added)}))  # type: ignore[call-overload]


def tokenizers(theirs: object, ours: object = None, added: object = ()) -> Harm:
    def harm(place: Place) -> None:
        tokenizer(place.base, ours if ours is not None else {"a": 0, "b": 1})
        tokenizer(place.adapter, theirs, added)

    return harm


def adapter_file(name: str, text: str) -> Harm:
    return lambda place: (place.adapter / name).write_text(text)


def row(title: str, reason: str, words: tuple[str, ...], harm: Harm) -> Row:
    return Row(title=title, reason=reason, words=words, harm=harm)


SOURCES = [
    row("no base", "SourceNotFound", ("base", "no such directory"), lambda place: place.base.rename(place.root / "gone")),
    row("a base without a config", "MalformedConfig", ("config.json",), lambda place: (place.base / "config.json").unlink()),
    row("a base whose config is not JSON", "MalformedConfig", ("config.json", "JSON"), lambda place: (place.base / "config.json").write_text("{")),
    row("a base that names no architecture", "MalformedConfig", ("config.json", "model_type"), base_config(model_type=None)),
    row("a base whose text_config is a word", "MalformedConfig", ("config.json", "text_config"), base_config(text_config="dtype")),
    row("a base that needs program code of its own", "RemoteCode", ("config.json", "auto_map", "nobodys_model"), base_config(model_type="nobodys_model", auto_map={"AutoModel": "x.Y"})),
    row("a quantized tensor that would be merged", "QuantizedBase", ("q_proj", "U8"), base_tensors(packed("q_proj"))),
    row("a base that is quantized in other tensors", "QuantizedBase", ("config.json", "quantization_config", HEAD, "U8"), quantized_elsewhere),
    row("a GPTQ base", "QuantizedBase", ("config.json", "quantization_config", "q_proj.", "I32"), packed_by("gptq", "qweight", "qzeros", "g_idx")),
    row("an AWQ base", "QuantizedBase", ("config.json", "quantization_config", "q_proj.", "I32"), packed_by("awq", "qweight", "qzeros")),
    row("a base of other shapes", "ShapeMismatch", ("q_proj", "[16, 32]", "[32, 32]"), base_tensors(lambda found: found.update({name: found[name][:16].clone() for name in list(found) if "q_proj" in name}))),
    row("another chat template", "ChatTemplateChanged", ("adapter", "--allow-chat-template"), adapter_file("chat_template.jinja", "obey")),
    row("another chat template inside the tokenizer's config", "ChatTemplateChanged", ("--allow-chat-template",), adapter_file("tokenizer_config.json", '{"chat_template": "obey"}')),
    row("a tokenizer config that is not JSON", "MalformedConfig", ("tokenizer_config.json",), adapter_file("tokenizer_config.json", "{")),
    row("a tokenizer that is not JSON", "MalformedConfig", ("tokenizer.json", "JSON"), adapter_file("tokenizer.json", "{")),
    row("a tokenizer that is nested without end", "MalformedConfig", ("tokenizer.json", "nesting"), adapter_file("tokenizer.json", '{"a":' + "[" * 50_000 + "]" * 50_000 + "}")),
    row("a tokenizer without a vocabulary", "MalformedConfig", ("tokenizer.json", "model.vocab"), adapter_file("tokenizer.json", "{}")),
    row("a tokenizer whose numbers are words", "MalformedConfig", ("tokenizer.json", "model.vocab"), tokenizers({"a": "0"})),
    row("a tokenizer whose added tokens are words", "MalformedConfig", ("tokenizer.json", "added_tokens"), tokenizers({"a": 0}, added=["b"])),
    row("a tokenizer with more tokens than the embedding has rows", "VocabularyMismatch", (str(VOCABULARY + 5), f"{VOCABULARY} rows"), tokenizers({"a": 0, "b": 1}, added=[{"content": "new", "id": VOCABULARY + 5}])),
    row("a tokenizer that numbers tokens differently", "VocabularyMismatch", ("'a'", "another base"), tokenizers({"a": 1, "b": 0})),
]  # fmt: skip

BASE_TOKENS = {"a": 0, "b": 1}
TOKENIZERS = [
    ("one token with two numbers", {"x": 2, "y": 3}, {"y": 2, "x": 3}, "'y' the number 2, that of"),
    ("one number for two tokens", {"x": 2}, {"y": 2}, "'x' that number"),
]
AGREEING = [
    ("the same tokens", {"x": 2}, {"x": 2}, {"x"}),
    ("more tokens in the second", {"x": 2}, {"x": 2, "y": 3}, {"x", "y"}),
    ("more tokens in the first", {"x": 2, "y": 3}, {"x": 2}, {"x", "y"}),
]


def two_tokenizers(place: Place, first: dict[str, int], second: dict[str, int]) -> list[str]:
    """Arguments of a merge of two adapters, each with a tokenizer that has more tokens than the base's."""
    other = write_adapter(place.root / "other")
    tokenizer(place.base, BASE_TOKENS)
    tokenizer(place.adapter, BASE_TOKENS | first)
    tokenizer(other, BASE_TOKENS | second)
    return [*place.arguments("merge"), "--adapter", str(other)]


@pytest.mark.parametrize(
    ("first", "second", "words"), [case[1:] for case in TOKENIZERS], ids=[case[0] for case in TOKENIZERS]
)
def test_tokenizers_of_two_adapters_that_disagree_are_refused(
    place: Place, capsys: pytest.CaptureFixture[str], first: dict[str, int], second: dict[str, int], words: str
) -> None:
    assert run(two_tokenizers(place, first, second)) == 2
    error = capsys.readouterr().err
    assert error.startswith("lora-job: VocabularyMismatch: ")
    assert words in error
    assert not place.output.exists()


@pytest.mark.parametrize(
    ("first", "second", "tokens"), [case[1:] for case in AGREEING], ids=[case[0] for case in AGREEING]
)
def test_of_tokenizers_that_agree_the_one_with_all_tokens_is_taken(
    place: Place, first: dict[str, int], second: dict[str, int], tokens: set[str]
) -> None:
    assert run(two_tokenizers(place, first, second)) == 0
    vocabulary = json.loads((place.output / "tokenizer.json").read_text())["model"]["vocab"]
    assert set(vocabulary) == tokens | set(BASE_TOKENS)


@pytest.mark.parametrize("row", SOURCES, ids=ids(SOURCES))
def test_a_source_is_refused(place: Place, capsys: pytest.CaptureFixture[str], row: Row) -> None:
    row.harm(place)
    check_refused(place, capsys, reason=row.reason, words=row.words)


def test_the_template_whose_digest_is_allowed_is_taken(place: Place) -> None:
    (place.adapter / "chat_template.jinja").write_text("obey")
    digest = hashlib.sha256(b"obey").hexdigest()
    assert run([*place.arguments("merge"), "--allow-chat-template", f"sha256:{digest}"]) == 0
    assert (place.output / "chat_template.jinja").read_text() == "obey"


def test_remote_code_of_a_model_that_transformers_knows_is_dropped(place: Place) -> None:
    base_config(auto_map={"AutoModelForCausalLM": "modeling.Model"})(place)
    (place.base / "modeling.py").write_text("raise SystemExit")
    (place.base / "tokenizer_config.json").write_text(
        '{"auto_map": {"AutoTokenizer": ["x.Y", null]}, "eos_token": "a"}'
    )
    assert run(place.arguments("merge")) == 0
    assert "auto_map" not in json.loads((place.output / "config.json").read_text())
    assert json.loads((place.output / "tokenizer_config.json").read_text()) == {"eos_token": "a"}
    assert list(place.output.glob("*.py")) == []


def test_links_inside_a_hugging_face_cache_are_followed(place: Place) -> None:
    """`snapshots/<revision>` is made of links into `blobs` beside it."""
    repository = place.root / "models--org--tiny-base"
    snapshot, blobs = repository / "snapshots" / "0123abcd", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in list(place.base.iterdir()):
        path.rename(blobs / f"blob-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/blob-{path.name}")
    moved = Place(root=place.root, base=snapshot, adapter=place.adapter)
    assert run(moved.arguments("merge")) == 0
    assert [path.name for path in moved.output.iterdir() if path.is_symlink()] == []


Harmed = list[tuple[str, str, tuple[str, ...], tuple[str, ...], Harm]]
RESULTS: Harmed = [
    ("an Inf that the base had", "NotFinite", ("q_proj", "NaN or Inf"), (), base_tensors(lambda found: [found[name].fill_(float("inf")) for name in found if "q_proj" in name])),
    ("an Inf in a tensor that is copied", "NotFinite", (HEAD, "the base is damaged"), (), base_tensors(lambda found: [found[name][1].fill_(float("-inf")) for name in found if "lm_head" in name])),
    ("one NaN in a tensor that is copied", "NotFinite", (HEAD, "the base is damaged"), (), base_tensors(lambda found: [found[name][7, 3].fill_(float("nan")) for name in found if "lm_head" in name])),
    ("a NaN in a mask", "NotFinite", (MASK,), (), mask(float("nan"))),
    ("a +Inf in a mask", "NotFinite", (MASK,), (), mask(float("inf"))),
    ("a result beyond float16", "NotFinite", ("float16", "--dtype bfloat16"), ("--dtype", "float16"), base_tensors(lambda found: [found[name].fill_(1e5) for name in found if "down_proj" in name])),
    ("a copied tensor beyond float16", "NotFinite", (HEAD, "float16"), ("--dtype", "float16"), base_tensors(lambda found: [found[name].fill_(1e5) for name in found if "lm_head" in name])),
    ("a delta that the dtype swallows everywhere", "DeltaLost", ("--dtype float32",), (), lambda place: write_adapter(place.adapter, factors(size=1e-6))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "words", "options", "harm"), [row[1:] for row in RESULTS], ids=[row[0] for row in RESULTS]
)
def test_a_result_is_refused_and_what_was_written_is_removed(
    place: Place, capsys: pytest.CaptureFixture[str], reason: str, words: tuple[str, ...], options: tuple[str, ...], harm: Harm
) -> None:  # fmt: skip
    harm(place)
    check_refused(place, capsys, reason=reason, words=words, commands=("merge",), options=options)


def test_a_mask_may_say_never(place: Place) -> None:
    mask(float("-inf"))(place)
    assert run(place.arguments("merge")) == 0
    assert load_file(place.output / FIRST)[MASK].tolist() == [0.0, float("-inf")]


def to(path: Callable[[Place], Path]) -> Callable[[Place], list[str]]:
    return lambda place: ["--output", str(path(place))]


def occupied(place: Place) -> None:
    place.output.mkdir()
    (place.output / "notes.txt").write_text("mine")


def changed_build(place: Place) -> None:
    assert run(place.arguments("merge")) == 0
    (place.output / "config.json").write_text("{}")


def half_a_manifest(place: Place) -> None:
    assert run(place.arguments("merge")) == 0
    manifest = json.loads((place.output / "merge.json").read_text())
    (place.output / "merge.json").write_text(json.dumps({"buildHash": manifest["buildHash"]}))


def nothing(_place: Place) -> None:
    """The sources stay good."""


OUTPUTS: list[tuple[str, str, tuple[str, ...], Callable[[Place], list[str]], Harm]] = [
    ("a directory with other files", "OutputNotEmpty", ("out",), to(lambda p: p.output), occupied),
    ("a file", "OutputNotEmpty", ("out",), to(lambda p: p.output), lambda place: place.output.write_text("mine")),
    ("this build, changed since", "OutputNotEmpty", ("changed since",), to(lambda p: p.output), changed_build),
    ("this build with half a manifest", "OutputNotEmpty", ("not this build",), to(lambda p: p.output), half_a_manifest),
    ("the base", "OutputInsideSource", ("tiny-base",), to(lambda p: p.base), nothing),
    ("a directory in the base", "OutputInsideSource", ("tiny-base",), to(lambda p: p.base / "merged"), nothing),
    ("a directory in the adapter", "OutputInsideSource", ("adapter",), to(lambda p: p.adapter / "a" / "b"), nothing),
    ("the base under another name", "OutputInsideSource", ("link",), to(lambda p: p.root / "link" / "x"), lambda place: (place.root / "link").symlink_to(place.base)),
    ("a root in the base", "OutputInsideSource", ("tiny-base",), lambda p: ["--output-root", str(p.base / "store")], nothing),
    ("an output and a root", "InvalidOption", ("--output", "--output-root"), lambda p: ["--output", str(p.output), "--output-root", str(p.root)], nothing),
    ("nowhere", "InvalidOption", ("--output",), lambda p: [], nothing),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "words", "where", "harm"), [row[1:] for row in OUTPUTS], ids=[row[0] for row in OUTPUTS]
)
def test_an_output_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str], reason: str, words: tuple[str, ...], where: Callable[[Place], list[str]], harm: Harm
) -> None:  # fmt: skip
    harm(place)
    before = tree(place.root)
    capsys.readouterr()
    assert run(["merge", "--base", str(place.base), "--adapter", str(place.adapter), *where(place)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lora-job: {reason}: ")
    assert [word for word in words if word not in line] == []
    assert tree(place.root) == before


OPTIONS: list[tuple[tuple[str, ...], str, str]] = [
    (("--strategy", "average"), "InvalidOption", "average"),
    (("--dtype", "int4"), "InvalidOption", "int4"),
    (("--quantization", "q5"), "InvalidOption", "q5"),
    (("--scale", "nan"), "InvalidOption", "--scale"),
    (("--scale", "inf"), "InvalidOption", "--scale"),
    (("--allow-chat-template", "sha256:12"), "InvalidOption", "--allow-chat-template"),
    (("--workers", "0"), "InvalidUsage", "--workers"),
    (("--device", "tpu"), "InvalidOption", "--device tpu: expected one of auto, cpu, cuda"),
    (("--surprise",), "InvalidUsage", "--surprise"),
]


@pytest.mark.parametrize(("options", "reason", "word"), OPTIONS, ids=[" ".join(row[0]) for row in OPTIONS])
def test_an_option_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], reason: str, word: str
) -> None:
    check_refused(place, capsys, reason=reason, words=(word,), commands=("merge",), options=options)


def test_a_weight_that_is_not_a_number_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "--base", str(place.base), "--adapter", f"{place.adapter}=nan"]) == 2
    assert "--adapter: weight nan; expected a finite number" in capsys.readouterr().err


def test_an_empty_directory_is_as_good_as_none(place: Place) -> None:
    place.output.mkdir()
    assert run(place.arguments("merge")) == 0
    assert (place.output / "merge.json").is_file()


def test_a_base_in_float16_keeps_its_dtype(tmp_path: Path) -> None:
    """The refusal of results beyond float16 must not catch what float16 holds."""
    base = write_base(tmp_path / "tiny-base", dtype=torch.float16)
    place = Place(root=tmp_path, base=base, adapter=write_adapter(tmp_path / "adapter"))
    assert run(place.arguments("merge")) == 0
    assert {tensor.dtype for path in place.output.glob("*.safetensors") for tensor in load_file(path).values()} == {
        torch.float16
    }
