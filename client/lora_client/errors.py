"""What can go wrong between a user of the client and the cluster: one sentence each, with a way out.

`exit_code` is what a command line should end with: 2 for something the caller can correct in what was asked, 1 for
everything that may work at another time or for another person.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "ClientError",
    "Conflict",
    "Forbidden",
    "Invalid",
    "NoCluster",
    "NotFound",
    "NotInstalled",
    "Refused",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
    "not_found",
]


class ClientError(Exception):
    """Base of all errors of lora_client; `str(error)` is a sentence for people."""

    exit_code = 1


class NoCluster(ClientError):
    """There is no cluster to talk to, or it does not answer."""


class NotInstalled(ClientError):
    """The cluster answers but does not know LoRAAdapter and LoRADeployment."""


class Unauthorized(ClientError):
    """The cluster does not accept these credentials."""


class Forbidden(ClientError):
    """A right is missing; the sentence says which and how to look it up."""


class Unavailable(ClientError):
    """The API server failed again and again (429, 5xx, resets) until the retries were spent."""


class TimedOut(ClientError):
    """What was waited for did not happen in time; it may still happen."""


class NotFound(ClientError):
    """No such object; the nearest names are in the sentence and in `nearest`."""

    exit_code = 2

    def __init__(self, message: str, *, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.nearest = nearest


class Conflict(ClientError):
    """Somebody else owns a field, or the object changed between reading and writing."""

    exit_code = 2


class Refused(ClientError):
    """The API server will never accept this object, or the request makes no sense in this state."""

    exit_code = 2


class Invalid(ClientError):
    """Something the caller gave cannot be understood: where, what was found, what was expected."""

    exit_code = 2


def not_found(what: str, name: str, *, known: Iterable[str], where: str) -> NotFound:
    """`what` is the kind in words, `where` the place, e.g. `namespace finance`."""
    names = sorted(known)
    nearest = tuple(get_close_matches(name, names, n=3, cutoff=0.5)) or tuple(names[:3])
    if not names:
        return NotFound(f"{what} {name} is not in {where}, and there is no other; check the name and the namespace")
    there = ", ".join(nearest) + (f" and {len(names) - len(nearest)} more" if len(names) > len(nearest) else "")
    return NotFound(
        f"{what} {name} is not in {where}; there is {there}: check the name, or the namespace", nearest=nearest
    )
