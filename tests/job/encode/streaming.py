"""Merges and encoders as the tests of this folder drive them."""

from pathlib import Path

import torch

from lora_job.cli import run
from lora_job.merge.encode import begin
from lora_job.merge.encode.formats import encoder_for
from lora_job.merge.plan import Operation, Step
from lora_job.merge.recipe import Quantization
from tests.job.encode.conftest import Pair, Tensors


def merge(pair: Pair, output: Path, *options: str, weight: float = 1.0) -> Path:
    base, adapter = pair
    code = run(["merge", "--base", str(base), "--adapter", f"{adapter}={weight}", "--output", str(output), *options])
    assert code == 0
    return output


def encoded(weight: torch.Tensor, quantization: Quantization, *, rows: int, dtype: str = "F32") -> Tensors:
    """One tensor `x.weight`, fed some rows at a time; whatever its pieces leave out or write twice is an error."""
    shape = tuple(weight.shape)
    stored = encoder_for(quantization, widths={shape[1]}).stored("x.weight", shape=shape, dtype=dtype)
    step = Step(
        name="x.weight", operation=Operation.COPY, dtype=dtype, shape=shape, source="x.weight", source_dtype="F32",
        encoding=str(quantization), encoded=stored,
    )  # fmt: skip
    encoding = begin(step)
    pieces: dict[str, dict[int, torch.Tensor]] = {one.name: {} for one in stored}
    count = -(-rows // encoding.row_multiple) * encoding.row_multiple
    for start in range(0, shape[0], count):
        for piece in encoding.feed(weight[start : start + count], start=start):
            pieces[piece.tensor][piece.start] = piece.values.reshape(-1).clone()
    for piece in encoding.finish():
        pieces[piece.tensor][piece.start] = piece.values.reshape(-1)
    found = {}
    for one in stored:
        runs = sorted(pieces[one.name].items())
        ends = [start + len(values) for start, values in runs]
        assert [start for start, _ in runs] == [0, *ends[:-1]], f"{one.name}: a hole or an overlap"
        found[one.name] = torch.cat([values for _, values in runs]).view(one.shape)
    return found


def drawn(rows: int, columns: int, *, scale: float = 0.1) -> torch.Tensor:
    return torch.randn((rows, columns), generator=torch.Generator().manual_seed(rows * 1000 + columns)) * scale
