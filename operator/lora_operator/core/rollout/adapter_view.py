"""What a rollout needs to know of a LoRAAdapter: whether it may be served, where it lies, what it must answer.

Read from the stored object, status included; the adapter's own state machine lives in core/adapter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_operator.api.conditions import condition_of

__all__ = ["AdapterView", "view_adapter"]

HARD_GATES = frozenset({"artifact", "finite", "fidelity"})
_PASSED = frozenset({"PASS", "WARN"})
_SCHEME = "pvc://"


@dataclass(frozen=True)
class AdapterView:
    """A LoRAAdapter from the outside."""

    name: str
    ready: bool
    phase: str
    reason: str
    message: str
    digest: str  # empty: nothing is published
    claim: str
    path: str
    quantization: str
    serving: Mapping[str, Any]
    probes: tuple[Mapping[str, Any], ...]
    failed_hard: tuple[str, ...]  # hard gates that did not pass
    failed_soft: tuple[str, ...]  # gates that forceDeploy may override

    @property
    def weights_bytes(self) -> int:
        """Size of the weights; 0 when unknown."""
        return int(self.serving.get("weightsBytes") or 0)


def view_adapter(raw: Mapping[str, Any]) -> AdapterView:
    """The view of a raw LoRAAdapter. A Ready of an older generation is not yet a Ready of this one."""
    meta, status = raw["metadata"], raw.get("status") or {}
    ready = condition_of(status.get("conditions") or (), type="Ready") or {}
    artifact = status.get("artifact") or {}
    validation = status.get("validation") or {}
    claim, _, path = str(artifact.get("uri", "")).removeprefix(_SCHEME).partition("/")
    failed = [str(g["name"]) for g in validation.get("gates") or () if str(g.get("status", "")).upper() not in _PASSED]
    current = ready.get("observedGeneration", meta.get("generation")) == meta.get("generation")
    return AdapterView(
        name=meta["name"],
        ready=ready.get("status") == "True" and current and bool(artifact.get("digest")),
        phase=str(status.get("phase", "Pending")),
        reason=str(ready.get("reason", "")),
        message=str(ready.get("message", "")),
        digest=str(artifact.get("digest", "")),
        claim=claim,
        path=path,
        quantization=str(artifact.get("quantization", "None")),
        serving=artifact.get("serving") or {},
        probes=tuple(validation.get("probes") or ()),
        failed_hard=tuple(name for name in failed if name in HARD_GATES),
        failed_soft=tuple(name for name in failed if name not in HARD_GATES),
    )
