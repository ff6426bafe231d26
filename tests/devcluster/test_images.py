"""What decides whether an image is built again, and what is sent to a node."""

import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from devcluster.addresses import Instance
from devcluster.images import KEPT_BUILDS, REFERENCE_NAME, Images, context_hash

DOCKERFILE = "FROM x\nCOPY app.txt lib/\nCOPY --chown=1:1 src lib/src\nCOPY --from=x /other.txt lib/\n"


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
        pytest.param("other.txt", "x", False, id="a file that another stage brings changed"),
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
    images.pack(archive, manifest={"digest": "sha256:m"}, reference="localhost/x:1", without={"sha256:big"})
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
        index = json.load(tar.extractfile("index.json") or pytest.fail("no index"))
    assert names == {"oci-layout", "index.json", "blobs/sha256/m", "blobs/sha256/c", "blobs/sha256/thin"}
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "localhost/x:1"


def test_who_waits_for_another_build_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    waiting = Event()

    def say(line: str) -> None:
        said.append(line)
        waiting.set()

    instance = Instance(name="t", slot=0, home=tmp_path)
    first, second = Images(instance=instance, say=say), Images(instance=instance, say=say)

    def build() -> None:
        with second._locked("build"):
            said.append("built")

    with ThreadPoolExecutor() as pool:
        with first._locked("build"):
            other = pool.submit(build)
            assert waiting.wait(60)
        other.result()
    assert said == ["another command of this machine is at the images (build); waiting for it", "built"]


def manifest(layout: Path, reference: str, *, layer: str) -> dict[str, Any]:
    """One image of one layer in an OCI layout."""
    name = reference.rpartition("/")[2].replace(":", "-")
    blobs = layout / "blobs" / "sha256"
    body = {"config": {"digest": f"sha256:c-{name}"}, "layers": [{"digest": f"sha256:{layer}"}]}
    (blobs / f"m-{name}").write_text(json.dumps(body))
    for blob in (f"c-{name}", layer):
        (blobs / blob).write_text(blob)
    return {"digest": f"sha256:m-{name}", "annotations": {REFERENCE_NAME: reference}}


def test_the_newest_builds_stay_and_what_only_older_ones_had_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = Images(instance=Instance(name="t", slot=0, home=tmp_path), say=lambda _: None)
    layout = tmp_path / "images" / "oci"
    (layout / "blobs" / "sha256").mkdir(parents=True)
    builds = [manifest(layout, f"localhost/job:{i}", layer=f"code-{i}") for i in range(KEPT_BUILDS + 2)]
    other = manifest(layout, "localhost/pause:1", layer="pause")
    (layout / "index.json").write_text(json.dumps({"manifests": [other, *builds]}))
    forgotten: list[str] = []
    monkeypatch.setattr(images, "_buildah", lambda *words, **_: forgotten.append(words[-1]) or "")
    images.forget_old_builds()
    left = {
        item["annotations"][REFERENCE_NAME] for item in json.loads((layout / "index.json").read_text())["manifests"]
    }
    assert left == {"localhost/pause:1", *(f"localhost/job:{i}" for i in range(2, KEPT_BUILDS + 2))}
    assert forgotten == ["localhost/job:0", "localhost/job:1", "--prune"]
    blobs = {path.name for path in (layout / "blobs" / "sha256").iterdir()}
    assert "code-0" not in blobs
    assert {"code-2", "pause", "c-pause-1", "m-job-2"} <= blobs
