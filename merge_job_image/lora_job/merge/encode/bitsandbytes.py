"""`quantization_config` as transformers writes it for models that bitsandbytes quantized."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_job.merge.rounding import TORCH

__all__ = ["bnb_settings"]


def bnb_settings(*, bits: int, skipped: Sequence[str], dtype: str) -> Mapping[str, Any]:
    """Every field is written: a default of a later version must not change how these weights are read."""
    four = bits == 4
    return {
        "_load_in_4bit": four,
        "_load_in_8bit": not four,
        "bnb_4bit_compute_dtype": str(TORCH[dtype]).removeprefix("torch.") if four else "float32",
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": "nf4" if four else "fp4",
        "bnb_4bit_use_double_quant": four,
        "llm_int8_enable_fp32_cpu_offload": False,
        "llm_int8_has_fp16_weight": False,
        "llm_int8_skip_modules": list(skipped),
        "llm_int8_threshold": 6.0,
        "load_in_4bit": four,
        "load_in_8bit": not four,
        "quant_method": "bitsandbytes",
    }
