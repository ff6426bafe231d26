"""The Job that `loractl prune` starts, and what it may not touch: every name that a LoRAAdapter or a stored revision gives. Pure.

The Job has no rights on the API, so the names travel with it; lora-job keeps what is younger than an hour, because names can be given
after they were read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_client.errors import Invalid
from lora_client.job_image import JobImage
from lora_client.names import JOB
from lora_client.sources import ClaimPath
from loractl.objects import name_of, status_of

__all__ = ["Names", "build_prune_job", "names_of", "stores_of"]

Raw = Mapping[str, Any]
USER = 65532
MEMORY = "512Mi"
KEEP_FINISHED_SECONDS = 3600
LONGEST_RUN_SECONDS = 3600


@dataclass(frozen=True)
class Names:
    """What is named, for one store."""

    artifacts: tuple[str, ...] = ()  # NAME/BUILDHASH
    digests: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    all_sources: bool = field(default=False)


def stores_of(adapters: Sequence[Raw]) -> list[ClaimPath]:
    """Every store that a LoRAAdapter publishes to, once."""
    found = (adapter.get("spec", {}).get("artifact", {}).get("store", {}).get("pvc") or {} for adapter in adapters)
    pairs = {(str(one["claimName"]), str(one.get("path", "")).strip("/")) for one in found if one.get("claimName")}
    return [ClaimPath(claim, path) for claim, path in sorted(pairs)]


def names_of(adapters: Sequence[Raw], deployments: Sequence[Raw], revisions: Sequence[Raw]) -> Names:
    """Everything that is named in the namespace, by any of the three kinds."""
    unfinished = [adapter for adapter in adapters if not _published(adapter)]
    digests = {
        *(str((status_of(one).get("artifact") or {}).get("digest", "")) for one in adapters),
        *(str((one.get("data") or {}).get("artifactDigest", "")) for one in revisions),
        *(digest for one in deployments for digest in _served(one)),
    }
    return Names(
        artifacts=tuple(sorted(f"{name_of(one)}/{status_of(one)['buildHash']}" for one in adapters if _published(one))),
        digests=tuple(sorted(digest for digest in digests if digest.startswith("sha256:"))),
        unfinished=tuple(sorted(name_of(one) for one in unfinished)),
        sources=tuple(sorted({digest for one in adapters for digest in _source_digests(one)})),
        all_sources=any(_remote(one) for one in unfinished),
    )


def _published(adapter: Raw) -> bool:
    """Only a build that the status names and nothing is at work on: whatever else may still be adopted or resumed."""
    status = status_of(adapter)
    merging = (status.get("jobs") or {}).get("merge") or {}
    return (
        bool(status.get("buildHash"))
        and bool((status.get("artifact") or {}).get("digest"))
        and merging.get("result") == "Succeeded"
    )


def _served(deployment: Raw) -> Iterator[str]:
    for part in ("stable", "candidate", "previous"):
        yield str((status_of(deployment).get(part) or {}).get("artifactDigest", ""))


def _source_digests(adapter: Raw) -> Iterator[str]:
    spec = adapter.get("spec", {})
    for one in (spec.get("base") or {}, *(spec.get("adapters") or ())):
        if one.get("digest"):
            yield str(one["digest"])


def _remote(adapter: Raw) -> bool:
    spec = adapter.get("spec", {})
    sources = [one.get("source") or {} for one in (spec.get("base") or {}, *(spec.get("adapters") or ()))]
    return any("pvc" not in source for source in sources)


def build_prune_job(
    store: ClaimPath,
    names: Names,
    *,
    namespace: str,
    image: JobImage,
    suffix: str,
    delete: bool,
    min_age_seconds: int,
) -> dict[str, Any]:
    """The Job; nothing restarts it, and it goes away by itself."""
    arguments = [
        "prune",
        f"/store/{store.path}".rstrip("/"),
        "--namespace",
        namespace,
        "--min-age",
        str(min_age_seconds),
    ]
    options = {
        "--keep": names.artifacts,
        "--keep-digest": names.digests,
        "--keep-all": names.unfinished,
        "--keep-source": names.sources,
    }
    arguments += [word for option, values in options.items() for value in values for word in (option, value)]
    arguments += ["--keep-sources"] if names.all_sources else []
    arguments += ["--delete"] if delete else []
    if sum(map(len, arguments)) > 900_000:
        raise Invalid(
            f"namespace {namespace} names too many artifacts for one Job; delete LoRAAdapters that are not needed any more"
        )
    labels = {
        "app.kubernetes.io/name": "lora-operator",
        "app.kubernetes.io/component": "prune",
        "app.kubernetes.io/part-of": "lora-operator",
        "app.kubernetes.io/managed-by": "loractl",
    }
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": {"name": f"lora-prune-{suffix}", "namespace": namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": LONGEST_RUN_SECONDS,
            "ttlSecondsAfterFinished": KEEP_FINISHED_SECONDS,
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(store, arguments, image=image),
            },
        },
    }


def _pod(store: ClaimPath, arguments: list[str], *, image: JobImage) -> dict[str, Any]:
    container = {
        "name": "prune",
        "image": image.name,
        "args": arguments,
        "env": [{"name": "LORA_TERMINATION_LOG", "value": "/dev/termination-log"}, {"name": "HOME", "value": "/tmp"}],  # noqa: S108
        "resources": {"limits": {"memory": MEMORY}, "requests": {"cpu": "100m", "memory": MEMORY}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "store", "mountPath": "/store"}],
    }
    return {
        **image.placement,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": store.claim}}],
    }
