"""Is what was written what the plan says? Always on: the file is read again, against the sources, before anything is published.

    every tensor   the check of its operation (checks.py), or of its format when it is quantized (encoded.py)
    a sample       of the calculated ones (first, last, one per kind, at least 16) against float64 rounded once, row by row

The same pass makes the digest of each tensor. Rows are verified as soon as they are written, while the processor's cache still holds them;
the file's digest follows beside it. Files of an earlier run are verified in the same way, tensor by tensor.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from blake3 import blake3

from lora_job.merge.build_context import BuildContext
from lora_job.merge.checks import Check, check_of
from lora_job.merge.engine import Watch
from lora_job.merge.figures import StepFigures
from lora_job.merge.file_digest import FileDigest
from lora_job.merge.layout import layout_of
from lora_job.merge.plan import Plan, ShardPlan, Step, Stored
from lora_job.merge.sampled import Sample, sample_of
from lora_job.merge.stream import OpenFiles, Reader, Sources, chunks, matrix_shape
from lora_job.outcome import Infrastructure
from lora_job.reasons import Reason
from lora_job.tensors import DTYPE_BYTES, Header, read_header

__all__ = ["ShardCheck", "ShardProof", "Verifier", "chosen_sample"]

SAMPLE_TENSORS = 16
Tick = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class ShardProof:
    """What a verified file is."""

    sha256: str
    tensors: Mapping[str, str]
    """BLAKE3 by tensor: proves one of them without the others, in a third of sha256's time."""
    sampled: int
    elements: int
    mismatched: int
    max_ulp: int
    quantized: int
    """Quantized layers, all of them read back."""
    worst_of_bound: float
    """The largest error of any of their elements, as a share of what the format allows."""
    retention: Mapping[str, float]
    """Of quantized layers: ⟨W'−W, Δ⟩ / ‖Δ‖²."""


def chosen_sample(plan: Plan) -> frozenset[str]:
    """First, last, those between them that are evenly spread, and one per kind of layer."""
    merged = [step.name for step in plan.steps if step.terms and not step.encoding]
    kinds = {re.sub(r"\d+", "#", name): name for name in reversed(merged)}
    last, gaps = len(merged) - 1, max(1, min(SAMPLE_TENSORS, len(merged)) - 1)
    spread = {merged[gap * last // gaps] for gap in range(gaps + 1)} if merged else set()
    return frozenset({*kinds.values(), *spread})


class Verifier:
    """Verifies shards of one build; safe to use from several threads, each with its own shard."""

    def __init__(self, build: BuildContext, *, sample: frozenset[str], seed: int, tick: Tick) -> None:
        self._build = build
        self._sample = sample
        self._seed = seed
        self._tick = tick

    def verify(self, shard: ShardPlan, *, target: Path, figures: Mapping[str, StepFigures]) -> ShardProof:
        """Proof that a file that was written before is right, or an error that names the tensor."""
        with self.begin(shard, target=target) as check:
            work = partial(_look_at, check, figures=figures)
            self._build.each_tensor(work, shard)
            return check.proof()

    @contextmanager
    def begin(self, shard: ShardPlan, *, target: Path) -> Iterator["ShardCheck"]:
        """Verifies a file while it is written; its header must be there."""
        build, layout = self._build, layout_of(shard, self._build.base.shards[shard.file])
        header = read_header(target)
        if header.raw != layout.head:
            raise Infrastructure(Reason.VERIFICATION_FAILED, f"{target}: its header is not the planned one; run again")
        digest = FileDigest(
            target, spans=layout.spans, check=build.check, hasher=build.hasher, writeback=build.writeback
        )
        with digest, OpenFiles() as files:
            digest.written("")
            look = partial(self._watched, header=header, files=files, digest=digest)
            yield ShardCheck(shard, digest=digest, look=look)

    @contextmanager
    def _watched(self, step: Step, *, header: Header, files: OpenFiles, digest: FileDigest) -> Iterator["_Look"]:
        """A look at one tensor; the memory it needs is the next one's afterwards."""
        with self._build.sources() as sources:
            yield _Look(self, step, sources=sources, header=header, files=files, digest=digest)

    def verify_encoded(
        self, step: Step, sources: Sources, header: Header, *, files: OpenFiles, tally: "_Tally"
    ) -> None:
        """Reads a quantized layer back and compares it with float64."""
        from lora_job.merge.encoded import StoredLayer  # noqa: PLC0415 (torch: such a layer was written by it too)
        from lora_job.merge.recalculated import read_back  # noqa: PLC0415

        layer = StoredLayer(step.name, find=lambda name: (header, header.by_name[name]), files=files)
        found = read_back(step, layer, sources=sources, deltas=self._build.deltas, tick=self.ticked)
        tally.quantized += 1
        tally.worst_of_bound = max(tally.worst_of_bound, found.worst)
        if found.retention is not None:
            tally.retention[step.name] = found.retention

    def ticked(self, count: int) -> None:
        """So many bytes were looked at."""
        self._build.check()
        self._tick(count)

    def check_of(self, step: Step, sources: Sources) -> Check:
        """For all rows of a tensor."""
        return check_of(step, sources=sources, deltas=self._build.deltas, seed=self._seed)

    def is_sampled(self, step: Step) -> bool:
        """Whether some of its elements are compared with float64 rounded once."""
        return step.name in self._sample

    def compare_exactly(self, step: Step, sources: Sources, written: Reader) -> Sample:
        """Some elements of a tensor with float64 rounded once."""
        return sample_of(step, sources=sources, deltas=self._build.deltas, written=written, seed=self._seed)


class _Look:
    """One tensor, read back as far as it is written and compared with what it should be."""

    def __init__(
        self,
        verifier: Verifier,
        step: Step,
        *,
        sources: Sources,
        header: Header,
        files: OpenFiles,
        digest: FileDigest,
    ) -> None:
        """`header`, `files`: of the file that is written; `digest`: its own, which goes on once the tensor is there."""
        self._verifier, self._step, self._file_digest = verifier, step, digest
        self._sources, self._header, self._files = sources, header, files
        self._next = self._seen = 0
        self.digests: dict[str, str] = {}
        self.tally = _Tally()
        if step.encoding:
            return
        self._written = self._reader(step.name)
        self._digest, self._check = blake3(), verifier.check_of(step, sources)
        # A decision by element is calculated again in the merge's own chunks, so that rounding cannot decide otherwise.
        sizes = {DTYPE_BYTES[step.source_dtype]} | (set() if step.elementwise else {DTYPE_BYTES[step.dtype]})
        self._chunks = list(chunks(step.shape, item=max(sizes)))

    def _reader(self, name: str) -> Reader:
        """Of a stored tensor, as it is in the file now."""
        entry = self._header.by_name[name]
        return self._files.reader(self._header, entry, take=self._sources.take)

    def rows(self, end: int) -> None:
        """Looks at what is there before `end` and was not looked at; a quantized tensor is only looked at as a whole."""
        while not self._step.encoding and self._next < len(self._chunks) and self._chunks[self._next][1] <= end:
            first, last = self._chunks[self._next]
            new = self._written.data(first, last)
            self._digest.update(new.data)
            self._check.look(new, first, last)
            self._next += 1
            self._seen += len(new)
            self._file_digest.written(self._step.name, self._seen)
            self._verifier.ticked(len(new))

    def whole(self, figures: StepFigures | None) -> None:
        """Looks at the rest and judges."""
        step = self._step
        for stored in step.stored:
            self._file_digest.written(stored.name)
        if step.encoding:
            self._verifier.verify_encoded(step, self._sources, self._header, files=self._files, tally=self.tally)
            self.digests = {one.name: _digest(self._reader(one.name), one) for one in step.encoded}
            return
        self.rows(matrix_shape(step.shape)[0])
        self._check.judge(figures)
        self.digests = {step.name: _named(self._digest)}
        if self._verifier.is_sampled(step):
            self.tally.add(self._verifier.compare_exactly(step, self._sources, self._written))


class ShardCheck:
    """One file: each of its tensors is looked at once, in any order, from any thread; `Verifier.begin` makes one."""

    def __init__(
        self, shard: ShardPlan, *, digest: FileDigest, look: Callable[[Step], AbstractContextManager[_Look]]
    ) -> None:
        self._shard, self._digest, self._look = shard, digest, look
        self._found: dict[str, tuple[dict[str, str], _Tally]] = {}

    @contextmanager
    def watched(self, step: Step) -> Iterator[Watch]:
        """Looks at a tensor that is being written, or was."""
        with self._look(step) as look:
            yield look
        self._found[step.name] = look.digests, look.tally

    def proof(self) -> ShardProof:
        """Once every tensor was looked at."""
        proofs = [self._found[step.name] for step in self._shard.steps]
        tally = _total(one for _, one in proofs)
        return ShardProof(
            sha256=self._digest.result(),
            tensors={name: digest for digests, _ in proofs for name, digest in digests.items()},
            sampled=tally.sampled,
            elements=tally.elements,
            mismatched=tally.mismatched,
            max_ulp=tally.max_ulp,
            quantized=tally.quantized,
            worst_of_bound=tally.worst_of_bound,
            retention=tally.retention,
        )


def _look_at(check: ShardCheck, step: Step, *, figures: Mapping[str, StepFigures]) -> None:
    with check.watched(step) as watch:
        watch.whole(figures.get(step.name))


@dataclass(kw_only=True)
class _Tally:
    """Sums over a shard's samples."""

    sampled: int = 0
    elements: int = 0
    mismatched: int = 0
    max_ulp: int = 0
    quantized: int = 0
    worst_of_bound: float = 0.0
    retention: dict[str, float] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        """One more tensor of which some elements were compared."""
        self.sampled += 1
        self.elements += sample.elements
        self.mismatched += sample.mismatched
        self.max_ulp = max(self.max_ulp, sample.max_ulp)


def _total(tallies: Iterable[_Tally]) -> _Tally:
    total = _Tally()
    for one in tallies:
        total.sampled += one.sampled
        total.elements += one.elements
        total.mismatched += one.mismatched
        total.max_ulp = max(total.max_ulp, one.max_ulp)
        total.quantized += one.quantized
        total.worst_of_bound = max(total.worst_of_bound, one.worst_of_bound)
        total.retention |= one.retention
    return total


def _named(state: blake3) -> str:
    """As the manifest writes it."""
    return f"blake3:{state.hexdigest()}"


def _digest(reader: Reader, stored: Stored) -> str:
    """Of a stored tensor, a chunk at a time."""
    state = blake3()
    for start, end in chunks(stored.shape, item=DTYPE_BYTES[stored.dtype]):
        state.update(reader.data(start, end).data)
    return _named(state)
