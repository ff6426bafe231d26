"""Does a live object already say all that a manifest wants?

The API server adds defaults, drops empty values and rewrites quantities, so equality is no use: every leaf that we want
must be there with the same meaning. What others added elsewhere is theirs. Lists are compared whole, because the
lists we write (rules, backendRefs, ports) are atomic.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

__all__ = ["says_all_of"]

_QUANTITY = re.compile(r"([+-]?[0-9.]+)([EPTGMk]i?|Ki|m|u|n|)")
_SCALE = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


def says_all_of(live: Any, wanted: Any) -> bool:
    """True when applying `wanted` to `live` would change nothing of meaning."""
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            return live is None and not any(wanted.values())
        return all(says_all_of(live.get(key), value) for key, value in wanted.items() if key != "ownerReferences")
    if isinstance(wanted, list | tuple):
        found = live or []
        return len(found) == len(wanted) and all(says_all_of(a, b) for a, b in zip(found, wanted, strict=True))
    if live is None:
        return wanted in (None, "", False, 0)
    return bool(live == wanted) or _same_quantity(live, wanted)


def _same_quantity(live: Any, wanted: Any) -> bool:
    """`1000m` and `1` are one amount; the API server stores the second."""
    left, right = _amount(live), _amount(wanted)
    return left is not None and left == right


def _amount(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    match = _QUANTITY.fullmatch(str(value))
    if match is None or match[1].count(".") > 1 or match[1].strip("+-.") == "":
        return None
    return Decimal(match[1]) * _SCALE[match[2]]
