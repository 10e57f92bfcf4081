"""What can go wrong, as exceptions that carry their own answer.

Every error has a stable ``code`` (snake_case, part of the API), an HTTP ``status``, a sentence for a
person (``detail``), and whether the same request may succeed later (``retryable``). The faces turn
them into RFC 9457 problem documents; nothing else in the code knows about HTTP answers.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class FieldError(msgspec.Struct, frozen=True):
    """One thing wrong with one field: a JSON pointer (RFC 6901) and a sentence."""

    pointer: str
    detail: str


class CounterfoilError(Exception):
    """The root of every error that is an answer rather than a defect."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    default_code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False
    retry_after: int | None = None
    """Seconds to wait before asking again makes sense."""

    def __init__(self, detail: str, *, code: str | None = None, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.errors = errors


class Invalid(CounterfoilError):
    """The request says something that cannot be; nothing was changed."""

    status = 422
    title = "Invalid request"
    default_code = "invalid_request"

    @classmethod
    def field(cls, name: str, detail: str, *, code: str | None = None) -> Invalid:
        """One bad field of the request body, named by its path (``a/0/b``)."""
        return cls(f"{name}: {detail}", code=code, errors=(FieldError("/" + name, detail),))


class Malformed(CounterfoilError):
    """The request could not be read at all."""

    status = 400
    title = "Malformed request"
    default_code = "malformed_request"


class Unauthorized(CounterfoilError):
    """No credential, or one we do not accept."""

    status = 401
    title = "Not signed in"
    default_code = "unauthorized"


class Forbidden(CounterfoilError):
    """The credential is good but does not reach this."""

    status = 403
    title = "Not allowed"
    default_code = "forbidden"


class NotFound(CounterfoilError):
    """There is no such thing, or not for this caller: the two look alike on purpose."""

    status = 404
    title = "Not found"
    default_code = "not_found"


class Conflict(CounterfoilError):
    """The thing exists but is in a state that does not allow this."""

    status = 409
    title = "Conflict"
    default_code = "conflict"


class TooManyRequests(CounterfoilError):
    """Slow down."""

    status = 429
    title = "Too many requests"
    default_code = "rate_limited"
    retryable = True

    def __init__(
        self, detail: str, *, code: str | None = None, errors: tuple[FieldError, ...] = (), retry_after: int = 60
    ) -> None:
        super().__init__(detail, code=code, errors=errors)
        self.retry_after = retry_after


class RailFailed(CounterfoilError):
    """A rail refused what we asked, for good; its own words are in ``detail``."""

    status = 502
    title = "The payment rail refused"
    default_code = "rail_refused"


class Unavailable(CounterfoilError):
    """Something we need is away for now. The same request may succeed later."""

    status = 503
    title = "Temporarily unavailable"
    default_code = "unavailable"
    retryable = True
