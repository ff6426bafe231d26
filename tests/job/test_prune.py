"""`lora-job prune` on real directories: what is named stays, whatever it is named by; what nobody names goes, and only that."""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from lora_job.cli import run
from lora_job.prune import remove as removal
from lora_job.prune.survey import Named, survey

NAMESPACE = "finance"
OLD = 2 * 3600
HASHES = {name: f"{index:016x}" for index, name in enumerate(("one", "two", "three"), start=1)}


def digest_of(name: str) -> str:
    return f"sha256:{HASHES[name] * 4}"


def publish(
    store: Path, name: str, *, owner: str = "fin-v2", namespace: str = NAMESPACE, age: float = OLD, base: str = "one"
) -> Path:
    """An artifact as the merge publishes it, `age` seconds ago."""
    path = store / namespace / owner / HASHES[name]
    (path / "validation").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"x" * 1000)
    (path / "validation" / "v-1.json").write_text("{}")
    manifest = {
        "output": {"digest": digest_of(name)},
        "base": {"digest": digest_of(base)},
        "adapters": [{"digest": digest_of("two")}],
    }
    (path / "merge.json").write_text(json.dumps(manifest))
    return aged(path, age)


def aged(path: Path, age: float = OLD) -> Path:
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def directory(path: Path, *, age: float = OLD) -> Path:
    path.mkdir(parents=True)
    (path / "shard").write_bytes(b"y" * 500)
    return aged(path, age)


def prune(store: Path, *arguments: str) -> int:
    return run(["prune", str(store), "--namespace", NAMESPACE, *arguments])


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """Lines of stdout by path."""
    return {line["path"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}


def test_without_delete_nothing_is_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = publish(tmp_path, "one")
    assert prune(tmp_path) == 0
    line = said(capsys)[f"finance/fin-v2/{HASHES['one']}"]
    assert (line["action"], line["kind"], line["digest"]) == ("unneeded", "artifact", digest_of("one"))
    assert line["bytes"] > 1000
    assert path.is_dir()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param(["--keep", f"fin-v2/{HASHES['one']}"], "LoRAAdapter fin-v2 names it", id="a LoRAAdapter names it"),
        pytest.param(
            ["--keep-digest", digest_of("one")], "a revision names its digest", id="a revision names its digest"
        ),
        pytest.param(["--keep-all", "fin-v2"], "may adopt it", id="its LoRAAdapter has published nothing yet"),
        pytest.param(["--min-age", "86400"], "younger", id="it is young"),
    ],
)
def test_what_is_named_is_never_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    path = publish(tmp_path, "one")
    assert prune(tmp_path, "--delete", *arguments) == 0
    line = said(capsys)[f"finance/fin-v2/{HASHES['one']}"]
    assert line["action"] == "kept"
    assert why in line["why"]
    assert (path / "model.safetensors").is_file()


def test_what_nobody_names_goes_and_its_empty_parent_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, gone = publish(tmp_path, "one"), publish(tmp_path, "two", owner="old")
    assert prune(tmp_path, "--delete", "--keep", f"fin-v2/{HASHES['one']}") == 0
    assert said(capsys)[f"finance/old/{HASHES['two']}"]["action"] == "removed"
    assert kept.is_dir()
    assert not gone.parent.exists()


def test_a_name_protects_only_its_own_hash(tmp_path: Path) -> None:
    kept, gone = publish(tmp_path, "one"), publish(tmp_path, "two")
    prune(tmp_path, "--delete", "--keep", f"fin-v2/{HASHES['one']}")
    assert kept.is_dir()
    assert not gone.exists()


def test_another_namespace_is_not_touched(tmp_path: Path) -> None:
    other = publish(tmp_path, "one", namespace="trading")
    prune(tmp_path, "--delete")
    assert other.is_dir()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda owner: directory(owner / "notes"), id="a directory of another name"),
        pytest.param(lambda owner: directory(owner / HASHES["three"]), id="a build without merge.json"),
    ],
)
def test_what_is_not_known_to_be_ours_stays(tmp_path: Path, make: Any) -> None:
    path = make(tmp_path / NAMESPACE / "fin-v2")
    prune(tmp_path, "--delete")
    assert path.is_dir()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = publish(tmp_path / "outside", "one")
    owner = tmp_path / "store" / NAMESPACE / "fin-v2"
    owner.mkdir(parents=True)
    (owner / HASHES["one"]).symlink_to(outside)
    prune(tmp_path / "store", "--delete")
    assert (outside / "model.safetensors").is_file()


def test_a_partial_directory_goes_when_its_lock_is_free(tmp_path: Path) -> None:
    partial = directory(tmp_path / NAMESPACE / "fin-v2" / f".{HASHES['one']}.partial", age=0)
    prune(tmp_path, "--delete")
    assert not partial.exists()


def test_a_partial_directory_stays_while_a_merge_holds_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    partial = directory(tmp_path / NAMESPACE / "fin-v2" / f".{HASHES['one']}.partial")
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        prune(tmp_path, "--delete")
    finally:
        os.close(descriptor)
    assert said(capsys)[f"finance/fin-v2/{partial.name}"]["why"] == "a merge is writing it"
    assert (partial / "shard").is_file()


def test_a_lock_taken_between_survey_and_removal_counts(tmp_path: Path) -> None:
    partial = directory(tmp_path / NAMESPACE / "fin-v2" / f".{HASHES['one']}.partial")
    entries = survey(tmp_path, named=Named(namespace=NAMESPACE), now=time.time(), min_age=0)
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert removal.remove(entries, failed=lambda *_: None) == []
    finally:
        os.close(descriptor)
    assert (partial / "shard").is_file()


def test_a_partial_directory_that_its_adapter_may_resume_stays(tmp_path: Path) -> None:
    partial = directory(tmp_path / NAMESPACE / "fin-v2" / f".{HASHES['one']}.partial")
    prune(tmp_path, "--delete", "--keep-all", "fin-v2")
    assert partial.is_dir()


@pytest.mark.parametrize("name", [f".{HASHES['one']}.pruning", f"{HASHES['one']}.deleting"])
def test_what_an_interrupted_removal_left_goes(tmp_path: Path, name: str) -> None:
    left = directory(tmp_path / NAMESPACE / "fin-v2" / name, age=0)
    prune(tmp_path, "--delete")
    assert not left.exists()


def test_a_removal_that_is_killed_leaves_no_half_model_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = publish(tmp_path, "one")

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(removal.shutil, "rmtree", killed)
    prune(tmp_path, "--delete")
    monkeypatch.undo()
    assert not path.exists()
    assert [entry.name for entry in path.parent.iterdir()] == [f".{path.name}.pruning"]
    prune(tmp_path, "--delete")
    assert not path.parent.exists()


def test_what_is_left_of_a_partial_directory_does_not_stop_the_removal_of_the_next(tmp_path: Path) -> None:
    owner = tmp_path / NAMESPACE / "fin-v2"
    directory(owner / f".{HASHES['one']}.partial.pruning", age=0)
    directory(owner / f".{HASHES['one']}.partial", age=0)
    assert prune(tmp_path, "--delete") == 0
    assert not owner.exists()


def test_what_cannot_be_removed_is_named_and_stops_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, gone = publish(tmp_path, "one"), publish(tmp_path, "two")
    rmtree = removal.shutil.rmtree

    def broken(path: Path) -> None:
        if HASHES["one"] in path.name:
            raise OSError(5, "Input/output error", str(path))
        rmtree(path)

    monkeypatch.setattr(removal.shutil, "rmtree", broken)
    assert prune(tmp_path, "--delete") == 1
    printed = capsys.readouterr()
    assert str(stuck) in printed.err
    assert "Input/output error" in printed.err
    lines = {line["path"]: line for line in map(json.loads, printed.out.splitlines())}
    assert lines[f"finance/fin-v2/{HASHES['one']}"]["action"] == "unneeded"
    assert lines[f"finance/fin-v2/{HASHES['two']}"]["action"] == "removed"
    assert not gone.exists()


def source(store: Path, name: str, *, age: float = OLD) -> Path:
    return directory(store / ".sources" / digest_of(name).removeprefix("sha256:"), age=age)


def test_cached_sources_stay_while_an_artifact_of_any_namespace_was_made_of_them(tmp_path: Path) -> None:
    used, unused = source(tmp_path, "one"), source(tmp_path, "three")
    publish(tmp_path, "one", namespace="trading", base="one")
    prune(tmp_path, "--delete")
    assert used.is_dir()
    assert not unused.exists()


def test_cached_sources_of_an_artifact_that_goes_go_too(tmp_path: Path) -> None:
    cached = source(tmp_path, "one")
    publish(tmp_path, "one", base="one")
    prune(tmp_path, "--delete")
    assert not cached.exists()


@pytest.mark.parametrize(
    "arguments", [["--keep-source", digest_of("three")], ["--keep-sources"], ["--min-age", "86400"]], ids=" ".join
)
def test_cached_sources_stay_when_a_spec_names_them_or_may(tmp_path: Path, arguments: list[str]) -> None:
    cached = source(tmp_path, "three")
    prune(tmp_path, "--delete", *arguments)
    assert cached.is_dir()


def test_the_digest_cache_is_left_alone(tmp_path: Path) -> None:
    cache = directory(tmp_path / ".sources" / "digests")
    prune(tmp_path, "--delete")
    assert cache.is_dir()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--namespace", "../x"], "expected the name of a namespace"),
        (["--keep", "only-a-name"], "expected NAME/BUILDHASH"),
        (["--keep-digest", "sha256:abc"], "64 hexadecimal digits"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_names_that_cannot_be_understood_are_refused_before_anything_is_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    path = publish(tmp_path, "one")
    assert prune(tmp_path, "--delete", *arguments) == 2
    assert words in capsys.readouterr().err
    assert path.is_dir()


def test_the_termination_message_has_the_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, "one")
    log = tmp_path / "termination"
    monkeypatch.setenv("LORA_TERMINATION_LOG", str(log))
    prune(tmp_path, "--delete")
    message = json.loads(log.read_text())
    assert message["outcome"] == "Succeeded"
    assert message["figures"]["removed"] == 1
    assert message["figures"]["removedBytes"] > 1000
