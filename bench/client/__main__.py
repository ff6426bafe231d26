"""`python -m bench.client`: first words and whole time of `loractl` commands with 1 000 adapters, on a terminal.

By default against an API server of this repository's tests in a process of its own; with --kubeconfig against a cluster, where the
adapters are made first (suspended, in a namespace of their own, deleted afterwards).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.client.cluster import many_adapters
from bench.client.measure import Run, run
from tests.fakes.api_server import write_kubeconfig

COMMANDS = {
    "loractl --help": ["--help"],
    "loractl status": ["status"],
    "loractl status NAME": ["status", "lora/finance-v0000"],
    "loractl get lora -o json": ["get", "lora", "-o", "json"],
    "loractl list": ["list"],
}
GOALS = {"first": 0.5, "whole": 2.0}


@contextmanager
def own_server(adapters: int, folder: Path) -> Iterator[Path]:
    """A kubeconfig of the tests' API server while it runs."""
    command = [sys.executable, "-m", "bench.client.server", "--adapters", str(adapters)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        yield write_kubeconfig(folder / "kubeconfig", server=url)
        assert server.stdin is not None
        server.stdin.close()


def measured(kubeconfig: Path, *, runs: int, folder: Path) -> dict[str, list[Run]]:
    """Every command in turn, round after round, so that a busy minute falls on all of them. The first round fills caches."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment |= {
        "KUBECONFIG": str(kubeconfig), "COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color",
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),  # as an installed package has it
    }  # fmt: skip
    found: dict[str, list[Run]] = {name: [] for name in COMMANDS}
    for number in range(runs + 1):
        for name, arguments in COMMANDS.items():
            one = run(arguments, environment=environment)
            if number:
                found[name].append(one)
    return found


def summed(found: dict[str, list[Run]]) -> dict[str, dict[str, float]]:
    """Median and worst, in seconds."""
    return {
        name: {
            f"{part}{word}": round(take([getattr(one, part) for one in runs]), 3)
            for part in ("first", "first_processor", "whole", "processor")
            for word, take in (("", statistics.median), ("Max", max))
        }
        for name, runs in found.items()
    }


def main() -> None:
    """Prints a table and writes JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.client", description=__doc__)
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--kubeconfig", help="of a cluster with the CRDs, instead of the tests' server")
    parser.add_argument("--output", type=Path, help="a JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        place = (
            many_adapters(Path(options.kubeconfig), adapters=options.adapters, folder=folder)
            if options.kubeconfig
            else own_server(options.adapters, folder)
        )
        with place as kubeconfig:
            figures = summed(measured(kubeconfig, runs=options.runs, folder=folder))
    print(f"{'':<26}{'first words':>22}{'whole command':>22}")
    print(f"{'seconds, medians':<26}{'wall':>11}{'processor':>11}{'wall':>11}{'processor':>11}")
    for name, one in figures.items():
        cells = (one[part] for part in ("first", "first_processor", "whole", "processor"))
        print(f"{name:<26}" + "".join(f"{value:>11.2f}" for value in cells))
    about = {"adapters": options.adapters, "runs": options.runs, "python": platform.python_version(), "goals": GOALS}
    if options.output:
        options.output.write_text(json.dumps(about | {"seconds": figures}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
