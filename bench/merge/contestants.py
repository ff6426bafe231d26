"""What is compared: each knows its command for a base, an adapter and an output, and what to read from a finished run."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.merge.least import SECONDS
from bench.merge.measure import Run, measure, with_bytecode

__all__ = ["CONTESTANTS", "Case", "Result"]

STARTUP_LIMIT_SECONDS = 3.0
"""At most this much of importing Python libraries is left out of the comparison with cp."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Where the sources of one size are."""

    base: Path
    adapter: Path
    work: Path
    bytecode: Path

    def run(self, *command: str) -> Run:
        return measure(command, environment=with_bytecode(self.bytecode))


@dataclass(frozen=True, kw_only=True)
class Result:
    """`seconds` is the whole process; `working_seconds` is without the start-up that may be left out."""

    seconds: float
    working_seconds: float
    processor_seconds: float
    peak_anonymous: int
    peak_resident: int


def _result(run: Run, *, startup: float = 0.0) -> Result:
    return Result(
        seconds=run.seconds,
        working_seconds=run.seconds - min(startup, STARTUP_LIMIT_SECONDS),
        processor_seconds=run.processor_seconds,
        peak_anonymous=run.peak_anonymous,
        peak_resident=run.peak_resident,
    )


def _copy(case: Case) -> Result:
    """Copy the base and bring it to the disk: what any way to make a second model costs at least."""
    output = case.work / "copied"
    script = 'cp -r --reflink=never "$0" "$1" && sync "$1"/* "$1"'
    result = _result(case.run("sh", "-c", script, str(case.base), str(output)))
    shutil.rmtree(output)
    return result


def _lora_job(case: Case, *options: str) -> Result:
    output = case.work / "merged"
    sources = ("--base", str(case.base), "--adapter", str(case.adapter))
    run = case.run(sys.executable, "-m", "lora_job", "merge", *sources, "--output", str(output), *options)
    manifest = json.loads((output / "merge.json").read_text())
    shutil.rmtree(output)
    return _result(run, startup=max(0.0, run.seconds - manifest["figures"]["seconds"]))


def _after_fetch(case: Case) -> Result:
    """As in a cluster: `lora-job fetch` has read the sources, and remembers their digests for every later merge."""
    report = case.work / "fetch.json"
    if not report.exists():
        place = {"claimName": case.work.name}
        sources = [
            json.dumps({"name": role, "role": role, "pvc": place | {"path": path.name}})
            for role, path in (("base", case.base), ("adapter", case.adapter))
        ]
        given = [word for source in sources for word in ("--source", source)]
        where = ("--claims", str(case.work.parent), "--output", str(case.work / "store"), "--report", str(report))
        case.run(sys.executable, "-m", "lora_job", "fetch", *given, *where)
    return _lora_job(case, "--fetch-report", str(report))


def _least(case: Case) -> Result:
    """What a merge is at least, on this machine: tells how much of ours is checks, and how much nobody can save."""
    output = case.work / "least"
    run = case.run(sys.executable, "-m", "bench.merge.least", str(case.base), str(case.adapter), str(output))
    seconds = float((output / SECONDS).read_text())
    shutil.rmtree(output)
    return _result(run, startup=max(0.0, run.seconds - seconds))


def _peft(case: Case) -> Result:
    output = case.work / "with-peft"
    paths = (str(case.base), str(case.adapter), str(output))
    result = _result(case.run(sys.executable, "-m", "bench.merge.with_peft", *paths))
    shutil.rmtree(output)
    return result


CONTESTANTS: Mapping[str, Callable[[Case], Result]] = {
    "cp": _copy,
    "lora-job": _lora_job,
    "after-fetch": _after_fetch,
    "least": _least,
    "peft": _peft,
}
