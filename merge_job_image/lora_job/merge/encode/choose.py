"""Which tensors are quantized: the weights of Linear layers. Heads, embeddings, norms, routers, experts and what sees or hears stay.

Told by names on disk, because no model is built for a merge. A wrong guess would not load: tests compare the choice with the Linear
layers that transformers builds, for the architectures it has.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from lora_job.merge.architecture import HEADS, is_conv1d, names_in_memory
from lora_job.merge.encode.encoder import Encoder
from lora_job.merge.encode.formats import encoder_for
from lora_job.merge.plan import Plan, ShardPlan, Step, Warned
from lora_job.merge.recipe import Quantization, Recipe
from lora_job.model_config import ModelConfig
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.tensors import FLOATS

__all__ = ["quantized_plan"]

_WEIGHT = ".weight"
# The last part of a module's name.
_KEPT = re.compile(
    r"^(lm_head|embed_out|score|classifier|output_layer|gate|router|shared_expert_gate|wte|wpe|.*embed.*|.*norm.*|ln_.*)$"
)
# Any part of it.
_TOWER = re.compile(r"^(.*vision.*|.*visual.*|.*image.*|.*audio.*|.*speech.*|.*projector.*|connector|aligner)$")


def _candidate(step: Step, *, model_type: str) -> bool:
    """Whether this is the weight of a Linear layer that can be quantized."""
    if not step.name.endswith(_WEIGHT) or len(step.shape) != 2 or step.dtype not in FLOATS:
        return False
    module = step.name.removesuffix(_WEIGHT)
    parts = module.split(".")
    kept = _KEPT.match(parts[-1]) or any(_TOWER.match(part) for part in parts) or _is_expert(parts)
    return not kept and not is_conv1d(model_type, module)


def _is_expert(parts: Sequence[str]) -> bool:
    return "experts" in parts


def _encoded(step: Step, encoder: Encoder, *, quantization: Quantization) -> Step:
    return replace(
        step, encoding=str(quantization), encoded=encoder.stored(step.name, shape=step.shape, dtype=step.dtype)
    )


def _skipped(steps: Iterable[Step], *, model_type: str) -> list[str]:
    """Modules that a loader must leave alone, by every name they go by; a tied head has no tensor and is named all the same."""
    modules = [
        step.name.removesuffix(_WEIGHT)
        for step in steps
        if not step.encoding and step.name.endswith(_WEIGHT) and len(step.shape) == 2
    ]
    names = {spelling for module in modules for spelling in (module, *names_in_memory(model_type, module))}
    return sorted(names | {HEADS[0]})


def _warnings(steps: Sequence[Step], unfit: Sequence[Step], *, quantization: Quantization) -> list[Warned]:
    found = []
    experts = [step for step in steps if _is_expert(step.name.split(".")) and len(step.shape) > 1]
    if experts:
        message = f"{len(experts)} expert tensors ({experts[0].name}, …) stay {experts[0].dtype}: experts are not quantized yet"
        found.append(Warned(code="ExpertsNotQuantized", message=message))
    if unfit:
        message = (
            f"{len(unfit)} Linear layers stay as they are: {unfit[0].name} is {unfit[0].shape[1]} columns wide, "
            f"{quantization} needs a multiple of 32"
        )
        found.append(Warned(code="NotQuantized", message=message))
    return found


def _check_floats(steps: Sequence[Step]) -> None:
    """A base that is quantized already would be quantized twice, its scales once."""
    odd = next((step for step in steps if step.name.endswith(_WEIGHT) and step.dtype not in FLOATS), None)
    if odd is not None:
        raise Refused(
            Reason.QUANTIZED_BASE,
            f"tensor {odd.name}: expected floats, found {odd.dtype}: the base is quantized already; take the base before quantization",
        )


def quantized_plan(plan: Plan, *, config: ModelConfig, recipe: Recipe) -> Plan:
    """The plan with every Linear layer encoded, also those that no adapter touches; unchanged for `none`."""
    quantization = recipe.quantization
    if quantization is Quantization.NONE:
        return plan
    _check_floats(plan.steps)
    candidates = [step for step in plan.steps if _candidate(step, model_type=config.model_type)]
    encoder = encoder_for(quantization, widths={step.shape[1] for step in candidates})
    chosen = {step.name for step in candidates if encoder.fits(step.shape)}
    if not chosen:
        raise Refused(
            Reason.INVALID_OPTION,
            f"--quantization {quantization}: model type {config.model_type!r} has no Linear layer that can be stored in it; use none",
        )
    shards = tuple(
        ShardPlan(
            file=shard.file,
            steps=tuple(
                _encoded(step, encoder, quantization=quantization) if step.name in chosen else step
                for step in shard.steps
            ),
        )
        for shard in plan.shards
    )
    steps = [step for shard in shards for step in shard.steps]
    dtypes = {step.dtype for step in steps if step.encoding}
    settings = encoder.settings(
        skipped=_skipped(steps, model_type=config.model_type), dtype=dtypes.pop() if len(dtypes) == 1 else "BF16"
    )
    unfit = [step for step in candidates if step.name not in chosen]
    return Plan(
        shards=shards,
        config_changes={**plan.config_changes, "quantization_config": settings},
        warnings=(*plan.warnings, *_warnings(steps, unfit, quantization=quantization)),
    )
