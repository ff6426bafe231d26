"""What the formats of compressed-tensors share: scales in the model's dtype, and `quantization_config`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lora_job.merge.rounding import TORCH

__all__ = ["ct_settings", "rounded_scale"]


def rounded_scale(scale: torch.Tensor, *, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(as stored, the same number in float32).

    Weights are divided by the number that will be read, not by the one before its rounding. Never below the dtype's smallest normal
    number: that keeps 16-bit scales precise, and a row of zeros from being divided by zero.
    """
    kind = TORCH[dtype]
    stored = scale.clamp(min=torch.finfo(kind).tiny).to(kind)
    return stored, stored.to(torch.float32)


def ct_settings(
    *, layout: str, weights: Mapping[str, Any], inputs: Mapping[str, Any] | None, skipped: Sequence[str]
) -> Mapping[str, Any]:
    """One group for all Linear layers but the skipped ones."""
    group = {
        "targets": ["Linear"],
        "weights": dict(weights),
        "input_activations": None if inputs is None else dict(inputs),
        "output_activations": None,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": list(skipped),
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }
