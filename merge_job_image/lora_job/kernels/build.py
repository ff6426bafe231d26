"""Compiles what is beside it into libraries: rows.c one for each generation of processors, sha256.c one: `python build.py`.

The compiler is zig's, a Python package that carries clang: nothing has to be installed on the machine, and the result needs no more than
the C library of 2014. Runs when the project is installed and when the image is built.
"""

import platform
import subprocess
import sys
from pathlib import Path

__all__ = ["GENERATIONS", "SHA256", "build", "library"]

FOLDER = Path(__file__).parent
MACHINE = "x86_64"
# By generation: vectors of a tile of four rows, as many as the registers hold (measured, docs/decisions/0045).
GENERATIONS = {
    "x86_64_v4": ("-DTILES=4", "-mprefer-vector-width=512"),
    "x86_64_v3": ("-DTILES=2",),
}
SHA256 = FOLDER / "sha256.x86_64_sha.so"
# No contraction: every sum is rounded as it is written, on every processor. Stripped: the same bytes wherever the checkout lies, so that
# it names no path and an image's content is the same.
FLAGS = (
    "-O3",
    "-s",
    "-shared",
    "-fPIC",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-target",
    "x86_64-linux-gnu.2.17",
)


def library(generation: str) -> Path:
    """Where it lies."""
    return FOLDER / f"rows.{generation}.so"


def build() -> list[Path]:
    """The libraries, made anew; none on other machines, where others do the same work."""
    if platform.machine() != MACHINE or sys.platform != "linux":
        return []
    for generation, options in GENERATIONS.items():
        _compile("rows.c", library(generation), f"-mcpu={generation}", *options)
    _compile("sha256.c", SHA256, "-mcpu=x86_64+ssse3+sse4_1+sha")
    return [*map(library, GENERATIONS), SHA256]


def _compile(source: str, target: Path, *options: str) -> None:
    fresh = target.with_suffix(".new")
    command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, *options]
    subprocess.run([*command, "-o", str(fresh), str(FOLDER / source)], check=True)
    fresh.replace(target)  # a merge that runs keeps the old one


if __name__ == "__main__":
    build()
