"""A dictionary that is true when it succeeded: both `if manager.rollback_deployment(id):` and `answer["success"]` work."""

from typing import Any

__all__ = ["Answer"]


class Answer(dict[str, Any]):
    """Has at least `success`."""

    def __bool__(self) -> bool:
        """Whether it succeeded."""
        return bool(self.get("success"))
