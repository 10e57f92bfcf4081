"""Nonces: once, within five minutes, for one purpose, by whoever asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from tests.accounts.organizations import answers, roles_at
from tests.support.app import Shop, good, opening, problem
from tests.support.people import Person, person

from counterfoil.accounts import nonces
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey, fingerprint


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


@pytest.fixture
async def chief(shop: Shop) -> Person:
    return await person(shop, "chief@example.com", staff="SuperAdmin")


async def _nonce(who: Person, purpose: str = "staff.grant") -> str:
    return str(good(await who.http.post("/v1/nonces", json={"purpose": purpose}))["nonce"])


async def test_a_nonce_says_how_long_it_lasts_and_is_kept_hashed(shop: Shop, chief: Person) -> None:
    made = good(await chief.http.post("/v1/nonces", json={"purpose": "staff.grant"}))
    assert (made["purpose"], made["expires_at"]) == ("staff.grant", "2026-01-02T03:09:05.678901Z")
    assert made["nonce"] not in repr(await shop.everything())
    row = await shop.row("nonces")
    assert (row["nonce_hash"], row["issued_to"]) == (fingerprint(made["nonce"]), f"user:{chief.id}")
    problem(await chief.http.post("/v1/nonces", json={"purpose": "world.rule"}), 422, "invalid_nonce_purpose")
    problem(await shop.http.post("/v1/nonces", json={"purpose": "staff.grant"}), 401, "unauthorized")


async def test_each_thing_wrong_with_a_nonce_has_its_code(shop: Shop, chief: Person, clock: ManualClock) -> None:
    bob = await person(shop, "bob@example.com")
    other = await person(shop, "other@example.com", staff="SuperAdmin")
    body = {"user_id": bob.id, "role": "BillingAdmin"}

    async def grant(value: str | None) -> httpx.Response:
        return await chief.http.post("/v1/staff", json=body, headers={} if value is None else {"Nonce": value})

    theirs = await _nonce(other)
    wrong, expired = await _nonce(chief, "tenant.suspend"), await _nonce(chief)
    before = await shop.everything()
    for value, code in (
        (None, "nonce_required"),
        ("x", "nonce_not_found"),
        ("", "nonce_not_found"),
        (theirs, "nonce_not_found"),
        (wrong, "invalid_nonce_purpose"),
    ):
        problem(await grant(value), 403, code)
    clock.advance(nonces.LASTS)
    problem(await grant(expired), 403, "nonce_expired")
    assert await shop.everything() == before
    used = await _nonce(chief)
    clock.advance(nonces.LASTS - timedelta(microseconds=1))
    good(await grant(used))
    problem(await grant(used), 403, "nonce_already_used")
    clock.advance(timedelta(hours=1))
    problem(await grant(used), 403, "nonce_already_used")


async def test_a_nonce_used_a_hundred_times_at_once_is_used_once(shop: Shop, chief: Person) -> None:
    people = [await person(shop, f"p{number}@example.com") for number in range(100)]
    header = {"Nonce": await _nonce(chief)}
    found = await answers(
        chief.http.post("/v1/staff", json={"user_id": one.id, "role": "BillingAdmin"}, headers=header) for one in people
    )
    assert found == {(201, ""): 1, (403, "nonce_already_used"): 99}
    assert len(await roles_at(shop, None)) == 2


async def test_what_fails_does_not_use_a_nonce_up(shop: Shop, chief: Person) -> None:
    header = {"Nonce": await _nonce(chief)}
    bob = await person(shop, "bob@example.com")
    wrong = await chief.http.post("/v1/staff", json={"user_id": bob.id, "role": "King"}, headers=header)
    problem(wrong, 404, "role_not_found")
    good(await chief.http.post("/v1/staff", json={"user_id": bob.id, "role": "BillingAdmin"}, headers=header))


async def test_old_nonces_are_forgotten(shop: Shop, chief: Person, clock: ManualClock) -> None:
    await _nonce(chief)
    clock.advance(timedelta(days=1, minutes=5))
    assert await shop.scope.run(nonces.tidy) == 0
    clock.advance(timedelta(microseconds=1))
    assert await shop.scope.run(nonces.tidy) == 1
