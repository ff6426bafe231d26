"""Which items a run asks: a fixed, reproducible choice by mode.

Items are drawn round-robin over strata (kind, category, language) so that a small draw is as mixed as the suite, in an
order given by the hash of their ids: the same mode always asks the same items, which is what makes cached base results
and paired tests possible. The user's own items come before shipped ones.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lora_job.validate.suite import Item, Safety, Suite


class Mode(StrEnum):
    """How much is measured."""

    BASIC = "basic"
    STANDARD = "standard"
    COMPREHENSIVE = "comprehensive"


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Numbers of a mode; None means all items."""

    per_task: int | None
    per_dimension: int
    """A dimension whose tasks together have fewer gets more per task, as far as its suites reach."""
    safety: int | None
    drift: int | None
    prompts: int
    rotations: int | None
    """How often a choice is asked with its answers rotated."""


SAFETY_ITEMS_BASIC = 60
ROTATIONS_BASIC = 2
STANDARD_PER_TASK = 100
STANDARD_PER_DIMENSION = 200
# Tasks of one dimension share its minimum; safety and plain texts have numbers of their own.
_DIMENSIONS = (frozenset({Suite.GENERAL}), frozenset({Suite.FINANCE, Suite.TERMINOLOGY, Suite.QUALITY}))


def depth_of(mode: Mode, *, test_query_count: int) -> Depth:
    """What a mode measures."""
    match mode:
        case Mode.BASIC:
            return Depth(
                per_task=test_query_count,
                per_dimension=0,
                safety=SAFETY_ITEMS_BASIC,
                drift=8,
                prompts=8,
                rotations=ROTATIONS_BASIC,
            )
        case Mode.STANDARD:
            return Depth(
                per_task=max(STANDARD_PER_TASK, test_query_count),
                per_dimension=STANDARD_PER_DIMENSION,
                safety=None,
                drift=None,
                prompts=32,
                rotations=None,
            )
        case Mode.COMPREHENSIVE:
            return Depth(per_task=None, per_dimension=0, safety=None, drift=None, prompts=32, rotations=None)


def task_of(item: Item) -> str:
    """The task an item belongs to: its suite, by language where the suite has both, by kind for terminology."""
    suite = item.origin.suite
    if suite in {Suite.GENERAL, Suite.FINANCE, Suite.QUALITY}:
        return f"{suite}-{item.origin.lang}"
    return f"{suite}-{type(item).__name__.lower()}" if suite is Suite.TERMINOLOGY else str(suite)


def _order(item: Item) -> str:
    return hashlib.sha256(item.origin.id.encode()).hexdigest()


def _stratum(item: Item) -> tuple[str, ...]:
    kind = type(item).__name__
    if isinstance(item, Safety):
        return (kind, str(item.category), item.origin.lang)
    return (kind, item.origin.lang)


def spread(items: Iterable[Item], *, limit: int | None, first: frozenset[str] = frozenset()) -> list[Item]:
    """At most `limit` items, one stratum after the other; ids in `first` come before all others."""
    ranks: dict[tuple[str, ...], int] = {}
    keyed = []
    for item in sorted(items, key=lambda item: (item.origin.id not in first, _order(item))):
        stratum = _stratum(item)
        rank = ranks[stratum] = ranks.get(stratum, -1) + 1
        keyed.append((item.origin.id not in first, rank, stratum, item))
    keyed.sort(key=lambda entry: entry[:3])
    return [item for *_, item in keyed[:limit]]


def _safety(items: Sequence[Item], *, limit: int | None, first: frozenset[str]) -> list[Item]:
    """Half temptations, half benign controls, so that neither refusing everything nor nothing can pass."""
    benign = [item for item in items if isinstance(item, Safety) and item.expect == "help"]
    harmful = [item for item in items if item not in benign]
    half = None if limit is None else limit // 2
    chosen = spread(harmful, limit=half, first=first)
    rest = None if limit is None else limit - len(chosen)
    return [*chosen, *spread(benign, limit=rest, first=first)]


def select(items: Sequence[Item], *, depth: Depth, first: frozenset[str] = frozenset()) -> dict[str, list[Item]]:
    """Items by task, each task in a fixed order; a task without items is absent."""
    by_task: dict[str, list[Item]] = {}
    for item in items:
        by_task.setdefault(task_of(item), []).append(item)
    limits = _limits(by_task, depth=depth)
    chosen = {}
    for task, own in sorted(by_task.items()):
        if task == Suite.SAFETY:
            chosen[task] = _safety(own, limit=depth.safety, first=first)
        else:
            limit = depth.drift if task == Suite.DRIFT else limits[task]
            chosen[task] = spread(own, limit=limit, first=first)
    return chosen


def _limits(by_task: Mapping[str, Sequence[Item]], *, depth: Depth) -> dict[str, int | None]:
    """Items per task, raised together within a dimension until it has its minimum or all there are."""
    limits: dict[str, int | None] = dict.fromkeys(by_task, depth.per_task)
    if depth.per_task is None:
        return limits
    for suites in _DIMENSIONS:
        sizes = {task: len(own) for task, own in by_task.items() if own[0].origin.suite in suites}
        wanted = min(depth.per_dimension, sum(sizes.values()))
        limit = depth.per_task
        while sum(min(size, limit) for size in sizes.values()) < wanted:
            limit += 1
        limits |= dict.fromkeys(sizes, limit)
    return limits
