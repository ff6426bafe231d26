"""Reads a raw JSON object into typed values, remembering the path of each field for the error message.

Not a schema language: the CRD's schema and CEL reject most mistakes at admission; this says the same at reconcile,
for objects that were stored before a rule existed.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from lora_operator.api.errors import Invalid

__all__ = ["Reader"]

E = TypeVar("E", bound=StrEnum)
_MISSING: Any = object()


class Reader:
    """One JSON object at `path`. Each method reads a key; without `default` the key is required."""

    def __init__(self, raw: Any, *, path: str) -> None:
        if not isinstance(raw, Mapping):
            raise Invalid(field=path, found=raw, expected="an object")
        self.raw: Mapping[str, Any] = raw
        self.path = path

    def __contains__(self, key: str) -> bool:
        return key in self.raw

    def at(self, key: str) -> str:
        """The full path of a key."""
        return f"{self.path}.{key}"

    def child(self, key: str) -> "Reader":
        """The object under `key`; an absent one reads as empty."""
        return Reader(self.raw.get(key, {}), path=self.at(key))

    def required(self, key: str) -> "Reader":
        """The object under `key`, which must be there."""
        return Reader(self._value(key, _MISSING), path=self.at(key))

    def children(self, key: str) -> list["Reader"]:
        """The list of objects under `key`; an absent list is empty."""
        return [Reader(item, path=f"{self.at(key)}[{index}]") for index, item in enumerate(self._list(key))]

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of strings under `key`."""
        return tuple(str(item) for item in self._list(key))

    def text(self, key: str, default: str = _MISSING) -> str:
        """A string."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise Invalid(field=self.at(key), found=value, expected="a string")
        return value

    def boolean(self, key: str, default: bool = _MISSING) -> bool:
        """A boolean."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise Invalid(field=self.at(key), found=value, expected="true or false")
        return value

    def integer(self, key: str, default: int = _MISSING, *, minimum: int = 0) -> int:
        """A whole number of at least `minimum`."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise Invalid(field=self.at(key), found=value, expected=f"a whole number of at least {minimum}")
        return value

    def number(self, key: str, default: float = _MISSING) -> float:
        """A finite number."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 (NaN)
            raise Invalid(field=self.at(key), found=value, expected="a number")
        return float(value)

    def choice(self, key: str, kind: type[E], default: E = _MISSING) -> E:
        """One of an enumeration's words."""
        value = self._value(key, default)
        if value not in list(kind):
            raise Invalid(field=self.at(key), found=value, expected="one of " + ", ".join(kind))
        return kind(value)

    def one_of(self, *keys: str) -> str:
        """The single key of `keys` that is present (a union's member)."""
        present = [key for key in keys if key in self.raw]
        if len(present) != 1:
            raise Invalid(field=self.path, found=present or "none", expected="exactly one of " + ", ".join(keys))
        return present[0]

    def _value(self, key: str, default: Any) -> Any:
        value = self.raw.get(key, default)
        if value is _MISSING:
            raise Invalid(field=self.at(key), found=None, expected="a value")
        return value

    def _list(self, key: str) -> list[Any]:
        value = self.raw.get(key, [])
        if not isinstance(value, list):
            raise Invalid(field=self.at(key), found=value, expected="a list")
        return value
