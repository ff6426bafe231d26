"""Parsers under fire. Every target takes any bytes; only a refusal or an infrastructure error may come out, soon, and what is accepted
must be what the safetensors package reads too.
"""

import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from safetensors import safe_open

from lora_job.merge.adapter_config import read_adapter_config
from lora_job.outcome import Ended
from lora_job.tensors import Header, read_checkpoint, read_header
from tests.fuzz.seeds import ADAPTER, BASE, MODULES, as_file

__all__ = ["TARGETS", "Slow", "WronglyAccepted", "attack", "load", "prepare"]

SECONDS = 2.0
"""Of processor time, per input."""


class WronglyAccepted(Exception):
    """Accepted, and another reader sees something else."""


class Slow(Exception):
    """One input took longer than anybody should wait for a refusal."""


def prepare(root: Path) -> None:
    """The good files that the targets replace one of."""
    for name, files in (("base", BASE), ("adapter", ADAPTER)):
        (root / name).mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (root / name / file).write_bytes(content)


def _check_same(header: Header) -> None:
    """The second opinion: the same tensors, shapes and dtypes."""
    ours = {entry.name: (list(entry.shape), entry.dtype) for entry in header.entries}
    try:
        with safe_open(header.path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            theirs = {name: (list(one.get_shape()), one.get_dtype()) for name, one in slices.items()}
    except Exception as error:
        raise WronglyAccepted(f"safetensors refuses it: {error}") from error
    if ours != theirs:
        raise WronglyAccepted(f"ours {ours}, theirs {theirs}")


def weights(data: bytes, root: Path) -> None:
    path = root / "fuzzed.safetensors"
    path.write_bytes(as_file(data))
    _check_same(read_header(path))


def index(data: bytes, root: Path) -> None:
    (root / "base" / "model.safetensors.index.json").write_bytes(data)
    checkpoint = read_checkpoint(root / "base")
    for header in checkpoint.shards.values():
        if header.path.resolve().parent != (root / "base").resolve():
            raise WronglyAccepted(f"{header.path} is outside of the directory")
    held = {entry.name for header in checkpoint.shards.values() for entry in header.entries}
    if held != set(checkpoint.file_of):
        raise WronglyAccepted(f"the shards hold {held}, the index names {set(checkpoint.file_of)}")


def adapter_config(data: bytes, root: Path) -> None:
    (root / "adapter" / "adapter_config.json").write_bytes(data)
    config = read_adapter_config(root / "adapter")
    for module in MODULES:
        rank = config.rank_of(module)
        if not (rank > 0 and config.scale_of(module, rank=2) > 0):
            raise WronglyAccepted(f"{module}: rank {rank}, scale {config.scale_of(module, rank=2)}")


def inspect(data: bytes, root: Path) -> None:
    """`lora-job inspect` on directories of which one file was replaced."""
    # Slow to import, and only this target needs the engine: `load` was here before.
    from lora_job.merge.pipeline import MergeRequest, inspect_sources  # noqa: PLC0415
    from lora_job.merge.recipe import Recipe  # noqa: PLC0415

    places = [*(root / "base" / name for name in BASE), *(root / "adapter" / name for name in ADAPTER)]
    place = places[data[0] % len(places)] if data else places[0]
    good = place.read_bytes()
    place.write_bytes(data[1:])
    try:
        request = MergeRequest(base=root / "base", adapters=(root / "adapter",), recipe=Recipe())
        inspected = inspect_sources(request)
        for header in (*inspected.base.shards.values(), inspected.adapters[0].header):
            _check_same(header)
        names = [step.name for step in inspected.plan.steps]
        if len(names) != len(set(names)) or not set(inspected.base.file_of) <= set(names):
            raise WronglyAccepted(f"not every tensor of the base comes out once: {names}")
        if not inspected.plan.digest:
            raise WronglyAccepted("a plan without a digest")
    finally:
        place.write_bytes(good)


TARGETS: Mapping[str, Callable[[bytes, Path], None]] = {
    "weights": weights,
    "index": index,
    "adapter_config": adapter_config,
    "inspect": inspect,
}


@cache
def load(target: str) -> None:
    """Imports what a target needs: seconds once, for torch and transformers, that no input is to be charged with."""
    if target != "inspect":
        return
    import transformers  # noqa: PLC0415
    import transformers.conversion_mapping  # noqa: PLC0415
    import transformers.core_model_loading  # noqa: PLC0415

    import lora_job.merge.pipeline  # noqa: F401, PLC0415
    from lora_job.merge.in_memory import ties_by_default  # noqa: PLC0415

    ties_by_default("llama")
    _ = transformers.LlamaForCausalLM, transformers.AutoModelForCausalLM


def attack(target: str, data: bytes, *, root: Path) -> bool:
    """One input; whether it was accepted. Anything but a refusal passes through as the error it is."""
    load(target)
    started = time.process_time()
    try:
        TARGETS[target](data, root)
        accepted = True
    except Ended:
        accepted = False
    if time.process_time() - started > SECONDS:
        raise Slow(f"{target}: {time.process_time() - started:.1f} s")
    return accepted
