"""Bytes of the weights that a merge will write: the base's, unless the recipe stores them in another dtype or quantized."""

from collections.abc import Sequence
from pathlib import Path

from lora_job.merge.recipe import OutputDtype, Quantization, Recipe
from lora_job.model_config import read_config
from lora_job.tensors import read_checkpoint

__all__ = ["output_bytes"]


def output_bytes(base: Path, adapters: Sequence[Path], *, dtype: OutputDtype, quantization: Quantization) -> int:
    """From the plan where the recipe changes the size; what a merge would refuse is refused here already."""
    checkpoint = read_checkpoint(base)
    if (dtype, quantization) == (OutputDtype.AUTO, Quantization.NONE):
        return checkpoint.data_bytes
    # Encoders need torch, which takes seconds to load and is not needed otherwise.
    from lora_job.merge.adapter import read_adapter  # noqa: PLC0415
    from lora_job.merge.build_plan import build_plan  # noqa: PLC0415
    from lora_job.merge.encode import quantized_plan  # noqa: PLC0415

    recipe = Recipe(dtype=dtype, quantization=quantization, weights=(1.0,) * len(adapters))
    config = read_config(base)
    read = tuple(read_adapter(path) for path in adapters)
    plan = build_plan(base=checkpoint, config=config, adapters=read, recipe=recipe)
    return quantized_plan(plan, config=config, recipe=recipe).data_bytes
