"""Shares of requests as numbers of pods, for the plain Service: it gives every pod in service the same.

Of `replicas` stable pods and up to as many candidate pods some are in service, never fewer than `replicas` together, so
that no capacity is lost while the share grows.

    4 replicas, weight 25:   3 stable + 1 candidate     1 replica, weight 50:   1 stable + 1 candidate
"""

from dataclasses import dataclass

__all__ = ["InService", "in_service", "nearest_share", "reachable"]

TOLERANCE = 5  # points
TOTAL = 100


@dataclass(frozen=True)
class InService:
    """How many pods of each version are in service."""

    stable: int
    candidate: int

    @property
    def share(self) -> float:
        """Percent of requests that reach the candidate."""
        return TOTAL * self.candidate / (self.stable + self.candidate)


def in_service(*, replicas: int, weight: int) -> InService:
    """The numbers that come nearest to `weight`; of equal ones those with more pods."""
    pods = max(1, replicas)
    if weight <= 0:
        return InService(stable=pods, candidate=0)
    if weight >= TOTAL:
        return InService(stable=0, candidate=pods)
    most = -(-pods * weight // TOTAL)  # a canary has no more pods than that at this weight
    choices = [
        InService(stable=stable, candidate=candidate)
        for candidate in range(1, most + 1)
        for stable in range(max(1, pods - candidate), pods + 1)
    ]
    return min(choices, key=lambda pair: (abs(pair.share - weight), -pair.stable - pair.candidate))


def nearest_share(*, replicas: int, weight: int) -> int:
    """What the numbers of pods can show, in percent."""
    return round(in_service(replicas=replicas, weight=weight).share)


def reachable(*, replicas: int, weight: int) -> bool:
    """Whether the share comes within 5 points of the weight."""
    return abs(in_service(replicas=replicas, weight=weight).share - weight) <= TOLERANCE
