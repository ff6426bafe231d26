"""Every reason that a condition or an Event of the operator can carry, in one place.

Each has a line in docs/troubleshooting.md (a test compares). A reason is part of the contract with people and alerts:
it may be added, never renamed.
"""

from enum import StrEnum

__all__ = ["Reason"]


class Reason(StrEnum):
    """CamelCase words of `conditions[].reason`."""

    # both resources
    INVALID = "Invalid"
    NOT_SUPPORTED_YET = "NotSupportedYet"
    NAME_TAKEN = "NameTaken"
    SUSPENDED = "Suspended"
    DELETING = "Deleting"
    FORBIDDEN = "Forbidden"
    RETRYING = "Retrying"

    # LoRAAdapter: one immutable build
    PENDING = "Pending"
    RESOLVING = "Resolving"
    MERGING = "Merging"
    VALIDATING = "Validating"
    SOURCES_RESOLVED = "SourcesResolved"
    MERGED = "Merged"
    VALIDATED = "Validated"
    READY = "Ready"
    QUALITY_WARNING = "QualityWarning"
    VALIDATION_DISABLED = "ValidationDisabled"
    GATES_FAILED = "GatesFailed"
    CLAIM_NOT_FOUND = "ClaimNotFound"
    SUITE_NOT_FOUND = "SuiteNotFound"
    VOLUME_NOT_SHAREABLE = "VolumeNotShareable"
    WAITING_FOR_SLOT = "WaitingForSlot"
    IMAGE_NOT_AVAILABLE = "ImageNotAvailable"
    POD_UNSCHEDULABLE = "PodUnschedulable"
    OUT_OF_MEMORY = "OutOfMemory"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    NO_SPACE = "NoSpace"
    JOB_FAILED = "JobFailed"
    RETRIES_SPENT = "RetriesSpent"
    BAD_RESULT = "BadResult"
    ARTIFACT_IN_USE = "ArtifactInUse"

    # LoRADeployment: what serves
    STABLE = "Stable"
    ADAPTER_NOT_FOUND = "AdapterNotFound"
    ADAPTER_NOT_READY = "AdapterNotReady"
    INSUFFICIENT_GPU = "InsufficientGPU"
    INSUFFICIENT_MEMORY = "InsufficientMemory"
    UNKNOWN_PROFILE = "UnknownProfile"
    ROUTE_NOT_ACCEPTED = "RouteNotAccepted"
    GATEWAY_NOT_FOUND = "GatewayNotFound"
    ROUTER_LACKS_FEATURE = "RouterLacksFeature"
    UNKNOWN_METRIC = "UnknownMetric"
    NO_METRICS_SOURCE = "NoMetricsSource"
    WEIGHT_NOT_REACHABLE = "WeightNotReachable"
    PREPARING = "Preparing"
    REPLACING = "Replacing"
    STEPPING = "Stepping"
    TESTING = "Testing"
    STABLE_WON = "StableWon"
    TEST_ENDED = "TestEnded"
    SWITCHING = "Switching"
    PROMOTING = "Promoting"
    PROMOTED = "Promoted"
    ABORTING = "Aborting"
    ABORTED = "Aborted"
    SUPERSEDED = "Superseded"
    ABORT_REQUESTED = "AbortRequested"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    WRONG_MODEL_ANSWERS = "WrongModelAnswers"
    POD_FAILED = "PodFailed"
    CAPACITY_LOST = "CapacityLost"
    ROLLED_BACK = "RolledBack"
    PAUSED = "Paused"
    AWAITING_PROMOTE = "AwaitingPromote"
    STEPS_CHANGED = "StepsChanged"
    APPROVAL_TIMED_OUT = "ApprovalTimedOut"
    HELD = "Held"
    DRAINING = "Draining"
    FORCE_DEPLOYED = "ForceDeployed"
