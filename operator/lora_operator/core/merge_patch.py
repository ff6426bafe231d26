"""RFC 7386 merge patch from one JSON object to another: only what differs, null for what is gone."""

from collections.abc import Mapping
from typing import Any

__all__ = ["merge_patch"]


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The smallest patch; empty when nothing differs. Lists are replaced whole. A zero is a value, not an absence."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, wanted in after.items():
        found = before.get(key)
        if isinstance(found, Mapping) and isinstance(wanted, Mapping):
            inner = merge_patch(found, wanted)
            if inner:
                patch[key] = inner
        elif key not in before or found != wanted:
            patch[key] = wanted
    return patch
