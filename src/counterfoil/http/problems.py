"""Errors as RFC 9457 problem documents."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Literal

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec

from counterfoil.kernel.errors import CounterfoilError, FieldError, Invalid
from counterfoil.logs import get_logger

PROBLEM = "application/problem+json"

_log = get_logger(__name__)


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong (RFC 9457). ``code`` is stable; ``retryable`` says whether asking again may help."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    errors: list[FieldError] = []
    ok: bool | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET
    message: str | msgspec.UnsetType = msgspec.UNSET


_CODES = {
    400: "malformed_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "rate_limited",
    500: "internal_error",
    502: "rail_refused",
    503: "unavailable",
}


_NO_CONTENT = 204


def route(access: str, *statuses: int, repeats: Literal["once", "joined", "ignored"] = "once") -> dict[str, Any]:
    """The parts of a route that every route declares: who may call it, and which problems it can answer.

    ``access`` is a permission (accounts/permissions.py), ``signed_in`` for what everybody may do about themselves,
    or ``public``. Where the path has a ``customer_id``, the permission must be held at that customer. A route that
    answers 204 with a cookie names it among ``statuses``, else its description would promise a body. ``repeats``:
    how a POST takes an Idempotency-Key (http/idempotency.py).
    """
    own = {400, 422, 429, *statuses}
    if access != "public":
        own |= {401, 403}
    specs = {
        status: ResponseSpec(Problem, generate_examples=False, media_type=PROBLEM, description=_phrase(status))
        for status in sorted(own - {_NO_CONTENT})
    }
    if _NO_CONTENT in own:
        specs[_NO_CONTENT] = ResponseSpec(None, generate_examples=False, description=_phrase(_NO_CONTENT))
    security: list[dict[str, list[str]]] = [] if access == "public" else [{"key": [access]}, {"session": []}]
    return {"opt": {"access": access, "repeats": repeats}, "responses": specs, "security": security}


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response[Problem]:
    """The problem as an answer."""
    return Response(problem, status_code=problem.status, media_type=PROBLEM, headers=headers)


def _problem(status: int, title: str, detail: str, code: str, *, retryable: bool, errors: list[FieldError]) -> Problem:
    return Problem(
        type=f"urn:counterfoil:problem:{code}",
        title=title,
        status=status,
        detail=detail,
        code=code,
        retryable=retryable,
        errors=errors,
    )


def describe(error: Exception) -> Problem:
    """The problem behind any exception. What is not ours to explain is logged and says nothing."""
    match error:
        case CounterfoilError():
            return _problem(
                error.status, error.title, error.detail, error.code,
                retryable=error.retryable, errors=list(error.errors),
            )  # fmt: skip
        case ValidationException():
            fields = [_field_error(item) for item in error.extra or [] if isinstance(item, dict)]
            return _problem(
                Invalid.status, Invalid.title, "Some fields are missing or wrong.", Invalid.default_code,
                retryable=False, errors=fields,
            )  # fmt: skip
        case HTTPException():
            status = error.status_code
            return _problem(
                status, _phrase(status), error.detail or _phrase(status), _CODES.get(status, "request_refused"),
                retryable=status in {429, 503}, errors=[],
            )  # fmt: skip
        case _:
            return _problem(
                500, "Internal error", "Something went wrong on our side.", "internal_error",
                retryable=False, errors=[],
            )  # fmt: skip


def _field_error(item: dict[str, Any]) -> FieldError:
    key = str(item.get("key", ""))
    return FieldError("/" + key.replace("[", "/").replace("]", "").replace(".", "/"), str(item.get("message", "")))


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Answer with the problem behind an exception."""
    problem = describe(error)
    if problem.status == 500:
        _log.error("request failed", path=request.url.path, method=request.method, exc_info=error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, CounterfoilError) and error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return problem_response(problem, headers)


def handle_for_clients(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """The same for the routes that existing license clients call: their envelope, and their status for bad input."""
    answer = handle(request, error)
    problem = answer.content
    status = 400 if problem.status == Invalid.status else problem.status
    ours = msgspec.structs.replace(problem, status=status, ok=False, error=problem.code, message=problem.detail)
    return problem_response(ours)
