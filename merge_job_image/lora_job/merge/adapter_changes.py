"""What one adapter changes, told from the names of its tensors: module by module, into the changes of all adapters."""

from collections.abc import Mapping

from lora_job.merge.adapter import Adapter, Part
from lora_job.merge.architecture import is_conv1d, is_embedding
from lora_job.merge.changes import Changes, whole_tensor
from lora_job.merge.fused import fused_target, fused_terms, split_wrappers
from lora_job.merge.plan import Geometry, Ref, Rows, Term
from lora_job.merge.targets import Targets
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.tensors import FLOATS, Entry

__all__ = ["add_adapter"]

Parts = Mapping[Part, Entry]


def add_adapter(adapter: Adapter, *, index: int, coefficient: float, targets: Targets, changes: Changes) -> None:
    """Everything an adapter changes; refused when the base has nothing for one of its modules."""
    reading = _Reading(adapter, index=index, coefficient=coefficient, targets=targets, changes=changes)
    missing = [name for module, parts in adapter.modules.items() if (name := reading.module(module, parts))]
    if missing:
        every = len(missing) == len(adapter.modules)
        raise Refused(
            Reason.WRONG_BASE if every else Reason.UNMATCHED_KEYS,
            f"{adapter.where}: the base has no {missing[0]}"
            + (f" (and {len(missing) - 1} more of {len(adapter.modules)} modules)" if len(missing) > 1 else "")
            + "; the adapter was trained on another model",
        )


class _Reading:
    """One adapter being read."""

    def __init__(self, adapter: Adapter, *, index: int, coefficient: float, targets: Targets, changes: Changes) -> None:
        self._adapter = adapter
        self._index = index
        self._coefficient = coefficient
        self._targets = targets
        self._changes = changes

    def module(self, module: str, parts: Parts) -> str | None:
        """Adds a module's changes; the name of what the base lacks for it."""
        name = self._targets.find(module, "weight")
        if name is None and Part.A in parts:
            return self._fused(module, parts)
        return (
            self._whole(module, parts, name=name)
            or self._factors(module, parts, name=name)
            or self._rows(module, parts, name=name)
        )

    def _where(self, module: str) -> str:
        return f"{self._adapter.where}: module {module}"

    def _claim(self, module: str, name: str, what: str) -> None:
        self._changes.claim(self._adapter, self._index, module=module, name=name, what=what)

    # -- tensors that were saved whole ------------------------------------------------------------------------------

    def _whole(self, module: str, parts: Parts, *, name: str | None) -> str | None:
        saved = self._is_saved(module)
        if Part.BASE_WEIGHT in parts:
            if name is None:
                return f"{module}.weight"
            self._start(module, parts[Part.BASE_WEIGHT], name=name)
        for part, kind in ((Part.WEIGHT, "weight"), (Part.BIAS, "bias"), (Part.BASE_BIAS, "bias")):
            if part not in parts:
                continue
            target = name if kind == "weight" else self._targets.find(module, kind)
            if target is None and not (saved and part is not Part.BASE_BIAS):
                return f"{module}.{kind}"
            target = target or f"{module}.{kind}"
            self._claim(module, target, "as a whole")
            if target in self._targets.entries or target == self._targets.new_head:
                self._check_shape(module, parts[part], name=target)
            tensor = whole_tensor(parts[part], index=self._index, saved=saved)
            self._changes.replace(target, tensor, adapter=self._adapter)
        return None

    def _is_saved(self, module: str) -> bool:
        """Whether modules_to_save names the module or one that it lies in: PEFT matches the end of the name."""
        return any(f".{name}." in f".{module}." for name in self._adapter.config.saved_modules)

    def _start(self, module: str, entry: Entry, *, name: str) -> None:
        """PEFT stores the frozen weight of a targeted embedding too. It is the base's (stored_copies.py), unless tokens were added."""
        self._check_shape(module, entry, name=name)
        if entry.shape != self._targets.origin(name).shape:
            self._changes.of(name).start = whole_tensor(entry, index=self._index, saved=False)

    def _check_shape(self, module: str, entry: Entry, *, name: str) -> None:
        origin = self._targets.origin(name)
        grows = self._targets.has_vocabulary(name)
        same = entry.shape[1:] == origin.shape[1:] and len(entry.shape) == len(origin.shape) if grows else False
        if entry.shape != origin.shape and not same:
            raise Refused(
                Reason.SHAPE_MISMATCH,
                f"{self._where(module)}: the base's {name} has shape {list(origin.shape)}, "
                f"{entry.name!r} has {list(entry.shape)}; it was trained on another model",
            )

    # -- factors ----------------------------------------------------------------------------------------------------

    def _factors(self, module: str, parts: Parts, *, name: str | None) -> str | None:
        for a, b in ((Part.A, Part.B), (Part.EMBEDDING_A, Part.EMBEDDING_B)):
            if a not in parts:
                continue
            if name is None:
                return f"{module}.weight"
            geometry = self._geometry(module, name, embedding=a is Part.EMBEDDING_A)
            self._claim(module, name, "by factors")
            self._add_term(module, parts[a], parts[b], name=name, geometry=geometry)
            if Part.MAGNITUDE in parts:
                self._add_magnitude(module, parts[Part.MAGNITUDE], name=name, geometry=geometry)
        if Part.B_BIAS in parts:
            self._add_bias(module, parts)
        return None

    def _geometry(self, module: str, name: str, *, embedding: bool) -> Geometry:
        if embedding:
            if name != self._targets.embedding and not is_embedding(name.removesuffix(".weight")):
                raise Refused(
                    Reason.MALFORMED_ADAPTER,
                    f"{self._where(module)}: has factors of an embedding, and the base's {name} is none; "
                    "it was trained on another model",
                )
            return Geometry.EMBEDDING
        turned = is_conv1d(self._targets.config.model_type, name.removesuffix(".weight"))
        # A weight that was trained as a parameter is taken as it lies, whatever layer it belongs to.
        return Geometry.CONV1D if turned and not self._is_parameter(module) else Geometry.LINEAR

    def _is_parameter(self, module: str) -> bool:
        """Whether target_parameters names the module's weight."""
        return any(f".{module}.weight".endswith(f".{name}") for name in self._adapter.config.target_parameters)

    def _pattern_name(self, module: str) -> str:
        """What rank_pattern and alpha_pattern are compared with."""
        return f"{module}.weight" if self._is_parameter(module) else module

    def _shape_of(self, name: str) -> tuple[int, ...]:
        """The shape that factors meet: the base's, or the one of the adapter's resized copy."""
        change = self._changes.get(name)
        return change.whole.shape if change is not None and change.whole else self._targets.origin(name).shape

    def _add_term(self, module: str, a: Entry, b: Entry, *, name: str, geometry: Geometry) -> None:
        rank = self._checked_rank(module, a, b)
        _check_floats(self._targets, name)
        shape = self._shape_of(name)
        wanted = (b.shape[0], a.shape[1]) if geometry is Geometry.LINEAR else (a.shape[1], b.shape[0])
        if shape != wanted:
            raise Refused(
                Reason.SHAPE_MISMATCH,
                f"{self._where(module)}: the base's {name} has shape {list(shape)}, "
                f"the adapter was made for {list(wanted)}; it was trained on another model",
            )
        if self._coefficient != 0.0:
            self._changes.of(name).terms.append(self._term(module, a.name, b.name, rank=rank, geometry=geometry))

    def _term(self, module: str, a: str, b: str, *, rank: int, geometry: Geometry) -> Term:
        return Term(
            adapter=self._index,
            a=a,
            b=b,
            rank=rank,
            scale=self._adapter.config.scale_of(self._pattern_name(module), rank=rank),
            coefficient=self._coefficient,
            geometry=geometry,
        )

    def _checked_rank(self, module: str, a: Entry, b: Entry) -> int:
        if len(a.shape) != 2 or len(b.shape) != 2 or 0 in (*a.shape, *b.shape):
            raise Refused(
                Reason.UNSUPPORTED_ADAPTER,
                f"{self._where(module)}: expected two matrices, found {list(a.shape)} and {list(b.shape)}; "
                "convolutions cannot be merged",
            )
        if a.shape[0] != b.shape[1]:
            raise Refused(
                Reason.RANK_MISMATCH,
                f"{self._where(module)}: {a.name} has rank {a.shape[0]}, {b.name} has rank {b.shape[1]}; they must agree",
            )
        configured = self._adapter.config.rank_of(self._pattern_name(module))
        if a.shape[0] != configured:
            raise Refused(
                Reason.RANK_MISMATCH,
                f"{self._where(module)}: its factors have rank {a.shape[0]}, "
                f"{self._adapter.config.path.name} says {configured}",
            )
        return configured

    def _add_magnitude(self, module: str, entry: Entry, *, name: str, geometry: Geometry) -> None:
        shape = self._shape_of(name)
        units = shape[0] if geometry is Geometry.LINEAR else shape[1]
        if entry.shape != (units,):
            raise Refused(
                Reason.SHAPE_MISMATCH,
                f"{self._where(module)}: tensor {entry.name!r} has shape {list(entry.shape)}, expected [{units}]",
            )
        self._changes.of(name).magnitude = Ref(adapter=self._index, key=entry.name)

    def _add_bias(self, module: str, parts: Parts) -> None:
        name = self._targets.find(module, "bias")
        entry = parts[Part.B_BIAS]
        if name is None:
            raise Refused(
                Reason.MISSING_BIAS,
                f"{self._where(module)}: {entry.name!r} adds to a bias and the base's module has none; "
                "train with lora_bias on layers that have one",
            )
        if entry.shape != self._targets.origin(name).shape:
            raise Refused(
                Reason.SHAPE_MISMATCH,
                f"{self._where(module)}: the base's {name} has shape {list(self._targets.origin(name).shape)}, "
                f"{entry.name!r} has {list(entry.shape)}",
            )
        if self._coefficient != 0.0:
            rank = parts[Part.A].shape[0]
            self._changes.of(name).terms.append(self._term(module, "", entry.name, rank=rank, geometry=Geometry.BIAS))

    def _fused(self, module: str, parts: Parts) -> str | None:
        target = fused_target(self._adapter, module, memory=self._targets.memory)
        if target is None:
            return f"{split_wrappers(module)[0]}.weight"
        if set(parts) != {Part.A, Part.B}:
            raise Refused(
                Reason.UNSUPPORTED_ADAPTER,
                f"{self._where(module)}: {', '.join(sorted(set(parts) - {Part.A, Part.B}))} of stacked experts cannot be merged",
            )
        terms = fused_terms(
            self._adapter, target, a=parts[Part.A], b=parts[Part.B], index=self._index, coefficient=self._coefficient
        )
        for name, term in terms:
            self._claim(module, name, "by factors")
            _check_floats(self._targets, name)
            self._check_layout(module, name, term)
            if self._coefficient != 0.0:
                self._changes.of(name).terms.append(term)
        return None

    def _check_layout(self, module: str, name: str, term: Term) -> None:
        """The tensor on disk has the shape that its term makes: the last guard against a layout that was understood wrongly."""
        inputs = self._adapter.header.by_name[term.a].shape[1]
        outputs = self._adapter.header.by_name[term.b].shape[0]
        rows, columns = (outputs, inputs) if term.geometry is Geometry.EXPERTS else (inputs, outputs)
        made = (term.experts, rows, columns) if term.part is None else (term.part.stop - term.part.start, columns)
        if self._targets.origin(name).shape != made:
            raise Refused(
                Reason.SHAPE_MISMATCH,
                f"{self._where(module)}: the base's {name} has shape {list(self._targets.origin(name).shape)}, "
                f"the adapter was made for {list(made)}",
            )

    # -- trained tokens ---------------------------------------------------------------------------------------------

    def _rows(self, module: str, parts: Parts, *, name: str | None) -> str | None:
        entry = parts.get(Part.TOKEN_ROWS)
        if entry is None:
            return None
        if name is None:
            return f"{module}.weight"
        self._claim(module, name, "by rows")
        indices = self._indices(module)
        rows, width = self._shape_of(name)
        if entry.shape != (len(indices), width):
            raise Refused(
                Reason.TOKEN_INDEX,
                f"{self._where(module)}: tensor {entry.name!r} has shape {list(entry.shape)}, trainable_token_indices names "
                f"{len(indices)} tokens of width {width}",
            )
        outside = next((token for token in indices if token >= rows), None)
        if outside is not None:
            raise Refused(
                Reason.TOKEN_INDEX, f"{self._where(module)}: token {outside} is outside of {name} with {rows} rows"
            )
        self._changes.replace_rows(
            name, Rows(indices=indices, ref=Ref(adapter=self._index, key=entry.name)), adapter=self._adapter
        )
        return None

    def _indices(self, module: str) -> tuple[int, ...]:
        known = self._adapter.config.token_indices
        for name, indices in known.items():
            if name and f".{module}".endswith(f".{name}"):
                return indices
        if "" in known:
            return known[""]
        raise Refused(
            Reason.TOKEN_INDEX,
            f"{self._where(module)}: has trained tokens, and trainable_token_indices in {self._adapter.config.path.name} does "
            "not say which",
        )


def _check_floats(targets: Targets, name: str) -> None:
    entry = targets.origin(name)
    if entry.dtype not in FLOATS:
        raise Refused(
            Reason.QUANTIZED_BASE,
            f"{targets.base.root}: tensor {entry.name} is {entry.dtype}; "
            "expected floats: merge into the base before quantization",
        )
