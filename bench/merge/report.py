"""Figures of a benchmark, and three ways to tell them: a table, a page with its JSON, a picture."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.merge.contestants import Result
from bench.merge.measure import sha256_speed
from bench.merge.plot import Bar, bars

__all__ = ["Size", "publish", "show", "summary"]

GOAL_RATIO = 1.2
GOAL_FASTER, GOAL_SMALLER = 5.0, 10.0
WORKERS = 2
HASHES = 2
FIXED_MEMORY, WORKER_MEMORY = 300e6, 4e6


@dataclass(frozen=True, kw_only=True)
class Size:
    """Results for one checkpoint; ratios are those of neighbouring runs."""

    size: str
    title: str
    base_bytes: int
    adapter_bytes: int
    files: int
    seconds: Mapping[str, float]
    processor_seconds: Mapping[str, float]
    peak_anonymous: Mapping[str, int]
    ratios_to_cp: Sequence[float]
    """Of lora-job, without start-up."""
    after_fetch_to_cp: Sequence[float]
    """Of lora-job where the base's digest is known, likewise."""
    least_to_cp: Sequence[float]
    """Of the least merge, likewise."""
    sha256_speed: float
    """Bytes a second, of one core."""
    runs: Mapping[str, Sequence[Mapping[str, float]]]

    @property
    def ratio(self) -> float:
        return median(self.ratios_to_cp)

    @property
    def memory_goal(self) -> float:
        return FIXED_MEMORY + self.adapter_bytes + WORKERS * WORKER_MEMORY


def summary(
    size: str, *, title: str, base_bytes: int, adapter_bytes: int, files: int, runs: Mapping[str, Sequence[Result]]
) -> Size:
    """Medians over the rounds."""
    return Size(
        size=size,
        title=title,
        base_bytes=base_bytes,
        adapter_bytes=adapter_bytes,
        files=files,
        seconds={name: round(median(one.seconds for one in found), 3) for name, found in runs.items()},
        processor_seconds={
            name: round(median(one.processor_seconds for one in found), 3) for name, found in runs.items()
        },
        peak_anonymous={name: max(one.peak_anonymous for one in found) for name, found in runs.items()},
        sha256_speed=round(sha256_speed()),
        ratios_to_cp=_to_cp("lora-job", runs),
        after_fetch_to_cp=_to_cp("after-fetch", runs),
        least_to_cp=_to_cp("least", runs),
        runs={name: [asdict(one) for one in found] for name, found in runs.items()},
    )


def _to_cp(name: str, runs: Mapping[str, Sequence[Result]]) -> list[float]:
    pairs = zip(runs[name], runs["cp"], strict=True)
    return [round(found.working_seconds / copied.seconds, 3) for found, copied in pairs]


def _rows(one: Size) -> list[tuple[str, str, str, str]]:
    """(what, found, goal, whether it is met)."""
    memory, known = one.peak_anonymous["lora-job"], median(one.after_fetch_to_cp)
    rows = [
        ("cp + sync", f"{one.seconds['cp']:.2f} s", "", ""),
        ("lora-job merge, whole process", f"{one.seconds['lora-job']:.2f} s", "", ""),
        ("the same after lora-job fetch", f"{one.seconds['after-fetch']:.2f} s", "", ""),
        (
            "processor time of cp, the least merge and lora-job, start-up included",
            ", ".join(f"{one.processor_seconds[name]:.2f} s" for name in ("cp", "least", "lora-job")),
            "",
            "",
        ),
        (
            f"sha256 of base and files, one at a time at {one.sha256_speed / 1e9:.2f} GB/s",
            f"{HASHES * one.base_bytes / one.sha256_speed:.2f} s",
            "",
            "",
        ),
        (
            "ratio of the least merge to cp, without start-up",
            f"{median(one.least_to_cp):.2f}",
            "",
            "",
        ),
        ("ratio of lora-job to cp, without start-up", f"{one.ratio:.2f}", f"≤ {GOAL_RATIO}", _met(one.ratio <= GOAL_RATIO)),
        ("the same after lora-job fetch", f"{known:.2f}", f"≤ {GOAL_RATIO}", _met(known <= GOAL_RATIO)),
        ("peak anonymous memory", f"{memory / 1e6:.0f} MB", f"≤ {one.memory_goal / 1e6:.0f} MB", _met(memory <= one.memory_goal)),
    ]  # fmt: skip
    if "peft" in one.seconds:
        faster, once_fetched = (one.seconds["peft"] / one.seconds[name] for name in ("lora-job", "after-fetch"))
        smaller = one.peak_anonymous["peft"] / memory
        rows += [
            ("PEFT merge_and_unload + save", f"{one.seconds['peft']:.2f} s", "", ""),
            ("faster than PEFT", f"{faster:.1f} ×", f"≥ {GOAL_FASTER:.0f} ×", _met(faster >= GOAL_FASTER)),
            (
                "the same after lora-job fetch",
                f"{once_fetched:.1f} ×",
                f"≥ {GOAL_FASTER:.0f} ×",
                _met(once_fetched >= GOAL_FASTER),
            ),
            ("less memory than PEFT", f"{smaller:.1f} ×", f"≥ {GOAL_SMALLER:.0f} ×", _met(smaller >= GOAL_SMALLER)),
        ]
    return rows


def _met(reached: bool) -> str:
    return "met" if reached else "missed"


def show(sizes: Sequence[Size]) -> None:
    """On the terminal."""
    table = Table("base", "what", "median", "goal", "")
    for one in sizes:
        for number, row in enumerate(_rows(one)):
            table.add_row(one.title if number == 0 else "", *row)
        table.add_section()
    Console().print(table)


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"processor": model, "cores": os.cpu_count(), "memoryBytes": memory, "python": platform.python_version()}


def publish(sizes: Sequence[Size], *, directory: Path, note: str) -> None:
    """merge.json with every run, merge.md for people, merge.svg for both."""
    directory.mkdir(parents=True, exist_ok=True)
    machine = _machine()
    content = {"schemaVersion": 1, "machine": machine, "note": note, "sizes": [asdict(one) for one in sizes]}
    (directory / "merge.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (directory / "merge.svg").write_text(_picture(sizes), encoding="utf-8")
    (directory / "merge.md").write_text(_page(sizes, machine=machine, note=note), encoding="utf-8")


def _picture(sizes: Sequence[Size]) -> str:
    groups = {
        one.title: [Bar(label=name, value=seconds, shown=f"{seconds:.1f} s") for name, seconds in one.seconds.items()]
        for one in sizes
    }
    return bars(groups, title="Seconds to a second model on the disk (median, whole process)")


def _page(sizes: Sequence[Size], *, machine: Mapping[str, Any], note: str) -> str:
    lines = [
        "# How fast a merge is",
        "",
        "Made by `make bench` (`python -m bench.merge`); every run is in [merge.json](merge.json). Synthetic llama-shaped bases",
        "in bfloat16, a rank-16 adapter on all linear layers, output verified and brought to the disk. Runs are interleaved and a",
        "ratio is that of two neighbouring runs; the table holds medians, for memory the maximum. Python's bytecode is kept between",
        "runs, as in an installed package.",
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['memoryBytes'] / 2**30:.0f} GiB of memory. {note}".rstrip(),
        "",
        "![seconds by base and program](merge.svg)",
        "",
        "| base | what | found | goal | |",
        "|---|---|---|---|---|",
    ]
    for one in sizes:
        name = f"{one.title}: {one.base_bytes / 1e9:.2f} GB in {one.files} file{'s' if one.files > 1 else ''}"
        lines += [f"| {name if number == 0 else ''} | {' | '.join(row)} |" for number, row in enumerate(_rows(one))]
    lines += [
        "",
        "`cp` is `cp -r --reflink=never` of the base and `sync` of what it wrote. Start-up is loading Python's libraries: it is left",
        "out of the ratio to cp (at most 3 s of it), but not of the comparison with PEFT. PEFT runs `from_pretrained` in bfloat16,",
        "`merge_and_unload` and `save_pretrained`, once. It does not verify what it wrote; `lora-job` does. mergekit is not compared.",
        "",
        "The base is hashed from the first moment on, while libraries load; not at all after `lora-job fetch`, which runs before",
        "every merge in a cluster and remembers a base's digest for all of them. The least merge (`bench/merge/least.py`) does what none",
        "can leave out: it hashes base and output, rounds W + B·A once and brings it to the disk. It verifies nothing, tensors have no",
        "digests, and elements that cancel are wrong. Where the time goes is in decisions",
        "[0022](../decisions/0022-verified-while-it-is-in-the-cache.md),",
        "[0045](../decisions/0045-sums-are-rounded-by-compiled-code.md) and",
        "[0047](../decisions/0047-a-plain-sum-needs-no-torch.md).",
        "",
    ]
    return "\n".join(lines)
