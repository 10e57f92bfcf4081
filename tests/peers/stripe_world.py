"""A stateful Stripe on loopback: seahaven-stripe-world, with what it lacks and what tests need.

Run by the CPython 3.13 of ``.tools/stripe-world`` (tools.py makes it), never imported by a test. The
world itself keeps customers, catalog, payments, subscriptions, invoices, refunds, disputes and events;
stripe_handler.py adds to it. Every ``/worlds/<id>`` is an account of its own. This file is the process:
the hook that makes the package run, faults and the list of requests, and the end.

    .tools/stripe-world/bin/python tests/peers/stripe_world.py --port 0
"""

from __future__ import annotations
import __future__

import argparse
import asyncio
import importlib.machinery
import json
import os
import re
import socket
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

_COMPILE = importlib.machinery.SourceFileLoader.source_to_code


def _source_to_code(self: Any, data: Any, path: Any, **options: Any) -> Any:
    """The package is written for Python 3.14, which does not evaluate annotations."""
    if self.name.split(".")[0].startswith("seahaven"):
        return compile(data, path, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)
    return _COMPILE(self, data, path, **options)


importlib.machinery.SourceFileLoader.source_to_code = _source_to_code  # type: ignore[method-assign]
# Elsewhere than pip's own, which were compiled without the hook.
sys.pycache_prefix = str(Path(sys.prefix) / "pycache")

import uvicorn  # noqa: E402
from seahaven.http import app as serve_world  # noqa: E402
from seahaven_stripe_world import world  # noqa: E402
from stripe_handler import handle  # noqa: E402

_IN_WORLD = re.compile(r"/worlds/([^/]+)(/.*)")
_ERRORS = {
    429: {"type": "invalid_request_error", "code": "rate_limit", "message": "Too many requests; slow down."},
    401: {"type": "invalid_request_error", "message": "Invalid API Key provided."},
    403: {"type": "invalid_request_error", "message": "The provided key does not have the required permissions."},
}
_BROKEN = {"type": "api_error", "message": "An error occurred; try again."}


class Front:
    """Before the world: what was asked, and bad luck.

    ``POST /_control/fail`` takes a fault for the next ``count`` requests whose ``METHOD path`` matches:
    ``status`` (with ``retry_after``) or ``hang_up`` instead of an answer, ``after`` when the work is done
    all the same, ``delay`` seconds before anything.
    """

    def __init__(self) -> None:
        self.world = serve_world(world, handle, reset_options=None, max_instances=0)
        self.faults: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.requests: dict[str, list[dict[str, Any]]] = defaultdict(list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        match = _IN_WORLD.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if match is None:
            await self.world(scope, receive, send)
            return
        name, path = match.groups()
        if path in {"/_control/fail", "/_control/requests"}:
            await self.control(name, path, await _body(receive), send)
        elif path.startswith("/_control/"):
            await self.world(scope, receive, send)
        else:
            await self.answer(name, path, scope, receive, send)

    async def control(self, name: str, path: str, body: bytes, send: Any) -> None:
        if path == "/_control/fail":
            self.faults[name].append({"count": 1, "match": "", **json.loads(body)})
            await _send_json(send, 200, self.faults[name])
        else:
            await _send_json(send, 200, self.requests[name])

    def fault(self, name: str, request: str) -> dict[str, Any]:
        """The fault for one request; nothing where luck holds."""
        for fault in self.faults[name]:
            if fault["count"] > 0 and re.search(fault["match"], request):
                fault["count"] -= 1
                return fault
        return {}

    async def answer(self, name: str, path: str, scope: Any, receive: Any, send: Any) -> None:
        headers = {key.decode().lower(): value.decode("latin-1") for key, value in scope["headers"]}
        if "x-control" in headers:
            await self.world(scope, receive, send)
            return
        seen = {
            "method": scope["method"],
            "path": path,
            "query": scope["query_string"].decode(),
            "idempotency_key": headers.get("idempotency-key"),
            "version": headers.get("stripe-version"),
            "status": None,  # what the world answered, when it was reached
        }
        self.requests[name].append(seen)
        fault = self.fault(name, f"{seen['method']} {path}")
        await asyncio.sleep(fault.get("delay", 0))
        refused = fault.get("status") is not None or fault.get("hang_up", False)

        async def keep(message: Any) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
            if not refused:
                await send(message)

        if not refused or fault.get("after"):
            await self.world(scope, receive, keep)
        if fault.get("hang_up"):
            # Promise more than is sent: the server then closes the connection in the middle of the answer.
            start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]}
            await send(start)
        elif refused:
            error = fault.get("error") or _ERRORS.get(fault["status"], _BROKEN)
            extra = [(b"retry-after", str(fault["retry_after"]).encode())] if "retry_after" in fault else []
            await _send_json(send, fault["status"], {"error": error}, extra)


async def _body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _send_json(send: Any, status: int, value: Any, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *(extra or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def serve(sock: socket.socket, parent: int, max_seconds: float) -> None:
    """Serve until told to stop, until ``max_seconds`` are over, or until the parent process is gone."""
    config = uvicorn.Config(Front(), log_level="critical", date_header=False, server_header=False)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    deadline = time.monotonic() + max_seconds
    while not task.done():
        await asyncio.wait({task}, timeout=0.5)
        if os.getppid() != parent or time.monotonic() > deadline:
            server.should_exit = True


def main() -> None:
    parser = argparse.ArgumentParser(description="A stateful Stripe, on loopback.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--max-seconds", type=float, default=900)
    options = parser.parse_args()
    parent = os.getppid()
    # asyncio lets answers go at once only where the socket says that it is TCP.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.bind(("127.0.0.1", options.port))
        sock.listen(128)
        sys.stdout.write(f"http://127.0.0.1:{sock.getsockname()[1]}\n")
        sys.stdout.flush()
        asyncio.run(serve(sock, parent, options.max_seconds))


if __name__ == "__main__":
    main()
