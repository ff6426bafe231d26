"""The words of the API that the client speaks: kinds, labels, annotations, phases.

The client stands on its own (a notebook must not need the operator's code), so these are written here a second time;
tests/client/test_names.py compares them with the operator's.
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "ADAPTER",
    "ANNOTATION_WORKFLOW_DEPLOYMENT",
    "CLAIM",
    "CONTROLLER_REVISION",
    "FIELD_MANAGER",
    "GROUP",
    "JOB",
    "LABEL_ADAPTER",
    "LABEL_CANCELLED",
    "LABEL_DEPLOYMENT",
    "LABEL_REVISION",
    "LABEL_WORKFLOW",
    "LORA_DEPLOYMENT",
    "POD",
    "AdapterPhase",
    "DeploymentPhase",
    "Kind",
    "Reason",
    "Verb",
]

GROUP = "loraops.dev"
FIELD_MANAGER = "lora-client"
LABEL_ADAPTER = f"{GROUP}/adapter"
LABEL_DEPLOYMENT = f"{GROUP}/deployment"
LABEL_REVISION = f"{GROUP}/revision"
LABEL_WORKFLOW = f"{GROUP}/workflow-id"
LABEL_CANCELLED = f"{GROUP}/workflow-cancelled"
ANNOTATION_WORKFLOW_DEPLOYMENT = f"{GROUP}/workflow-deployment"
"""On the LoRAAdapter: which LoRADeployment its workflow feeds, so that the pair is known after a later workflow took the label over."""


@dataclass(frozen=True)
class Kind:
    """Group, version, plural and kind, e.g. batch/v1 jobs Job. `short` is what people type."""

    group: str
    version: str
    plural: str
    kind: str
    short: str = ""

    @property
    def api_version(self) -> str:
        """`apiVersion` of a manifest."""
        return f"{self.group}/{self.version}" if self.group else self.version


ADAPTER = Kind(GROUP, "v1alpha1", "loraadapters", "LoRAAdapter", "lora")
LORA_DEPLOYMENT = Kind(GROUP, "v1alpha1", "loradeployments", "LoRADeployment", "lorad")
CONTROLLER_REVISION = Kind("apps", "v1", "controllerrevisions", "ControllerRevision")
JOB = Kind("batch", "v1", "jobs", "Job")
POD = Kind("", "v1", "pods", "Pod")
CLAIM = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")


class Verb(StrEnum):
    """One-shot requests on a LoRADeployment: annotation `loraops.dev/<verb>` with value `<revision>/<nonce>`."""

    PROMOTE = "promote"
    PROMOTE_FULL = "promote-full"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    RETRY = "retry"
    ROLLBACK_TO = "rollback-to"

    @property
    def annotation(self) -> str:
        """Key of the annotation."""
        return f"{GROUP}/{self}"


class AdapterPhase(StrEnum):
    """`status.phase` of a LoRAAdapter."""

    PENDING = "Pending"
    RESOLVING = "Resolving"
    MERGING = "Merging"
    VALIDATING = "Validating"
    READY = "Ready"
    REJECTED = "Rejected"
    FAILED = "Failed"
    SUSPENDED = "Suspended"


class DeploymentPhase(StrEnum):
    """`status.phase` of a LoRADeployment."""

    PENDING = "Pending"
    STABLE = "Stable"
    PREPARING = "Preparing"
    STEPPING = "Stepping"
    PAUSED = "Paused"
    TESTING = "Testing"
    SWITCHING = "Switching"
    REPLACING = "Replacing"
    PROMOTING = "Promoting"
    ABORTING = "Aborting"
    ABORTED = "Aborted"
    DELETING = "Deleting"


class Reason(StrEnum):
    """The condition reasons that the client draws conclusions from; all of them are in docs/troubleshooting.md."""

    ADAPTER_NOT_FOUND = "AdapterNotFound"
    ADAPTER_NOT_READY = "AdapterNotReady"
    HELD = "Held"
    NOT_SUPPORTED_YET = "NotSupportedYet"
    ROLLED_BACK = "RolledBack"
    SUPERSEDED = "Superseded"
