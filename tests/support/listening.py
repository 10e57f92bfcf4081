"""Endpoints, news for them, and sending it."""

from __future__ import annotations

from typing import Any

from counterfoil.accounts.types import DEFAULT_TENANT
from tests.support.app import Shop, good


async def listen(shop: Shop, url: str, *event_types: str) -> dict[str, Any]:
    """Have news of products, or of these, sent somewhere; the endpoint with its secret."""
    body = {"url": url, "event_types": list(event_types) or ["product.*"]}
    made: dict[str, Any] = good(await shop.staff.post("/v1/webhook-endpoints", json=body))
    return made


async def happen(shop: Shop, slug: str = "editor") -> str:
    """A product is made; its id."""
    made = good(await shop.staff.post("/v1/products", json={"slug": slug, "name": slug.title()}))
    return str(made["id"])


async def send(shop: Shop) -> int:
    """Send what is due; how many attempts it took."""
    return await shop.house.courier.send_due(DEFAULT_TENANT)
