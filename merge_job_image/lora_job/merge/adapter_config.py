"""adapter_config.json by allow-list: a field that could change the mathematics is understood or refused, never ignored."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lora_job.merge.patterns import Budget, Patterns
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.strict_json import read_object

__all__ = ["AdapterConfig", "read_adapter_config"]

CONFIG = "adapter_config.json"
LARGEST_ALPHA = 1e30
"""Above it not even float32 holds what comes out."""
_EMPTY: tuple[object, ...] = (None, False, [], {}, "")

# How it was trained, or which modules were meant: the tensors' names say what there really is.
HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_dropout",
        "lora_ga_config",
        "megatron_config",
        "megatron_core",
        "modules_to_save",
        "monteclora_config",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "velora_config",
    }
)
UNDERSTOOD = frozenset(
    {
        "r",
        "lora_alpha",
        "rank_pattern",
        "alpha_pattern",
        "use_rslora",
        "use_dora",
        "lora_bias",
        "trainable_token_indices",
        "ensure_weight_tying",
        "target_parameters",
        "bias",
    }
)
# With any value but an empty one these make something that W + s·B·A is not.
REFUSED: Mapping[str, str] = {
    "alora_invocation_tokens": "aLoRA acts only after its invocation tokens and cannot be merged",
    "arrow_config": "Arrow routes between adapters while it runs and cannot be merged",
    "kasa_config": "KaSA is another decomposition",
    "layer_replication": "layer replication makes a model of another depth",
    "loftq_config": "LoftQ changed the base; merge into the base that was saved with the adapter",
    "use_bdlora": "BD-LoRA's block-diagonal factors are another decomposition",
    "use_qalora": "QA-LoRA groups the inputs and merges only into a quantized base",
}
# The adapter is relative to the base that these initialisations left behind, not to the published one.
CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "lora-ga")
Number = TypeVar("Number", int, float)
Parse = Callable[[Path, str, object], Number]


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What of the config takes part in the mathematics."""

    path: Path
    rank: int
    alpha: float
    rank_pattern: Patterns[int]
    alpha_pattern: Patterns[float]
    use_rslora: bool
    use_dora: bool
    token_indices: Mapping[str, tuple[int, ...]]
    """By module name; the key "" holds a plain list, which means the input embedding."""
    saved_modules: tuple[str, ...]
    """modules_to_save: whole modules that were trained beside the factors."""
    target_parameters: tuple[str, ...]
    """Ends of the names of parameters that were trained without a module of their own: stacked experts."""
    ensures_tying: bool
    """ensure_weight_tying: embedding and head stayed one tensor in training."""
    trains_biases: bool
    """bias: biases of the base were trained with the factors."""
    base_name: str
    peft_version: str

    def rank_of(self, module: str) -> int:
        """The module's own rank: the first matching pattern in file order, otherwise `r`."""
        return self.rank_pattern.of(module, default=self.rank)

    def scale_of(self, module: str, *, rank: int) -> float:
        """α/r, or α/√r for rank-stabilised LoRA, with the module's own α and r."""
        alpha = self.alpha_pattern.of(module, default=self.alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def _malformed(path: Path, what: str) -> Refused:
    return Refused(Reason.MALFORMED_ADAPTER_CONFIG, f"{path}: {what}")


def _rank(path: Path, field: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise _malformed(path, f"field {field!r}: expected a whole number above 0, found {value!r}")
    return value


def _alpha(path: Path, field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < LARGEST_ALPHA:
        raise Refused(Reason.INVALID_ALPHA, f"{path}: field {field!r}: expected a number above 0, found {value!r}")
    return float(value)


def _flag(path: Path, raw: Mapping[str, Any], field: str) -> bool:
    value = raw.get(field)
    if value is not None and not isinstance(value, bool):
        raise _malformed(path, f"field {field!r}: expected true or false, found {value!r}")
    return bool(value)


def _numbers(path: Path, raw: Mapping[str, Any], field: str, *, parse: Parse[Number]) -> dict[str, Number]:
    value = raw.get(field) or {}
    if not isinstance(value, dict):
        raise _malformed(path, f"field {field!r}: expected an object of patterns, found {type(value).__name__}")
    return {key: parse(path, f"{field}.{key}", number) for key, number in value.items()}


def _indices(path: Path, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(
        isinstance(index, int) and not isinstance(index, bool) and index >= 0 for index in value
    ):
        raise _malformed(path, f"field 'trainable_token_indices': expected token numbers, found {value!r}")
    if len(set(value)) != len(value):
        raise Refused(Reason.TOKEN_INDEX, f"{path}: field 'trainable_token_indices': a token is named twice")
    return tuple(value)


def _token_indices(path: Path, value: object) -> Mapping[str, tuple[int, ...]]:
    if value in (None, [], {}):
        return {}
    if isinstance(value, dict):
        return {str(module): _indices(path, indices) for module, indices in value.items()}
    return {"": _indices(path, value)}


def _text(path: Path, raw: Mapping[str, Any], field: str) -> str:
    value = raw.get(field)
    if value is not None and not isinstance(value, str):
        raise _malformed(path, f"field {field!r}: expected a string, found {value!r}")
    return value or ""


def _names(path: Path, raw: Mapping[str, Any], field: str) -> tuple[str, ...]:
    value = raw.get(field)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _malformed(path, f"field {field!r}: expected a list of names, found {value!r}")
    return tuple(value)


def _check_fields(path: Path, raw: Mapping[str, Any]) -> None:
    if raw.get("peft_type") != "LORA":
        raise Refused(
            Reason.UNSUPPORTED_ADAPTER, f"{path}: field 'peft_type': expected LORA, found {raw.get('peft_type')!r}"
        )
    for field, value in raw.items():
        if field in REFUSED and value not in _EMPTY:
            raise Refused(Reason.UNSUPPORTED_ADAPTER, f"{path}: field {field!r} is set: {REFUSED[field]}")
        if field not in HARMLESS | UNDERSTOOD | set(REFUSED) and value not in _EMPTY:
            raise Refused(
                Reason.UNSUPPORTED_ADAPTER,
                f"{path}: field {field!r} = {value!r} is not known here and may change the mathematics; "
                "remove it if it does not",
            )
    start = raw.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGED_BASE):
        raise Refused(
            Reason.UNSUPPORTED_ADAPTER,
            f"{path}: field 'init_lora_weights': {start} changed the base before training; "
            "save the adapter converted to plain LoRA (path_initial_model_for_weight_conversion)",
        )


def read_adapter_config(root: Path) -> AdapterConfig:
    """The config of an adapter directory."""
    path = root / CONFIG
    if not path.is_file():
        raise Refused(
            Reason.SOURCE_NOT_FOUND, f"{path}: missing; expected an adapter as PEFT's save_pretrained writes it"
        )
    raw = read_object(path, reason=Reason.MALFORMED_ADAPTER_CONFIG)
    _check_fields(path, raw)
    if "lora_alpha" not in raw:
        raise Refused(Reason.INVALID_ALPHA, f"{path}: field 'lora_alpha' is missing: the scale α/r cannot be known")
    budget = Budget(path)
    ranks = _numbers(path, raw, "rank_pattern", parse=_rank)
    alphas = _numbers(path, raw, "alpha_pattern", parse=_alpha)
    return AdapterConfig(
        path=path,
        rank=_rank(path, "r", raw.get("r")),
        alpha=_alpha(path, "lora_alpha", raw["lora_alpha"]),
        rank_pattern=Patterns(path, "rank_pattern", ranks, budget=budget),
        alpha_pattern=Patterns(path, "alpha_pattern", alphas, budget=budget),
        use_rslora=_flag(path, raw, "use_rslora"),
        use_dora=_flag(path, raw, "use_dora"),
        token_indices=_token_indices(path, raw.get("trainable_token_indices")),
        saved_modules=_names(path, raw, "modules_to_save"),
        target_parameters=_names(path, raw, "target_parameters"),
        ensures_tying=_flag(path, raw, "ensure_weight_tying"),
        trains_biases=raw.get("bias") not in (None, "none"),
        base_name=_text(path, raw, "base_model_name_or_path"),
        peft_version=_text(path, raw, "peft_version"),
    )
