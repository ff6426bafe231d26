"""Where a rollout stands, and which part of a phase it is in."""

from enum import StrEnum

__all__ = ["IN_FLIGHT", "Phase", "Sub"]


class Phase(StrEnum):
    """Where a rollout stands; the table of transitions is in decide.py."""

    PENDING = "Pending"
    STABLE = "Stable"
    PREPARING = "Preparing"
    STEPPING = "Stepping"
    PAUSED = "Paused"
    TESTING = "Testing"
    SWITCHING = "Switching"
    REPLACING = "Replacing"
    PROMOTING = "Promoting"
    ABORTING = "Aborting"
    ABORTED = "Aborted"
    DELETING = "Deleting"


# A candidate is on its way; only then it can be aborted, superseded or paused.
IN_FLIGHT = frozenset(
    {
        Phase.PREPARING,
        Phase.REPLACING,
        Phase.STEPPING,
        Phase.TESTING,
        Phase.SWITCHING,
        Phase.PROMOTING,
        Phase.PAUSED,
    }
)


class Sub(StrEnum):
    """What a phase is doing just now (status.step.sub)."""

    VERIFY = "Verify"  # pods start and are asked
    STABLE_DOWN = "StableDown"  # Replace without room: the old version leaves the GPU
    CANDIDATE_UP = "CandidateUp"  # … and the new one takes it
    DELAY = "Delay"  # BlueGreen: proven, until the switch
    AWAIT_PROMOTE = "AwaitPromote"  # somebody has to say go
    SCALE = "Scale"  # Canary: pods for the next weight
    WAIT_READY = "WaitReady"  # … start and are asked
    SHIFT = "Shift"  # the route is written until it is confirmed
    CONFIRM = "Confirm"  # … its controller has to take it
    ANALYSE = "Analyse"  # … and what the metrics say decides
    BAKE = "Bake"  # the weight is held for a time
    TEST = "Test"  # ABTest: the split is held until a winner is known, or the time is over
    CAPACITY = "Capacity"  # an abort first sees to the old version's pods
    CANDIDATE_DOWN = "CandidateDown"  # … for which the new one may have to leave the GPU
    DRAIN = "Drain"  # no traffic any more; streams finish
    UNROUTE = "Unroute"  # a deletion takes the route away
