"""An adapter directory: what each of its tensors is, told from its name alone. Headers only, no weight is read here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from lora_job.files import inside
from lora_job.merge.adapter_config import AdapterConfig, read_adapter_config
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.tensors import FLOATS, PICKLES, Entry, Header, read_header

__all__ = ["WEIGHTS", "Adapter", "Part", "read_adapter"]

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
# A saved module may have modules of its own: `mlp.modules_to_save.default.up_proj.weight`.
_SAVED = re.compile(r"\.modules_to_save(\.default)?(?=\.)")


class Part(StrEnum):
    """What a tensor of an adapter is for its module."""

    A = "lora_A"
    B = "lora_B"
    B_BIAS = "lora_B.bias"
    EMBEDDING_A = "lora_embedding_A"
    EMBEDDING_B = "lora_embedding_B"
    MAGNITUDE = "lora_magnitude_vector"
    TOKEN_ROWS = "trainable_tokens_delta"  # noqa: S105 (rows of a vocabulary)
    BASE_WEIGHT = "base_layer.weight"
    BASE_BIAS = "base_layer.bias"
    WEIGHT = "weight"
    BIAS = "bias"
    ORIGINAL = "original_module"


# In this order: the first pattern that matches the end of the name decides.
_PARTS: tuple[tuple[re.Pattern[str], Part], ...] = tuple(
    (re.compile(rf"^(?P<module>.+?)\.{pattern}$"), part)
    for pattern, part in (
        (r"original_module\..+", Part.ORIGINAL),
        (r"lora_A(\.default)?\.weight", Part.A),
        (r"lora_B(\.default)?\.weight", Part.B),
        (r"lora_B(\.default)?\.bias", Part.B_BIAS),
        (r"lora_embedding_A(\.default)?", Part.EMBEDDING_A),
        (r"lora_embedding_B(\.default)?", Part.EMBEDDING_B),
        (r"lora_magnitude_vector(\.default)?(\.weight)?", Part.MAGNITUDE),
        (r"(token_adapter\.)?trainable_tokens_delta(\.default)?", Part.TOKEN_ROWS),
        (r"(token_adapter\.)?base_layer\.weight", Part.BASE_WEIGHT),
        (r"base_layer\.bias", Part.BASE_BIAS),
        (r"weight", Part.WEIGHT),
        (r"bias", Part.BIAS),
    )
)


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A parsed adapter: parts by module, each a tensor of its file."""

    root: Path
    name: str
    config: AdapterConfig
    header: Header
    modules: Mapping[str, Mapping[Part, Entry]]
    warnings: tuple[str, ...] = field(default=())
    digest: str = ""
    """Of its directory; "" until somebody read all of it."""

    @property
    def where(self) -> Path:
        """The file of weights, for messages."""
        return self.header.path


def _module_and_part(path: Path, key: str) -> tuple[str, Part]:
    name = key
    while name.startswith(_PREFIX):
        name = name.removeprefix(_PREFIX)
    name = _SAVED.sub("", name)
    for pattern, part in _PARTS:
        match = pattern.match(name)
        if match:
            return match["module"], part
    raise Refused(Reason.UNMATCHED_KEYS, f"{path}: tensor {key!r}: not a name that PEFT gives a LoRA tensor")


def _grouped(header: Header) -> dict[str, dict[Part, Entry]]:
    modules: dict[str, dict[Part, Entry]] = {}
    for entry in header.entries:
        module, part = _module_and_part(header.path, entry.name)
        parts = modules.setdefault(module, {})
        if part in parts and part is not Part.ORIGINAL:
            if part is Part.WEIGHT and _same_saved_copy(parts[part], entry):
                # `X.weight` and `X.modules_to_save.weight` side by side: the second is the trained one.
                if "modules_to_save" in entry.name:
                    parts[part] = entry
                continue
            raise Refused(
                Reason.DUPLICATE_TARGET,
                f"{header.path}: tensors {parts[part].name!r} and {entry.name!r} both are {part} of {module}",
            )
        if part is not Part.ORIGINAL:
            if entry.dtype not in FLOATS:
                raise Refused(
                    Reason.MALFORMED_ADAPTER,
                    f"{header.path}: tensor {entry.name!r}: expected floats, found {entry.dtype}",
                )
            parts[part] = entry
    return {module: parts for module, parts in modules.items() if parts}


def _same_saved_copy(left: Entry, right: Entry) -> bool:
    return left.shape == right.shape and ("modules_to_save" in left.name) != ("modules_to_save" in right.name)


def _check_pairs(path: Path, modules: Mapping[str, Mapping[Part, Entry]]) -> None:
    for module, parts in modules.items():
        for one, other in ((Part.A, Part.B), (Part.EMBEDDING_A, Part.EMBEDDING_B)):
            if (one in parts) != (other in parts):
                have, lacks = (one, other) if one in parts else (other, one)
                raise Refused(Reason.MALFORMED_ADAPTER, f"{path}: module {module} has {have} but not {lacks}")
        if Part.A in parts and Part.EMBEDDING_A in parts:
            raise Refused(
                Reason.DUPLICATE_TARGET,
                f"{path}: module {module} has {Part.A} and {Part.EMBEDDING_A}; expected those of a linear layer or of an "
                "embedding, not both",
            )
        if Part.B_BIAS in parts and Part.B not in parts:
            raise Refused(Reason.MALFORMED_ADAPTER, f"{path}: module {module} has {Part.B_BIAS} but not {Part.B}")


def _check_magnitudes(path: Path, modules: Mapping[str, Mapping[Part, Entry]], *, use_dora: bool) -> None:
    for module, parts in modules.items():
        lora = Part.A in parts or Part.EMBEDDING_A in parts
        if Part.MAGNITUDE in parts and use_dora and not lora:
            raise Refused(
                Reason.MALFORMED_ADAPTER,
                f"{path}: module {module} has a {Part.MAGNITUDE} and no factors that it could be the length of; save the adapter again",
            )
        if lora and use_dora and Part.MAGNITUDE not in parts:
            raise Refused(
                Reason.MALFORMED_ADAPTER,
                f"{path}: module {module} has no {Part.MAGNITUDE} although the config says use_dora",
            )
        if Part.MAGNITUDE in parts and not use_dora:
            raise Refused(
                Reason.MALFORMED_ADAPTER,
                f"{path}: module {module} has a {Part.MAGNITUDE} although the config does not say use_dora",
            )


def read_adapter(root: Path, *, name: str = "") -> Adapter:
    """The adapter in a directory, or a refusal that names file and field or tensor."""
    config = read_adapter_config(root)
    path = root / WEIGHTS
    if not path.exists():
        pickle = next((name for name in sorted(found.name for found in root.iterdir()) if name.endswith(PICKLES)), None)
        if pickle is not None:
            raise Refused(
                Reason.PICKLES_ONLY,
                f"{root}: the adapter exists only as {pickle}, a pickle, which can run code; save it as safetensors",
            )
        raise Refused(Reason.SOURCE_NOT_FOUND, f"{path}: missing; expected the adapter's weights")
    inside(path, root=root)
    header = read_header(path)
    modules = _grouped(header)
    _check_pairs(path, modules)
    _check_magnitudes(path, modules, use_dora=config.use_dora)
    if not modules:
        raise Refused(Reason.UNMATCHED_KEYS, f"{path}: no tensor changes anything; is this the trained adapter?")
    return Adapter(root=root, name=name or root.name, config=config, header=header, modules=modules)
