"""Starting peers, and talking to them: import what you need, explicitly."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from counterfoil.rails.base import HttpRequest, HttpResponse

_BTCPAY_SERVER = Path(__file__).with_name("btcpay_server.py")


class BTCPayPeer:
    """A running stand-in for BTCPay Server, and its controls."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = httpx.Client(timeout=60, trust_env=False)

    def control(self, path: str, **body: Any) -> Any:
        """``POST /_control/<path>``; raises for any answer but a success."""
        response = self.client.post(f"{self.url}/_control/{path}", json=body)
        response.raise_for_status()
        return response.json() if response.content else None

    def look(self, path: str) -> Any:
        """``GET /_control/<path>``."""
        response = self.client.get(f"{self.url}/_control/{path}")
        response.raise_for_status()
        return response.json()

    def invoice(self, invoice_id: str, action: str, **body: Any) -> Any:
        """Make something happen to an invoice: pay, confirm, expire, end-monitoring, mark, double-spend."""
        return self.control(f"invoices/{invoice_id}/{action}", **body)

    def send(self, request: HttpRequest) -> HttpResponse:
        """Send a rail's request; raises httpx.TransportError when no answer comes."""
        return send(self.client, request)


def send(client: httpx.Client, request: HttpRequest) -> HttpResponse:
    """What ``exchange`` does with a rail's request, without its care."""
    answer = client.request(request.method, request.url, headers=request.headers, content=request.body)
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return HttpResponse(status=answer.status_code, headers=headers, body=answer.content)


@contextlib.contextmanager
def running_btcpay(*, retry_scale: float = 0.001, max_seconds: float = 900) -> Iterator[BTCPayPeer]:
    """A fresh stand-in in its own process."""
    scale, limit = str(retry_scale), str(max_seconds)
    command = [sys.executable, str(_BTCPAY_SERVER), "--port", "0", "--retry-scale", scale, "--max-seconds", limit]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        # Its first line is its address, printed when it already listens; no line means that it died.
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("the BTCPay stand-in did not start")
        peer = BTCPayPeer(url)
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


class Receiver:
    """An endpoint for webhooks: keeps what arrives, and answers with the statuses it was given, then 200."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.lock = threading.Lock()
        self.url = ""

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """Keep one request; the status to answer with."""
        with self.lock:
            self.received.append((headers, body))
            return self.statuses.pop(0) if self.statuses else 200


@contextlib.contextmanager
def running_receiver() -> Iterator[Receiver]:
    """A receiver on a free loopback port."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            status = receiver.take({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # the default, 5, makes a burst of deliveries wait for the kernel's retries

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
