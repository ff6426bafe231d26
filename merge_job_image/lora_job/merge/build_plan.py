"""Base and adapters to a plan. Every adapter tensor is used exactly once, every base tensor comes out exactly once; the rest is refused.

adapter tensors ─► changes by base tensor (terms, whole tensors, rows, magnitude) ─► one step per tensor, in the base's order
"""

from collections.abc import Sequence
from typing import Any

from lora_job.merge.adapter import Adapter
from lora_job.merge.adapter_changes import add_adapter
from lora_job.merge.changes import Change, Changes, WholeTensor
from lora_job.merge.plan import Operation, Plan, ShardPlan, Step, Warned
from lora_job.merge.recipe import ELEMENTWISE, OutputDtype, Recipe, Strategy
from lora_job.merge.strategies.resolve import resolve, usable_weights
from lora_job.merge.targets import Targets
from lora_job.model_config import ModelConfig
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.tensors import FLOATS, Checkpoint

__all__ = ["build_plan"]

_DTYPES = {OutputDtype.BFLOAT16: "BF16", OutputDtype.FLOAT16: "F16", OutputDtype.FLOAT32: "F32"}


class _Builder:
    """Turns changes into steps; one instance per plan."""

    def __init__(self, *, targets: Targets, changes: Changes, adapters: Sequence[Adapter], recipe: Recipe) -> None:
        self.targets = targets
        self.changes = changes
        self.adapters = adapters
        self.recipe = recipe
        self.config_changes: dict[str, Any] = {}
        self.warnings: list[Warned] = []
        self.untied = False

    # -- embedding and head -----------------------------------------------------------------------------------------

    def settle_head(self) -> None:
        """Embedding and head part ways when only one of them changes, or each in its own way."""
        embedding, head = self.targets.embedding, self.targets.new_head
        if embedding is None or not self.targets.tied:
            return
        ours, theirs = self.changes.of(embedding), self.changes.of(head)
        if ours.rows is not None and (theirs.terms or (theirs.whole is not None and theirs.whole.saved)):
            raise Refused(
                Reason.CONFLICTING_ADAPTERS,
                f"{self.adapters[ours.rows.ref.adapter].where}: trained tokens of {embedding} are the head's too, and the head "
                "changes in another way at once; merge one of them alone",
            )
        if theirs == ours or _follows(ours, theirs):
            self._head_follows(embedding, head)
        else:
            self.untied = True
            self._set_config("tie_word_embeddings", value=False)

    def _whole_of(self, name: str) -> WholeTensor | None:
        change = self.changes.get(name)
        return change.whole if change is not None else None

    def _head_follows(self, embedding: str, head: str) -> None:
        """A head of its own on disk gets what the embedding gets; without one there is nothing to write."""
        change = self.changes.get(embedding)
        self.changes.drop(head)
        if self.targets.head is not None and change is not None:
            followed = self.changes.of(head)
            followed.terms, followed.magnitude = list(change.terms), change.magnitude
            followed.start, followed.replacement, followed.rows = change.start, change.replacement, change.rows

    def set_vocabulary(self) -> None:
        """The number of tokens in config.json is that of the embedding's rows."""
        embedding = self.targets.embedding
        whole = self._whole_of(embedding) if embedding is not None else None
        if embedding is None or whole is None or whole.shape[0] == self.targets.origin(embedding).shape[0]:
            return
        head = self._head_rows(whole.shape[0])
        if head != whole.shape[0]:
            raise Refused(
                Reason.VOCABULARY_MISMATCH,
                f"{self.adapters[whole.ref.adapter].where}: {embedding} was resized to {whole.shape[0]} tokens, the head has {head}; "
                "save the head with the adapter too (modules_to_save)",
            )
        self._set_config("vocab_size", value=whole.shape[0])

    def _head_rows(self, rows: int) -> int:
        head = self.targets.new_head
        whole = self._whole_of(head) or self._shared_start(head)
        if whole is not None:
            return whole.shape[0]
        follows = head not in self.targets.entries and not self.untied
        return rows if follows else self.targets.origin(head).shape[0]

    def _set_config(self, name: str, *, value: Any) -> None:
        """In every place where config.json says it, and at its top where none does."""
        raw = self.targets.config.raw
        text = raw.get("text_config")
        nested = isinstance(text, dict) and name in text
        if nested:
            self.config_changes[f"text_config.{name}"] = value
        if name in raw or not nested:
            self.config_changes[name] = value

    # -- steps ------------------------------------------------------------------------------------------------------

    def step(self, name: str, *, unchanged: Operation = Operation.COPY) -> Step:
        """The step for a tensor of the base, or for a head that was tied until now."""
        origin = self.targets.origin(name)
        change = self.changes.get(name) or Change()
        start = change.whole or self._shared_start(name)
        terms, combination = resolve(self.recipe, change.terms)
        return Step(
            name=name,
            operation=_operation(change, unchanged=unchanged),
            dtype=self._dtype(origin.dtype),
            shape=start.shape if start else origin.shape,
            source=None if start else origin.name,
            source_dtype=start.dtype if start else origin.dtype,
            terms=terms,
            combination=combination,
            magnitude=change.magnitude,
            replacement=start.ref if start else None,
            rows=change.rows,
        )

    def _shared_start(self, name: str) -> WholeTensor | None:
        """A head that was tied to a resized embedding starts from that."""
        if not self.untied or name != self.targets.new_head or self.targets.embedding is None:
            return None
        change = self.changes.get(self.targets.embedding)
        return change.start if change is not None else None

    def _dtype(self, stored: str) -> str:
        return _DTYPES.get(self.recipe.dtype, stored) if stored in FLOATS else stored

    def added(self) -> tuple[Step, ...]:
        """Tensors the base does not have on disk: a head that was tied until now, and whole modules of an adapter."""
        head = self.targets.new_head
        untied = (self.step(head, unchanged=Operation.UNTIE),) if self.untied and self.targets.head is None else ()
        return (*untied, *(self._new(name) for name in self.changes.names() if self._is_new(name)))

    def _is_new(self, name: str) -> bool:
        return name not in self.targets.entries and not (self.targets.tied and name == self.targets.new_head)

    def _new(self, name: str) -> Step:
        whole = self._whole_of(name)
        if whole is None:
            raise AssertionError(f"{name} is new and has no values")
        self.warnings.append(
            Warned(
                code="TensorAdded",
                message=f"{name} is not in the base: it comes whole from {self.adapters[whole.ref.adapter].name}",
            )
        )
        return Step(
            name=name,
            operation=Operation.ADD,
            dtype=self._dtype(whole.dtype),
            shape=whole.shape,
            source=None,
            source_dtype=whole.dtype,
            replacement=whole.ref,
        )

    def shards(self) -> tuple[ShardPlan, ...]:
        added = self.added()
        files = list(self.targets.base.shards.items())
        last = files[-1][0]
        return tuple(
            ShardPlan(
                file=name,
                steps=(*(self.step(entry.name) for entry in header.entries), *(added if name == last else ())),
            )
            for name, header in files
        )

    def set_dtype(self) -> None:
        """config.json names the dtype in one of two fields; both spellings are in use."""
        if self.recipe.dtype is OutputDtype.AUTO:
            return
        raw = self.targets.config.raw
        for prefix, part in (("", raw), ("text_config.", raw.get("text_config") or {})):
            for name in ("dtype", "torch_dtype"):
                if name in part:
                    self.config_changes[f"{prefix}{name}"] = str(self.recipe.dtype)

    def note_slerp_of_one(self) -> None:
        """Tools that offer slerp as one of three words call it with a single adapter too."""
        if self.recipe.strategy is Strategy.SLERP and len(self.adapters) == 1:
            message = "slerp turns between two adapters; with one it does what linear does"
            self.warnings.append(Warned(code="SlerpOfOne", message=message))


def _follows(embedding: Change, head: Change) -> bool:
    """Whether what was said of a shared embedding is of the head too: trained tokens, and tokens that were added.

    A vocabulary that grew is saved though nothing of it was trained; both names then hold the same numbers.
    """
    if embedding.rows is not None:
        return head.rows is None
    grew = embedding.whole is not None and not embedding.whole.saved and not embedding.terms and not head.terms
    return grew and (head.whole is None or not head.whole.saved)


def _operation(change: Change, *, unchanged: Operation) -> Operation:
    if change.terms:
        return Operation.LORA if change.magnitude is None else Operation.DORA
    if change.rows is not None:
        return Operation.ROWS
    return unchanged if change.whole is None else Operation.REPLACE


def _check_dora(adapters: Sequence[Adapter], recipe: Recipe) -> None:
    """m ⊙ V / ‖V‖ is no delta: it neither adds up with others nor scales, and no part of it can be dropped."""
    alone = len(adapters) == 1 and recipe.weights[0] * recipe.scale == 1.0 and recipe.strategy not in ELEMENTWISE
    for adapter in adapters:
        if adapter.config.use_dora and not alone:
            raise Refused(
                Reason.UNSUPPORTED_ADAPTER,
                f"{adapter.where}: a DoRA adapter sets the length of every weight and can only be merged alone, by linear, with "
                f"weight 1 and scale 1; found {len(adapters)} adapters, {recipe.strategy}, "
                f"weights {', '.join(f'{weight:g}' for weight in recipe.weights)} and scale {recipe.scale:g}",
            )


def build_plan(*, base: Checkpoint, config: ModelConfig, adapters: Sequence[Adapter], recipe: Recipe) -> Plan:
    """The plan for a recipe."""
    targets, changes = Targets(base=base, config=config), Changes()
    _check_dora(adapters, recipe)
    for index, (adapter, weight) in enumerate(zip(adapters, usable_weights(recipe), strict=True)):
        add_adapter(adapter, index=index, coefficient=weight, targets=targets, changes=changes)
        if adapter.config.ensures_tying and targets.tied and targets.embedding is not None:
            changes.share(targets.embedding, targets.new_head, adapter=index)
    changes.check(adapters)
    builder = _Builder(targets=targets, changes=changes, adapters=adapters, recipe=recipe)
    builder.settle_head()
    builder.set_vocabulary()
    builder.set_dtype()
    builder.note_slerp_of_one()
    shards = builder.shards()
    return Plan(shards=shards, config_changes=builder.config_changes, warnings=tuple(builder.warnings))
