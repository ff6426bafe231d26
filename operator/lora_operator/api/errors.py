"""The one error of parsing: which field, what was found, what would have been right.

Becomes the condition `Ready=False, Stalled=True, reason Invalid` (or `NotSupportedYet`), never a traceback.
"""

from lora_operator.api.reasons import Reason

__all__ = ["Invalid"]


class Invalid(ValueError):
    """A resource says something the operator cannot act on; only a person can mend it."""

    def __init__(self, *, field: str, found: object, expected: str, reason: Reason = Reason.INVALID) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: found {found!r}, expected {expected}")
