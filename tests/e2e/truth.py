"""One LoRADeployment beside what is so: every status, every weight in its route and every pod's readiness, with the time it was seen.

Status is observed, so it follows the truth. T25 says how far: what it says was so within the last 2 s.

    route       25 ────────────► 50 ───────────────────►
    status      25 ───────────────────► 50 ────────────►
                                │◄ age ►│
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from devcluster.cluster import Cluster
from tests.e2e.api import LORA, ROUTES, follow

__all__ = ["SKEW", "Timeline", "Truth", "oldest", "weights_in"]

Json = dict[str, Any]
Counts = Mapping[str, int]  # by revision
Segment = tuple[float, float, Any]  # from, until, value
SKEW = 0.5  # seconds by which one watch may bring its news later than another
CHAT = "/v1/chat/completions"


@dataclass
class Timeline:
    """What something was, and since when."""

    points: list[tuple[float, Any]] = field(default_factory=list)

    def put(self, value: Any, *, at: float) -> None:
        if not self.points or self.points[-1][1] != value:
            self.points.append((at, value))

    def segments(self, *, end: float) -> list[Segment]:
        ends = [*(at for at, _ in self.points[1:]), end]
        return [(begin, until, value) for (begin, value), until in zip(self.points, ends, strict=True)]


def oldest(said: Sequence[Segment], true: Sequence[Segment]) -> float:
    """Seconds since what was said had been true, at the worst moment. A None says nothing; what was before `true` is not known."""
    worst = 0.0
    for begin, end, value in said:
        if value is None:
            continue
        last = true[0][0]
        holds = [(since - SKEW, until) for since, until, found in true if found == value]
        for since, until in [*holds, (end, end)]:
            gap_ends = min(since, end)
            if gap_ends > max(last, begin):
                worst = max(worst, gap_ends - last)
            last = max(last, until)
    return worst


class Truth:
    """`with Truth(...) as truth:` watches until the block ends; then it is asked."""

    def __init__(self, cluster: Cluster, *, namespace: str, name: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._pods: dict[str, tuple[str, bool]] = {}
        self._over = threading.Event()
        self._listed = threading.Barrier(4)
        self.statuses: list[Json] = []
        self.said = Timeline()  # by revision: weight and ready pods
        self.weights = Timeline()
        self.ready = Timeline()

    def __enter__(self) -> "Truth":
        by_name = {"fieldSelector": f"metadata.name={self._name}"}
        by_label = {"labelSelector": f"loraops.dev/deployment={self._name}"}
        watches = (
            (f"{LORA}/namespaces/{self._namespace}/loradeployments", by_name, self._see_status),
            (f"{ROUTES}/namespaces/{self._namespace}/httproutes", by_name, self._see_route),
            (f"/api/v1/namespaces/{self._namespace}/pods", by_label, self._see_pod),
        )
        self._threads = [threading.Thread(target=self._follow, args=watch) for watch in watches]
        for thread in self._threads:
            thread.start()
        self._listed.wait(timeout=30)
        self.began = time.monotonic()
        for timeline in (self.weights, self.ready):
            if not timeline.points:
                timeline.put({}, at=self.began)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.ended = time.monotonic()

    # -- what it was like ---------------------------------------------------------------------------------------------

    def age(self) -> dict[str, float]:
        """T25: seconds by which status was late at the worst moment, of the weights and of the ready pods."""
        revisions = {revision for _, said in self.said.points for revision in said}
        return {
            what: max(oldest(self._said(one, part), self._true(timeline, one)) for one in revisions)
            for part, (what, timeline) in enumerate((("weight", self.weights), ("readyReplicas", self.ready)))
        }

    def longest(self, holds: Callable[[Counts, Counts], bool]) -> float:
        """Seconds for which this was so of weights and ready pods without a break."""
        worst, since = 0.0, None
        for at, weights, ready in self._together():
            if since is not None:
                worst = max(worst, at - since)
            since = (at if since is None else since) if holds(weights, ready) else None
        return worst

    def weights_of(self, revision: str) -> list[int]:
        """One after the other, as the route had them."""
        found: list[int] = []
        for _, weights in self.weights.points:
            if not found or found[-1] != weights.get(revision, 0):
                found.append(weights.get(revision, 0))
        return found

    def _said(self, revision: str, part: int) -> list[Segment]:
        return self._part(self.said, lambda said: said[revision][part] if revision in said else None)

    def _true(self, timeline: Timeline, revision: str) -> list[Segment]:
        return self._part(timeline, lambda found: found.get(revision, 0))

    def _part(self, timeline: Timeline, of: Callable[[Any], Any]) -> list[Segment]:
        narrow = Timeline()
        for at, value in timeline.points:
            narrow.put(of(value), at=max(at, self.began))
        return narrow.segments(end=self.ended)

    def _together(self) -> Iterator[tuple[float, Counts, Counts]]:
        changes = [(at, 0, value) for at, value in self.weights.points]
        changes += [(at, 1, value) for at, value in self.ready.points]
        now: list[Counts] = [{}, {}]
        for at, which, value in sorted(changes, key=lambda change: change[0]):
            now[which] = value
            yield max(at, self.began), now[0], now[1]
        yield self.ended, now[0], now[1]

    # -- the watches --------------------------------------------------------------------------------------------------

    def _follow(self, path: str, params: Json, see: Callable[[str, Json], None]) -> None:
        follow(self._cluster, path, params, see, over=self._over, listed=lambda: self._listed.wait(timeout=30))

    def _see_status(self, kind: str, found: Json) -> None:
        status = found.get("status", {})
        if kind == "DELETED" or (self.statuses and self.statuses[-1] == status):
            return
        self.statuses.append(status)
        parts = (status[part] for part in ("stable", "candidate", "previous") if part in status)
        said = {part["revision"]: (part["weight"], part["readyReplicas"]) for part in parts}
        self.said.put(said, at=time.monotonic())

    def _see_route(self, kind: str, route: Json) -> None:
        self.weights.put({} if kind == "DELETED" else weights_in(route), at=time.monotonic())

    def _see_pod(self, kind: str, pod: Json) -> None:
        conditions = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", [])}
        serves = conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
        self._pods[pod["metadata"]["name"]] = (pod["metadata"]["labels"]["loraops.dev/revision"], serves)
        if kind == "DELETED":
            del self._pods[pod["metadata"]["name"]]
        self.ready.put(
            dict(Counter(revision for revision, serves in self._pods.values() if serves)), at=time.monotonic()
        )


def weights_in(route: Json) -> dict[str, int]:
    """By revision, of requests that carry nothing special."""
    rules = [rule for rule in route["spec"]["rules"] if _plain_chat(rule["matches"])]
    refs = rules[0]["backendRefs"] if rules else []
    return {ref["name"].rsplit("-", 1)[1]: ref["weight"] for ref in refs if ref["weight"]}


def _plain_chat(matches: list[Json]) -> bool:
    return any(match["path"]["value"] == CHAT and "headers" not in match for match in matches)
