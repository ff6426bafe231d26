"""A short-lived pod with a claim mounted: the only way for a workstation to reach the files of a PersistentVolumeClaim.

    create ─► running ─► commands ─► delete        whatever happens in between, Ctrl-C too

It fits Pod Security `restricted`, runs as the user that Jobs run as, holds no token, and ends by itself where the client was killed;
what is left of such a pod, the next one of the namespace sweeps away.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from lora_client.api import Api, Json
from lora_client.errors import ClientError, Forbidden, TimedOut, Unavailable
from lora_client.executing import execute
from lora_client.job_image import JobImage
from lora_client.names import POD
from lora_client.watching import watch_objects

__all__ = ["ClaimPod", "claim_pod"]

CONTAINER = "files"
ROOT = "/claim"
USER = 65532
LIFETIME_SECONDS = 3600
LABELS = {"app.kubernetes.io/name": "lora-files", "app.kubernetes.io/managed-by": "lora-client"}
HOPELESS = frozenset({"ErrImageNeverPull", "InvalidImageName", "ImagePullBackOff", "CreateContainerConfigError"})
"""Reasons for waiting that patience does not heal. A first ErrImagePull may: a registry hiccups."""
Say = Callable[[str], None]


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
    api: Api,
    *,
    namespace: str,
    claim: str,
    image: JobImage,
    read_only: bool,
    wait_seconds: float = 180.0,
    say: Say = lambda _: None,
) -> AsyncIterator[ClaimPod]:
    """A pod that runs, until the block ends. `say` is told what is being waited for.

    Raises:
        TimedOut: it did not start; says what it waits for.
        Unavailable: it cannot start, or could not be removed.
    """
    name = f"lora-files-{uuid4().hex[:8]}"
    await _sweep(api, namespace=namespace)
    try:
        # Inside, because a create whose answer was lost may have been done.
        await api.create(POD, _manifest(name, namespace=namespace, claim=claim, image=image, read_only=read_only))
        say(f"pod {name} starts")
        await _running(api, namespace=namespace, name=name, seconds=wait_seconds, say=say)
        yield ClaimPod(api, namespace, name)
    except BaseException:
        try:
            await api.delete(POD, namespace=namespace, name=name)
        except ClientError as error:
            say(_left_behind(name, error))  # what went wrong before is what has to be told
        raise
    try:
        await api.delete(POD, namespace=namespace, name=name)
    except ClientError as error:
        raise Unavailable(_left_behind(name, error)) from error


def _left_behind(name: str, error: ClientError) -> str:
    return f"pod {name} could not be removed ({error}); it ends by itself: remove it with kubectl delete pod {name}"


async def _sweep(api: Api, *, namespace: str) -> None:
    """Removes what killed clients left: pods that have ended. Best effort, it is not what the caller asked for."""
    labels = ",".join(f"{key}={value}" for key, value in LABELS.items())
    try:
        for pod in await api.list(POD, namespace=namespace, labels=labels):
            if (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
                await api.delete(POD, namespace=namespace, name=str(pod["metadata"]["name"]))
    except Forbidden:
        return


async def _running(api: Api, *, namespace: str, name: str, seconds: float, say: Say) -> None:
    last: Json = {}
    try:
        async with asyncio.timeout(seconds):
            async for change in watch_objects(api, POD, namespace=namespace, name=name):
                last = change.object
                if _started(last):
                    return
                if change.type == "Deleted" or _hopeless(last):
                    raise Unavailable(f"pod {name} cannot start: {_why(last)}; it needs the claim and the image")
                say(f"pod {name} starts: {_why(last)}")
    except TimeoutError:
        raise TimedOut(
            f"pod {name} did not start in {seconds:g} s: {_why(last)}; it needs the claim and the image"
        ) from None


def _hopeless(pod: Json) -> bool:
    status = pod.get("status") or {}
    waiting = ((one.get("state") or {}).get("waiting") or {} for one in status.get("containerStatuses") or ())
    absent = any(
        "persistentvolumeclaim" in str(one.get("message", "")) and "not found" in str(one["message"])
        for one in status.get("conditions") or ()
    )
    return absent or status.get("phase") == "Failed" or any(one.get("reason") in HOPELESS for one in waiting)


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
    ended = " ".join(filter(None, (str(status.get("reason") or ""), str(status.get("message") or ""))))
    return "; ".join(waiting or conditions) or ended or str(status.get("phase", "nothing is known of it"))


def _manifest(name: str, *, namespace: str, claim: str, image: JobImage, read_only: bool) -> dict[str, Any]:
    container = {
        "name": CONTAINER,
        "image": image.name,
        "imagePullPolicy": "IfNotPresent",
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
        "metadata": {"name": name, "namespace": namespace, "labels": LABELS},
        "spec": {
            **image.placement,
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
