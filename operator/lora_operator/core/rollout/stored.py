"""How the parts of a status are stored: times as text in whole seconds, parts that are absent left out, zeros kept."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lora_operator.api.conditions import timestamp

__all__ = ["compact", "moment", "stamp"]


def moment(text: str | None) -> datetime | None:
    """A stored time; None where there is none."""
    return None if not text else datetime.fromisoformat(text)


def stamp(value: datetime | None) -> str | None:
    """A time as it is stored; None where there is none."""
    return None if value is None else timestamp(value)


def compact(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None."""
    return {key: value for key, value in parts.items() if value is not None}
