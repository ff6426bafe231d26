"""The job image and where its pods run, as a Job of the namespace or the operator's own settings tell: for pods that the client starts.

An image that a Job ran is in the cluster already. Where one of the Job's pods is left, its image is taken by the digest that really
ran, so that a tag which moved since cannot bring another program.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_client.api import Api, Json
from lora_client.errors import Forbidden, Invalid
from lora_client.names import JOB, LABEL_ADAPTER, POD, Kind

__all__ = ["JobImage", "find_job_image"]

DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
IMAGE_VARIABLE = "LORA_JOB_IMAGE"
PINNED = re.compile(r"^[^@\s]+@sha256:[0-9a-f]{64}$")
PLACEMENT = ("imagePullSecrets", "nodeSelector", "tolerations", "affinity")


@dataclass(frozen=True)
class JobImage:
    """`placement` are fields of a pod's spec: what lets the Job's pods pull the image and reach the claim."""

    name: str
    placement: Mapping[str, Any] = field(default_factory=dict)


async def find_job_image(api: Api, *, namespace: str, given: str | None = None, adapter: str = "") -> JobImage:
    """Given, $LORA_JOB_IMAGE, that of a Job in the namespace (the adapter's own first), or the operator's own setting.

    Raises:
        Invalid: none of these is there, or may be read.
    """
    try:
        jobs = await api.list(JOB, namespace=namespace, labels="app.kubernetes.io/managed-by=lora-operator")
    except Forbidden:
        jobs = []
    job = max(jobs, key=lambda one: _preference(one, adapter), default=None)
    placement = {} if job is None else _placement(job)
    named = given or os.environ.get(IMAGE_VARIABLE, "")
    if named:
        return JobImage(named, placement)
    if job is not None:
        return JobImage(await _image_of(api, job, namespace=namespace), placement)
    return JobImage(await _operators(api, namespace=namespace))


def _preference(job: Json, adapter: str) -> tuple[bool, str]:
    meta = job["metadata"]
    return (meta.get("labels") or {}).get(LABEL_ADAPTER) == adapter, str(meta.get("creationTimestamp", ""))


def _placement(job: Json) -> dict[str, Any]:
    spec = job["spec"]["template"]["spec"]
    return {key: spec[key] for key in PLACEMENT if spec.get(key)}


async def _image_of(api: Api, job: Json, *, namespace: str) -> str:
    name = job["metadata"]["name"]
    for pod in await api.list(POD, namespace=namespace, labels=f"batch.kubernetes.io/job-name={name}"):
        for one in (pod.get("status") or {}).get("containerStatuses") or ():
            ran = str(one.get("imageID") or "").removeprefix("docker-pullable://")
            if PINNED.match(ran):
                return ran
    return str(job["spec"]["template"]["spec"]["containers"][0]["image"])


async def _operators(api: Api, *, namespace: str) -> str:
    try:
        operators = await api.list(DEPLOYMENT, namespace=None, labels="app.kubernetes.io/name=lora-operator")
    except Forbidden:
        operators = []
    for deployment in operators:
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            for entry in container.get("env") or ():
                if entry["name"] == IMAGE_VARIABLE and entry.get("value"):
                    return str(entry["value"])
    raise Invalid(
        f"the image of the helper pod is not known: no Job ran in namespace {namespace} yet and the operator's Deployment cannot "
        f"be read; set {IMAGE_VARIABLE} to the job image"
    )
