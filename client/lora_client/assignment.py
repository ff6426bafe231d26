"""Which variant of an A/B test a user belongs to, the same on every machine and at every time.

    bucket = sha256(salt|user) mod 10000        candidate's range = [0, percent·100)

The candidate's range grows from below, so raising its share moves users from stable to candidate and none the other way:
nobody sees the variants alternate while a test ramps up. Choose a new salt for every test, or the same users are always first.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from lora_client.errors import Invalid

__all__ = ["BUCKETS", "Variant", "assign", "bucket", "match_headers"]

BUCKETS = 10_000
Variant = Literal["stable", "candidate"]


def bucket(user: str, *, salt: str) -> int:
    """0 to 9999."""
    return int.from_bytes(hashlib.sha256(f"{salt}|{user}".encode()).digest(), "big") % BUCKETS


def assign(user: str, *, salt: str, candidate_percent: float) -> Variant:
    """The variant of a user while the candidate gets `candidate_percent` (0 to 100, steps of 0.01) of the users.

    Raises:
        Invalid: the percentage is outside of 0 to 100.
    """
    if not 0 <= candidate_percent <= 100:
        raise Invalid(f"candidate_percent: found {candidate_percent:g}, expected 0 to 100")
    return "candidate" if bucket(user, salt=salt) < round(candidate_percent * BUCKETS / 100) else "stable"


def match_headers(variant: Variant, *, match: Mapping[str, Any]) -> dict[str, str]:
    """Headers that make the router send a request to the candidate; `match` is strategy.abTest.match.

    Empty for stable: requests without a match are split by weight, so set split to {stable: 100, candidate: 0}
    when the assignment is to be this module's alone.
    """
    if variant == "stable":
        return {}
    if "header" in match:
        return {str(match["header"]["name"]): str(match["header"]["value"])}
    if "cookie" in match:
        return {"Cookie": f"{match['cookie']['name']}={match['cookie']['value']}"}
    raise Invalid(f"match: found {dict(match)!r}, expected header or cookie with name and value")
