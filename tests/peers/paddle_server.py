"""A stand-in for Paddle Billing, API version 1: stateful, scriptable, on loopback only.

Its answers are shaped by Paddle's specification; prism.py and Paddle's own SDK keep them honest. Besides Paddle's
paths it has ``/_control/...`` (paddle_control.py).

    python -m tests.peers.paddle_server --port 23100
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import inspect
import json
import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import uvicorn

from tests.peers.paddle_catalog import CATALOG
from tests.peers.paddle_control import CONTROLS, Control, Fault, Paddle
from tests.peers.paddle_hooks import LOOPBACK
from tests.peers.paddle_world import Answer, Problem, Request

Handler = Callable[[Request], Any]
_PLURALS = {kind: f"{kind}s" for kind in CATALOG} | {"address": "addresses", "business": "businesses"}
_PATHS: tuple[tuple[str, str, str], ...] = (
    ("POST", "/customers/{parent}/portal-sessions", "catalog.open_portal"),
    ("GET", "/transactions", "sales.list_all"),
    ("POST", "/transactions", "sales.create"),
    ("GET", "/transactions/{id}", "sales.read"),
    ("PATCH", "/transactions/{id}", "sales.update"),
    ("GET", "/adjustments", "adjustments.list_all"),
    ("POST", "/adjustments", "adjustments.create"),
    ("GET", "/subscriptions", "subscriptions.list_all"),
    ("GET", "/subscriptions/{id}", "subscriptions.read"),
    ("PATCH", "/subscriptions/{id}", "subscriptions.update"),
    ("POST", "/subscriptions/{id}/cancel", "subscriptions.cancel"),
    ("POST", "/subscriptions/{id}/pause", "subscriptions.pause"),
    ("POST", "/subscriptions/{id}/resume", "subscriptions.resume"),
    ("POST", "/subscriptions/{id}/activate", "subscriptions.activate"),
    ("POST", "/subscriptions/{id}/charge", "subscriptions.charge_once"),
    ("GET", "/notification-settings", "hooks.list_settings"),
    ("POST", "/notification-settings", "hooks.create_setting"),
    ("GET", "/notification-settings/{id}", "hooks.get_setting"),
    ("PATCH", "/notification-settings/{id}", "hooks.update_setting"),
    ("DELETE", "/notification-settings/{id}", "hooks.delete_setting"),
    ("GET", "/event-types", "hooks.event_types"),
    ("GET", "/events", "hooks.list_events"),
    ("GET", "/notifications", "hooks.list_notifications"),
    ("GET", "/notifications/{id}", "hooks.get_notification"),
    ("GET", "/notifications/{id}/logs", "hooks.list_logs"),
    ("POST", "/notifications/{id}/replay", "hooks.replay"),
)


class HungUp(Exception):
    """The connection breaks before the answer is through."""


class Route:
    """A method, a path with names in it, and who answers."""

    def __init__(self, method: str, path: str, handler: Handler) -> None:
        self.method = method
        self.name = f"{method} {path}"
        self.pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
        self.handler = handler


def routes(paddle: Paddle) -> list[Route]:
    found = []
    for kind, what in CATALOG.items():
        path = f"/{_PLURALS[kind]}" if what.parent is None else f"/customers/{{parent}}/{_PLURALS[kind]}"
        for method, suffix, name in (
            ("GET", "", "list_all"),
            ("POST", "", "create"),
            ("GET", "/{id}", "read"),
            ("PATCH", "/{id}", "update"),
        ):
            found.append(Route(method, path + suffix, functools.partial(getattr(paddle.catalog, name), kind)))
    for method, path, name in _PATHS:
        owner, _, attribute = name.partition(".")
        found.append(Route(method, path, getattr(getattr(paddle, owner), attribute)))
    control = Control(paddle)
    found += [Route(method, f"/_control{path}", getattr(control, name)) for method, path, name in CONTROLS]
    return found


class App:
    """The ASGI application."""

    def __init__(self, paddle: Paddle | None = None) -> None:
        self.paddle = paddle or Paddle()
        self.routes = routes(self.paddle)

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        assert scope["type"] == "http"
        raw, more = b"", True
        while more:
            message = await receive()
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request = Request(
            method=scope["method"],
            path=scope["path"],
            base=f"http://{headers.get('host', '127.0.0.1')}",
            headers=headers,
            query=parse_qsl(scope["query_string"].decode(), keep_blank_values=True),
            raw=raw,
        )
        try:
            status, content, extra = await self.handle(request)
        except HungUp:
            # Promise more than is sent: the server then closes the connection in the middle of the answer.
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
            return
        head = {
            "content-length": str(len(content)),
            **({"content-type": "application/json"} if content else {}),
            **extra,
        }
        pairs = [(name.encode(), value.encode()) for name, value in head.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": content})

    async def handle(self, request: Request) -> tuple[int, bytes, dict[str, str]]:
        route = next((r for r in self.routes if r.method == request.method and self.match(r, request)), None)
        if request.path.startswith("/_control/"):
            return await self.steer(route, request)
        request_id = str(uuid.uuid4())
        fault = self.fault(request)
        if fault is not None and fault.latency:
            await asyncio.sleep(fault.latency)
        status, content = 0, b""
        extra: dict[str, str] = {}
        if fault is None or fault.after or (fault.status is None and not fault.hang_up):
            status, content, extra = await self.answer(route, request, request_id)
        if fault is not None and fault.status is not None:
            status, content, extra = self.misfortune(fault, request_id)
        extra = {"request-id": request_id, **extra}
        hung_up = fault is not None and fault.hang_up
        entry = {
            "method": request.method,
            "path": request.path,
            "query": dict(request.query),
            "body": request.raw.decode(errors="replace"),
            "status": 0 if hung_up else status,
        }
        self.paddle.requests.append(entry)
        self.paddle.counts[route.name if route else f"{request.method} {request.path}"] += 1
        if hung_up:
            raise HungUp
        return status, content, extra

    def match(self, route: Route, request: Request) -> bool:
        found = route.pattern.fullmatch(request.path)
        if found is None:
            return False
        request.params = found.groupdict()
        return True

    async def answer(self, route: Route | None, request: Request, request_id: str) -> tuple[int, bytes, dict[str, str]]:
        try:
            self.admit(request)
            if route is None:
                raise self.nowhere(request)
            found: Answer = route.handler(request)
        except Problem as problem:
            return problem.status, _json(problem.body(request_id)), problem.headers
        if found.status == 204:
            return 204, b"", {}
        meta: dict[str, Any] = {"request_id": request_id}
        if found.pagination is not None:
            meta["pagination"] = found.pagination
        return found.status, _json({"data": found.data, "meta": meta}), {}

    def admit(self, request: Request) -> None:
        """Who asks, and whether not too often."""
        paddle = self.paddle
        if paddle.rate_limit is not None:
            now = time.monotonic()
            while paddle.recent and paddle.recent[0] <= now - paddle.rate_seconds:
                paddle.recent.popleft()
            if len(paddle.recent) >= paddle.rate_limit:
                problem = Problem(429, "too_many_requests", "Too many requests.")
                problem.headers["retry-after"] = str(int(paddle.recent[0] + paddle.rate_seconds - now) + 1)
                raise problem
            paddle.recent.append(now)
        authorization = request.headers.get("authorization")
        if authorization is None:
            raise Problem(401, "authentication_missing", "Authentication header missing.")
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Problem(403, "authentication_malformed", "Authentication header invalid.")
        if key not in paddle.world.api_keys:
            raise Problem(403, "invalid_token", "Invalid authentication token.")

    def nowhere(self, request: Request) -> Problem:
        if any(route.pattern.fullmatch(request.path) for route in self.routes):
            return Problem(405, "method_not_allowed", "Method not allowed.")
        return Problem(404, "invalid_url", "Invalid URL.")

    async def steer(self, route: Route | None, request: Request) -> tuple[int, bytes, dict[str, str]]:
        if route is None:
            return 404, b"", {}
        try:
            found = route.handler(request)
            return 200, _json(await found if inspect.isawaitable(found) else found), {}
        except Problem as problem:
            return problem.status, _json(problem.body("control")), {}

    def fault(self, request: Request) -> Fault | None:
        for fault in self.paddle.faults:
            if fault.count > 0 and fault.match.search(f"{request.method} {request.path}"):
                fault.count -= 1
                return fault
        return None

    def misfortune(self, fault: Fault, request_id: str) -> tuple[int, bytes, dict[str, str]]:
        assert fault.status is not None
        extra = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
        if fault.body is not None:
            return fault.status, fault.body.encode(), extra
        code, words = {
            429: ("too_many_requests", "Too many requests."),
            503: ("service_unavailable", "Service unavailable."),
        }.get(fault.status, ("internal_error", "Internal error."))
        return fault.status, _json(Problem(fault.status, code, words).body(request_id)), extra


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket on loopback: whoever connects from now on is served, however early."""
    if host not in LOOPBACK:
        raise SystemExit(f"{host} is not a loopback address")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, asyncio switches Nagle's algorithm off: it would cost 40 ms an answer.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(128)
        yield sock


async def serve(sock: socket.socket, parent: int, max_seconds: float) -> None:
    """Serve until told to stop, until ``max_seconds`` are over, or until the parent process is gone."""
    app = App()
    config = uvicorn.Config(app, log_level="critical", lifespan="off", server_header=False)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    deadline = time.monotonic() + max_seconds
    while not task.done():
        await asyncio.wait({task}, timeout=0.5)
        if os.getppid() != parent or time.monotonic() > deadline:
            server.should_exit = True
    await app.paddle.hooks.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for Paddle Billing, on loopback.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--max-seconds", type=float, default=900)
    options = parser.parse_args()
    parent = os.getppid()
    with listening(options.host, options.port) as sock:
        sys.stdout.write(f"http://{options.host}:{sock.getsockname()[1]}\n")
        sys.stdout.flush()
        asyncio.run(serve(sock, parent, options.max_seconds))


if __name__ == "__main__":
    main()
