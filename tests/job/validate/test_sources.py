"""What a model is compared with: manifest and command line."""

import json
from pathlib import Path

import pytest

from lora_job.outcome import Refused
from lora_job.validate.recipe import Recipe, parse_manifest, read_manifest
from lora_job.validate.sources import resolve


def digest(path: Path) -> str:
    return f"sha256:{path.name}"


def manifest_for(base: Path, adapter: Path, *, then: str = "") -> dict[str, object]:
    return {
        "recipe": {"strategy": "linear", "weights": [1.0], "scale": 1.0, "quantization": "none"},
        "base": {"path": str(base), "digest": then or "sha256:base"},
        "adapters": [{"path": str(adapter), "digest": then or "sha256:adapter", "weight": 1.0}],
        "output": {"digest": "sha256:model"},
    }


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("base", "adapter", "other"):
        (tmp_path / name).mkdir()
    return tmp_path / "base", tmp_path / "adapter"


def test_the_manifests_sources_are_used_while_they_are_the_same(folders: tuple[Path, Path]) -> None:
    manifest = parse_manifest(manifest_for(*folders), where="merge.json")
    found = resolve(base=None, adapters=(), manifest=manifest, digest=digest)
    assert (found.base, found.adapters) == (folders[0], (folders[1],))
    assert (found.base_digest, found.notes) == ("sha256:base", ())


def test_a_source_that_changed_since_the_merge_is_not_used(folders: tuple[Path, Path]) -> None:
    manifest = parse_manifest(manifest_for(*folders, then="sha256:then"), where="merge.json")
    found = resolve(base=None, adapters=(), manifest=manifest, digest=digest)
    assert (found.base, found.adapters) == (None, ())
    assert "is not the one that was merged" in found.notes[0]


def test_a_source_that_is_gone_is_not_used(folders: tuple[Path, Path], tmp_path: Path) -> None:
    manifest = parse_manifest(manifest_for(tmp_path / "gone", folders[1]), where="merge.json")
    found = resolve(base=None, adapters=(), manifest=manifest, digest=digest)
    assert found.base is None
    assert "name it with --base" in found.notes[0]


def test_given_sources_win_over_the_manifests(folders: tuple[Path, Path], tmp_path: Path) -> None:
    manifest = parse_manifest(manifest_for(*folders), where="merge.json")
    found = resolve(base=tmp_path / "other", adapters=(tmp_path / "other",), manifest=manifest, digest=digest)
    assert (found.base_digest, found.adapter_digests) == ("sha256:other", ("sha256:other",))


def test_without_manifest_and_options_a_run_is_unpaired() -> None:
    found = resolve(base=None, adapters=(), manifest=None, digest=digest)
    assert (found.base, found.adapters, found.recipe) == (None, (), Recipe())


def test_a_given_source_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"--base .*expected a model directory"):
        resolve(base=tmp_path / "none", adapters=(), manifest=None, digest=digest)


@pytest.mark.parametrize(
    ("recipe", "factor"),
    [
        (Recipe(), 1.0),
        (Recipe(weights=(0.5, 0.5)), None),
        (Recipe(strategy="ties"), None),
        (Recipe(scale=0.5), 0.5),
        (Recipe(weights=(0.5,), scale=0.5), 0.25),
        (Recipe(quantization="bnb-nf4"), 1.0),
    ],
    ids=["one adapter", "two adapters", "ties", "scaled", "weighted and scaled", "quantized"],
)
def test_only_one_adapter_of_a_linear_merge_can_run_live(recipe: Recipe, factor: float | None) -> None:
    assert recipe.live_factor == factor


def test_a_model_without_manifest_has_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "expected JSON"), ("[]", "expected a JSON object"), ('{"recipe": 1}', "field 'recipe': expected an object"),
     ('{"recipe": {"scale": "x"}}', "numbers cannot be read")],
)  # fmt: skip
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "merge.json").write_text(content)
    with pytest.raises(Refused, match=message):
        read_manifest(tmp_path)


def test_a_manifest_is_read_from_the_model(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    (tmp_path / "merge.json").write_text(json.dumps(manifest_for(*folders)))
    found = read_manifest(tmp_path)
    assert found is not None
    assert found.digest == "sha256:model"
    assert found.recipe == Recipe()
