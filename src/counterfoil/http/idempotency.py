"""Idempotency-Key: a POST that may be sent again, and happens once.

A middleware holds the answer back until it is kept. The key is claimed after the route's guard let the caller in
(:func:`begin`), because whose key it is decides what it stands for. Without the header nothing of this happens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Concatenate, Literal, ParamSpec, TypeAlias, TypeVar

import msgspec
from litestar import Response
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.spec import OpenAPIResponse, Operation, Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from counterfoil.db.base import DatabaseUnavailable
from counterfoil.db.tx import Tx
from counterfoil.http.access import (
    IDENTITY_STATE,
    ONCE_STATE,
    Asker,
    address_of,
    find_identity,
    house_of,
    tenant_of,
)
from counterfoil.idempotency.handling import Handling, Reply, Shape
from counterfoil.idempotency.keys import Overtaken
from counterfoil.kernel.errors import Invalid
from counterfoil.logs import get_logger

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")

_log = get_logger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = (b"idempotent-replayed", b"true")
_STATE = "counterfoil_idempotency"
_KEY = re.compile(r"[!-~]{1,255}")
_NOT_KEPT_HEADERS = {b"content-length", b"date"}
_REFUSALS = {401, 403, 429}
"""What may be otherwise a moment later, for the same request: such an answer is not kept."""

Repeats: TypeAlias = Literal["once", "joined", "ignored"]
"""How a route takes a key.

``once``: one handling at a time. ``joined``: the route keeps its change single by the key itself, so that a request
goes on where the one before it was cut off, even while that is handled. ``ignored``: it takes none.
"""


class Keyed:
    """What the middleware and a request share about its key."""

    __slots__ = ("bare", "handling", "replay", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.bare = ""
        self.handling: Handling | None = None
        self.replay: Reply | None = None


def repeats_of(handler: Any) -> Repeats:
    """How a route takes a key: ``ignored`` unless it is a POST of the API."""
    if "POST" not in handler.http_methods or not all(path.startswith("/v1/") for path in handler.paths):
        return "ignored"
    declared: Repeats = handler.opt.get("repeats", "once")
    return declared


class Idempotent:
    """Keeps the answer of a request with a key, and gives it again to whoever repeats the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        text = _key_in(scope)
        if text is None or repeats_of(scope["route_handler"]) == "ignored":
            await self._app(scope, receive, send)
            return
        keyed = Keyed(text)
        scope["state"][_STATE] = keyed
        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)

        await self._app(scope, receive, hold)
        if keyed.handling is None and keyed.replay is None:  # refused before the key counted
            for message in held:
                await send(message)
            return
        reply, extra = await _conclude(keyed, _reply_of(held))
        length = (b"content-length", str(len(reply.body)).encode())
        headers = [*reply.headers, *([] if reply.status == 204 else [length]), *extra]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body, "more_body": False})


def _key_in(scope: Scope) -> str | None:
    if scope["type"] != ScopeType.HTTP or scope["method"] != "POST":
        return None
    for name, value in scope["headers"]:
        if name == b"idempotency-key":
            return value.decode("latin-1")
    return None


def _reply_of(messages: Iterable[Message]) -> Reply:
    status, headers, body = 500, [], b""
    for message in messages:
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = [(name.lower(), value) for name, value in message["headers"]]
        elif message["type"] == "http.response.body":
            body += message["body"]
    return Reply(status, [header for header in headers if header[0] not in _NOT_KEPT_HEADERS], body)


async def _conclude(keyed: Keyed, reply: Reply) -> tuple[Reply, list[tuple[bytes, bytes]]]:
    """Keep the answer, or forget the key; the answer to send, and the headers that are only this request's."""
    if keyed.replay is not None:
        return keyed.replay, [REPLAYED]
    handling = keyed.handling
    assert handling is not None
    try:
        if _is_overtaken(reply):
            meanwhile = await handling.answered_meanwhile()
            return (meanwhile, [REPLAYED]) if meanwhile else (reply, [])
        if reply.status in _REFUSALS:
            await handling.free()
        elif reply.status >= 500 or _is_retryable(reply):
            await handling.let_go()
        else:
            return await handling.finish(reply), []
    except DatabaseUnavailable as error:  # what was done is done; whoever asks again is told to wait
        _log.warning("an answer could not be kept", status=reply.status, exc_info=error)
    return reply, []


class _Problem(msgspec.Struct):
    code: str = ""
    retryable: bool = False


def _problem(reply: Reply) -> _Problem:
    return msgspec.json.decode(reply.body, type=_Problem) if reply.status >= 400 else _Problem()


def _is_retryable(reply: Reply) -> bool:
    return _problem(reply).retryable


def _is_overtaken(reply: Reply) -> bool:
    return reply.status == Overtaken.status and _problem(reply).code == Overtaken.default_code


async def begin(request: Asker) -> Response[None] | None:
    """Claim the key of a request, if it has one; an answer of any kind when the request was answered before.

    The middleware puts the answer that was kept in its place. Raises Invalid (``bad_idempotency_key``,
    ``idempotency_key_reused``), KeyInUse, Conflict (``idempotency_answer_lost``).
    """
    keyed: Keyed | None = request.scope["state"].get(_STATE)
    if keyed is None:
        return None
    keyed.bare = _bare(keyed.text)
    handler: HTTPRouteHandler = request.scope["route_handler"]  # type: ignore[assignment]
    house = house_of(request)
    tenant, caller = await _caller(request)
    path, query = request.scope["path"], request.scope["query_string"]
    key_id = hashlib.sha256(msgspec.json.encode([caller, request.method, path, keyed.bare])).hexdigest()
    request_hash = hashlib.sha256(len(query).to_bytes(8) + query + await request.body()).hexdigest()
    shared = repeats_of(handler) == "joined"
    handling = Handling(house.scope(tenant), house.master, key_id, _shape(handler), shared=shared)
    keyed.replay = await handling.begin(request_hash)
    if keyed.replay is not None:
        return Response(None, status_code=204)
    keyed.handling = handling
    if not shared:
        request.scope["state"][ONCE_STATE] = handling
    return None


def _bare(text: str) -> str:
    """The key itself: it may be quoted (a structured field's string) or not. Raises Invalid."""
    bare = text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text
    if not _KEY.fullmatch(bare):
        raise Invalid(f"The {HEADER} must be 1 to 255 visible ASCII characters.", code="bad_idempotency_key")
    return bare


async def _caller(request: Asker) -> tuple[str, str]:
    """The tenant a key belongs to, and the caller within it: a key, a user, or else a client's address."""
    identity = request.scope["state"].get(IDENTITY_STATE)
    if identity is not None:
        return identity.tenant, f"{identity.kind} {identity.id}"
    tenant, identity = await tenant_of(request), await find_identity(request)
    return tenant, f"{identity.kind} {identity.id}" if identity else f"address {address_of(request)}"


def _shape(handler: HTTPRouteHandler) -> Shape:
    returns = handler.parsed_fn_signature.return_type
    return Shape(returns.origin or returns.annotation, handler.status_code)


def inner_key_of(request: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """What a ``joined`` route keeps its change single by: one name for each life of a key. None without a key."""
    keyed: Keyed | None = request.scope["state"].get(_STATE)
    if keyed is None or keyed.handling is None or keyed.handling.begun_at is None:
        return None
    return f"{keyed.handling.key_id} {keyed.handling.begun_at.isoformat()} {keyed.bare}"


def shaped(op: Callable[Concatenate[Tx, P], R], shape: Callable[[R], V]) -> Callable[Concatenate[Tx, P], V]:
    """An operation that answers with a view of what ``op`` returns, so that its transaction can keep the answer."""

    def both(tx: Tx, /, *args: P.args, **kwargs: P.kwargs) -> V:
        return shape(op(tx, *args, **kwargs))

    return both


# -- in the API's description -------------------------------------------------------------------------


@dataclass
class KeyedOperation(Operation):
    """An operation that takes a key, as OpenAPI describes it."""

    def __post_init__(self) -> None:
        """Add the header, and what it can be answered with."""
        key = Parameter(
            name=HEADER,
            param_in="header",
            required=False,
            description="Send a request again with the same key, and it happens once; the answer is kept for 24 hours.",
            schema=Schema(type=OpenAPIType.STRING, min_length=1, max_length=255, pattern="^[!-~]+$"),
        )
        self.parameters = [*(self.parameters or []), key]
        refused = (self.responses or {}).get("422")
        if self.responses is not None and isinstance(refused, OpenAPIResponse):
            conflict = OpenAPIResponse(description="Conflict", content=refused.content)
            self.responses.setdefault("409", conflict)
