"""A LoRAAdapter as it is read (resource.py says what a view is)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_client.resource import Resource

__all__ = ["Adapter", "Gate"]


@dataclass(frozen=True)
class Gate:
    """One gate of a validation. `observed` and `threshold` are None where the gate compares no number."""

    name: str
    kind: str
    status: str
    observed: float | None
    threshold: float | None


@dataclass(frozen=True)
class Adapter(Resource):
    """A LoRAAdapter."""

    @property
    def digest(self) -> str:
        """Digest of the published artifact; empty before."""
        return str((self.status.get("artifact") or {}).get("digest", ""))

    @property
    def artifact_uri(self) -> str:
        """`pvc://<claim>/<path>` of the published artifact; empty before."""
        return str((self.status.get("artifact") or {}).get("uri", ""))

    @property
    def validation(self) -> Mapping[str, Any]:
        """status.validation: id, overallScore, grade, dimensions, gates, recommendations, probes, reportUri."""
        return self.status.get("validation") or {}

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The gates of the last validation."""
        return tuple(
            Gate(
                name=str(one.get("name", "")),
                kind=str(one.get("kind", "")),
                status=str(one.get("status", "")),
                observed=one.get("observed"),
                threshold=one.get("threshold"),
            )
            for one in self.validation.get("gates") or ()
        )

    @property
    def score(self) -> float | None:
        """Overall validation score, 0 to 1; None before it was validated."""
        return self.validation.get("overallScore")

    @property
    def grade(self) -> str:
        """excellent, good, fair, poor; empty before it was validated."""
        return str(self.validation.get("grade", ""))

    def job(self, stage: str) -> str:
        """Name of the Job of stage `merge` or `validate`; empty when none was started."""
        return str(((self.status.get("jobs") or {}).get(stage) or {}).get("name", ""))
