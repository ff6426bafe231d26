"""The picture that `--watch` draws: how far the Job is, where the requests go. Pure: from raw objects to something rich can print."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loractl.ages import duration
from loractl.columns import one_line
from loractl.comparison import comparison_lines, verdicts
from loractl.objects import message_of, name_of, reason_of, status_of
from loractl.output import coloured
from loractl.pages import step_words
from loractl.sizes import amount_of_bytes

if TYPE_CHECKING:
    from lora_client.logs import Progress

__all__ = ["lines_of", "picture_of"]

Raw = Mapping[str, Any]
BAR = 24
TITLE = 16


def lines_of(deployment: Raw | None, adapter: Raw | None, stages: "Iterable[Progress]") -> list[str]:
    """What is worth a line in a log: states, finished stages, weights."""
    lines = []
    if adapter is not None:
        lines.append(_headline("LoRAAdapter", adapter))
        lines += [f"  {stage.stage}: done, {_amount(stage)}" for stage in stages if stage.done >= stage.total]
    if deployment is not None:
        lines.append(_headline("LoRADeployment", deployment))
        weights = [
            f"{part} {version['revision']} {version.get('weight', 0)} %"
            for part in ("stable", "candidate")
            if (version := status_of(deployment).get(part))
        ]
        if len(weights) > 1:
            lines.append("  requests: " + ", ".join(weights))
        compared = verdicts(status_of(deployment).get("analysis") or {})
        lines += [f"  analysis: {compared}"] if compared else []
    return lines


def picture_of(
    deployment: Raw | None, adapter: Raw | None, stages: "Iterable[Progress]", *, now: datetime
) -> RenderableType:
    """The whole picture."""
    parts: list[RenderableType] = []
    if adapter is not None:
        parts.append(_cut(coloured(_headline("LoRAAdapter", adapter))))
        bars = _grid()
        for stage in stages:
            share = 1.0 if stage.total <= 0 else stage.done / stage.total
            bars.add_row(f"  {stage.stage}", _bar(share), f"{share:.0%}", _amount(stage) + _eta(stage))
        parts += [bars] if bars.row_count else []
    if deployment is not None:
        parts.append(_cut(coloured(_headline("LoRADeployment", deployment))))
        parts += _rollout(deployment, now=now)
    return Group(*parts)


def _rollout(deployment: Raw, *, now: datetime) -> list[RenderableType]:
    status = status_of(deployment)
    replicas = deployment.get("spec", {}).get("replicas", 1)
    bars = _grid()
    for part in ("stable", "candidate"):
        version = status.get(part) or {}
        if version:
            weight = int(version.get("weight", 0))
            ready = f"{version.get('adapter', '')}, {version.get('readyReplicas', 0)} of {replicas} pods ready"
            bars.add_row(f"  {part}", _bar(weight / 100), f"{weight}%", ready)
    step = step_words(status.get("step") or {}, now=now)
    lines = [f"  step {step}"] if step else []
    for index, line in enumerate(comparison_lines(status.get("analysis") or {})):
        lines.append(f"  analysis {line}" if index == 0 else f"    {line}")
    return [*([bars] if bars.row_count else []), *(_cut(coloured(line)) for line in lines)]


def _headline(kind: str, raw: Raw) -> str:
    status = status_of(raw)
    phase, reason = str(status.get("phase", "Pending")), reason_of(raw)
    why = "" if reason in {"", phase} else f" ({reason})"
    said = one_line(message_of(raw))
    return f"{kind} {name_of(raw)}: {phase}{why}" + (f" {said}" if said else "")


def _grid() -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=TITLE, no_wrap=True, overflow="ellipsis")
    grid.add_column(width=BAR)
    grid.add_column(width=4, justify="right")
    grid.add_column(no_wrap=True, overflow="ellipsis")
    return grid


def _bar(share: float) -> ProgressBar:
    return ProgressBar(total=1.0, completed=min(1.0, max(0.0, share)), width=BAR)


def _cut(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _amount(stage: "Progress") -> str:
    if stage.unit == "B":
        return f"{amount_of_bytes(stage.done)} of {amount_of_bytes(stage.total)}"
    return f"{stage.done} of {stage.total} {stage.unit}".rstrip()


def _eta(stage: "Progress") -> str:
    return "" if stage.eta_seconds is None or stage.done >= stage.total else f", {duration(stage.eta_seconds)} left"
