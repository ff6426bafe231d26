"""What can go wrong between us and the API server, sorted by what to do about it.

A name in a `Retryable` means: back off and try again; nothing was decided wrongly. The others are facts to decide on.
"""

__all__ = ["AlreadyExists", "ApiError", "Conflict", "Forbidden", "NotFound", "Rejected", "Retryable"]


class ApiError(Exception):
    """The API server did not do what was asked."""


class Retryable(ApiError):
    """429, 5xx, timeout, reset: try again after `after` seconds (None: our own backoff)."""

    def __init__(self, message: str, *, after: float | None = None) -> None:
        self.after = after
        super().__init__(message)


class Conflict(ApiError):
    """409 on a precondition or on a foreign field manager: read again, decide again."""


class AlreadyExists(ApiError):
    """409 on create: somebody, perhaps we before a crash, made it already."""


class NotFound(ApiError):
    """404: the object, its namespace or its whole kind is not there."""


class Forbidden(ApiError):
    """403: a right is missing; says which."""


class Rejected(ApiError):
    """400 or 422: the server will never accept this object as it is."""
