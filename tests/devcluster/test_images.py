"""What decides whether an image is built again, and what is sent to a node."""

import json
import tarfile
from pathlib import Path

import pytest

from devcluster.addresses import Instance
from devcluster.images import Images, context_hash

DOCKERFILE = "FROM x\nCOPY app.txt lib/\nCOPY --chown=1:1 src lib/src\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("a")
    (tmp_path / "app.txt").write_text("one")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    return tmp_path


def changed(context: Path, relative: str, text: str) -> bool:
    before = context_hash(context / "Dockerfile", context=context)
    path = context / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return context_hash(context / "Dockerfile", context=context) != before


@pytest.mark.parametrize(
    ("relative", "text", "expected"),
    [
        pytest.param("app.txt", "two", True, id="a copied file changed"),
        pytest.param("src/a.py", "b", True, id="a file of a copied folder changed"),
        pytest.param("src/new.py", "n", True, id="a file was added to a copied folder"),
        pytest.param("Dockerfile", DOCKERFILE + "USER 1\n", True, id="the Dockerfile changed"),
        pytest.param("docs/page.md", "text", False, id="a file that is not copied changed"),
        pytest.param("src/__pycache__/a.pyc", "x", False, id="a cache of the interpreter changed"),
    ],
)
def test_an_image_is_built_again_only_when_its_inputs_change(
    context: Path, relative: str, text: str, *, expected: bool
) -> None:
    assert changed(context, relative, text) is expected


def test_only_missing_blobs_are_sent(tmp_path: Path) -> None:
    images = Images(instance=Instance(name="t", slot=0, home=tmp_path), say=lambda _: None)
    blobs = tmp_path / "images" / "oci" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    manifest = {"config": {"digest": "sha256:c"}, "layers": [{"digest": "sha256:big"}, {"digest": "sha256:thin"}]}
    for name, text in (("m", json.dumps(manifest)), ("c", "config"), ("big", "six gigabytes"), ("thin", "code")):
        (blobs / name).write_text(text)
    archive = tmp_path / "image.tar"
    images.pack(archive, manifest={"digest": "sha256:m"}, reference="localhost/x:dev", without={"sha256:big"})
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
        index = json.load(tar.extractfile("index.json") or pytest.fail("no index"))
    assert names == {"oci-layout", "index.json", "blobs/sha256/m", "blobs/sha256/c", "blobs/sha256/thin"}
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "localhost/x:dev"


def test_blobs_of_old_builds_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = Images(instance=Instance(name="t", slot=0, home=tmp_path), say=lambda _: None)
    layout = tmp_path / "images" / "oci"
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (layout / "index.json").write_text(json.dumps({"manifests": [{"digest": "sha256:m"}]}))
    (blobs / "m").write_text(json.dumps({"config": {"digest": "sha256:c"}, "layers": [{"digest": "sha256:l"}]}))
    for name in ("c", "l", "old"):
        (blobs / name).write_text(name)
    monkeypatch.setattr(images, "_buildah", lambda *_, **__: "")
    images.forget_old_builds()
    assert sorted(path.name for path in blobs.iterdir()) == ["c", "l", "m"]
