"""What transformers makes of a checkpoint: parameters by their names in memory, and the tensors on disk each is made of.

Adapters use names in memory. Most equal the names on disk; where they do not (vision-language models, experts that are one tensor each
on disk and one for all in memory) transformers' own conversion table says how. The model is built on the meta device: no weight, no
memory, no code but that of the pinned transformers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_job.model_config import ModelConfig
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.tensors import Checkpoint

__all__ = ["DiskPart", "InMemory", "read_in_memory", "ties_by_default"]

# Several times what the largest published models have.
MOST_LAYERS, MOST_EXPERTS, MOST_IN_ALL = 2048, 8192, 2**17
_LAYERS = re.compile(r"(^|_)(layers?|blocks?|depth)$")
_EXPERTS = re.compile(r"(^|_)experts?$")


@dataclass(frozen=True, kw_only=True)
class DiskPart:
    """A tensor on disk and its place in a parameter: all of it, or rows [start, stop) of one expert."""

    name: str
    expert: int | None = None
    start: int = 0
    stop: int = 0
    turned: bool = False
    """Whether the disk has the last two dimensions the other way round."""


@dataclass(frozen=True, kw_only=True)
class InMemory:
    """Parameters of the model as transformers holds it, in its order."""

    shapes: Mapping[str, tuple[int, ...]]
    parts: Mapping[str, tuple[DiskPart, ...]]
    """By parameter. Those whose conversion is more than stacking and concatenating are not here."""
    transposed: frozenset[str]
    """Modules that keep their experts as [experts, in, out]."""

    def on_disk(self, parameter: str) -> str | None:
        """The one tensor that a parameter is, None when it is none or several."""
        parts = self.parts.get(parameter, ())
        return parts[0].name if len(parts) == 1 and parts[0].expert is None and not parts[0].turned else None


def ties_by_default(model_type: str) -> bool:
    """Whether a model type shares embedding and head where its config says nothing."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415 (seconds, rarely needed)

    try:
        return bool(getattr(CONFIG_MAPPING[model_type](), "tie_word_embeddings", True))
    except KeyError:
        return True


def read_in_memory(base: Checkpoint, config: ModelConfig) -> InMemory | None:
    """None when the pinned transformers does not know the architecture."""
    model = _meta_model(config)
    if model is None:
        return None
    # Slow to import and needed by few models.
    from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key  # noqa: PLC0415

    conversions = get_model_conversion_mapping(model)
    renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
    state = model.state_dict()
    made_of: dict[str, list[tuple[str, str | None]]] = {}
    for name in base.entries:
        parameter, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        made_of.setdefault(parameter, []).append((name, pattern))
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return InMemory(
        shapes=shapes,
        parts={
            parameter: parts
            for parameter, sources in made_of.items()
            if (parts := _parts(sources, by_pattern=by_pattern, base=base, shape=shapes.get(parameter, ())))
        },
        transposed=frozenset(name for name, module in model.named_modules() if getattr(module, "is_transposed", False)),
    )


def _check_counts(fields: Mapping[str, Any]) -> None:
    """Refuses a config that asks for more modules than any model has.

    Without weights a module still takes a page of memory, and a stranger's file says how many there are.
    """
    layers = experts = 1
    for name, value in fields.items():
        if isinstance(value, Mapping):
            _check_counts(value)
        if not isinstance(value, int):
            continue
        if _LAYERS.search(name):
            layers = max(layers, _at_most(MOST_LAYERS, name, value))
        elif _EXPERTS.search(name):
            experts = max(experts, _at_most(MOST_EXPERTS, name, value))
    if layers * experts > MOST_IN_ALL:
        raise _too_many(f"{layers} layers of {experts} experts are {layers * experts}, expected at most {MOST_IN_ALL}")


def _at_most(limit: int, name: str, value: int) -> int:
    if value > limit:
        raise _too_many(f"field {name!r}: found {value}, expected at most {limit}")
    return value


def _too_many(what: str) -> Refused:
    return Refused(
        Reason.MALFORMED_CONFIG,
        f"config.json of the base: {what}; no such model is known, take the file from its origin",
    )


def _meta_model(config: ModelConfig) -> Any:
    import torch  # noqa: PLC0415 (as transformers below)
    import transformers  # noqa: PLC0415

    _check_counts(config.raw)
    names = config.raw.get("architectures") or []
    settings = {key: value for key, value in config.raw.items() if key != "model_type"}
    try:
        parsed = transformers.AutoConfig.for_model(config.model_type, **settings)
        known = [found for name in names if (found := _model_class(transformers, name)) is not None]
        with torch.device("meta"):
            return known[0](parsed) if known else transformers.AutoModelForCausalLM.from_config(parsed)
    except (ImportError, KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        # A config that this transformers cannot build: names on disk are then all there is to go by.
        return None


def _model_class(library: Any, name: object) -> Any:
    """A model of that name. The library has other names as well, and whatever it is would be called with a stranger's config."""
    found = getattr(library, name, None) if isinstance(name, str) else None
    return found if isinstance(found, type) and issubclass(found, library.PreTrainedModel) else None


def _parts(
    sources: Sequence[tuple[str, str | None]],
    *,
    by_pattern: Mapping[str, Any],
    base: Checkpoint,
    shape: tuple[int, ...],
) -> tuple[DiskPart, ...]:
    """Where the tensors of one parameter go; empty when it is not known."""
    converted = [pattern for _, pattern in sources if pattern is not None]
    if not converted:
        return (DiskPart(name=sources[0][0]),) if len(sources) == 1 else ()
    if len(converted) != len(sources):
        return ()
    converter = by_pattern[converted[0]]
    kinds = [type(entry).__name__ for entry in converter.operations]
    if kinds == ["Transpose"] and len(sources) == 1:
        return _turned(sources[0][0], converter.operations[0], base=base, shape=shape)
    dims = [getattr(entry, "dim", None) for entry in converter.operations]
    if (kinds, dims) not in ((["MergeModulelist"], [0]), (["MergeModulelist", "Concatenate"], [0, 1])):
        return ()
    if len(converter.target_patterns) != 1:
        return ()
    return _stacked(sources, order=converter.source_patterns, base=base)


def _turned(name: str, operation: Any, *, base: Checkpoint, shape: tuple[int, ...]) -> tuple[DiskPart, ...]:
    """Stacked experts that may lie the other way round on disk. transformers asks the shape, which squares do not answer."""
    if (operation.dim0, operation.dim1) not in ((1, 2), (2, 1)) or len(shape) != 3:
        return ()
    if not operation.check_dims:
        return (DiskPart(name=name, turned=True),)
    return (DiskPart(name=name, turned=base.entry(name).shape != shape),)


def _stacked(
    sources: Sequence[tuple[str, str | None]], *, order: Sequence[str], base: Checkpoint
) -> tuple[DiskPart, ...]:
    """Experts in the order of their numbers, each the projections in the order of the conversion's patterns."""
    from transformers.core_model_loading import dot_natural_key  # noqa: PLC0415 (torch and more)

    found = []
    start = 0
    for pattern in order:
        names = sorted((name for name, matched in sources if matched == pattern), key=dot_natural_key)
        heights = {base.entry(name).shape[0] for name in names}
        if len(heights) != 1:
            return ()
        stop = start + heights.pop()
        found += [DiskPart(name=name, expert=expert, start=start, stop=stop) for expert, name in enumerate(names)]
        start = stop
    return tuple(found)
