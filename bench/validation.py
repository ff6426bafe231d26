"""How long a validation takes and how much memory: whole `lora-job validate`s of the example's model, each a process of its own.

    convert the base, merge, warm up (not timed) ─► per mode: validate, no base answer known ─► with --cached: again, they are known

Wall time holds everything, the start of Python and the import of torch too; bytecode is there, as in an installed package. Memory is the
kernel's figure for the process, and counts the pages of mapped weights. Every run answers what the mode asks: thresholds are zero, nothing
is left out.

    python -m bench.validation [--modes basic,standard] [--adapter v1|v2] [--cached] [--json FILE]
"""

import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console
from rich.table import Table

__all__ = ["Run", "main", "stage_seconds"]

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "finance_lora"
BASE = Path("~/.cache/lora-operator/models/smollm2-135m-instruct").expanduser()
GIB = 2**30
JUDGED = (0, 3)  # passed, or a gate failed: either way everything was measured
GOALS = {"basic": (180, 3.0), "standard": (900, 3.0)}  # seconds, GiB; on two cores


@dataclass
class Run:
    """One validation."""

    mode: str
    cached: bool
    seconds: float = 0.0
    processor_seconds: float = 0.0
    peak_bytes: int = 0
    exit_code: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds from the end of the stage before (or the start) to the end of this one."""

    @property
    def title(self) -> str:
        return f"{self.mode}, base cached" if self.cached else self.mode


def stage_seconds(ends: list[tuple[str, float]], *, began: float) -> dict[str, float]:
    """What each stage took, from the moments at which progress called it complete; one that was called so twice counts once."""
    found: dict[str, float] = {}
    last = began
    for stage, moment in ends:
        found[stage] = round(found.get(stage, 0.0) + moment - last, 1)
        last = moment
    return found


def _job(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lora_job", *arguments]


def _environment(folder: Path) -> dict[str, str]:
    """Bytecode is kept, and in a folder of the run, whatever the shell says of it."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def _ends(lines: IO[str]) -> list[tuple[str, float]]:
    found = []
    for line in lines:
        if not line.startswith("{"):
            continue  # a library that prints is no stage
        said = json.loads(line)
        if said["done"] == said["total"]:
            found.append((str(said["stage"]), time.perf_counter()))
    return found


def _merge(adapter: Path, target: Path, *, environment: dict[str, str]) -> None:
    """The model; then it is loaded and imported what validations import, so that none of them compiles a library's sources."""
    sources = ["--base", str(BASE), "--adapter", str(adapter)]
    for command in (
        _job("merge", *sources, "--output", str(target)),
        _job("benchmark", "--model", str(target), "--iterations", "1"),
        [sys.executable, "-c", "import lora_job.validate.pipeline"],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def _validate(model: Path, *, mode: str, cached: bool, folder: Path, environment: dict[str, str]) -> Run:
    options = ["--mode", mode, "--min-score", "0", "--min-safety-score", "0", "--cache", str(folder / "cache" / mode)]
    command = _job("validate", "--model", str(model), *options, "--report", str(folder / f"{mode}.json"))
    run = Run(mode=mode, cached=cached)
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        ends = _ends(process.stdout)
        _, status, usage = os.wait4(process.pid, 0)
        run.exit_code = process.returncode = os.waitstatus_to_exitcode(status)
        run.seconds = round(time.perf_counter() - began, 1)
        if run.exit_code not in JUDGED:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {run.exit_code}:\n{said.read()[-2000:]}")
    run.stages = stage_seconds(ends, began=began)
    run.processor_seconds = round(usage.ru_utime + usage.ru_stime, 1)
    run.peak_bytes = usage.ru_maxrss * 1024
    return run


def _row(run: Run) -> tuple[str, ...]:
    seconds, memory = GOALS.get(run.mode, (None, None))
    goal = f"{seconds} s, {memory:g} GiB" if seconds and not run.cached else "-"
    return (
        run.title,
        f"{run.seconds:.0f} s",
        f"{run.processor_seconds:.0f} s",
        f"{run.peak_bytes / GIB:.2f} GiB",
        goal,
    )


def _table(runs: list[Run]) -> Table:
    table = Table(title="lora-job validate, the whole process")
    table.add_column("mode")
    for name in ("wall time", "processor time", "peak memory", "goal"):
        table.add_column(name, justify="right")
    for run in runs:
        table.add_row(*_row(run))
    return table


def _stages(runs: list[Run]) -> Table:
    table = Table(title="its stages")
    table.add_column("stage")
    for run in runs:
        table.add_column(run.title, justify="right")
    for name in dict.fromkeys(name for run in runs for name in run.stages):
        table.add_row(name, *(f"{run.stages[name]:.1f} s" if name in run.stages else "" for run in runs))
    return table


def main(
    modes: Annotated[str, typer.Option(help="Of basic, standard, comprehensive; in this order.")] = "basic,standard",
    adapter: Annotated[str, typer.Option(help="v1 or v2 of the example.")] = "v1",
    cached: Annotated[
        bool, typer.Option("--cached", help="Each mode a second time, the base's answers known.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--json", help="Where the figures go.")] = None,
) -> None:
    """Validate in every mode and print a table."""
    console = Console()
    busy = os.getloadavg()[0]
    runpy.run_path(str(EXAMPLE / "convert_base.py"))["convert"](BASE)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = _environment(folder)
        _merge(EXAMPLE / "adapters" / adapter, folder / "model", environment=environment)
        for mode in modes.split(","):
            for known in (False, True)[: 1 + cached]:
                runs.append(
                    _validate(folder / "model", mode=mode, cached=known, folder=folder, environment=environment)
                )
                console.print(" · ".join(_row(runs[-1])))
    console.print(_table(runs))
    console.print(_stages(runs))
    console.print(f"{os.cpu_count()} processors, load average {busy:.1f} before the first run")
    if output is not None:
        facts = {"adapter": adapter, "processors": os.cpu_count(), "loadBefore": round(busy, 2)}
        text = json.dumps(facts | {"runs": [asdict(run) for run in runs]}, indent=2)
        output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
