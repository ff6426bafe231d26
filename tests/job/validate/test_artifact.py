"""Damaged artifacts, each caught by the check meant for it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lora_job.validate import artifact

from .conftest import edit_json

pytestmark = pytest.mark.engine


def never(_template: str) -> bool:
    return False


def tokenizer_problems(model: Path, base: Path | None, *, allowed: Callable[[str], bool] = never) -> list[str]:
    return artifact.check_tokenizer(model, base=base, adapters=(), embedding_rows=49152, allowed=allowed)


def test_the_base_itself_is_in_order(base_model: Path) -> None:
    assert artifact.check_files(base_model) == []
    assert artifact.check_config(base_model) == []
    assert tokenizer_problems(base_model, base_model) == []
    assert tokenizer_problems(base_model, None) == []


def add_pickle(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"\x80")


def add_code(model: Path) -> None:
    (model / "modeling_x.py").write_text("")


def lose_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def truncate(model: Path) -> None:
    with (model / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


def lose_a_shard(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    (model / "model.safetensors").unlink()
    save_file({name: tensors[name] for name in names[:5]}, model / "model-00001-of-00002.safetensors")
    weight_map = {name: f"model-0000{1 if name in names[:5] else 2}-of-00002.safetensors" for name in names}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (add_pickle, "pytorch_model.bin can carry code"),
        (add_code, "modeling_x.py is program code"),
        (lose_weights, "model.safetensors"),
        (truncate, "model.safetensors"),
        (lose_a_shard, "model-00002-of-00002.safetensors"),
    ],
    ids=["a pickle", "program code", "no weights", "a truncated file", "a missing shard"],
)
def test_damaged_files(copy_of_base: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(copy_of_base)
    problems = artifact.check_files(copy_of_base)
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), ("{", "is not JSON"), ("[]", "is not a JSON object"), ("{}", "names no model_type"),
     ('{"model_type": "llama", "auto_map": {}}', "auto_map")],
)  # fmt: skip
def test_damaged_configuration(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert words in artifact.check_config(tmp_path)[0]


def change_template(model: Path) -> None:
    path = model / "chat_template.jinja"
    path.write_text(path.read_text().replace("helpful", "reckless"))


def drop_what_was_said(model: Path) -> None:
    (model / "chat_template.jinja").write_text("hello")


def break_template(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{% for x in %}")


def loop_template(model: Path) -> None:
    (model / "chat_template.jinja").write_text(
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )


def change_vocabulary(model: Path) -> None:
    path = model / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    first, second = (key for key, value in vocabulary.items() if value in {500, 501})
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(content))


def change_merges(model: Path) -> None:
    path = model / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = content["model"]["merges"][:50]
    path.write_text(json.dumps(content))


def change_end_of_text(model: Path) -> None:
    edit_json(model / "tokenizer_config.json", eos_token="<|endoftext|>")


def break_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change_template, "chat template differs"),
        (drop_what_was_said, "drops what was said"),
        (break_template, "cannot be rendered"),
        (change_vocabulary, "vocabulary differs"),
        (change_merges, "splits text differently"),
        (change_end_of_text, "eos_token_id is 0, the base's is 2"),
        (break_tokenizer, "cannot be loaded"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_damaged_tokenizers(copy_of_base: Path, base_model: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(copy_of_base)
    problems = tokenizer_problems(copy_of_base, base_model)
    assert any(words in problem for problem in problems), problems


def test_a_template_that_never_ends_is_interrupted(
    copy_of_base: Path, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "TEMPLATE_SECONDS", 0.3)
    loop_template(copy_of_base)
    assert any("does not finish" in problem for problem in tokenizer_problems(copy_of_base, base_model))


def test_a_changed_template_may_be_allowed(copy_of_base: Path, base_model: Path) -> None:
    change_template(copy_of_base)
    seen: list[str] = []

    def allow(template: str) -> bool:
        seen.append(template)
        return True

    assert tokenizer_problems(copy_of_base, base_model, allowed=allow) == []
    assert "reckless" in seen[0]


def test_a_tokenizer_larger_than_the_embedding_is_named(base_model: Path) -> None:
    problems = artifact.check_tokenizer(base_model, base=None, adapters=(), embedding_rows=100, allowed=never)
    assert problems == ["the tokenizer knows 49152 tokens, the embedding has 100 rows"]
