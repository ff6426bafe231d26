"""Container images without a registry: built from Dockerfiles with buildah, loaded into a node's containerd.

Layers stay uncompressed in one OCI layout of the cache; only the blobs that containerd does not have yet are sent, so that
a changed line of code costs seconds although the image holds six gigabytes. A tag is the hash of what went into the image:
other code is another reference, so that whoever names it (a Deployment, a revision) rolls by itself and never runs stale code.
"""

import fcntl
import hashlib
import json
import os
import re
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devcluster.addresses import Instance
from devcluster.network import enter
from devcluster.programs import MissingPrerequisite

__all__ = ["BASE_IMAGE", "Images", "context_hash"]

BASE_IMAGE = "localhost/devcluster-base:1"
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
IGNORED = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "node_modules"}
KEPT_BUILDS = 2  # of each image: two checkouts side by side do not evict each other
REFERENCE_NAME = "org.opencontainers.image.ref.name"
Say = Callable[[str], None]


class Images:
    """Building and loading for one instance; builds are shared by all instances."""

    pause_name = "localhost/devcluster-pause:1"

    def __init__(self, *, instance: Instance, say: Say) -> None:
        self._instance = instance
        self._say = say
        self._home = instance.home / "images"
        self._layout = self._home / "oci"

    # -- build ------------------------------------------------------------------------------------------------------

    def build(self, *, name: str, dockerfile: Path, context: Path) -> str:
        """Builds `localhost/<name>:<hash of its inputs>` unless that is there; returns the reference."""
        reference = f"localhost/{name}:{context_hash(dockerfile, context=context)[:12]}"
        with self._locked("build"):
            if self._manifest(reference) is None:
                self._build(reference, dockerfile=dockerfile, context=context)
                self._export(reference)
                self.forget_old_builds()
        return reference

    def _build(self, reference: str, *, dockerfile: Path, context: Path) -> None:
        self._remove_interrupted_builds()
        self._make_base()
        self._say(f"building {reference}")
        uv_cache = Path(os.environ.get("UV_CACHE_DIR", "~/.cache/uv")).expanduser()
        uv_cache.mkdir(parents=True, exist_ok=True)
        self._buildah(
            "bud", "--isolation", "chroot", "--layers", "--pull=never", "--format", "oci", "--tag", reference,
            "--build-arg", f"BASE={BASE_IMAGE}", "--build-arg", f"PIP_CERT={CERTIFICATES}",
            "--build-arg", f"SSL_CERT_FILE={CERTIFICATES}", "--volume", "/etc/ssl/certs:/etc/ssl/certs:ro",
            "--volume", f"{uv_cache}:/var/cache/uv", "--file", str(dockerfile), str(context),
        )  # fmt: skip

    def _remove_interrupted_builds(self) -> None:
        """A build that was killed or ran out of disk leaves a container that holds its gigabytes. We hold the lock: none is in use."""
        for line in self._buildah(
            "containers", "--noheading", "--format", "{{.ContainerID}} {{.ContainerName}}"
        ).splitlines():
            container, name = line.split()
            if not name.startswith("working-container"):  # that is `from scratch`, which needs no lock
                self._buildah("rm", container, check=False)

    @contextmanager
    def _locked(self, what: str) -> Iterator[None]:
        """Instances and checkouts share storage and layout: one build at a time, one writer of the layout at a time."""
        self._home.mkdir(parents=True, exist_ok=True)
        with (self._home / f"{what}.lock").open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say(f"another command of this machine is at the images ({what}); waiting for it")
                fcntl.flock(held, fcntl.LOCK_EX)
            yield

    def forget_old_builds(self) -> None:
        """Gigabytes of layers that no recent image of ours has any more: in buildah's storage and in the layout."""
        with self._locked("layout"):
            old = self._forget_in_layout()
        for reference in old:
            self._buildah("rmi", "--force", reference, check=False)
        self._buildah("rmi", "--prune", check=False)

    def _forget_in_layout(self) -> list[str]:
        index = json.loads((self._layout / "index.json").read_text())
        kept, old = _recent(index["manifests"])
        (self._layout / "index.json").write_text(json.dumps({**index, "manifests": kept}))
        wanted = {item["digest"] for item in kept}
        for digest in list(wanted):
            body = json.loads(self._blob(digest).read_text())
            wanted |= {body["config"]["digest"], *(layer["digest"] for layer in body["layers"])}
        for path in (self._layout / "blobs" / "sha256").iterdir():
            if f"sha256:{path.name}" not in wanted:
                path.unlink()
        return old

    def _make_base(self) -> None:
        if self._has(BASE_IMAGE):
            return
        self._say("making the base image (Debian 12 with Python)")
        self._home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._home) as scratch:
            archive = Path(scratch) / "base.tar"
            _run(["mmdebstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", str(archive)])
            self._from_scratch(BASE_IMAGE, add=archive, to="/", config=["--env", "LANG=C.UTF-8"])

    def _from_scratch(self, reference: str, *, add: Path, to: str, config: list[str]) -> None:
        container = self._buildah("from", "scratch").strip()
        self._buildah("add", container, str(add), to)
        self._buildah("config", *config, container)
        self._buildah("commit", "--format", "oci", "--rm", container, reference)

    def _has(self, reference: str) -> bool:
        return bool(self._buildah("images", "--quiet", "--filter", f"reference={reference}").strip())

    def _export(self, reference: str) -> None:
        self._say(f"exporting {reference}")
        self._layout.mkdir(parents=True, exist_ok=True)
        with self._locked("layout"):
            self._buildah("push", "--disable-compression", reference, f"oci:{self._layout}:{reference}")

    def _buildah(self, *arguments: str, check: bool = True) -> str:
        storage = [
            "--root",
            str(self._home / "storage"),
            "--runroot",
            str(self._home / "run"),
            "--storage-driver",
            "overlay",
        ]
        return _run(["buildah", *storage, *arguments], check=check)

    # -- load -------------------------------------------------------------------------------------------------------

    def load(self, reference: str, *, node: int) -> None:
        """Imports into the node's containerd what it does not have."""
        manifest = self._manifest(reference)
        if manifest is None:
            raise MissingPrerequisite(
                f"{reference} was not built here, or long ago: devcluster build-image NAME DOCKERFILE CONTEXT"
            )
        if manifest["digest"] in self._ctr("images", "ls", f"name=={reference}", node=node):
            return
        present = set(self._ctr("content", "ls", "-q", node=node).split())
        size = sum(self._blob(digest).stat().st_size for digest in self._blobs(manifest) if digest not in present)
        self._say(f"loading {reference} into node-{node}: {max(size / 1e6, 0.1):,.1f} MB")
        with tempfile.TemporaryDirectory(dir=self._home) as scratch:
            archive = Path(scratch) / "image.tar"
            self.pack(archive, manifest=manifest, reference=reference, without=present)
            self._ctr("images", "import", "--snapshotter", "overlayfs", str(archive), node=node)

    def load_pause(self, *, node: int) -> None:
        """The sandbox image: one static program."""
        if not self._has(self.pause_name):
            pause = self._instance.binaries / "pause"
            self._from_scratch(self.pause_name, add=pause, to="/pause", config=["--entrypoint", '["/pause"]'])
        if self._manifest(self.pause_name) is None:
            self._export(self.pause_name)
        self.load(self.pause_name, node=node)

    def answers(self, *, node: int) -> bool:
        """Whether the node's containerd answers."""
        try:
            self._ctr("version", node=node)
        except MissingPrerequisite:
            return False
        return True

    def stop_containers(self) -> None:
        """Ends every container of every node, so that no process outlives the cluster."""
        for node, _ in enumerate(sorted(self._instance.directory.glob("node-*")), start=1):
            if not self.answers(node=node):
                continue
            for task in self._ctr("tasks", "ls", "-q", node=node).split():
                self._ctr("tasks", "kill", "--all", "--signal", "SIGKILL", task, node=node, check=False)
            for task in self._ctr("tasks", "ls", "-q", node=node).split():
                self._ctr("tasks", "delete", "--force", task, node=node, check=False)
            containers = self._ctr("containers", "ls", "-q", node=node).split()
            if containers:
                self._ctr("containers", "delete", *containers, node=node, check=False)

    def _manifest(self, reference: str) -> dict[str, Any] | None:
        index = self._layout / "index.json"
        if not index.exists():
            return None
        found = [item for item in json.loads(index.read_text())["manifests"] if _reference(item) == reference]
        return found[-1] if found else None

    def pack(self, archive: Path, *, manifest: dict[str, Any], reference: str, without: set[str]) -> None:
        """An OCI archive of one image, less the blobs that are there already."""
        entry = {**manifest, "annotations": {"io.containerd.image.name": reference}}
        with tempfile.TemporaryDirectory(dir=self._home) as scratch, tarfile.open(archive, "w") as tar:
            for name, content in (
                ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
                ("index.json", {"schemaVersion": 2, "manifests": [entry]}),
            ):
                path = Path(scratch) / name
                path.write_text(json.dumps(content))
                tar.add(path, arcname=name)
            for digest in self._blobs(manifest):
                if digest not in without:
                    tar.add(self._blob(digest), arcname=f"blobs/{digest.replace(':', '/')}")

    def _blobs(self, manifest: dict[str, Any]) -> list[str]:
        """Digests of everything that an image is made of, each once."""
        body = json.loads(self._blob(manifest["digest"]).read_text())
        blobs = [manifest["digest"], body["config"]["digest"], *(layer["digest"] for layer in body["layers"])]
        return list(dict.fromkeys(blobs))

    def _blob(self, digest: str) -> Path:
        return self._layout / "blobs" / digest.replace(":", "/")

    def _ctr(self, *arguments: str, node: int, check: bool = True) -> str:
        socket = self._instance.directory / f"node-{node}" / "containerd.sock"
        command = [*enter(self._instance), "ctr", "--address", str(socket), "--namespace", "k8s.io", *arguments]
        return _run(command, check=check)


def _reference(item: dict[str, Any]) -> str:
    return str(item.get("annotations", {}).get(REFERENCE_NAME, ""))


def _recent(manifests: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """(manifests to keep, references to forget): the newest few of each repository; a layout lists them in order of arrival."""
    by_repository: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in manifests:
        by_repository[_reference(item).rpartition(":")[0]].append(item)
    kept = [item for items in by_repository.values() for item in items[-KEPT_BUILDS:]]
    return kept, [_reference(item) for item in manifests if item not in kept]


def context_hash(dockerfile: Path, *, context: Path) -> str:
    """Over the Dockerfile and every file under the paths that it copies."""
    text = dockerfile.read_text()
    digest = hashlib.sha256(text.encode())
    for line in re.findall(r"^(?:COPY|ADD)\s+(.+)$", text, flags=re.MULTILINE):
        if "--from=" in line:
            continue  # of another stage, not of the context
        words = [word for word in line.split() if not word.startswith("--")]
        for source in words[:-1]:
            for path in _files(context / source):
                digest.update(str(path.relative_to(context)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    found = [path for path in root.rglob("*") if path.is_file() and not IGNORED.intersection(path.parts)]
    return sorted(found)


def _run(command: list[str], *, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise MissingPrerequisite(f"`{' '.join(command[:6])} …` failed: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout
