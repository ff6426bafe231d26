"""A revision with a part in the rollout: the one that serves, the one on its way, the one that served before."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lora_operator.api.conditions import timestamp
from lora_operator.core.rollout.stored import compact

__all__ = ["Previous", "Version"]


@dataclass(frozen=True)
class Version:
    """`weight` and `ready_replicas` are what was last seen, `target_weight` is wanted."""

    revision: str
    adapter: str
    artifact_digest: str
    weight: int = 0
    ready_replicas: int = 0
    target_weight: int | None = None  # None: not stored for this one (stable, previous)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | None) -> "Version | None":
        """The stored one; None where there is none."""
        if not raw:
            return None
        return cls(
            revision=raw["revision"],
            adapter=raw.get("adapter", ""),
            artifact_digest=raw.get("artifactDigest", ""),
            weight=raw.get("weight", 0),
            ready_replicas=raw.get("readyReplicas", 0),
            target_weight=raw.get("targetWeight"),
        )

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return compact(
            {
                "revision": self.revision,
                "adapter": self.adapter,
                "artifactDigest": self.artifact_digest,
                "weight": self.weight,
                "targetWeight": self.target_weight,
                "readyReplicas": self.ready_replicas,
            }
        )


@dataclass(frozen=True)
class Previous:
    """What served before: warm until `keep_until`, finishing its streams until `drain_until`, then scaled to 0."""

    version: Version
    keep_until: datetime
    drain_until: datetime

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | None) -> "Previous | None":
        """The stored one; None where there is none."""
        version = Version.from_json(raw)
        if version is None or not raw:
            return None
        return cls(
            version=version,
            keep_until=datetime.fromisoformat(raw["keepUntil"]),
            drain_until=datetime.fromisoformat(raw["drainUntil"]),
        )

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        times = {"keepUntil": timestamp(self.keep_until), "drainUntil": timestamp(self.drain_until)}
        return self.version.to_json() | times
