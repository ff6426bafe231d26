"""config.json of a model: what plan, figures and serving need from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.strict_json import read_object

__all__ = ["ModelConfig", "ServingFigures", "read_config", "serving_figures"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A parsed config.json; `text` is its text_config where it has one, else itself."""

    raw: Mapping[str, Any]
    text: Mapping[str, Any]
    model_type: str

    @property
    def stated_tie(self) -> bool | None:
        """What the file says of lm_head being the input embedding; None when it says nothing."""
        value = self.raw.get("tie_word_embeddings", self.text.get("tie_word_embeddings"))
        return None if value is None else bool(value)

    @property
    def tied(self) -> bool:
        """Whether lm_head is the input embedding. transformers' default is True where the file says nothing."""
        return self.stated_tie is not False


@dataclass(frozen=True, kw_only=True)
class ServingFigures:
    """What an operator needs to know before it starts a pod."""

    weights_bytes: int
    kv_bytes_per_token: int
    max_position_embeddings: int

    def as_json(self) -> dict[str, int]:
        return {
            "weightsBytes": self.weights_bytes,
            "kvBytesPerToken": self.kv_bytes_per_token,
            "maxPositionEmbeddings": self.max_position_embeddings,
        }


def read_config(root: Path) -> ModelConfig:
    """The config of a model directory; refused when it is missing or names no architecture."""
    path = root / "config.json"
    raw = read_object(path, reason=Reason.MALFORMED_CONFIG)
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise Refused(Reason.MALFORMED_CONFIG, f"{path}: field 'model_type': expected a string, found {model_type!r}")
    text = raw.get("text_config")
    if text is not None and not isinstance(text, dict):
        raise Refused(Reason.MALFORMED_CONFIG, f"{path}: field 'text_config': expected an object, found {text!r}")
    return ModelConfig(raw=raw, text=raw if text is None else text, model_type=model_type)


def _first(config: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0


def serving_figures(config: ModelConfig, *, weights_bytes: int, cache_bytes: int = 2) -> ServingFigures:
    """Cache per token = 2 · layers · key-value heads · head size · bytes; 0 where the config does not tell."""
    text = config.text
    layers = _first(text, "num_hidden_layers", "n_layer", "num_layers")
    heads = _first(text, "num_attention_heads", "n_head")
    hidden = _first(text, "hidden_size", "n_embd", "d_model")
    kv_heads = _first(text, "num_key_value_heads") or heads
    head_size = _first(text, "head_dim") or (hidden // heads if heads else 0)
    return ServingFigures(
        weights_bytes=weights_bytes,
        kv_bytes_per_token=2 * layers * kv_heads * head_size * cache_bytes,
        max_position_embeddings=_first(text, "max_position_embeddings", "n_positions", "n_ctx"),
    )
