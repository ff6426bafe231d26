"""PodDisruptionBudget of a revision with more than one replica: a node drain takes one pod at a time."""

from typing import Any

from lora_operator.api.kinds import DISRUPTION_BUDGET
from lora_operator.api.names import revisioned
from lora_operator.core.build.labels import metadata_of, revision_labels, selector_of, stamped
from lora_operator.core.build.owner import Owner

__all__ = ["build_disruption_budget"]


def build_disruption_budget(owner: Owner, *, revision: str) -> dict[str, Any]:
    """PodDisruptionBudget `<name>-<revision>`."""
    return stamped(
        {
            "apiVersion": DISRUPTION_BUDGET.api_version,
            "kind": DISRUPTION_BUDGET.kind,
            "metadata": metadata_of(
                owner,
                name=revisioned(owner.name, revision=revision),
                component="serving",
                labels=revision_labels(revision),
            ),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector_of(owner, revision=revision)}},
        }
    )
