"""Machines: the cap holds whatever races, and a place given back is a place again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from tests.support.app import TRANSACTIONS_OVERLAP, Shop, competitor, good, opening, problem

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.tx import Tx
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.errors import Conflict
from counterfoil.kernel.ids import from_uuid, to_uuid
from counterfoil.kernel.secrets import MasterKey, fingerprint
from counterfoil.licensing import licenses as license_ops
from counterfoil.licensing import machines as machine_ops
from counterfoil.licensing import tables, validation
from counterfoil.licensing.machines import Activation, Device
from counterfoil.licensing.validation import Question

CLIENTS = 200
NOBODY = from_uuid("lic", to_uuid("lic_01j00000000000000000000000"))


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def licensed(shop: Shop, **spec: Any) -> dict[str, Any]:
    return await shop.license(await shop.tier(), **spec)


async def ask(shop: Shop, verb: str, key: str, machine: str, **more: Any) -> dict[str, Any]:
    path = "/v1/validate" if verb == "validate" else f"/v1/machines/{verb}"
    answer: dict[str, Any] = good(await shop.http.post(path, json={"key": key, "fingerprint": machine, **more}))
    return answer


async def active(shop: Shop, license_id: str) -> list[dict[str, Any]]:
    return await shop.rows("machines", license_id=license_id, deactivated_at=None)


async def machine_count(shop: Shop, license_id: str) -> int:
    """As counted in the license, which must be what there is."""
    counted: int = (await shop.row("licenses", id=license_id))["machine_count"]
    assert counted == len(await active(shop, license_id))
    return counted


# -- the cap ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [1, 3, 10])
@pytest.mark.parametrize("verbs", [("activate",), ("validate",), ("activate", "validate")])
async def test_200_first_activations_at_once_never_exceed_the_cap(shop: Shop, cap: int, verbs: tuple[str, ...]) -> None:
    license_ = await licensed(shop, max_machines=cap)
    turns = list(itertools.islice(itertools.cycle(verbs), CLIENTS))
    answers = await asyncio.gather(
        *(ask(shop, verb, license_["key"], f"machine-{place}") for place, verb in enumerate(turns))
    )
    accepted = [answer for answer in answers if answer["ok"]]
    assert len(accepted) == cap
    assert len({answer["machine_id"] for answer in accepted}) == cap
    assert await machine_count(shop, license_["id"]) == cap
    for verb, answer in zip(turns, answers, strict=True):
        if not answer["ok"]:
            one_seat = verb == "validate" and cap == 1
            assert answer["reason"] == ("fingerprint_mismatch" if one_seat else "too_many_machines")
            assert answer["max_machines"] == cap
            assert answer.get("active_count", cap) == cap
    assert sorted(row["id"] for row in await active(shop, license_["id"])) == sorted(
        answer["machine_id"] for answer in accepted
    )
    assert (await shop.events("machine.activated")) == ["machine.activated"] * cap


async def test_without_a_cap_everybody_gets_in(shop: Shop) -> None:
    license_ = await licensed(shop, max_machines=0)
    answers = await asyncio.gather(
        *(ask(shop, "activate", license_["key"], f"machine-{place}") for place in range(CLIENTS))
    )
    assert all(answer["ok"] for answer in answers)
    assert sorted(answer["active_count"] for answer in answers) == list(range(1, CLIENTS + 1))
    assert await machine_count(shop, license_["id"]) == CLIENTS


async def test_one_machine_activating_from_many_threads_takes_one_place(shop: Shop) -> None:
    license_ = await licensed(shop, max_machines=3)
    verbs = ["activate", "validate"] * 25
    answers = await asyncio.gather(*(ask(shop, verb, license_["key"], "the-same") for verb in verbs))
    assert {answer["ok"] for answer in answers} == {True}
    assert len({answer["machine_id"] for answer in answers}) == 1
    assert await machine_count(shop, license_["id"]) == 1


async def test_activations_and_releases_at_once_keep_the_count_true(shop: Shop) -> None:
    license_ = await licensed(shop, max_machines=5)

    async def come_and_go(place: int) -> int:
        came = 0
        for _ in range(5):
            answer = await ask(shop, "activate", license_["key"], f"machine-{place}")
            assert answer["active_count"] <= 5
            if answer["ok"]:
                came += 1
                assert await ask(shop, "deactivate", license_["key"], f"machine-{place}") == {"ok": True}
        return came

    came = sum(await asyncio.gather(*(come_and_go(place) for place in range(20))))
    assert came >= 5
    assert await machine_count(shop, license_["id"]) == 0
    assert await shop.count("machines", license_id=license_["id"]) == came
    events = await shop.events("machine.activated", "machine.deactivated")
    assert (events.count("machine.activated"), events.count("machine.deactivated")) == (came, came)


async def test_the_database_itself_refuses_one_machine_too_many(shop: Shop) -> None:
    license_ = await licensed(shop, max_machines=1)
    await ask(shop, "activate", license_["key"], "first")

    def cheat(tx: Tx, count: int) -> None:
        where = tables.licenses.c.id == license_["id"]
        tx.execute(sa.update(tables.licenses).where(where).values(machine_count=count))

    for count in (2, -1):
        with pytest.raises(IntegrityError):
            await shop.scope.run(cheat, count)
    assert await machine_count(shop, license_["id"]) == 1


async def test_the_database_itself_refuses_two_active_rows_of_one_machine(shop: Shop) -> None:
    license_ = await licensed(shop, max_machines=5)
    await ask(shop, "activate", license_["key"], "first")

    def cheat(tx: Tx) -> None:
        known = machine_ops.find_active(tx, license_["id"], fingerprint("first"))
        assert known is not None
        tx.insert(tables.machines, type(known)(**{**_fields(known), "id": tx.new_id("mac")}))

    with pytest.raises(IntegrityError):
        await shop.scope.run(cheat)
    assert await machine_count(shop, license_["id"]) == 1


def _fields(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


# -- races, run on purpose ----------------------------------------------------------------------------


def device(name: str) -> Device:
    return Device(fingerprint(name))


@TRANSACTIONS_OVERLAP
async def test_a_machine_that_a_rival_activated_meanwhile_is_found(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between validate's look at the machines and its activation, the same machine activates elsewhere."""
    license_ = await licensed(shop, max_machines=1)
    rival: list[Activation] = competitor(
        monkeypatch, machine_ops, "activate", shop.scope, machine_ops.activate, license_["id"], device("laptop")
    )
    question = Question(license_id=license_["id"], device=device("laptop"))
    (answer,) = await shop.scope.run(validation.validate_many, [question])
    assert isinstance(answer, validation.Answer)
    assert (answer.reason, answer.machine_id) == (None, rival[0].machine_id)
    assert await machine_count(shop, license_["id"]) == 1


@TRANSACTIONS_OVERLAP
async def test_a_license_revoked_meanwhile_activates_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    license_ = await licensed(shop, max_machines=1)
    competitor(
        monkeypatch, machine_ops, "activate", shop.scope, license_ops.revoke, license_["id"], reason="chargeback"
    )
    question = Question(license_id=license_["id"], device=device("laptop"))
    (answer,) = await shop.scope.run(validation.validate_many, [question])
    assert isinstance(answer, validation.Answer)
    assert (answer.reason, answer.machine_id) == ("revoked", None)
    assert await machine_count(shop, license_["id"]) == 0


@TRANSACTIONS_OVERLAP
async def test_staff_and_machine_free_the_same_place_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    license_ = await licensed(shop, max_machines=2)
    machine = await ask(shop, "activate", license_["key"], "laptop")
    await ask(shop, "activate", license_["key"], "desktop")
    freed = competitor(
        monkeypatch,
        license_ops,
        "get_locked",
        shop.scope,
        machine_ops.release,
        license_["id"],
        fingerprint("laptop"),
        reason="client_requested",
    )
    with pytest.raises(Conflict) as refusal:
        await shop.scope.run(machine_ops.deactivate, machine["machine_id"], reason="by staff")
    assert refusal.value.code == "machine_deactivated"
    assert freed == [True]
    assert await machine_count(shop, license_["id"]) == 1


# -- one seat -----------------------------------------------------------------------------------------


async def test_a_license_for_one_machine_is_locked_to_the_first(shop: Shop) -> None:
    license_ = await licensed(shop, max_machines=1)
    first = await ask(shop, "validate", license_["key"], "laptop")
    assert first["ok"] is True
    other = await ask(shop, "validate", license_["key"], "desktop")
    assert other == {
        "ok": False,
        "reason": "fingerprint_mismatch",
        "license_id": str(to_uuid(license_["id"])),
        "product_id": str(to_uuid(license_["product_id"])),
        "max_machines": 1,
    }
    assert await ask(shop, "activate", license_["key"], "desktop") == {
        "ok": False,
        "machine_id": None,
        "active_count": 1,
        "max_machines": 1,
        "reason": "too_many_machines",
    }
    again = await ask(shop, "validate", license_["key"], "laptop")
    assert again["machine_id"] == first["machine_id"]
    assert [row["fingerprint_hash"] for row in await active(shop, license_["id"])] == [fingerprint("laptop")]


async def test_validating_without_a_machine_takes_no_place(shop: Shop) -> None:
    license_ = await licensed(shop, max_machines=1)
    answer = good(await shop.http.post("/v1/validate", json={"key": license_["key"]}))
    assert answer["ok"] is True
    assert "machine_id" not in answer
    assert await machine_count(shop, license_["id"]) == 0


# -- shapes, heartbeats, places given back ------------------------------------------------------------


async def test_activation_answers_in_the_shape_clients_expect(shop: Shop) -> None:
    license_ = await licensed(shop, max_machines=2)
    body = {"key": license_["key"], "fingerprint": "laptop", "hostname": "host", "platform": "linux"}
    answer = good(await shop.http.post("/v1/machines/activate", json=body))
    machine = await shop.row("machines")
    assert answer == {
        "ok": True,
        "machine_id": machine["id"],
        "active_count": 1,
        "max_machines": 2,
        "reason": None,
    }
    assert (machine["hostname"], machine["platform"], machine["address"]) == ("host", "linux", "127.0.0.1")
    assert machine["fingerprint_hash"] == fingerprint("laptop")
    assert "laptop" not in str(machine)


async def test_a_heartbeat_is_noted_once_a_minute(shop: Shop) -> None:
    license_ = await licensed(shop, max_machines=1)
    machine = await ask(shop, "activate", license_["key"], "laptop")
    begun = shop.clock.now()
    shop.clock.advance(timedelta(seconds=60))
    assert await ask(shop, "heartbeat", license_["key"], "laptop") == {"ok": True, "machine_id": machine["machine_id"]}
    assert (await shop.row("machines"))["last_heartbeat_at"] == begun
    shop.clock.advance(timedelta(microseconds=1))
    await ask(shop, "heartbeat", license_["key"], "laptop")
    assert (await shop.row("machines"))["last_heartbeat_at"] == shop.clock.now()
    shop.clock.advance(timedelta(seconds=61))
    await ask(shop, "activate", license_["key"], "laptop")
    assert (await shop.row("machines"))["last_heartbeat_at"] == shop.clock.now()
    shop.clock.advance(timedelta(seconds=61))
    await ask(shop, "validate", license_["key"], "laptop")
    assert (await shop.row("machines"))["last_heartbeat_at"] == shop.clock.now()


async def test_heartbeats_follow_the_license(shop: Shop) -> None:
    license_ = await licensed(shop, max_machines=1, duration_seconds=3600, grace_seconds=60)
    assert await ask(shop, "heartbeat", license_["key"], "laptop") == {"ok": False, "reason": "not_activated"}
    await ask(shop, "activate", license_["key"], "laptop")
    at = f"/v1/licenses/{license_['id']}"
    good(await shop.staff.post(f"{at}/suspend", json={"reason": "unpaid"}))
    assert await ask(shop, "heartbeat", license_["key"], "laptop") == {"ok": False, "reason": "suspended"}
    good(await shop.staff.post(f"{at}/reinstate"))
    assert (await ask(shop, "heartbeat", license_["key"], "laptop"))["ok"] is True
    shop.clock.advance(timedelta(seconds=3659))
    assert (await ask(shop, "heartbeat", license_["key"], "laptop"))["ok"] is True
    shop.clock.advance(timedelta(seconds=1))
    assert await ask(shop, "heartbeat", license_["key"], "laptop") == {"ok": False, "reason": "expired"}
    good(await shop.staff.post(f"{at}/revoke", json={"reason": "chargeback"}))
    before = await shop.rows("machines")
    assert await ask(shop, "heartbeat", license_["key"], "laptop") == {"ok": False, "reason": "revoked"}
    assert await shop.rows("machines") == before


async def test_a_place_given_back_is_free_for_another(shop: Shop) -> None:
    license_ = await licensed(shop, max_machines=1)
    first = await ask(shop, "activate", license_["key"], "laptop")
    assert await ask(shop, "deactivate", license_["key"], "laptop", reason="sold it") == {"ok": True}
    assert await ask(shop, "deactivate", license_["key"], "laptop") == {"ok": False, "reason": "not_found"}
    assert await machine_count(shop, license_["id"]) == 0
    left_at = shop.clock.now()
    shop.clock.advance(timedelta(seconds=1))
    assert (await ask(shop, "validate", license_["key"], "desktop"))["ok"] is True
    assert (await ask(shop, "validate", license_["key"], "laptop"))["reason"] == "fingerprint_mismatch"
    left, here = await shop.rows("machines")
    assert (left["id"], left["deactivation_reason"]) == (first["machine_id"], "sold it")
    assert left["deactivated_at"] == left_at
    assert (here["fingerprint_hash"], here["deactivated_at"]) == (fingerprint("desktop"), None)


async def test_the_reason_for_leaving_has_a_default(shop: Shop) -> None:
    license_ = await licensed(shop)
    await ask(shop, "activate", license_["key"], "laptop")
    await ask(shop, "deactivate", license_["key"], "laptop")
    assert (await shop.row("machines"))["deactivation_reason"] == "client_requested"


async def test_staff_free_a_place_once(shop: Shop) -> None:
    license_ = await licensed(shop, max_machines=1)
    machine = await ask(shop, "activate", license_["key"], "laptop")
    at = f"/v1/machines/{machine['machine_id']}/deactivate"
    freed = good(await shop.staff.post(at, json={"reason": "lost"}))
    assert (freed["id"], freed["deactivation_reason"]) == (machine["machine_id"], "lost")
    before = await shop.everything()
    problem(await shop.staff.post(at, json={}), 409, "machine_deactivated")
    problem(
        await shop.staff.post("/v1/machines/mac_01j00000000000000000000000/deactivate", json={}),
        404,
        "machine_not_found",
    )
    assert await shop.everything() == before
    assert (await ask(shop, "activate", license_["key"], "desktop"))["ok"] is True


async def test_machines_come_in_pages_oldest_first(shop: Shop) -> None:
    license_ = await licensed(shop, max_machines=0)
    made = []
    for place in range(5):
        made.append((await ask(shop, "activate", license_["key"], f"machine-{place}"))["machine_id"])
        shop.clock.advance(timedelta(seconds=1))
    seen: list[str] = []
    after: dict[str, Any] = {}
    while True:
        at = f"/v1/licenses/{license_['id']}/machines"
        page = good(await shop.staff.get(at, params={"limit": 2, **after}))
        seen += [row["id"] for row in page["data"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == made


@pytest.mark.parametrize(
    ("state", "reason", "count"),
    [("suspended", "suspended", 0), ("revoked", "revoked", 0), ("expired", "expired", 1)],
)
async def test_a_license_that_is_not_good_activates_nothing(shop: Shop, state: str, reason: str, count: int) -> None:
    license_ = await licensed(shop, max_machines=5, duration_seconds=60)
    await ask(shop, "activate", license_["key"], "laptop")
    if state == "expired":
        shop.clock.advance(timedelta(seconds=60))
    else:
        verb = {"suspended": "suspend", "revoked": "revoke"}[state]
        good(await shop.staff.post(f"/v1/licenses/{license_['id']}/{verb}", json={}))
    before = await shop.everything()
    for machine in ("desktop", "laptop"):
        assert await ask(shop, "activate", license_["key"], machine) == {
            "ok": False,
            "machine_id": None,
            "active_count": count,
            "max_machines": 5,
            "reason": reason,
        }
    assert await shop.everything() == before


@pytest.mark.parametrize("verb", ["activate", "heartbeat", "deactivate"])
async def test_what_is_no_key_of_ours_is_an_error(shop: Shop, verb: str) -> None:
    license_ = await licensed(shop)
    prefix, payload, signature = license_["key"].split("-")
    forged = f"{prefix}-{payload}-{signature[:-8]}{'A' * 7}{signature[-1]}"
    before = await shop.everything()
    for body, code in [
        ({"key": "nonsense", "fingerprint": "laptop"}, "bad_format"),
        ({"key": forged, "fingerprint": "laptop"}, "bad_signature"),
        ({"key": license_["key"], "fingerprint": ""}, "bad_request"),
        ({"key": license_["key"]}, "invalid_request"),
    ]:
        answer = problem(await shop.http.post(f"/v1/machines/{verb}", json=body), 400, code)
        assert (answer["ok"], answer["error"]) == (False, code)
    assert await shop.everything() == before


async def test_a_key_without_its_license_is_not_found(shop: Shop) -> None:
    license_ = await licensed(shop)

    def forget(tx: Tx) -> None:
        tx.execute(sa.delete(tables.licenses).where(tables.licenses.c.tenant_id == DEFAULT_TENANT))

    await shop.scope.run(forget)
    body = {"key": license_["key"], "fingerprint": "laptop"}
    problem(await shop.http.post("/v1/machines/activate", json=body), 404, "not_found")
    problem(await shop.http.post("/v1/machines/heartbeat", json=body), 404, "not_found")
    assert await ask(shop, "deactivate", license_["key"], "laptop") == {"ok": False, "reason": "not_found"}
    assert await ask(shop, "validate", license_["key"], "laptop") == {"ok": False, "reason": "not_found"}
