"""Base and adapters to a plan. Every adapter tensor is used exactly once, every base tensor comes out exactly once; the rest is refused.

adapter tensors ─► changes by base tensor (terms, replacement, rows, magnitude) ─► one step per tensor, in the base's order
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_job.merge.adapter import Adapter, Part
from lora_job.merge.adapter_config import regex_time_limit
from lora_job.merge.architecture import HEADS, embedding_on_disk, is_conv1d, tensor_on_disk
from lora_job.merge.plan import Geometry, Operation, Plan, Ref, Rows, ShardPlan, Step, Term, Warned
from lora_job.merge.recipe import OutputDtype, Recipe
from lora_job.model_config import ModelConfig
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.tensors import FLOATS, Checkpoint, Entry

__all__ = ["build_plan"]

_DTYPES = {OutputDtype.BFLOAT16: "BF16", OutputDtype.FLOAT16: "F16", OutputDtype.FLOAT32: "F32"}


@dataclass(kw_only=True)
class _Change:
    """What happens to one tensor, collected over all adapters."""

    terms: list[Term] = field(default_factory=list)
    magnitude: Ref | None = None
    replacement: Ref | None = None
    replacement_shape: tuple[int, ...] = ()
    rows: Rows | None = None


class _Builder:
    """Collects changes; one instance per plan."""

    def __init__(self, *, base: Checkpoint, config: ModelConfig, recipe: Recipe) -> None:
        self.base = base
        self.config = config
        self.recipe = recipe
        self.entries = base.entries
        self.changes: dict[str, _Change] = {}
        self.config_changes: dict[str, Any] = {}
        self.embedding = embedding_on_disk(base)
        self.head = next((name for module in HEADS if (name := f"{module}.weight") in self.entries), None)
        self.warnings: list[Warned] = []

    # -- names ------------------------------------------------------------------------------------------------------

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding once the model is in memory."""
        return self.embedding is not None and self.config.tied

    @property
    def new_head(self) -> str:
        """The name a head gets that the base does not have on disk."""
        return self.head or ("embed_out.weight" if self.config.model_type == "gpt_neox" else "lm_head.weight")

    def find(self, module: str, kind: str) -> str | None:
        """The tensor a module's part changes: on disk, or the tied head that is not on disk."""
        name = tensor_on_disk(self.config.model_type, module, kind, known=self.entries.keys())
        if name is None and kind == "weight" and self.tied and module in HEADS:
            return self.new_head
        return name

    def origin(self, name: str) -> Entry:
        """The base tensor that a tensor's values start from."""
        if name in self.entries:
            return self.entries[name]
        if self.embedding is None:
            raise AssertionError("only a tied head lacks a tensor of its own")
        return self.entries[self.embedding]

    # -- one adapter ------------------------------------------------------------------------------------------------

    def add(self, adapter: Adapter, *, index: int, coefficient: float) -> None:
        """Everything an adapter changes."""
        seen: dict[str, str] = {}
        missing: list[str] = []
        for module, parts in adapter.modules.items():
            unknown = self._add_module(adapter, module, parts, index=index, coefficient=coefficient, seen=seen)
            missing += [unknown] if unknown else []
        if missing:
            every = len(missing) == len(adapter.modules)
            raise Refused(
                Reason.WRONG_BASE if every else Reason.UNMATCHED_KEYS,
                f"{adapter.where}: the base has no {missing[0]}"
                + (f" (and {len(missing) - 1} more of {len(adapter.modules)} modules)" if len(missing) > 1 else "")
                + "; the adapter was trained on another model",
            )

    def _add_module(
        self,
        adapter: Adapter,
        module: str,
        parts: Mapping[Part, Entry],
        *,
        index: int,
        coefficient: float,
        seen: dict[str, str],
    ) -> str | None:
        """Adds a module's changes; the name of the missing tensor when the base has none for it."""
        where = f"{adapter.where}: module {module}"
        unsupported = next((part for part in parts if part not in _BUILT), None)
        if unsupported is not None:
            raise Refused(
                Reason.NOT_SUPPORTED_YET,
                f"{where}: tensors of the kind {unsupported} are not supported yet; train without them",
            )
        name = self.find(module, "weight")
        if name is None:
            return f"{module}.weight"
        if name in seen:
            raise Refused(Reason.DUPLICATE_TARGET, f"{where} and {seen[name]} both change {name}")
        seen[name] = module
        self._add_factors(adapter, module, parts, name=name, index=index, coefficient=coefficient)
        return None

    def _add_factors(
        self, adapter: Adapter, module: str, parts: Mapping[Part, Entry], *, name: str, index: int, coefficient: float
    ) -> None:
        a, b = parts[Part.A], parts[Part.B]
        where = f"{adapter.where}: module {module}"
        geometry = (
            Geometry.CONV1D if is_conv1d(self.config.model_type, name.removesuffix(".weight")) else Geometry.LINEAR
        )
        rank = _checked_rank(adapter, module, a, b)
        target = self.origin(name)
        _check_float_base(target, self.base)
        wanted = (b.shape[0], a.shape[1]) if geometry is Geometry.LINEAR else (a.shape[1], b.shape[0])
        if target.shape != wanted:
            raise Refused(
                Reason.SHAPE_MISMATCH,
                f"{where}: the base's {target.name} has shape {list(target.shape)}, the adapter was made for {list(wanted)}; "
                "it was trained on another model",
            )
        if coefficient != 0.0:
            self.changes.setdefault(name, _Change()).terms.append(
                Term(
                    adapter=index,
                    a=a.name,
                    b=b.name,
                    rank=rank,
                    scale=adapter.config.scale_of(module, rank=rank),
                    coefficient=coefficient,
                    geometry=geometry,
                )
            )

    # -- the whole --------------------------------------------------------------------------------------------------

    def untie(self) -> None:
        """The head and the embedding part ways when only one of them changes."""
        if self.embedding is None or not self.tied:
            return
        changed = [name for name in (self.embedding, self.new_head) if self._changes_alone(name)]
        if changed:
            self.config_changes["tie_word_embeddings"] = False

    def _changes_alone(self, name: str) -> bool:
        change = self.changes.get(name)
        return change is not None and bool(change.terms or change.replacement)

    def step(self, entry: Entry) -> Step:
        """The step for a tensor of the base."""
        return self._step(entry.name, entry)

    def _step(self, name: str, origin: Entry, *, unchanged: Operation = Operation.COPY) -> Step:
        change = self.changes.get(name, _Change())
        return Step(
            name=name,
            operation=Operation.LORA if change.terms else unchanged,
            dtype=self._dtype(origin),
            shape=origin.shape,
            source=origin.name,
            source_dtype=origin.dtype,
            terms=tuple(change.terms),
        )

    def _dtype(self, entry: Entry) -> str:
        return _DTYPES.get(self.recipe.dtype, entry.dtype) if entry.dtype in FLOATS else entry.dtype

    def added(self) -> tuple[Step, ...]:
        """Tensors the base does not have: a head that was tied until now."""
        if self.config_changes.get("tie_word_embeddings") is not False or self.head is not None:
            return ()
        return (self._step(self.new_head, self.origin(self.new_head), unchanged=Operation.UNTIE),)

    def shards(self) -> tuple[ShardPlan, ...]:
        added = self.added()
        files = list(self.base.shards.items())
        last = files[-1][0]
        return tuple(
            ShardPlan(
                file=name, steps=(*(self.step(entry) for entry in header.entries), *(added if name == last else ()))
            )
            for name, header in files
        )

    def set_dtype(self) -> None:
        """config.json names the dtype in one of two fields; both spellings are in use."""
        if self.recipe.dtype is OutputDtype.AUTO:
            return
        for prefix, part in (("", self.config.raw), ("text_config.", self.config.raw.get("text_config") or {})):
            for name in ("dtype", "torch_dtype"):
                if name in part:
                    self.config_changes[f"{prefix}{name}"] = str(self.recipe.dtype)


_BUILT = frozenset({Part.A, Part.B})


def _checked_rank(adapter: Adapter, module: str, a: Entry, b: Entry) -> int:
    where = f"{adapter.where}: module {module}"
    if len(a.shape) != 2 or len(b.shape) != 2 or 0 in (*a.shape, *b.shape):
        raise Refused(
            Reason.UNSUPPORTED_ADAPTER,
            f"{where}: expected two matrices, found {list(a.shape)} and {list(b.shape)}; convolutions cannot be merged",
        )
    if a.shape[0] != b.shape[1]:
        raise Refused(
            Reason.RANK_MISMATCH,
            f"{where}: {a.name} has rank {a.shape[0]}, {b.name} has rank {b.shape[1]}; they must agree",
        )
    configured = adapter.config.rank_of(module)
    if a.shape[0] != configured:
        raise Refused(
            Reason.RANK_MISMATCH,
            f"{where}: its factors have rank {a.shape[0]}, {adapter.config.path.name} says {configured}",
        )
    return configured


def _check_float_base(entry: Entry, base: Checkpoint) -> None:
    if entry.dtype not in FLOATS:
        raise Refused(
            Reason.QUANTIZED_BASE,
            f"{base.root}: tensor {entry.name} is {entry.dtype}; expected floats: merge into the base before quantization",
        )


def build_plan(*, base: Checkpoint, config: ModelConfig, adapters: Sequence[Adapter], recipe: Recipe) -> Plan:
    """The plan for a recipe whose strategy is a weighted sum of deltas."""
    builder = _Builder(base=base, config=config, recipe=recipe)
    for index, (adapter, coefficient) in enumerate(zip(adapters, recipe.coefficients, strict=True)):
        with regex_time_limit(adapter.config.path):
            builder.add(adapter, index=index, coefficient=coefficient)
    builder.untie()
    builder.set_dtype()
    return Plan(shards=builder.shards(), config_changes=builder.config_changes, warnings=tuple(builder.warnings))
