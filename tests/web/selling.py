"""Shops with pages: in this process, or at a real server with a seller who makes and looks at things."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from tests.support.app import good
from tests.support.server import Server, mint_key, serving


class Seller:
    """Whoever sells at a real server."""

    def __init__(self, server: Server, key: str) -> None:
        self.server = server
        self.http = httpx.Client(
            base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False
        )
        self._numbers = count(1)

    def product(self, name: str = "Editor", *, asset: str = "USD", amount: int = 1000, **license_: Any) -> str:
        """A product of its own for one test; its slug."""
        slug = f"product-{next(self._numbers)}"
        product = good(self.http.post("/v1/products", json={"slug": slug, "name": name}))
        good(self.http.put(f"/v1/products/{product['id']}/benefits", json={"license": license_}))
        self.price(product["id"], asset=asset, unit_amount=amount)
        return slug

    def price(self, product: str, **fields: Any) -> str:
        """Its id."""
        return str(good(self.http.post(f"/v1/products/{product}/prices", json=fields))["id"])

    def checkout(self, checkout_id: str) -> dict[str, Any]:
        return dict(good(self.http.get(f"/v1/checkouts/{checkout_id}")))

    def payments(self, checkout_id: str) -> list[dict[str, Any]]:
        return [row for row in self._all("/v1/payments") if row["checkout_id"] == checkout_id]

    def orders(self, checkout_id: str) -> list[dict[str, Any]]:
        return [row for row in self._all("/v1/orders") if row["checkout_id"] == checkout_id]

    def _all(self, path: str) -> Iterator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            page = good(self.http.get(path, params={"limit": 100, **after}))
            yield from page["data"]
            if not page.get("next"):
                return
            after = {"after": page["next"]}


@contextmanager
def selling(database_url: str, folder: Path) -> Iterator[Seller]:
    """A real server with the sandbox on and without rate limits, and its seller."""
    with serving(database_url, folder, validations_per_minute="0") as server:
        seller = Seller(server, mint_key(database_url))
        try:
            yield seller
        finally:
            seller.http.close()
