"""What a person at a terminal sees: the plan before, the result after. 80 columns are enough for both."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from lora_job.merge.plan import Step
from lora_job.outcome import one_line

if TYPE_CHECKING:
    from lora_job.merge.pipeline import Inspected

__all__ = ["show_plan", "show_result"]

_Kind = tuple[str, str, str, str]


def _kind(step: Step) -> _Kind:
    """What tensors of different layers have in common."""
    name = one_line(re.sub(r"(?<=\.)\d+(?=\.)", "*", step.name))
    ranks = "+".join(str(term.rank) for term in step.terms)
    operation = str(step.operation if step.combination is None else step.combination.strategy)
    stored = step.encoding or step.dtype
    dtype = stored if step.source_dtype in {"", stored} else f"{step.source_dtype} → {stored}"
    return (
        name,
        f"{operation} r={ranks}" if ranks else operation,
        " × ".join(map(str, step.shape)),
        dtype,
    )


def show_plan(inspected: "Inspected") -> None:
    """One row for each kind of tensor that changes, and a line for those that do not."""
    counts: dict[_Kind, int] = {}
    for step in inspected.plan.steps:
        if not step.is_plain_copy:
            counts[_kind(step)] = counts.get(_kind(step), 0) + 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tensor", overflow="fold")
    table.add_column("count", justify="right")
    table.add_column("operation", no_wrap=True)
    table.add_column("shape", no_wrap=True, justify="right")
    table.add_column("stored as", no_wrap=True)
    for (name, operation, shape, dtype), count in counts.items():
        table.add_row(name, str(count), operation, shape, dtype)
    # A tensor's name is a stranger's text: never markup.
    console = Console(highlight=False, markup=False)
    console.print(table)
    copied = len(inspected.plan.steps) - sum(counts.values())
    console.print(f"{copied} tensors are copied; the output is {_size(inspected.plan.data_bytes)}")
    for warned in inspected.warnings:
        console.print(f"warning {warned.code}: {one_line(warned.message)}")


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def show_result(manifest: Mapping[str, Any], *, final: Path, adopted: bool) -> None:
    """Where the model is and how good the merge was."""
    retention = manifest["deltaRetention"]
    table = Table(
        show_header=False, title="adopted: an identical build was there" if adopted else "merged and verified"
    )
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("output", str(final))
    table.add_row("digest", manifest["output"]["digest"])
    table.add_row("tensors", ", ".join(f"{count} {kind}" for kind, count in manifest["tensors"].items()))
    table.add_row("delta kept", f"min {retention['min']:.3f}, median {retention['median']:.3f}")
    table.add_row("seconds", str(manifest["figures"]["seconds"]))
    Console(stderr=True).print(table)
