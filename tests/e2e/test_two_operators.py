"""T9: a leader that is stopped in the middle of a rollout and wakes when another one leads does nothing any more.

leader    25 ── SIGSTOP ······················ SIGCONT ─► ends, writes nothing
standby            └─ 15 s ─► leads: 50 ─► … ────────────────► Stable
"""

import os
import signal
from collections.abc import Iterator

import pytest

from devcluster.cluster import Cluster
from tests.e2e.audit import AuditTail, is_write_of_operator, pod_of, told
from tests.e2e.operator_process import SYSTEM, lease_holder, process_of
from tests.e2e.served import Served, serving
from tests.e2e.simulated import at
from tests.e2e.test_operator import living_leader, scale

pytestmark = pytest.mark.e2e

STEPS = [{"setWeight": 25}, {"pause": {"seconds": 8}}, {"setWeight": 50}, {"pause": {"seconds": 8}}]


@pytest.fixture
def standby(cluster: Cluster, simulated: None) -> Iterator[None]:
    """Beside the leader, for one test."""
    scale(cluster, 2)
    yield
    scale(cluster, 1)


def test_a_leader_that_wakes_when_another_one_leads_writes_nothing_t9(
    cluster: Cluster, shop: str, standby: None
) -> None:
    with serving(Served(cluster, namespace=shop, name="two-operators", replicas=1)) as served:
        before = served.stable
        asleep = living_leader(cluster)
        pid, starts = process_of([asleep]), restarts(cluster, asleep)
        with served.watched() as truth, AuditTail(cluster.audit_log) as log:
            answer = served.next(steps=STEPS)
            served.until(at("Stepping", sub="Bake", index=1), seconds=90)
            os.kill(pid, signal.SIGSTOP)
            try:
                served.soon(lambda: lease_holder(cluster) not in ("", asleep), what="nobody else leads", seconds=40)
                served.until(at("Stepping", sub="Bake", index=3), seconds=60)
                earlier = [line for line in log.lines() if pod_of(line) == asleep]
            finally:
                os.kill(pid, signal.SIGCONT)
            ended = lambda: restarts(cluster, asleep) > starts  # noqa: E731
            served.soon(ended, what="it goes on with a Lease that is not its own", seconds=30)
            history = served.promoted(answer, before=before)["history"]
            late = [told(line) for line in log.lines() if pod_of(line) == asleep and is_write_of_operator(line)]
        revision = served.stable
    assert earlier, "its requests carry its name"
    assert late == []
    assert truth.weights_of(revision) == [0, 25, 50, 100]
    assert [entry["result"] for entry in history] == ["Succeeded", "Succeeded"]
    served.delete("loradeployment", served.name, "--wait=false")


def restarts(cluster: Cluster, pod: str) -> int:
    """How often its container was started anew."""
    path = "jsonpath={.status.containerStatuses[0].restartCount}"
    return int(cluster.kubectl("get", "pod", pod, "-n", SYSTEM, "-o", path))
