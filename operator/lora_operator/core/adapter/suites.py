"""Whether the suites that a validation names are there yet. Pure: no read, only words."""

from lora_operator.core.adapter.observed import Observed

__all__ = ["missing_suite"]

SUITE_ENDING = ".jsonl"


def missing_suite(observed: Observed) -> str:
    """The first ConfigMap that is absent or holds no suite, in one sentence; "" when all are there."""
    namespace = observed.adapter.namespace
    for name, keys in sorted(observed.config_maps.items()):
        if keys is None:
            return f"ConfigMap {name} is not in namespace {namespace}; create it or correct validation.suites"
        if not any(key.endswith(SUITE_ENDING) for key in keys):
            return (
                f"ConfigMap {name} in namespace {namespace} has no key that ends in {SUITE_ENDING}; "
                "name the key of each suite so"
            )
    return ""
