"""Can the adapter be run over its base, switched on and off, to compare the merged model with?

PEFT writes trained biases and added tokens into the base itself, so that nothing is left to compare with; several adapters, and most
strategies, have no single live adapter.
"""

from lora_job.outcome import Refused
from lora_job.validate import fidelity
from lora_job.validate.logits import Live
from lora_job.validate.sources import Compared

__all__ = ["live_adapter"]


def live_adapter(compared: Compared) -> Live | None:
    """The adapter and its factor; None where there is no such one."""
    factor = compared.recipe.live_factor
    if compared.base is None or not compared.adapters or factor is None:
        return None
    try:
        expected = fidelity.expect(compared.base, compared.adapters, compared.recipe, digests=compared.adapter_digests)
    except Refused:
        # What does not fit the base cannot run on it either; the fidelity gate has said so.
        return None
    grew = any(name.endswith("vocab_size") for name in expected.plan.config_changes)
    if grew or expected.adapters[0].config.trains_biases:
        return None
    return Live(adapter=compared.adapters[0], factor=factor)
