"""Deterministic names and labels of everything the operator creates, and the hashes they are made of.

A name that can be computed again after a crash is what makes every create idempotent.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = [
    "FIELD_MANAGER",
    "GROUP",
    "LABEL_ADAPTER",
    "LABEL_DEPLOYMENT",
    "LABEL_IN_SERVICE",
    "LABEL_REVISION",
    "canonical_hash",
    "child_labels",
    "job_name",
    "revision_of",
    "revisioned",
]

GROUP = "loraops.dev"
FIELD_MANAGER = "lora-operator"
LABEL_ADAPTER = f"{GROUP}/adapter"
LABEL_DEPLOYMENT = f"{GROUP}/deployment"
LABEL_REVISION = f"{GROUP}/revision"
LABEL_IN_SERVICE = f"{GROUP}/in-service"


def canonical_hash(value: Any, *, digits: int) -> str:
    """First hex digits of sha256 over canonical JSON (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def job_name(adapter: str, *, stage: str, key: str, attempt: int) -> str:
    """`<name>-m-<hash8>-<attempt>` for merge, `-v-` for validate. `key` is hash8 of (uid, recipe or validation spec)."""
    return f"{adapter}-{stage[0]}-{key}-{attempt}"


def revision_of(*, artifact_digest: str, runtime: Mapping[str, Any]) -> str:
    """A revision is what would serve: the artifact and `spec.runtime` exactly as written."""
    return canonical_hash([artifact_digest, runtime], digits=8)


def revisioned(deployment: str, *, revision: str) -> str:
    """Name of a revision's Deployment, Service and ControllerRevision."""
    return f"{deployment}-{revision}"


def child_labels(*, instance: str, component: str, **extra: str) -> dict[str, str]:
    """Recommended labels of a child; `extra` are loraops.dev/ labels by their short name (adapter, deployment, revision)."""
    labels = {
        "app.kubernetes.io/name": "lora-operator",
        "app.kubernetes.io/instance": instance,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "lora-operator",
        "app.kubernetes.io/managed-by": FIELD_MANAGER,
    }
    return labels | {f"{GROUP}/{key}": value for key, value in extra.items()}
