"""Findings about what models run on and lie on: GPUs, storage classes, claims. Pure."""

from collections.abc import Iterator, Sequence

from loractl.facts import Facts, Finding, Raw
from loractl.objects import label, name_of, status_of

__all__ = ["judge_gpus", "judge_storage"]

GPU_WORDS = ("nvidia.com/", "amd.com/", "gpu.intel.com/")


def judge_gpus(facts: Facts) -> Iterator[Finding]:
    """How many there are and how many are free."""
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


def judge_storage(facts: Facts) -> Iterator[Finding]:
    """Whether there is a place that Jobs and serving pods can share."""
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


def _default(storage_class: Raw) -> bool:
    annotations = storage_class.get("metadata", {}).get("annotations") or {}
    return bool(annotations.get("storageclass.kubernetes.io/is-default-class") == "true")
