"""A trivial Stripe for measuring: it takes every object, keeps none, and lists prices that it makes up.

``python -m benchmarks.stand_in PRICES PRODUCTS`` prints its port, and ends with its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httptools
import msgspec
import uvloop

_PAGE = 100


@contextlib.contextmanager
def running(*, prices: int = 0, products: int = 0) -> Iterator[str]:
    """Its address."""
    command = [sys.executable, "-m", "benchmarks.stand_in", str(prices), str(products)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(timeout=10)


def _product(number: int) -> dict[str, Any]:
    return {
        "id": f"prod_{number:09}",
        "object": "product",
        "active": True,
        "created": 1_700_000_000,
        "description": f"The product {number} of a seller who moves",
        "images": [],
        "livemode": True,
        "metadata": {},
        "name": f"Product {number}",
        "tax_code": "txcd_10103001",
        "type": "service",
    }


def _price(number: int, products: int) -> dict[str, Any]:
    return {
        "id": f"price_{number:09}",
        "object": "price",
        "active": True,
        "billing_scheme": "per_unit",
        "created": 1_700_000_000,
        "currency": "usd",
        "livemode": True,
        "lookup_key": None,
        "metadata": {},
        "nickname": f"Plan {number}",
        "product": f"prod_{number % products:09}",
        "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed", "meter": None},
        "tax_behavior": "inclusive",
        "type": "recurring",
        "unit_amount": 100 + number,
        "unit_amount_decimal": str(100 + number),
    }


class _Stripe(asyncio.Protocol):
    prices = 0
    products = 0
    made = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._url = self._body = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        asked = urlsplit(self._url.decode())
        answer = self._list(asked.path, asked.query) if self._parser.get_method() == b"GET" else self._make()
        body = msgspec.json.encode(answer)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)
        self._begin()

    def _make(self) -> dict[str, Any]:
        _Stripe.made += 1
        form = dict(parse_qsl(self._body.decode()))
        ours = {name[9:-1]: value for name, value in form.items() if name.startswith("metadata[")}
        return {**_product(_Stripe.made), "name": form.get("name"), "description": form.get("description"),
                "id": form.get("id", f"prod_{_Stripe.made:09}"), "metadata": ours}  # fmt: skip

    def _list(self, path: str, query: str) -> dict[str, Any]:
        after = dict(parse_qsl(query)).get("starting_after")
        first = int(after.partition("_")[2]) + 1 if after else 0
        total = self.prices if path.endswith("/prices") else self.products
        numbers = range(first, min(first + _PAGE, total))
        found = [_price(one, self.products) if path.endswith("/prices") else _product(one) for one in numbers]
        return {"object": "list", "data": found, "has_more": first + _PAGE < total, "url": path}


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Stripe, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()
    server.close()


if __name__ == "__main__":
    _Stripe.prices, _Stripe.products = int(sys.argv[1]), max(1, int(sys.argv[2]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as serving:
        serving.run(_serve())
