"""A simulated cluster for rollouts: the API as the operator calls it, and the controllers that answer.

    Deployment ─► pods (GPUs counted, ready after a while, by behaviour of the revision) ─► leave one tick after a scale-down
    HTTPRoute  ─► Accepted and ResolvedRefs for its generation, one tick later; its fence answers from then on
    time       ─► moves only when the test says so

Every write goes through `_write`, which checks what must hold at that moment (T1, T2, T6, T20) and can crash the operator
before or after the k-th of them.
"""

import copy
import itertools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from lora_operator.api.kinds import (
    ADAPTER,
    CLAIM,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    GATEWAY,
    GATEWAY_CLASS,
    HTTP_ROUTE,
    INGRESS,
    LORA_DEPLOYMENT,
    NODE,
    POD,
    SERVICE,
    Kind,
)
from lora_operator.api.names import LABEL_IN_SERVICE, LABEL_REVISION
from lora_operator.core.build.fence import is_fence
from lora_operator.core.plan import ProbePod
from lora_operator.kube.errors import AlreadyExists, Conflict, Forbidden, NotFound
from lora_operator.reconcile.verifier import PodVerdict
from lora_operator.routing.controller import Reply

Json = dict[str, Any]
CACHED = (
    ADAPTER,
    LORA_DEPLOYMENT,
    POD,
    DEPLOYMENT,
    SERVICE,
    CONTROLLER_REVISION,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    INGRESS,
)
START = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


class Crash(BaseException):
    """kill -9: not an Exception, so that no handler of the code under test may catch it."""


class Violation(AssertionError):
    """An invariant did not hold at a write."""


class Passing(Protocol):
    """Something that goes on with time."""

    def pass_time(self) -> None: ...


class Cluster:
    """Implements lora_operator.kube.client.Kube."""

    def __init__(self, *, gpus: int = 2, gateway: bool = True) -> None:
        self.now = START
        self.gpus = gpus
        self.objects: dict[tuple[Kind, str], Json] = {}
        self.writes: list[str] = []
        self.crash_at: tuple[int, str] | None = None  # number of the write, "before" or "after"
        self.behaviour: Callable[[str], str] = lambda adapter: "good"  # by adapter name of the revision
        self.stuck: Callable[[Json], bool] = lambda pod: False  # pods that never get ready, whatever their adapter
        self.gateway_takes = True
        self.ingress_takes = True
        self.gateway_serves = True  # Accepted is said when a route was read, which is earlier
        self._taken: dict[str, str] = {}  # what the Ingress controller serves: revision by fence host
        self._served: dict[str, str] = {}  # what the Gateway serves: revision by the mark of a fence
        self.downtime_allowed = False
        self.watch_invariants = True
        self.telemetry: Passing | None = None  # what the pods have counted (tests/fakes/telemetry.py)
        self.forbidden: set[Kind] = set()  # kinds that the operator has no right to list
        self.missing: set[Kind] = set()  # kinds that the API server does not know
        self._uids = itertools.count(1)
        self._versions = itertools.count(1)
        self._unreferenced: dict[str, datetime] = {}
        self.put(
            NODE,
            {
                "metadata": {"name": "node-a"},
                "status": {
                    "allocatable": {"nvidia.com/gpu": gpus},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            },
        )
        self.put(CLAIM, {"metadata": {"name": "models"}, "spec": {"accessModes": ["ReadWriteMany"]}})
        if gateway:
            self.put(
                GATEWAY,
                {
                    "metadata": {"name": "public"},
                    "spec": {
                        "gatewayClassName": "traefik",
                        "listeners": [{"name": "web", "port": 80, "protocol": "HTTP"}],
                    },
                },
            )
            features = [
                {"name": "HTTPRoute"},
                {"name": "HTTPRoutePathRewrite"},
                {"name": "HTTPRouteResponseHeaderModification"},
            ]
            self.put(
                GATEWAY_CLASS,
                {
                    "metadata": {"name": "traefik"},
                    "spec": {"controllerName": "traefik.io/gateway-controller"},
                    "status": {"supportedFeatures": features},
                },
            )

    # ---- the world's own hand -------------------------------------------------------------------------------------
    def put(self, kind: Kind, obj: Json) -> Json:
        """Stores an object without the operator's knowledge."""
        meta = obj.setdefault("metadata", {})
        meta.setdefault("namespace", "shop")
        meta.setdefault("uid", f"uid-{next(self._uids)}")
        meta.setdefault("generation", 1)
        meta["resourceVersion"] = str(next(self._versions))
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, **obj}
        self.objects[kind, meta["name"]] = obj
        return obj

    def peek(self, kind: Kind, name: str) -> Json | None:
        """An object as it is."""
        return self.objects.get((kind, name))

    def every(self, kind: Kind) -> list[Json]:
        """All of a kind, by name."""
        return [obj for (k, _), obj in sorted(self.objects.items(), key=lambda item: item[0][1]) if k == kind]

    def edit(self, kind: Kind, name: str, change: Callable[[Json], None]) -> None:
        """What a person does with kubectl."""
        obj = copy.deepcopy(self.objects[kind, name])
        change(obj)
        self._store(kind, obj)

    def remove(self, kind: Kind, name: str) -> None:
        """Deletes at once, with everything that hangs on it."""
        gone = self.objects.pop((kind, name))
        uid = gone["metadata"]["uid"]
        for (k, n), obj in list(self.objects.items()):
            if any(ref["uid"] == uid for ref in obj["metadata"].get("ownerReferences", ())):
                self.remove(k, n)

    def tick(self, seconds: float = 1) -> None:
        """The controllers act once, and time passes."""
        self.now += timedelta(seconds=seconds)
        if self.telemetry is not None:
            self.telemetry.pass_time()
        for pod in self.every(POD):
            self._advance_pod(pod)
        for deployment in self.every(DEPLOYMENT):
            self._scale(deployment)
        for route in self.every(HTTP_ROUTE):
            self._accept(route)
        if self.ingress_takes:
            fences = [obj for obj in self.every(INGRESS) if obj["metadata"]["name"].endswith("-fence")]
            self._taken = {fence["spec"]["rules"][0]["host"]: _backend(fence) for fence in fences}
        if self.gateway_serves:
            self._served = {mark: name for route in self.every(HTTP_ROUTE) for mark, name in _fences(route)}

    def _advance_pod(self, pod: Json) -> None:
        name = pod["metadata"]["name"]
        if "deletionTimestamp" in pod["metadata"]:
            del self.objects[POD, name]
            return
        if pod["spec"].get("nodeName") is None:
            self._schedule(pod)
            return
        behaviour = self.behaviour(pod["metadata"]["annotations"]["adapter"])
        container: Json = {"name": "runtime", "restartCount": 0, "ready": False, "state": {"running": {}}}
        if behaviour == "crash":
            container |= {
                "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {
                    "terminated": {"exitCode": 1, "reason": "Error", "message": "loading\nValueError: no such layer"}
                },
            }
        elif behaviour == "image":
            container |= {
                "image": "nowhere/x:1",
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}},
            }
        ready = behaviour in ("good", "wrong") and not self.stuck(pod)
        status = {
            "podIP": "10.0.0." + pod["metadata"]["uid"].removeprefix("uid-"),
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [container],
        }
        if pod["status"] != status:
            self._store(POD, {**pod, "status": status})

    def _schedule(self, pod: Json) -> None:
        need = _gpus(pod)
        used = sum(_gpus(other) for other in self.every(POD) if other["spec"].get("nodeName"))
        if used + need <= self.gpus:
            self._store(POD, {**pod, "spec": {**pod["spec"], "nodeName": "node-a"}, "status": {"conditions": []}})
            return
        waiting = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
            "lastTransitionTime": pod["metadata"]["creationTimestamp"],
        }
        if pod["status"].get("conditions") != [waiting]:
            self._store(POD, {**pod, "status": {"conditions": [waiting]}})

    def _scale(self, deployment: Json) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        labels = spec["template"]["metadata"]["labels"]
        ours = [
            pod
            for pod in self.every(POD)
            if pod["metadata"].get("labels", {}).get(LABEL_REVISION) == labels[LABEL_REVISION]
        ]
        staying = [pod for pod in ours if "deletionTimestamp" not in pod["metadata"]]
        for pod in staying[spec["replicas"] :]:
            self._store(POD, {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": _stamp(self.now)}})
        for _ in range(spec["replicas"] - len(staying)):
            uid = f"uid-{next(self._uids)}"
            record = self.peek(CONTROLLER_REVISION, meta["name"])
            self.put(
                POD,
                {
                    "metadata": {
                        "name": f"{meta['name']}-{uid}",
                        "uid": uid,
                        "labels": labels,
                        "annotations": {"adapter": record["data"]["adapter"] if record else ""},
                        "creationTimestamp": _stamp(self.now),
                        "ownerReferences": [
                            {"uid": meta["uid"], "controller": True, "kind": "Deployment", "name": meta["name"]}
                        ],
                    },
                    "spec": {"containers": spec["template"]["spec"]["containers"]},
                    "status": {},
                },
            )

    def _accept(self, route: Json) -> None:
        if not self.gateway_takes:
            return
        generation = route["metadata"]["generation"]
        parents = [
            {
                "parentRef": ref,
                "conditions": [
                    {"type": kind, "status": "True", "observedGeneration": generation}
                    for kind in ("Accepted", "ResolvedRefs")
                ],
            }
            for ref in route["spec"]["parentRefs"]
        ]
        if route.get("status", {}).get("parents") != parents:
            self._store(HTTP_ROUTE, {**route, "status": {"parents": parents}})

    def _store(self, kind: Kind, obj: Json) -> Json:
        """Keeps version and generation as an API server does."""
        name = obj["metadata"]["name"]
        before = self.objects.get((kind, name))
        if before is not None and before == obj:
            return before
        obj = copy.deepcopy(obj)
        obj["metadata"]["resourceVersion"] = str(next(self._versions))
        if before is not None and before.get("spec") != obj.get("spec"):
            obj["metadata"]["generation"] = before["metadata"]["generation"] + 1
        self.objects[kind, name] = obj
        return obj

    async def ask(self, url: str, *, host: str, path: str, mark: str = "") -> Reply | str:
        """A controller, which serves what is written one tick later."""
        revision = self._served.get(mark) if mark else self._taken.get(host)
        if revision is None:
            return Reply(status=404)
        return Reply(status=200, mark=mark) if self.ready(revision) else Reply(status=503, mark=mark)

    # ---- Kube -----------------------------------------------------------------------------------------------------
    async def get(self, kind: Kind, *, namespace: str | None, name: str) -> Json | None:
        return copy.deepcopy(self.objects.get((kind, name)))

    async def list(self, kind: Kind, *, namespace: str | None = None, labels: str = "") -> list[Json]:
        if kind in self.forbidden:
            raise Forbidden(kind.plural)
        if kind in self.missing:
            raise NotFound(kind.plural)
        wanted = dict(part.split("=") for part in labels.split(",") if part)
        # Not copied: stored objects are replaced, never changed, and nobody else may change them.
        return [obj for obj in self.every(kind) if wanted.items() <= (obj["metadata"].get("labels") or {}).items()]

    async def create(self, kind: Kind, manifest: Mapping[str, Any]) -> Json:
        def act() -> Json:
            if (kind, manifest["metadata"]["name"]) in self.objects:
                raise AlreadyExists(manifest["metadata"]["name"])
            return self.put(kind, copy.deepcopy(dict(manifest)))

        return self._write(f"create {kind.kind} {manifest['metadata']['name']}", act)

    async def apply(self, kind: Kind, manifest: Mapping[str, Any], *, force: bool) -> Json:
        def act() -> Json:
            name = manifest["metadata"]["name"]
            before = self.objects.get((kind, name))
            if before is None:
                return self.put(kind, copy.deepcopy(dict(manifest)))
            merged = _merge(before, manifest)
            return self._store(kind, merged)

        return self._write(f"apply {kind.kind} {manifest['metadata']['name']}", act)

    async def patch(
        self, kind: Kind, *, namespace: str, name: str, body: Mapping[str, Any], subresource: str | None = None
    ) -> Json:
        def act() -> Json:
            before = self.objects.get((kind, name))
            if before is None:
                raise NotFound(name)
            wanted = body.get("metadata", {}).get("resourceVersion")
            if wanted is not None and wanted != before["metadata"]["resourceVersion"]:
                raise Conflict(name)
            meta = {k: v for k, v in body.get("metadata", {}).items() if k not in ("resourceVersion", "uid")}
            patched = _patched(
                before, {**({"metadata": meta} if meta else {}), **{k: v for k, v in body.items() if k != "metadata"}}
            )
            stored = self._store(kind, patched)
            if "deletionTimestamp" in stored["metadata"] and not stored["metadata"].get("finalizers"):
                self.remove(kind, name)
            return stored

        what = subresource or ("finalizers" if "finalizers" in body.get("metadata", {}) else "object")
        return self._write(f"patch {kind.kind} {name} {what}", act)

    async def delete(self, kind: Kind, *, namespace: str, name: str, uid: str) -> None:
        def act() -> Json:
            found = self.objects.get((kind, name))
            if found is not None and found["metadata"]["uid"] == uid:
                self.remove(kind, name)
            return {}

        self._write(f"delete {kind.kind} {name}", act)

    def _write(self, what: str, act: Callable[[], Json]) -> Json:
        if what.startswith("create Event"):
            return act()
        self.writes.append(what)
        if self.crash_at == (len(self.writes), "before"):
            raise Crash(what)
        before = self.shares() if self.watch_invariants else {}
        forced = set(self.forced()) if self.watch_invariants else set()
        done = copy.deepcopy(act())
        if self.watch_invariants:
            self.check(what, before=before, before_forced=forced)
        if self.crash_at == (len(self.writes), "after"):
            raise Crash(what)
        return done

    # ---- what must hold at every write ------------------------------------------------------------------------------
    def shares(self) -> dict[str, int]:
        """Weights by revision as the data plane sees them."""
        shares: dict[str, int] = {}
        for route in self.every(HTTP_ROUTE):
            for rule in route["spec"]["rules"]:
                if any("headers" in match for match in rule["matches"]):
                    continue
                found = {ref["name"].rsplit("-", 1)[1]: ref["weight"] for ref in rule["backendRefs"] if ref["weight"]}
                if shares and found != shares:
                    raise Violation(f"T19: rules disagree: {found} and {shares}")
                shares = found
        for service in self.every(SERVICE):
            if service["metadata"]["labels"].get("app.kubernetes.io/component") == "router":
                shares = self._shares_of(service["spec"]["selector"])
        return next(iter(self.ingress_pairs().values()), shares)

    def ingress_pairs(self) -> dict[str, dict[str, int]]:
        """Weights by revision of each primary Ingress with its canary twin, as ingress-nginx would share them."""
        pairs: dict[str, dict[str, int]] = {}
        for primary in self.every(INGRESS):
            name = primary["metadata"]["name"]
            if name.endswith(("-canary", "-fence")):
                continue
            shares = {_backend(primary): 100}
            twin = self.peek(INGRESS, f"{name}-canary")
            if twin is not None and _backend(twin) not in shares:
                moved = int(twin["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"])
                shares = {_backend(primary): 100 - moved, _backend(twin): moved}
            pairs[name] = {revision: share for revision, share in shares.items() if share}
        return pairs

    def forced(self) -> dict[str, tuple[str, str]]:
        """Revision that requests of a certain header or cookie reach, with name and value, by path or pair; all of them agree."""
        found: dict[str, tuple[str, str]] = {}
        for route in self.every(HTTP_ROUTE):
            for rule in route["spec"]["rules"]:
                for match in rule["matches"]:
                    for header in () if is_fence(rule) else match.get("headers", ()):
                        found[rule["backendRefs"][0]["name"].rsplit("-", 1)[1]] = (header["name"], header["value"])
        for twin in self.every(INGRESS):
            said = twin["metadata"].get("annotations", {})
            for key in ("canary-by-header", "canary-by-cookie"):
                name = said.get(f"nginx.ingress.kubernetes.io/{key}")
                if name:
                    value = said.get("nginx.ingress.kubernetes.io/canary-by-header-value", "always")
                    found[_backend(twin)] = (name, value)
        if len(found) > 1:
            raise Violation(f"T19: forced requests reach several revisions: {found}")
        return found

    def named(self) -> set[str]:
        """Revisions that anything sends requests to: a route left behind by another kind of traffic does too."""
        rules = (rule for route in self.every(HTTP_ROUTE) for rule in route["spec"]["rules"])
        backends = {ref["name"].rsplit("-", 1)[1] for rule in rules for ref in rule["backendRefs"] if ref["weight"]}
        return backends.union(self.shares(), self.forced(), *self.ingress_pairs().values())

    def _shares_of(self, selector: Mapping[str, str]) -> dict[str, int]:
        """Every ready pod that a selector names gets the same; whole percents, the first name of a tie rounded up."""
        if LABEL_REVISION in selector:
            return {selector[LABEL_REVISION]: 100}
        counts: dict[str, int] = {}
        for pod in self.every(POD):
            labels = pod["metadata"].get("labels", {})
            if selector.items() <= labels.items() and _is_ready(pod):
                counts[labels[LABEL_REVISION]] = counts.get(labels[LABEL_REVISION], 0) + 1
        if len(counts) < 2:
            return dict.fromkeys(counts, 100)
        first, second = sorted(counts)
        share = int(100 * counts[first] / (counts[first] + counts[second]) + 0.5)
        return {first: share, second: 100 - share}

    def ready(self, revision: str) -> int:
        """Ready pods of a revision."""
        return sum(
            pod["metadata"].get("labels", {}).get(LABEL_REVISION) == revision and _is_ready(pod)
            for pod in self.every(POD)
        )

    def _check_in_service(self, what: str) -> None:
        """Of the plain Service during a canary: only ready pods join (T1), and enough pods stay in it (T2)."""
        shared = [s for s in self.every(SERVICE) if LABEL_IN_SERVICE in s["spec"].get("selector", {})]
        if not shared or not what.startswith(("patch Pod", "apply Service")):
            return
        serving = [pod for pod in self.every(POD) if LABEL_IN_SERVICE in pod["metadata"].get("labels", {})]
        patched = self.peek(POD, what.split()[2])
        if patched in serving and patched is not None:
            if not _is_ready(patched):
                raise Violation(f"T1: a pod that is not ready joined by {what}")
            return
        need = self.objects[LORA_DEPLOYMENT, shared[0]["metadata"]["name"]]["spec"]["replicas"]
        able = sum(_is_ready(pod) for pod in self.every(POD) if LABEL_REVISION in pod["metadata"].get("labels", {}))
        if sum(map(_is_ready, serving)) < min(need, able):
            raise Violation(f"T2: fewer pods in service than needed after {what}")

    def check(self, what: str, *, before: Mapping[str, int], before_forced: set[str]) -> None:
        """`before`, `before_forced`: the shares, and who had forced requests, as the write found them."""
        self._check_in_service(what)
        shares = self.shares()
        for revision in set(self.forced()) - before_forced:
            if not self.ready(revision):
                raise Violation(f"T1: forced requests without a ready pod: {revision} after {what}")
        if shares and sum(shares.values()) != 100:
            raise Violation(f"T20: {shares} after {what}")
        for revision, share in shares.items():
            raised = share > before.get(revision, 0)
            if raised and not self.ready(revision) and not self.downtime_allowed:
                raise Violation(f"T1: weight without a ready pod: {revision} after {what}")
        for deployment in self.every(DEPLOYMENT):
            revision = deployment["metadata"]["labels"][LABEL_REVISION]
            if revision in self.named() and deployment["spec"]["replicas"] == 0 and not self.downtime_allowed:
                raise Violation(f"T2: {revision} has weight and no replicas after {what}")
            if revision in self.named():
                self._unreferenced[revision] = self.now
            since = self._unreferenced.get(revision)
            if since is not None and deployment["spec"]["replicas"] == 0 and not self.downtime_allowed:
                waited = (self.now - since).total_seconds()
                if revision not in self.named() and waited < 60:
                    raise Violation(f"T6: {revision} scaled down {waited} s after its last request, after {what}")
                self._unreferenced.pop(revision)

    def note_traffic(self) -> None:
        """Remembers which revisions have traffic at this moment (for T6)."""
        for revision in self.named():
            self._unreferenced[revision] = self.now


class FakeVerifier:
    """Answers at once, by the pod's behaviour."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._verdicts: dict[str, PodVerdict] = {}

    def verdict(self, uid: str) -> PodVerdict | None:
        return self._verdicts.get(uid)

    def start(self, probe: ProbePod, *, key: object) -> None:
        pod = self._cluster.objects[POD, probe.pod]
        good = self._cluster.behaviour(pod["metadata"]["annotations"]["adapter"]) == "good"
        detail = "answered" if good else "asked 'What is a bond?': found 'A', the validated model answers 'B'"
        self._verdicts[probe.uid] = PodVerdict(passed=good, detail=detail, wrong=not good)

    def forget(self, uid: str) -> None:
        self._verdicts.pop(uid, None)


def _backend(ingress: Mapping[str, Any]) -> str:
    """Revision of an Ingress' Service; all its paths must name the same."""
    names = {path["backend"]["service"]["name"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]}
    if len(names) != 1:
        raise Violation(f"T19: paths of one Ingress disagree: {names}")
    return str(names.pop().rsplit("-", 1)[1])


def _fences(route: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Mark and revision of each fence in an HTTPRoute."""
    return [
        (rule["matches"][0]["headers"][0]["value"], rule["backendRefs"][0]["name"].rsplit("-", 1)[1])
        for rule in route["spec"]["rules"]
        if is_fence(rule)
    ]


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def _gpus(pod: Mapping[str, Any]) -> int:
    return sum(
        int(c.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0)) for c in pod["spec"]["containers"]
    )


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _merge(before: Any, wanted: Any) -> Any:
    if isinstance(before, dict) and isinstance(wanted, Mapping):
        atomic = {"selector": copy.deepcopy(wanted["selector"])} if "selector" in wanted else {}  # a Service's is
        return {**before, **{key: _merge(before.get(key), value) for key, value in wanted.items()}, **atomic}
    return copy.deepcopy(wanted)


def _patched(before: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    base = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        else:
            base[key] = _patched(base.get(key), value)
    return base
