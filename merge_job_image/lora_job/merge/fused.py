"""Experts that are one parameter in memory (`target_parameters`): which parameter, which layout, which tensors on disk.

PEFT wraps a module once for each targeted parameter, in the model's own order, so that the last one is outermost:

    experts.base_layer.lora_A   gate_up_proj          experts.lora_A   down_proj          (both targeted)
    experts.lora_A              the one targeted

A is [experts · rank, in], B is [out, rank · experts]. Since PEFT 0.19 in and out are the layer's, whichever way the parameter is stored;
before, they were the parameter's second and third dimension. Square parameters cannot tell, so the version that wrote them has to.
"""

import re
from collections.abc import Iterator

from lora_job.merge.adapter import Adapter
from lora_job.merge.in_memory import DiskPart, InMemory
from lora_job.merge.plan import ExpertPart, Geometry, Term
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.tensors import Entry

__all__ = ["FusedTarget", "fused_target", "fused_terms", "split_wrappers"]

_WRAPPER = ".base_layer"
_OTHER_WAY = {
    Geometry.EXPERTS: Geometry.EXPERTS_TRANSPOSED,
    Geometry.EXPERTS_TRANSPOSED: Geometry.EXPERTS,
}
LAYER_ORDER_SINCE = (0, 19)


class FusedTarget:
    """A parameter of stacked experts that an adapter's module changes."""

    def __init__(self, *, parameter: str, memory: InMemory) -> None:
        self.parameter = parameter
        self.shape = memory.shapes[parameter]
        self.transposed = parameter.rpartition(".")[0] in memory.transposed
        self.parts = memory.parts.get(parameter, ())


def split_wrappers(module: str) -> tuple[str, int]:
    """(module, how many wrappers lie around this one)."""
    depth = 0
    while module.endswith(_WRAPPER):
        module, depth = module.removesuffix(_WRAPPER), depth + 1
    return module, depth


def fused_target(adapter: Adapter, module: str, *, memory: InMemory | None) -> FusedTarget | None:
    """The parameter a module of an adapter means; None when there are no stacked experts of that name."""
    owner, depth = split_wrappers(module)
    if memory is None:
        return None
    stacked = [name for name, shape in memory.shapes.items() if name.rpartition(".")[0] == owner and len(shape) == 3]
    if not stacked:
        return None
    wrappers = 1 + max(inner for name in adapter.modules for found, inner in [split_wrappers(name)] if found == owner)
    chosen = stacked
    if wrappers != len(stacked):
        named = adapter.config.target_parameters
        chosen = [name for name in stacked if any(name == one or name.endswith(f".{one}") for one in named)]
    if wrappers != len(chosen):
        raise Refused(
            Reason.UNSUPPORTED_ADAPTER,
            f"{adapter.where}: module {owner}: {wrappers} of its parameters {', '.join(stacked)} were trained, and "
            f"target_parameters in {adapter.config.path.name} does not say which; name them there",
        )
    return FusedTarget(parameter=chosen[wrappers - 1 - depth], memory=memory)


def _geometry(adapter: Adapter, target: FusedTarget) -> Geometry:
    version = re.match(r"(\d+)\.(\d+)", adapter.config.peft_version)
    if version is None:
        raise Refused(
            Reason.UNSUPPORTED_ADAPTER,
            f"{adapter.config.path}: field 'peft_version' is missing: how the factors of {target.parameter} are laid out "
            "depends on it; write there the version of PEFT that saved the adapter",
        )
    layers_own = (int(version[1]), int(version[2])) >= LAYER_ORDER_SINCE
    return Geometry.EXPERTS if layers_own and not target.transposed else Geometry.EXPERTS_TRANSPOSED


def fused_terms(
    adapter: Adapter, target: FusedTarget, *, a: Entry, b: Entry, index: int, coefficient: float
) -> Iterator[tuple[str, Term]]:
    """(tensor on disk, its term)."""
    geometry = _geometry(adapter, target)
    rank = adapter.config.rank_of(target.parameter)
    experts, second, third = target.shape
    inputs, outputs = (third, second) if geometry is Geometry.EXPERTS else (second, third)
    for entry, shape in ((a, (experts * rank, inputs)), (b, (outputs, rank * experts))):
        if entry.shape != shape:
            raise Refused(
                Reason.SHAPE_MISMATCH,
                f"{adapter.where}: tensor {entry.name!r} has shape {list(entry.shape)}; {target.parameter} of {experts} experts "
                f"[{second}, {third}] needs {list(shape)} at rank {rank} (PEFT {adapter.config.peft_version})",
            )
    if not target.parts:
        raise Refused(
            Reason.UNSUPPORTED_ADAPTER,
            f"{adapter.where}: {target.parameter} is made from the base's tensors in a way that a delta cannot follow; "
            "save the base with the installed transformers first",
        )
    for part in target.parts:
        yield (
            part.name,
            Term(
                adapter=index,
                a=a.name,
                b=b.name,
                rank=rank,
                scale=adapter.config.scale_of(target.parameter, rank=rank),
                coefficient=coefficient,
                geometry=_OTHER_WAY[geometry] if part.turned else geometry,
                experts=experts,
                part=_rows_of(part),
            ),
        )


def _rows_of(part: DiskPart) -> ExpertPart | None:
    return None if part.expert is None else ExpertPart(expert=part.expert, start=part.start, stop=part.stop)
