"""A short-lived pod with a claim mounted: the only way for a workstation to reach the files of a PersistentVolumeClaim.

It fits Pod Security `restricted`, runs as the user that Jobs run as, holds no token, is deleted when the work is done, and
ends by itself after an hour where the client was killed.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from lora_client.api import Api
from lora_client.errors import Forbidden, Invalid, TimedOut
from lora_client.executing import execute
from lora_client.names import JOB, POD, Kind
from lora_client.watching import watch_objects

__all__ = ["ClaimPod", "claim_pod", "find_image"]

DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
IMAGE_VARIABLE = "LORA_JOB_IMAGE"
CONTAINER = "files"
ROOT = "/claim"
USER = 65532
LIFETIME_SECONDS = 3600


@dataclass(frozen=True)
class ClaimPod:
    """A running pod; the claim's root is `ROOT`."""

    api: Api
    namespace: str
    name: str

    async def run(self, *command: str, stdin: AsyncIterator[bytes] | None = None) -> bytes:
        """Runs a command; returns its stdout. Raises Refused with the command's words."""
        return await execute(
            self.api, namespace=self.namespace, pod=self.name, container=CONTAINER, command=list(command), stdin=stdin
        )


@asynccontextmanager
async def claim_pod(
    api: Api, *, namespace: str, claim: str, image: str, read_only: bool, wait_seconds: float = 180.0
) -> AsyncIterator[ClaimPod]:
    """A pod that runs, until the block ends.

    Raises:
        TimedOut: it did not start; says what it waits for.
    """
    name = f"lora-files-{uuid4().hex[:8]}"
    await api.create(POD, _manifest(name, namespace=namespace, claim=claim, image=image, read_only=read_only))
    try:
        await _running(api, namespace=namespace, name=name, seconds=wait_seconds)
        yield ClaimPod(api, namespace, name)
    finally:
        await api.delete(POD, namespace=namespace, name=name)


async def find_image(api: Api, *, namespace: str, given: str | None = None) -> str:
    """The job image: given, $LORA_JOB_IMAGE, that of a Job in the namespace, or the operator's own setting.

    Raises:
        Invalid: none of these is there, or may be read.
    """
    named = given or os.environ.get(IMAGE_VARIABLE, "")
    if named:
        return named
    managed = "app.kubernetes.io/managed-by=lora-operator"
    for job in await api.list(JOB, namespace=namespace, labels=managed):
        return str(job["spec"]["template"]["spec"]["containers"][0]["image"])
    try:
        operators = await api.list(DEPLOYMENT, namespace=None, labels="app.kubernetes.io/name=lora-operator")
    except Forbidden:
        operators = []
    for operator in operators:
        for entry in operator["spec"]["template"]["spec"]["containers"][0].get("env") or ():
            if entry["name"] == IMAGE_VARIABLE and entry.get("value"):
                return str(entry["value"])
    raise Invalid(
        f"the image of the copying pod is not known: no Job ran in namespace {namespace} yet and the operator's Deployment cannot "
        f"be read; set {IMAGE_VARIABLE} to the job image"
    )


async def _running(api: Api, *, namespace: str, name: str, seconds: float) -> None:
    last: dict[str, Any] = {}
    try:
        async with asyncio.timeout(seconds):
            async for change in watch_objects(api, POD, namespace=namespace, name=name):
                last = change.object
                if _started(last):
                    return
    except TimeoutError:
        raise TimedOut(
            f"pod {name} did not start in {seconds:g} s: {_why(last)}; it needs the claim and the image"
        ) from None


def _started(pod: dict[str, Any]) -> bool:
    entries = (pod.get("status") or {}).get("containerStatuses") or ()
    return any("running" in (one.get("state") or {}) for one in entries)


def _why(pod: dict[str, Any]) -> str:
    status = pod.get("status") or {}
    waiting = [
        f"{state['waiting'].get('reason', '')} {state['waiting'].get('message', '')}".strip()
        for one in status.get("containerStatuses") or ()
        if "waiting" in (state := one.get("state") or {})
    ]
    conditions = [str(one["message"]) for one in status.get("conditions") or () if one.get("message")]
    return "; ".join(waiting or conditions) or str(status.get("phase", "nothing is known of it"))


def _manifest(name: str, *, namespace: str, claim: str, image: str, read_only: bool) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "lora-files", "app.kubernetes.io/managed-by": "lora-client"}
    container = {
        "name": CONTAINER,
        "image": image,
        "command": ["sleep", str(LIFETIME_SECONDS)],
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}],  # noqa: S108 (in the pod)
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "claim", "mountPath": ROOT, "readOnly": read_only}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LIFETIME_SECONDS,
            "terminationGracePeriodSeconds": 0,
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
            "volumes": [{"name": "claim", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }
