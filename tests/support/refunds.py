"""Money that was paid, and giving it back."""

from __future__ import annotations

from typing import Any

import httpx

from counterfoil.rails.sandbox.session import Action
from tests.support.app import Shop, Sold, good


async def paid(shop: Shop, *lines: Sold | tuple[Sold, int], actions: tuple[Action, ...] = ("pay",)) -> dict[str, Any]:
    """What a buyer paid on the sandbox: the order (None where there is none), and the payments, oldest first."""
    opened = await shop.checkout(*(lines or (await shop.tier("editor", amount=1_000, asset="USD"),)))
    await shop.play(opened, *actions)
    orders = await shop.rows("orders", checkout_id=opened["id"])
    payments = await shop.rows("payments", checkout_id=opened["id"])
    payments.sort(key=lambda row: row["created_at"])
    return {"order": orders[0] if orders else None, "payments": payments, "checkout": opened}


async def nonce(http: httpx.AsyncClient, purpose: str) -> dict[str, str]:
    """The header that one action of this purpose needs."""
    return {"Nonce": good(await http.post("/v1/nonces", json={"purpose": purpose}))["nonce"]}


async def ask(shop: Shop, **fields: Any) -> dict[str, Any]:
    """A refund that was asked for."""
    return good(await shop.staff.post("/v1/refunds", json=fields))


async def decide(shop: Shop, refund: dict[str, Any], verb: str, **fields: Any) -> httpx.Response:
    """``approve``, ``deny`` or ``settle`` a refund."""
    headers = await nonce(shop.staff, f"refund.{verb}")
    return await shop.staff.post(f"/v1/refunds/{refund['id']}/{verb}", json=fields, headers=headers)


async def execute(shop: Shop) -> int:
    """What the job does now: the rails of refunds that are due are asked; how many."""
    return await shop.house.refunder.execute_due(shop.house.refunder.scope(shop.scope.tenant))


async def give_back(shop: Shop, **fields: Any) -> dict[str, Any]:
    """A refund asked for, approved and executed, as it is then."""
    refund = await ask(shop, **fields)
    good(await decide(shop, refund, "approve"))
    await execute(shop)
    return good(await shop.staff.get(f"/v1/refunds/{refund['id']}"))
