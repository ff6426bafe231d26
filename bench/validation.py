"""How long a validation takes and how much memory: one whole `lora-job validate` of the example's model, as a process of its own.

    merge (not timed) ─► validate, no base answer known ─► validate again, the base's answers from the cache

Wall time holds everything, the start of Python and the import of torch too; memory is the kernel's figure for the process.

    python -m bench.validation [--mode basic|standard|comprehensive] [--adapter v1|v2] [--json FILE]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "finance_lora"
BASE = Path("~/.cache/lora-operator/models/smollm2-135m-instruct").expanduser()
GIB = 2**30


@dataclass
class Run:
    """One validation."""

    name: str
    seconds: float = 0.0
    processor_seconds: float = 0.0
    peak_bytes: int = 0
    exit_code: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds from the end of the stage before (or the start) to the end of this one."""


def _job(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lora_job", *arguments]


def _merge(adapter: Path, target: Path) -> None:
    sources = ["--base", str(BASE), "--adapter", str(adapter)]
    subprocess.run(_job("merge", *sources, "--output", str(target)), check=True, stdout=subprocess.DEVNULL)


def _validate(name: str, model: Path, *, mode: str, folder: Path) -> Run:
    """Thresholds of zero: what is measured here is time."""
    options = ["--mode", mode, "--min-score", "0", "--min-safety-score", "0", "--cache", str(folder / "cache")]
    command = _job("validate", "--model", str(model), *options, "--report", str(folder / f"{name}.json"))
    run = Run(name=name)
    started, began = time.perf_counter(), time.time()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        last = began
        for line in process.stdout:
            said = json.loads(line)
            if said["done"] == said["total"]:
                now = datetime.fromisoformat(said["time"]).timestamp()
                run.stages[said["stage"]] = round(now - last, 1)
                last = now
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    run.seconds = round(time.perf_counter() - started, 1)
    run.processor_seconds = round(usage.ru_utime + usage.ru_stime, 1)
    run.peak_bytes = usage.ru_maxrss * 1024
    run.exit_code = process.returncode
    return run


def _table(runs: list[Run], *, mode: str) -> Table:
    table = Table(title=f"validation, mode {mode}")
    table.add_column("")
    for run in runs:
        table.add_column(run.name, justify="right")
    names = list(dict.fromkeys(name for run in runs for name in run.stages))
    for name in names:
        table.add_row(name, *(f"{run.stages[name]:.1f} s" if name in run.stages else "" for run in runs))
    table.add_row("whole process", *(f"{run.seconds:.0f} s" for run in runs))
    table.add_row("processor time", *(f"{run.processor_seconds:.0f} s" for run in runs))
    table.add_row("peak memory", *(f"{run.peak_bytes / GIB:.2f} GiB" for run in runs))
    return table


def main(
    mode: Annotated[str, typer.Option(help="basic, standard or comprehensive.")] = "basic",
    adapter: Annotated[str, typer.Option(help="v1 or v2 of the example.")] = "v1",
    output: Annotated[Path | None, typer.Option("--json", help="Where the figures go.")] = None,
) -> None:
    """Validate twice and print a table."""
    console = Console()
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _merge(EXAMPLE / "adapters" / adapter, folder / "model")
        runs = [_validate(one, folder / "model", mode=mode, folder=folder) for one in ("cold", "base cached")]
    console.print(_table(runs, mode=mode))
    console.print(f"{os.cpu_count()} processors, load average {busy:.1f} before the first run")
    if output is not None:
        facts = {"mode": mode, "adapter": adapter, "processors": os.cpu_count(), "loadBefore": round(busy, 2)}
        output.write_text(
            json.dumps(facts | {"runs": [asdict(run) for run in runs]}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    typer.run(main)
