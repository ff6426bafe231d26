"""From raw resources to table rows: the columns that `kubectl get` shows, plus those of a workflow. Pure.

A column says how important it is on a narrow terminal: one that may `shrink` is cut with … before a line would wrap.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from loractl.ages import age
from loractl.objects import (
    ADAPTER_KIND,
    condition,
    created_at,
    message_of,
    name_of,
    namespace_of,
    status_of,
)

__all__ = [
    "ADAPTER_COLUMNS",
    "DEPLOYMENT_COLUMNS",
    "Column",
    "Table",
    "WorkflowRow",
    "columns_of",
    "one_line",
    "table_of",
    "workflow_table",
]

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column; `read` gives the cell's text from object and time."""

    title: str
    read: Callable[[Raw, datetime], str]
    wide: bool = False
    shrink: bool = False


@dataclass(frozen=True)
class Table:
    """Titles and rows, ready to be laid out."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    shrink: frozenset[int]


def table_of(
    columns: Sequence[Column], objects: Sequence[Raw], *, now: datetime, wide: bool, namespaces: bool
) -> Table:
    """The objects as rows; `namespaces` puts theirs in front."""
    chosen = [column for column in columns if wide or not column.wide]
    if namespaces:
        chosen.insert(0, Column("NAMESPACE", lambda raw, _: namespace_of(raw)))
    return Table(
        titles=tuple(column.title for column in chosen),
        rows=tuple(tuple(column.read(raw, now) or "" for column in chosen) for raw in objects),
        shrink=frozenset(index for index, column in enumerate(chosen) if column.shrink),
    )


def one_line(text: str) -> str:
    """A message as one line."""
    return " ".join(text.split())


def _ready(raw: Raw, _: datetime) -> str:
    return str(condition(raw, "Ready").get("status", ""))


def _phase(raw: Raw, _: datetime) -> str:
    return str(status_of(raw).get("phase", ""))


def _name(raw: Raw, _: datetime) -> str:
    return name_of(raw)


def _age(raw: Raw, now: datetime) -> str:
    return age(created_at(raw), now=now)


def _message(raw: Raw, _: datetime) -> str:
    return one_line(message_of(raw))


def _score(raw: Raw, _: datetime) -> str:
    score = (status_of(raw).get("validation") or {}).get("overallScore")
    return "" if score is None else f"{float(score):.3f}"


def _grade(raw: Raw, _: datetime) -> str:
    return str((status_of(raw).get("validation") or {}).get("grade", ""))


def _base(raw: Raw, _: datetime) -> str:
    source: Raw = raw.get("spec", {}).get("base", {}).get("source") or {}
    members = [member for member in source.values() if isinstance(member, Mapping)]
    where = (member.get(key) for member in members for key in ("path", "prefix", "repo", "reference"))
    return next((str(text) for text in where if text), "")


def _version(raw: Raw, _: datetime) -> str:
    return str(raw.get("spec", {}).get("version", ""))


def _digest(raw: Raw, _: datetime) -> str:
    return str((status_of(raw).get("artifact") or {}).get("digest", ""))


def _strategy(raw: Raw, _: datetime) -> str:
    return str((raw.get("spec", {}).get("strategy") or {}).get("type", ""))


def _stable(raw: Raw, _: datetime) -> str:
    return str((status_of(raw).get("stable") or {}).get("adapter", ""))


def _candidate(raw: Raw, _: datetime) -> str:
    return str((status_of(raw).get("candidate") or {}).get("adapter", ""))


def _weight(raw: Raw, _: datetime) -> str:
    weight = (status_of(raw).get("candidate") or {}).get("weight")
    return "" if weight is None else str(weight)


ADAPTER_COLUMNS = (
    Column("NAME", _name, shrink=True),
    Column("READY", _ready),
    Column("PHASE", _phase),
    Column("SCORE", _score),
    Column("GRADE", _grade),
    Column("BASE", _base, shrink=True),
    Column("VERSION", _version),
    Column("AGE", _age),
    Column("DIGEST", _digest, wide=True, shrink=True),
    Column("MESSAGE", _message, wide=True, shrink=True),
)
DEPLOYMENT_COLUMNS = (
    Column("NAME", _name, shrink=True),
    Column("READY", _ready),
    Column("PHASE", _phase),
    Column("STRATEGY", _strategy),
    Column("STABLE", _stable, shrink=True),
    Column("CANDIDATE", _candidate, shrink=True),
    Column("WEIGHT", _weight),
    Column("AGE", _age),
    Column("MESSAGE", _message, wide=True, shrink=True),
)


def columns_of(kind: str) -> tuple[Column, ...]:
    """Columns of a kind."""
    return ADAPTER_COLUMNS if kind == ADAPTER_KIND else DEPLOYMENT_COLUMNS


@dataclass(frozen=True)
class WorkflowRow:
    """What a list of workflows shows of one."""

    workflow_id: str
    status: str
    adapter: str
    deployment: str
    created: str


def workflow_table(rows: Sequence[WorkflowRow], *, now: datetime) -> Table:
    """Newest first."""
    ordered = sorted(rows, key=lambda row: row.created, reverse=True)
    return Table(
        titles=("WORKFLOW", "STATUS", "ADAPTER", "DEPLOYMENT", "AGE"),
        rows=tuple((r.workflow_id, r.status, r.adapter, r.deployment, age(r.created, now=now)) for r in ordered),
        shrink=frozenset({2, 3}),
    )
