"""Does the model fit the GPU? Told before a pod starts, with the numbers and the format that would fit.

    need = weights + KV cache of one full-length request + 1 GiB for the runtime
    have = memory of one GPU × GPUs per pod × the share the runtime takes (vLLM: 0.9)

Asked only where all of it is known: the pod asks for a GPU, the profile plans GPU memory, and the node's label says how
large the GPU is. A simulated or unlabelled GPU has no size, so nothing is claimed about it and nothing is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["MemoryPlan", "plan_memory"]

RUNTIME_BYTES = 1 << 30
SHORTEST_USEFUL = 1024
_ROUND = 256
# Bytes of the weights relative to 16 bits, embeddings and head left as they are: the largest of Llama 3.2 3B (0.56, 0.35), Qwen2.5 7B
# (0.57, 0.37), Llama 3.1 8B (0.57, 0.36) and Gemma 2 9B (0.55, 0.33), rounded up. In the order they are proposed: more bits first.
_RELATIVE = {"None": 1.0, "FP8Dynamic": 0.58, "BnbInt8": 0.58, "W4A16": 0.37, "BnbNF4": 0.37}
_GIB = float(1 << 30)


@dataclass(frozen=True)
class MemoryPlan:
    """`refusal` is empty when it fits; `max_model_len` None leaves the runtime's own choice."""

    max_model_len: int | None
    refusal: str = ""


def plan_memory(
    *,
    serving: Mapping[str, Any],
    quantization: str,
    gpu_memory_mib: int | None,
    gpus: int,
    utilization: float | None,
    wanted_len: int | None,
) -> MemoryPlan:
    """Context length that fits, or why none does.

    Args:
        serving: `status.artifact.serving` of the adapter: weightsBytes, kvBytesPerToken, maxPositionEmbeddings.
        quantization: format of the published weights.
        gpu_memory_mib: memory of one GPU; None when unknown.
        gpus: GPUs per pod.
        utilization: share of the GPU that the runtime takes; None when it plans no GPU memory.
        wanted_len: `spec.runtime.maxModelLen`; None leaves it to us.
    """
    weights, kv = int(serving.get("weightsBytes") or 0), int(serving.get("kvBytesPerToken") or 0)
    longest = int(serving.get("maxPositionEmbeddings") or 0)
    if gpu_memory_mib is None or gpus == 0 or utilization is None or not (weights and kv and longest):
        return MemoryPlan(max_model_len=wanted_len)
    have = int(gpu_memory_mib * (1 << 20) * gpus * utilization)
    room = (have - weights - RUNTIME_BYTES) // kv
    demanded = wanted_len or min(longest, SHORTEST_USEFUL)
    if room >= demanded:
        fitting = min(longest, room - room % _ROUND) if room < longest else longest
        return MemoryPlan(max_model_len=wanted_len or fitting)
    return MemoryPlan(
        max_model_len=None,
        refusal=_refusal(weights=weights, kv=kv, tokens=demanded, have=have, room=room, quantization=quantization),
    )


def _refusal(*, weights: int, kv: int, tokens: int, have: int, room: int, quantization: str) -> str:
    need = weights + kv * tokens + RUNTIME_BYTES
    sixteen_bit = weights / _RELATIVE.get(quantization, 1.0)
    fits = [
        name
        for name, share in _RELATIVE.items()
        if share < _RELATIVE.get(quantization, 1.0) and sixteen_bit * share + kv * tokens + RUNTIME_BYTES <= have
    ]
    ways = []
    if room >= SHORTEST_USEFUL:
        ways.append(f"lower runtime.maxModelLen to at most {room - room % _ROUND}")
    if fits:
        ways.append(f"build the adapter with quantization.format {fits[0]}")
    ways.append("use a larger GPU")
    return (
        f"needs {need / _GIB:.1f} GiB (weights {weights / _GIB:.1f}, KV cache of {tokens} tokens {kv * tokens / _GIB:.1f}, "
        f"runtime 1.0), the GPU gives {have / _GIB:.1f} GiB; " + " or ".join(ways)
    )
