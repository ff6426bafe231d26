"""What the API server answered instead of what was asked for, as an error that says what to do. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from lora_client.errors import ClientError, Conflict, Forbidden, NotInstalled, Refused, Unauthorized, Unavailable
from lora_client.names import GROUP

__all__ = ["ApiStatus", "Gone", "Missing", "error_of", "status_of"]

TRANSIENT = frozenset({429, 500, 502, 503, 504})
UNTYPED = "failed to create typed patch object"
LONGEST_MESSAGE = 2000


@dataclass(frozen=True)
class ApiStatus:
    """A Status object. `after`: the seconds that Retry-After names."""

    code: int
    reason: str
    message: str
    after: float | None = None

    @property
    def transient(self) -> bool:
        """The same request may be answered otherwise later."""
        return self.code in TRANSIENT and not self.forbidden_by_schema

    @property
    def forbidden_by_schema(self) -> bool:
        """Server-side apply answers a misspelt field or a wrong type with 500, which no repeating heals."""
        return self.code == 500 and self.message.startswith(UNTYPED)


class Missing(ClientError):
    """404 of one object: the caller knows what it was in words, and turns this into NotFound."""

    exit_code = 2


class Gone(ClientError):
    """410: a watch must begin again with a list."""


def status_of(code: int, data: bytes, headers: Mapping[str, str]) -> ApiStatus:
    """The answer; proxies answer in plain text."""
    after = headers.get("Retry-After", "")
    seconds = float(after) if after.isdigit() else None
    try:
        raw = json.loads(data)
        return ApiStatus(code, str(raw.get("reason", "")), str(raw.get("message", ""))[:LONGEST_MESSAGE], seconds)
    except (ValueError, AttributeError):
        return ApiStatus(code, "", data.decode(errors="replace").strip()[:500], seconds)


def error_of(status: ApiStatus, *, path: str, where: str) -> ClientError:
    """A final answer; `where` is the cluster in words."""
    if status.code == 404:
        return _of_missing(status, path=path, where=where)
    known: dict[int, ClientError] = {
        401: Unauthorized(f"the cluster does not accept these credentials ({where}); log in again"),
        403: Forbidden(
            f"{status.message or path}; ask for the right, or see what you may do with: kubectl auth can-i --list"
        ),
        409: Conflict(_of_conflict(status)),
        410: Gone(status.message),
    }
    if status.forbidden_by_schema:
        return Refused(_of_schema(status))
    if status.transient:
        return Unavailable(f"{path}: {status.code} {status.message}")
    return known.get(status.code) or Refused(status.message or f"{path}: {status.code}")


def _of_schema(status: ApiStatus) -> str:
    """`failed to create typed patch object (NAMESPACE/NAME; GROUP/VERSION, Kind=KIND): .FIELD: WHY`, maybe for several fields."""
    where, _, why = status.message.removeprefix(UNTYPED).strip().partition("): ")
    name, _, kind = where.removeprefix("(").partition("; ")
    fields = [line.strip().removeprefix(".") for line in why.splitlines() if line.strip() not in {"", "errors:"}]
    return f"{kind.rpartition('=')[2]} {name}: {', '.join(fields) or status.message}; kubectl explain and docs/fields.md list the fields"


def _of_missing(status: ApiStatus, *, path: str, where: str) -> ClientError:
    # A path the server does not know is plain text "404 page not found"; an absent object is a Status with a reason.
    if status.reason != "NotFound" and path.startswith(f"/apis/{GROUP}/"):
        return NotInstalled(
            f"the cluster does not know LoRAAdapter and LoRADeployment ({where}): install the operator "
            "(docs/install.md), or choose the right context"
        )
    return Missing(status.message or f"{path}: not found")


def _of_conflict(status: ApiStatus) -> str:
    if status.reason == "AlreadyExists":
        return status.message
    if "conflict" in status.message and "." in status.message:
        return f"{' '.join(status.message.split())}; change it where that manager keeps it, or take the field over with force"
    return f"{status.message}; read it again and repeat"
