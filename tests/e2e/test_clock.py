"""T28: the wall clock of the operator's pod jumps in the middle of a pause, and the pause lasts as long as it was declared to.

offset        ──┐ +1 h ┌─┐
                └──────┘ └─── -1 h ─────────────────   the pod's wall clock
weight  25 ──────────────────────────────► 50 ► 100
looks           │   │    │
           │◄──────── 20 s, real ───────►│
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from devcluster.cluster import Cluster
from tests.e2e.conftest import CI_FACTOR
from tests.e2e.served import Served, serving
from tests.e2e.simulated import at
from tests.e2e.test_idle import use
from tests.e2e.test_invariants import restarts
from tests.e2e.test_kills import deadlines
from tests.e2e.test_operator import living_leader
from tests.e2e.truth import SKEW, Truth
from tests.e2e.wall_clock import WallClock, faked, lease

pytestmark = pytest.mark.e2e

PAUSE = 20
STEPS = [{"setWeight": 25}, {"pause": {"seconds": PAUSE}}, {"setWeight": 50}]
BAKES = {"sub": "Bake", "index": 1}
OFFSETS = (1, 0, -1)  # hours, one after the other: it jumps ahead by one, and back by one twice
EARLY = 0.01 * PAUSE + SKEW  # seconds: the operator's clock is drawn toward the pod's by a hundredth
LATE = 3 * CI_FACTOR


@pytest.fixture
def pod(cluster: Cluster, shop: str) -> Iterator[str]:
    """The leader, whose wall clock can be set; other tests find the operator as it was."""
    with faked(cluster):
        yield living_leader(cluster)


def test_a_wall_clock_that_jumps_by_an_hour_neither_ends_nor_prolongs_a_pause_t28(
    cluster: Cluster, shop: str, pod: str
) -> None:
    clock = WallClock(cluster, pod=pod)
    transitions, starts = lease(cluster)["leaseTransitions"], restarts(cluster, pod)
    with serving(Served(cluster, namespace=shop, name="clock", replicas=1)) as served:
        before = served.stable
        with served.watched() as truth:
            answer = served.next(steps=STEPS)
            served.until(at("Stepping", **BAKES), seconds=90)
            for hours in OFFSETS:
                clock.set(hours=hours)
                looks_again(served)
            jumped = datetime.now(UTC)
            candidate = served.promoted(answer, before=before)["stable"]["revision"]
    (deadline,) = deadlines(truth.statuses)[BAKES["index"], BAKES["sub"]]
    ends = datetime.fromisoformat(deadline)
    declared = (ends - raised(truth, candidate, above=0)).total_seconds()
    assert declared > PAUSE - 1, "status says whole seconds"
    late = (raised(truth, candidate, above=25) - ends).total_seconds()
    assert -EARLY <= late <= LATE, f"the pause of {PAUSE} s ended {late:+.1f} s after its end"
    assert jumped < ends, "all jumps were in the pause"
    assert truth.weights_of(candidate) == [0, 25, 50, 100]
    now = lease(cluster)
    assert (now["holderIdentity"], now["leaseTransitions"], restarts(cluster, pod)) == (pod, transitions, starts)
    served.delete("loradeployment", served.name, "--wait=false")


def looks_again(served: Served) -> None:
    """Makes the operator look at it now: by itself it would look at the end of the pause, when the clock has been set back."""
    before = use(served.cluster).reconciles
    served.patch("loradeployment", {"metadata": {"labels": {"looked-at": uuid4().hex}}})
    served.soon(lambda: use(served.cluster).reconciles > before, what="it was not looked at again", seconds=5)


def raised(truth: Truth, revision: str, *, above: int) -> datetime:
    """When its weight in the route became more, by this machine's clock."""
    seen = next(seen for seen, weights in truth.weights.points if weights.get(revision, 0) > above)
    return datetime.now(UTC) - timedelta(seconds=time.monotonic() - seen)
