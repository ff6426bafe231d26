"""How a build or a rollout stands: still going, done well, or over in a way that an exit code tells. Pure.

0  it serves (or may be served)         2  bad input: the same input will be refused again
1  infrastructure: worth another try    3  a gate failed, or the rollout was rolled back
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_client.names import LABEL_CANCELLED
from loractl.columns import one_line
from loractl.objects import (
    condition_is,
    kind_of,
    label,
    message_of,
    name_of,
    reason_of,
    seen_by_operator,
    status_of,
)

__all__ = [
    "BAD_INPUT",
    "GATE",
    "INFRASTRUCTURE",
    "OK",
    "Verdict",
    "verdict_of_adapter",
    "verdict_of_pair",
]

Raw = Mapping[str, Any]
OK, INFRASTRUCTURE, BAD_INPUT, GATE = 0, 1, 2, 3
_STILL = frozenset({"Pending", "Stable", "Suspended"})  # phases in which nothing of a cancelled workflow moves any more
_WORTH_A_RETRY = frozenset(
    {"RetriesSpent", "DeadlineExceeded", "BadResult", "NoSpace", "OutOfMemory", "JobFailed", "Forbidden", "Retrying"}
)


@dataclass(frozen=True)
class Verdict:
    """`exit_code` None: still going."""

    exit_code: int | None
    sentence: str

    @property
    def over(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.exit_code is not None


def verdict_of_adapter(raw: Raw) -> Verdict:
    """How a LoRAAdapter stands."""
    return _common(raw) or _ended(raw, given_up=status_of(raw).get("phase") == "Rejected")


def verdict_of_pair(deployment: Raw | None, adapter: Raw | None) -> Verdict:
    """How a LoRADeployment stands, with the adapter it names; either may be missing."""
    if deployment is None:
        return Verdict(None, "there is nothing") if adapter is None else verdict_of_adapter(adapter)
    given_up = status_of(deployment).get("phase") == "Aborted"
    if given_up and seen_by_operator(deployment):
        return _ended(deployment, given_up=True)
    waits = reason_of(deployment) == "AdapterNotReady" and adapter is not None
    found = _common(deployment)
    if found is None and waits and adapter is not None and name_of(adapter) == _adapter_name(deployment):
        cause = verdict_of_adapter(adapter)
        return Verdict(None if cause.exit_code == OK else cause.exit_code, cause.sentence)
    return found or _ended(deployment, given_up=False)


def _common(raw: Raw) -> Verdict | None:
    """What both kinds share; None: it depends on the phase."""
    name = f"{kind_of(raw)} {name_of(raw)}"
    if not seen_by_operator(raw):
        return Verdict(None, f"{name}: the operator has not looked at it yet")
    if condition_is(raw, "Ready"):
        return Verdict(OK, f"{name} is Ready: {one_line(message_of(raw))}")
    if label(raw, LABEL_CANCELLED) == "true" and status_of(raw).get("phase") in _STILL:
        return Verdict(INFRASTRUCTURE, f"{name}: the workflow was cancelled")
    return None


def _ended(raw: Raw, *, given_up: bool) -> Verdict:
    phase, reason = str(status_of(raw).get("phase", "")), reason_of(raw)
    said = f"{kind_of(raw)} {name_of(raw)} is {phase} ({reason}): {one_line(message_of(raw))}"
    if given_up:
        return Verdict(GATE, said)
    if condition_is(raw, "Stalled"):
        return Verdict(INFRASTRUCTURE if reason in _WORTH_A_RETRY else BAD_INPUT, said)
    return Verdict(None, said)


def _adapter_name(deployment: Raw) -> str:
    return str((deployment.get("spec", {}).get("adapterRef") or {}).get("name", ""))
