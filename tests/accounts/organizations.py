"""Customers with members, for the tests of who may do what."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterable
from typing import Any

import httpx
from tests.support.app import Shop, good
from tests.support.people import Person, person


async def organization(shop: Shop, name: str = "Acme", **fields: Any) -> str:
    """A customer made by staff; its id."""
    made = good(await shop.staff.post("/v1/customers", json={"kind": "organization", "name": name, **fields}))
    return str(made["id"])


async def owner_of(shop: Shop, customer_id: str, email: str = "owner@example.com") -> Person:
    return await person(shop, email, at=(("Owner", customer_id),))


async def roles_at(shop: Shop, customer_id: str | None) -> dict[str, list[str]]:
    """The names of the roles at a customer (or in the tenant), by user."""
    names = {row["id"]: row["name"] for row in await shop.rows("roles")}
    held: dict[str, list[str]] = {}
    for row in await shop.rows("role_assignments", customer_id=customer_id):
        held.setdefault(row["user_id"], []).append(names[row["role_id"]])
    return {user: sorted(found) for user, found in held.items()}


async def token_for(shop: Shop, email: str) -> str:
    """What is in the last invitation that waits for this address."""
    letters = [letter for letter in await shop.letters(email) if letter.template == "invitation"]
    return letters[-1].context["link"].rpartition("/")[2]


async def invite(shop: Shop, inviter: Person, customer_id: str, email: str, role: str = "Member") -> str:
    """Invite somebody; the token."""
    good(await inviter.http.post(f"/v1/customers/{customer_id}/invitations", json={"email": email, "role": role}))
    return await token_for(shop, email)


async def answers(requests: Iterable[Awaitable[httpx.Response]]) -> Counter[tuple[int, str]]:
    """Send requests at once; how often each status and code came back."""
    found = await asyncio.gather(*requests)
    return Counter((one.status_code, one.json()["code"] if one.status_code >= 400 else "") for one in found)
