"""The enumerations of the module. Values are what files and the command line say."""

from enum import StrEnum

__all__ = ["DeploymentStrategy", "LoRAAdapterType", "MergeStrategy", "ModelQuality", "ValidationMode", "WorkflowStatus"]


class LoRAAdapterType(StrEnum):
    """What an adapter is for. Descriptive: any other word is accepted as a plain string wherever one of these is."""

    FINANCIAL_ANALYSIS = "financial_analysis"
    GENERAL = "general"


class MergeStrategy(StrEnum):
    """How adapters are combined with the base."""

    LINEAR = "linear"
    SLERP = "slerp"
    TASK_ARITHMETIC = "task_arithmetic"


class ValidationMode(StrEnum):
    """How much is measured."""

    BASIC = "basic"
    STANDARD = "standard"
    COMPREHENSIVE = "comprehensive"


class ModelQuality(StrEnum):
    """Grade of a validation."""

    EXCELLENT = "excellent"
    GOOD = "good"
    FAIR = "fair"
    POOR = "poor"


class DeploymentStrategy(StrEnum):
    """How a new version takes over."""

    REPLACE = "replace"
    BLUE_GREEN = "blue_green"
    CANARY = "canary"
    A_B_TESTING = "a_b_testing"


class WorkflowStatus(StrEnum):
    """Where a workflow stands: the states of lora_client."""

    PENDING = "pending"
    MERGING = "merging"
    VALIDATING = "validating"
    DEPLOYING = "deploying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
