"""Starting the stand-in for Paddle, and talking to it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from counterfoil.rails.base import HttpRequest, HttpResponse
from tests.peers.fixtures import send
from tests.peers.paddle_hooks import encode, sign
from tests.peers.paddle_world import API_KEY, Row

_ROOT = Path(__file__).resolve().parents[2]


class PaddlePeer:
    """A running stand-in for Paddle, and its controls (paddle_control.py)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = httpx.Client(timeout=60, trust_env=False)

    def control(self, path: str, **body: Any) -> Any:
        """``POST /_control/<path>``; raises for any answer but a success."""
        response = self.client.post(f"{self.url}/_control/{path}", json=body)
        if response.is_error:
            raise RuntimeError(response.text)
        return response.json()

    def look(self, path: str) -> Any:
        """``GET /_control/<path>``."""
        response = self.client.get(f"{self.url}/_control/{path}")
        response.raise_for_status()
        return response.json()

    def transaction(self, transaction_id: str, action: str = "pay", **body: Any) -> Row:
        """Make something happen to a transaction: pay, finish, decline, cancel, chargeback."""
        found: Row = self.control(f"transactions/{transaction_id}/{action}", **body)
        return found

    def subscription(self, subscription_id: str, action: str = "due", **body: Any) -> Row:
        """Make something happen to a subscription: due, recover, fail-again, give-up."""
        found: Row = self.control(f"subscriptions/{subscription_id}/{action}", **body)
        return found

    def adjustment(self, adjustment_id: str, action: str = "approve", **body: Any) -> Row:
        """Make something happen to an adjustment: approve, reject, reverse."""
        found: Row = self.control(f"adjustments/{adjustment_id}/{action}", **body)
        return found

    def events(self, *types: str) -> list[Row]:
        """Every event so far, oldest first; of these types, where some are named."""
        return [event for event in self.look("events") if not types or event["event_type"] in types]

    def api(self, method: str, path: str, body: Any = None, *, key: str = API_KEY) -> Any:
        """Ask Paddle's own API; its ``data``. Raises RuntimeError with the answer when it is an error."""
        response = self.client.request(
            method,
            self.url + path,
            headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
            content=b"" if body is None else json.dumps(body).encode(),
        )
        if response.is_error:
            raise RuntimeError(response.text)
        return response.json()["data"] if response.content else None

    def send(self, request: HttpRequest) -> HttpResponse:
        """Send a rail's request; raises httpx.TransportError when no answer comes."""
        return send(self.client, request)


def webhook(event: Row, secret: str | list[str], at: datetime) -> tuple[dict[str, str], bytes]:
    """An event of :meth:`PaddlePeer.events` as a webhook: headers (lower case) and body, signed at a moment."""
    body = encode({**event, "notification_id": event["event_id"].replace("evt_", "ntf_")})
    keys = [secret] if isinstance(secret, str) else secret
    return {"content-type": "application/json", "paddle-signature": sign(keys, body, int(at.timestamp()))}, body


@contextlib.contextmanager
def running_paddle(*, max_seconds: float = 900) -> Iterator[PaddlePeer]:
    """A fresh stand-in in its own process."""
    command = [sys.executable, "-m", "tests.peers.paddle_server", "--max-seconds", str(max_seconds)]
    process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        # Its first line is its address, printed when it already listens; no line means that it died.
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("the stand-in for Paddle did not start")
        peer = PaddlePeer(url)
        with peer.client:
            yield peer
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
