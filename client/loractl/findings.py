"""Is the cluster fit: facts that `loractl doctor` read, judged. Pure; each finding that is not ok says how to mend it."""

from collections.abc import Iterator
from datetime import datetime

from loractl.ages import duration
from loractl.capacity_findings import judge_gpus, judge_storage
from loractl.facts import Facts, Finding, Raw
from loractl.objects import name_of, namespace_of, status_of
from loractl.router_findings import judge_metrics, judge_routers

__all__ = ["judge"]

CRDS = ("loraadapters.loraops.dev", "loradeployments.loraops.dev")
OLDEST_MINOR = 30
SILENT_SECONDS = 60


def judge(facts: Facts, *, now: datetime) -> list[Finding]:
    """Every finding, in the order in which one would mend them."""
    return [
        *_server(facts),
        *_crds(facts),
        *_operator(facts, now=now),
        *_rights(facts),
        *judge_routers(facts),
        *judge_metrics(facts),
        *judge_gpus(facts),
        *judge_storage(facts),
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


def _denied(facts: Facts) -> Iterator[Finding]:
    if facts.denied:
        yield Finding(
            "warning",
            "not looked at",
            f"you may not list {', '.join(facts.denied)}",
            "Ask somebody with more rights to run loractl doctor.",
        )
