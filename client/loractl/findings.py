"""Is the cluster fit: facts that `loractl doctor` read, judged. Pure; each finding that is not ok says how to mend it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from loractl.ages import duration
from loractl.objects import label, name_of, namespace_of, status_of

__all__ = ["RIGHTS", "Facts", "Finding", "Right", "judge"]

Raw = Mapping[str, Any]
Level = Literal["ok", "warning", "missing"]
CRDS = ("loraadapters.loraops.dev", "loradeployments.loraops.dev")
OLDEST_MINOR = 30
SILENT_SECONDS = 60
GPU_WORDS = ("nvidia.com/", "amd.com/", "gpu.intel.com/")


@dataclass(frozen=True)
class Right:
    """One thing that a user of loractl does on the API."""

    group: str
    resource: str
    verb: str
    needed_for: str
    everywhere: bool = False  # in all namespaces

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "")


COPIES = "workflow with local directories"
RIGHTS = (
    *(
        Right("loraops.dev", "loraadapters", verb, "get, status, workflow")
        for verb in ("get", "list", "watch", "create", "patch")
    ),
    *(
        Right("loraops.dev", "loradeployments", verb, "get, status, workflow")
        for verb in ("get", "list", "watch", "create", "patch")
    ),
    Right("apps", "controllerrevisions", "list", "rollback, prune"),
    Right("batch", "jobs", "list", "explain"),
    *(Right("batch", "jobs", verb, "prune") for verb in ("get", "create", "delete")),
    Right("", "pods", "list", "explain, logs"),
    *(Right("", "pods", verb, COPIES) for verb in ("watch", "create", "delete")),
    Right("", "pods/log", "get", "logs, progress bars"),
    # A command is sent by a websocket's GET; since Kubernetes 1.35 the server asks for create as well.
    *(Right("", "pods/exec", verb, COPIES) for verb in ("get", "create")),
    Right(
        "apps",
        "deployments",
        "list",
        "prune, copies and doctor: where the operator's job image is read",
        everywhere=True,
    ),
    Right("", "events", "list", "explain"),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    about: str
    says: str
    mend: str = ""


@dataclass(frozen=True)
class Facts:
    """What was read. None: it may not be read, with the server's words in `denied`."""

    namespace: str
    version: Raw = field(default_factory=dict)
    crds: Sequence[Raw] | None = ()
    resources_served: bool = False  # whether the API answers for our kinds, which needs no right on CRDs
    allowed: Mapping[Right, bool] = field(default_factory=dict)
    operators: Sequence[Raw] | None = ()
    leases: Sequence[Raw] | None = ()
    gateway_classes: Sequence[Raw] | None = ()  # empty also where Gateway API is not installed
    gateways: Sequence[Raw] | None = ()
    ingress_classes: Sequence[Raw] | None = ()
    settings: Raw | None = field(default_factory=dict)  # the operator's settings.yaml, parsed
    nodes: Sequence[Raw] | None = ()
    pods: Sequence[Raw] | None = ()
    storage_classes: Sequence[Raw] | None = ()
    claims: Sequence[Raw] | None = ()
    denied: tuple[str, ...] = ()


def judge(facts: Facts, *, now: datetime) -> list[Finding]:
    """Every finding, in the order in which one would mend them."""
    return [
        *_server(facts),
        *_crds(facts),
        *_operator(facts, now=now),
        *_rights(facts),
        *_routers(facts),
        *_metrics(facts),
        *_gpus(facts),
        *_storage(facts),
        *_denied(facts),
    ]


def _server(facts: Facts) -> Iterator[Finding]:
    minor = "".join(c for c in str(facts.version.get("minor", "")) if c.isdigit())
    text = str(facts.version.get("gitVersion", "unknown version"))
    if facts.version.get("major") == "1" and minor and int(minor) < OLDEST_MINOR:
        yield Finding("missing", "Kubernetes", f"{text}; needed is 1.{OLDEST_MINOR} or newer", "Upgrade the cluster.")
    else:
        yield Finding("ok", "Kubernetes", text)


def _crds(facts: Facts) -> Iterator[Finding]:
    mend = "Install the chart (docs/install.md), or with crds.install: false apply the files of crds/."
    if facts.crds is None:
        if facts.resources_served:
            yield Finding("ok", "CRDs", "LoRAAdapter and LoRADeployment are served")
        else:
            yield Finding("missing", "CRDs", "LoRAAdapter and LoRADeployment are not served", mend)
        return
    found = {name_of(crd): crd for crd in facts.crds}
    for name in CRDS:
        crd = found.get(name)
        if crd is None:
            yield Finding("missing", "CRDs", f"{name} is not installed", mend)
            continue
        versions = [one["name"] for one in crd.get("spec", {}).get("versions", ()) if one.get("served")]
        established = any(
            c["type"] == "Established" and c["status"] == "True" for c in status_of(crd).get("conditions") or ()
        )
        if "v1alpha1" not in versions:
            yield Finding(
                "missing", "CRDs", f"{name} serves {', '.join(versions) or 'nothing'}, expected v1alpha1", mend
            )
        elif not established:
            yield Finding(
                "warning", "CRDs", f"{name} is not Established yet", "Wait; kubectl describe crd tells what is wrong."
            )
        else:
            yield Finding("ok", "CRDs", f"{name} v1alpha1")


def _operator(facts: Facts, *, now: datetime) -> Iterator[Finding]:
    if facts.operators is None:
        return
    if not facts.operators:
        yield Finding(
            "missing", "operator", "no Deployment of lora-operator was found", "Install the chart (docs/install.md)."
        )
    for one in facts.operators:
        ready = status_of(one).get("readyReplicas", 0)
        where = f"{namespace_of(one)}/{name_of(one)}"
        if ready:
            yield Finding("ok", "operator", f"{where}: {ready} of {one.get('spec', {}).get('replicas', 1)} pods ready")
        else:
            mend = f"Read why: kubectl -n {namespace_of(one)} describe pods -l app.kubernetes.io/name=lora-operator"
            yield Finding("missing", "operator", f"{where}: no pod is ready", mend)
        yield from _lease(facts, one, now=now)


def _lease(facts: Facts, operator: Raw, *, now: datetime) -> Iterator[Finding]:
    held = [
        lease
        for lease in facts.leases or ()
        if namespace_of(lease) == namespace_of(operator) and "lora-operator" in name_of(lease)
    ]
    for lease in held:
        renewed = lease.get("spec", {}).get("renewTime")
        if not renewed:
            continue
        silent = (now - datetime.fromisoformat(renewed)).total_seconds()
        if silent > SILENT_SECONDS:
            mend = (
                f"No operator works. Read its log: kubectl -n {namespace_of(operator)} logs deploy/{name_of(operator)}"
            )
            yield Finding("missing", "operator", f"its Lease was renewed {duration(silent)} ago", mend)


def _rights(facts: Facts) -> Iterator[Finding]:
    refused = [right for right, allowed in facts.allowed.items() if not allowed]
    if not refused and facts.allowed:
        yield Finding("ok", "your rights", f"everything that loractl does in namespace {facts.namespace}")
    for right in refused:
        where = "all namespaces" if right.everywhere else f"namespace {facts.namespace}"
        mend = f"Ask for it: {right.verb} on {right.resource} in {where}."
        yield Finding("warning", "your rights", f"you may not {right} (for {right.needed_for})", mend)


def _routers(facts: Facts) -> Iterator[Finding]:
    plain = (
        "Install a Gateway API implementation (docs/install.md); Replace and BlueGreen work with a plain Service too."
    )
    if not facts.gateway_classes and not facts.ingress_classes:
        if facts.gateway_classes is not None:
            yield Finding(
                "warning",
                "router",
                "no GatewayClass and no IngressClass: traffic can only be switched by a plain Service",
                plain,
            )
        return
    for one in facts.gateway_classes or ():
        if _condition(one, "Accepted"):
            yield Finding("ok", "router", f"GatewayClass {name_of(one)} is accepted")
        else:
            yield Finding(
                "warning", "router", f"GatewayClass {name_of(one)} is not accepted", "See whether its controller runs."
            )
    if facts.gateway_classes and facts.gateways is not None and not facts.gateways:
        yield Finding(
            "warning", "router", "there is no Gateway", "Create one, and name it in traffic.gateway.parentRefs."
        )
    for one in facts.gateways or ():
        yield from _gateway(one, namespace=facts.namespace)
    for one in facts.ingress_classes or ():
        yield Finding("ok", "router", f"IngressClass {name_of(one)}")


def _gateway(gateway: Raw, *, namespace: str) -> Iterator[Finding]:
    where = f"Gateway {namespace_of(gateway)}/{name_of(gateway)}"
    if not _condition(gateway, "Programmed"):
        yield Finding(
            "warning",
            "router",
            f"{where} is not programmed",
            f"kubectl -n {namespace_of(gateway)} describe gateway {name_of(gateway)}",
        )
        return
    open_to = [
        str(listener.get("name"))
        for listener in gateway.get("spec", {}).get("listeners") or ()
        if _takes_routes(listener, same=namespace_of(gateway) == namespace)
    ]
    if open_to:
        yield Finding(
            "ok", "router", f"{where} is programmed; listeners open to namespace {namespace}: {', '.join(open_to)}"
        )
    else:
        mend = "Set allowedRoutes.namespaces.from to All or Selector on a listener."
        yield Finding("warning", "router", f"{where}: no listener takes routes of namespace {namespace}", mend)


def _takes_routes(listener: Raw, *, same: bool) -> bool:
    """Selector may fit or not: only a route can tell, so it counts as open."""
    come_from = ((listener.get("allowedRoutes") or {}).get("namespaces") or {}).get("from", "Same")
    return come_from in {"All", "Selector"} or (come_from == "Same" and same)


def _metrics(facts: Facts) -> Iterator[Finding]:
    if facts.settings is None:
        return
    known = [
        str(one.get("gatewayClass") or one.get("ingressClass") or one.get("kind"))
        for one in facts.settings.get("routers") or ()
        if one.get("metricsUrl") or one.get("podSelector")
    ]
    if known:
        yield Finding("ok", "metrics", f"the operator reads the metrics of {', '.join(known)}")
    else:
        mend = "Name routers in the operator's settings (docs/install.md), or give analysis.source.prometheus in the LoRADeployment."
        says = (
            "the settings name no router's metrics: Canary and ABTest can only analyse with a Prometheus of their own"
        )
        yield Finding("warning", "metrics", says, mend)


def _gpus(facts: Facts) -> Iterator[Finding]:
    if facts.nodes is None:
        return
    resources: dict[str, int] = {}
    for node in facts.nodes:
        for resource, amount in (status_of(node).get("allocatable") or {}).items():
            if resource.startswith(GPU_WORDS) and str(amount).isdigit() and int(amount):
                resources[resource] = resources.get(resource, 0) + int(amount)
    if not resources:
        mend = "Install the device plugin of your GPUs; without GPUs only small models serve, on the processor."
        yield Finding("warning", "GPUs", f"none of {len(facts.nodes)} nodes offers a GPU", mend)
    for resource, total in sorted(resources.items()):
        used = sum(_asked(pod, resource) for pod in facts.pods or ())
        free = f", {max(0, total - used)} free" if facts.pods is not None else ""
        yield Finding("ok", "GPUs", f"{total} of {resource}{free}{_products(facts.nodes, resource)}")


def _products(nodes: Sequence[Raw], resource: str) -> str:
    names = {
        label(node, "nvidia.com/gpu.product")
        for node in nodes
        if (status_of(node).get("allocatable") or {}).get(resource)
    }
    said = ", ".join(sorted(filter(None, names)))
    return f" ({said})" if said else ""


def _asked(pod: Raw, resource: str) -> int:
    if status_of(pod).get("phase") in {"Succeeded", "Failed"} or not pod.get("spec", {}).get("nodeName"):
        return 0
    containers = pod.get("spec", {}).get("containers") or ()
    return sum(int((one.get("resources") or {}).get("limits", {}).get(resource, 0)) for one in containers)


def _storage(facts: Facts) -> Iterator[Finding]:
    if facts.storage_classes is not None:
        default = [name_of(one) for one in facts.storage_classes if _default(one)]
        names = ", ".join(name_of(one) for one in facts.storage_classes)
        if names:
            yield Finding(
                "ok", "storage", f"storage classes: {names}" + (f" (default {default[0]})" if default else "")
            )
        else:
            yield Finding(
                "warning",
                "storage",
                "there is no storage class",
                "Volumes then have to be made by hand, or install a provisioner.",
            )
    if facts.claims is not None and not facts.claims:
        mend = "Create one that holds base models and adapters (docs/install.md, Storage)."
        yield Finding("warning", "storage", f"namespace {facts.namespace} has no PersistentVolumeClaim", mend)
    for claim in facts.claims or ():
        yield _claim(claim)


def _claim(claim: Raw) -> Finding:
    what = f"claim {name_of(claim)}"
    modes = list(status_of(claim).get("accessModes") or claim.get("spec", {}).get("accessModes") or ())
    if status_of(claim).get("phase") != "Bound":
        phase = status_of(claim).get("phase", "Pending")
        return Finding(
            "warning",
            "storage",
            f"{what} is {phase}",
            f"kubectl describe pvc {name_of(claim)} tells what it waits for.",
        )
    if modes == ["ReadWriteOncePod"]:
        return Finding(
            "missing",
            "storage",
            f"{what} is ReadWriteOncePod: Jobs and serving pods cannot share it",
            "Use ReadWriteMany or ReadWriteOnce.",
        )
    if "ReadWriteMany" in modes:
        return Finding("ok", "storage", f"{what}: ReadWriteMany")
    if modes == ["ReadOnlyMany"]:
        return Finding("ok", "storage", f"{what}: ReadOnlyMany, good for sources, not for artifact.store")
    mend = "Good for one GPU node; for replicas on several use ReadWriteMany."
    return Finding(
        "warning", "storage", f"{what}: {', '.join(modes)}, so everything runs on the node that holds it", mend
    )


def _denied(facts: Facts) -> Iterator[Finding]:
    if facts.denied:
        yield Finding(
            "warning",
            "not looked at",
            f"you may not list {', '.join(facts.denied)}",
            "Ask somebody with more rights to run loractl doctor.",
        )


def _condition(raw: Raw, kind: str) -> bool:
    return any(c.get("type") == kind and c.get("status") == "True" for c in status_of(raw).get("conditions") or ())


def _default(storage_class: Raw) -> bool:
    annotations = storage_class.get("metadata", {}).get("annotations") or {}
    return bool(annotations.get("storageclass.kubernetes.io/is-default-class") == "true")
