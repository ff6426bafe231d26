"""What happens to each tensor, collected over all adapters; what cannot be true at once is refused here.

terms         deltas, which add up
start         an adapter's copy of a tensor that was not trained, with another number of tokens than the base's
replacement   a tensor that was trained whole: one adapter only
rows          trained tokens: one adapter only
magnitude     DoRA: one adapter only
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lora_job.merge.adapter import Adapter
from lora_job.merge.plan import Ref, Rows, Term
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.tensors import Entry

__all__ = ["Change", "Changes", "WholeTensor", "whole_tensor"]


@dataclass(frozen=True, kw_only=True)
class WholeTensor:
    """A tensor of an adapter that takes the place of the base's."""

    ref: Ref
    shape: tuple[int, ...]
    dtype: str
    saved: bool
    """Whether modules_to_save made it, which gives the module weights of its own even where they were shared."""


@dataclass(kw_only=True)
class Change:
    """What happens to one tensor."""

    terms: list[Term] = field(default_factory=list)
    magnitude: Ref | None = None
    start: WholeTensor | None = None
    replacement: WholeTensor | None = None
    rows: Rows | None = None

    @property
    def whole(self) -> WholeTensor | None:
        """What it starts from instead of the base."""
        return self.replacement or self.start

    @property
    def adapters(self) -> Iterator[int]:
        """Numbers of the adapters that take part, once for each way they do."""
        yield from (term.adapter for term in self.terms)
        if self.replacement is not None:
            yield self.replacement.ref.adapter
        if self.rows is not None:
            yield self.rows.ref.adapter


class Changes:
    """Changes by tensor name; `owner` tells which module of an adapter made one, to name both when two collide."""

    def __init__(self) -> None:
        self._found: dict[str, Change] = {}
        self._owners: dict[tuple[int, str, str], str] = {}

    def get(self, name: str) -> Change | None:
        return self._found.get(name)

    def of(self, name: str) -> Change:
        """The change of a tensor, empty when nothing was said of it yet."""
        return self._found.setdefault(name, Change())

    def names(self) -> list[str]:
        return list(self._found)

    def drop(self, name: str) -> None:
        self._found.pop(name, None)

    def claim(self, adapter: Adapter, index: int, *, module: str, name: str, what: str) -> None:
        """One adapter may say one thing of a tensor only once, whatever its modules are called."""
        owner = self._owners.setdefault((index, name, what), module)
        if owner != module:
            raise Refused(Reason.DUPLICATE_TARGET, f"{adapter.where}: module {module} and {owner} both change {name}")

    def replace(self, name: str, tensor: WholeTensor, *, adapter: Adapter) -> None:
        """A trained tensor takes the base's place."""
        change = self.of(name)
        if change.replacement is not None and change.replacement.ref.adapter != tensor.ref.adapter:
            raise _conflict(adapter, name, "another adapter replaces it too")
        change.replacement = tensor

    def replace_rows(self, name: str, rows: Rows, *, adapter: Adapter) -> None:
        """Trained tokens take the place of some rows."""
        change = self.of(name)
        if change.rows is not None and change.rows.ref.adapter != rows.ref.adapter:
            raise _conflict(adapter, name, "another adapter replaces rows of it too")
        change.rows = rows

    def share(self, first: str, second: str, *, adapter: int) -> None:
        """An adapter that was trained on one tensor of two names changes both alike, whichever name it stored."""
        ours, theirs = self.of(first), self.of(second)
        theirs.terms = [term for term in theirs.terms if term.adapter != adapter]
        theirs.terms += [term for term in ours.terms if term.adapter == adapter]
        for kind in ("magnitude", "start", "replacement", "rows"):
            stored = (getattr(ours, kind), getattr(theirs, kind))
            if any(found is not None and _adapter_of(found) == adapter for found in stored):
                setattr(theirs, kind, stored[0])

    def check(self, adapters: Sequence[Adapter]) -> None:
        """Refuses what cannot be combined: a whole tensor or rows leave nothing for a delta of somebody else."""
        for name, change in self._found.items():
            taking_part = sorted(set(change.adapters))
            exclusive = change.replacement is not None or change.rows is not None
            if exclusive and len(taking_part) > 1:
                raise _conflict(adapters[taking_part[-1]], name, f"{adapters[taking_part[0]].name} changes it too")
            if change.rows is not None and (change.terms or change.replacement):
                raise _conflict(adapters[taking_part[0]], name, "it has trained tokens and another change at once")


def _adapter_of(part: Ref | Rows | WholeTensor) -> int:
    return part.adapter if isinstance(part, Ref) else part.ref.adapter


def _conflict(adapter: Adapter, name: str, why: str) -> Refused:
    return Refused(
        Reason.CONFLICTING_ADAPTERS,
        f"{adapter.where}: tensor {name} cannot be combined: {why}; merge one of them alone, or train it without this tensor",
    )


def whole_tensor(entry: Entry, *, index: int, saved: bool) -> WholeTensor:
    """An adapter's tensor as a replacement."""
    return WholeTensor(ref=Ref(adapter=index, key=entry.name), shape=entry.shape, dtype=entry.dtype, saved=saved)
