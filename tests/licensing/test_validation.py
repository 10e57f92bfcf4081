"""Is this license good, here? Every answer is one line in the log, and tells nobody whose license it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.support.app import Shop, client_of, good, opening

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.ids import to_uuid
from counterfoil.kernel.secrets import MasterKey, fingerprint
from counterfoil.kernel.signing import PrivateKey
from counterfoil.licensing import keys, signing_keys, validation
from counterfoil.licensing.validation import Question

HOUR = 3600


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


async def validate(shop: Shop, key: str, **more: Any) -> dict[str, Any]:
    """The answer, whose status is 200 whatever it says, and whose line in the log is the newest."""
    before = await shop.count("validation_log")
    response = await shop.http.post("/v1/validate", json={"key": key, **more})
    assert response.status_code == 200
    answer: dict[str, Any] = response.json()
    log = await shop.rows("validation_log")
    assert len(log) == before + 1
    return answer


async def last_line(shop: Shop) -> dict[str, Any]:
    log = await shop.rows("validation_log")
    return max(log, key=lambda line: (line["created_at"], line["id"]))


def rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def forged(key: str) -> str:
    """The same payload under another signature."""
    parsed = keys.parse(key)
    return keys.sign(parsed.payload, PrivateKey(bytes(range(100, 132))))


# -- good ---------------------------------------------------------------------------------------------


async def test_a_perpetual_license_without_extras_says_only_what_there_is(shop: Shop) -> None:
    license_ = await shop.license(await shop.tier(), max_machines=3)
    answer = await validate(shop, license_["key"])
    assert answer == {
        "ok": True,
        "license_id": str(to_uuid(license_["id"])),
        "product_id": str(to_uuid(license_["product_id"])),
        "product_slug": "editor",
        "issued_at": "2026-01-02T03:04:05Z",
        "status": "active",
        "max_machines": 3,
    }
    assert await last_line(shop) == {
        "id": (await last_line(shop))["id"],
        "license_id": license_["id"],
        "product_id": license_["product_id"],
        "machine_id": None,
        "fingerprint_hash": None,
        "result": "ok",
        "address": "127.0.0.1",
        "user_agent": shop.http.headers["user-agent"],
        "created_at": shop.clock.now(),
    }


async def test_everything_a_license_can_say(shop: Shop) -> None:
    spec = {"max_machines": 0, "duration_seconds": HOUR, "is_trial": True, "entitlements": ["pro", "Straße"]}
    license_ = await shop.license(await shop.tier(), **spec)
    answer = await validate(shop, license_["key"], product_slug="editor", fingerprint="laptop", hostname="h")
    machine = await shop.row("machines")
    assert answer == {
        "ok": True,
        "license_id": str(to_uuid(license_["id"])),
        "product_id": str(to_uuid(license_["product_id"])),
        "product_slug": "editor",
        "issued_at": "2026-01-02T03:04:05Z",
        "expires_at": "2026-01-02T04:04:05Z",
        "is_trial": True,
        "entitlements": ["pro", "Straße"],
        "status": "active",
        "machine_id": machine["id"],
        "max_machines": 0,
    }
    line = await last_line(shop)
    assert (line["machine_id"], line["fingerprint_hash"]) == (machine["id"], fingerprint("laptop"))


async def test_what_the_database_says_counts_not_what_the_key_says(shop: Shop, signing_key: PrivateKey) -> None:
    """A key signed by us with other terms (an earlier version of its row) is answered from the row."""
    license_ = await shop.license(await shop.tier(), max_machines=1, entitlements=["pro"])
    payload = keys.parse(license_["key"]).payload
    ring = await shop.house.keyring(shop.scope.tenant)
    older = keys.Payload(
        product_id=payload.product_id,
        license_id=payload.license_id,
        issued_at=payload.issued_at,
        expires_at=1,
        is_trial=True,
        entitlements=("everything",),
    )
    answer = await validate(shop, keys.sign(older, ring._signer(ring.active.id)))
    assert answer["ok"] is True
    assert answer["entitlements"] == ["pro"]
    assert not {"is_trial", "expires_at"} & answer.keys()


@pytest.mark.parametrize("spell", [str.strip, lambda key: f" {key}\n", lambda key: "LIC1" + key[4:].lower()])
async def test_blanks_and_lower_case_are_the_same_key(shop: Shop, spell: Any) -> None:
    license_ = await shop.license(await shop.tier())
    assert (await validate(shop, spell(license_["key"])))["ok"] is True


# -- not good, and why --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "",
        "nonsense",
        "LIC1-A-B",
        "LIC1--",
        "LIC1-AAAA-AAAA-AAAA",
        "LIC2-AAAA-AAAA",
        "LIC1-" + "A" * 120_000 + "-AAAA",
        "LIC1-\u00df\u00df-\u0131",
    ],
)
async def test_what_is_no_key_at_all(shop: Shop, key: str) -> None:
    assert await validate(shop, key, fingerprint="laptop") == {"ok": False, "reason": "bad_format"}
    line = await last_line(shop)
    assert (line["result"], line["license_id"], line["product_id"]) == ("bad_format", None, None)
    assert line["fingerprint_hash"] == fingerprint("laptop")


async def test_one_license_has_one_key(shop: Shop) -> None:
    """Letters whose upper case is another letter are not a second way to write a key."""
    license_ = await shop.license(await shop.tier(), entitlements=[f"feature-{place}" for place in range(20)])
    key: str = license_["key"]
    assert "I" in key[5:]
    for letter, twin in (("I", "\u0131"), ("S", "\u017f")):
        place = key.index(letter, 5)
        other = key[:place] + twin + key[place + 1 :]
        assert other.upper() == key
        assert await validate(shop, other) == {"ok": False, "reason": "bad_format"}


async def test_a_key_that_somebody_else_signed(shop: Shop) -> None:
    license_ = await shop.license(await shop.tier())
    assert await validate(shop, forged(license_["key"]), fingerprint="laptop") == {
        "ok": False,
        "reason": "bad_signature",
    }
    line = await last_line(shop)
    assert (line["result"], line["license_id"]) == ("bad_signature", None)
    assert await shop.rows("machines") == []


async def test_a_key_whose_payload_was_changed(shop: Shop) -> None:
    license_ = await shop.license(await shop.tier())
    prefix, payload, signature = license_["key"].split("-")
    for place in range(0, len(payload), 7):
        other = "A" if payload[place] != "A" else "B"
        changed = f"{prefix}-{payload[:place]}{other}{payload[place + 1 :]}-{signature}"
        assert (await validate(shop, changed))["reason"] in {"bad_signature", "bad_format"}


async def test_a_key_of_no_license_here(shop: Shop) -> None:
    license_ = await shop.license(await shop.tier())
    ring = await shop.house.keyring(shop.scope.tenant)
    payload = keys.parse(license_["key"]).payload
    stray = keys.Payload(product_id=payload.product_id, license_id=payload.product_id, issued_at=payload.issued_at)
    key = keys.sign(stray, ring._signer(ring.active.id))
    assert await validate(shop, key) == {"ok": False, "reason": "not_found"}
    assert (await last_line(shop))["result"] == "not_found"


@pytest.mark.parametrize(("verb", "reason"), [("suspend", "suspended"), ("revoke", "revoked")])
async def test_a_license_that_was_stopped(shop: Shop, verb: str, reason: str) -> None:
    license_ = await shop.license(await shop.tier(), max_machines=1, duration_seconds=1)
    good(await shop.staff.post(f"/v1/licenses/{license_['id']}/{verb}", json={"reason": "chargeback by ann@x.org"}))
    shop.clock.advance(timedelta(seconds=2))  # expired as well, but stopped comes first
    assert await validate(shop, license_["key"], fingerprint="laptop", product_slug="other") == {
        "ok": False,
        "reason": reason,
    }
    line = await last_line(shop)
    assert (line["result"], line["license_id"]) == (reason, license_["id"])
    assert await shop.rows("machines") == []


async def test_a_reinstated_license_is_good_again(shop: Shop) -> None:
    license_ = await shop.license(await shop.tier())
    good(await shop.staff.post(f"/v1/licenses/{license_['id']}/suspend", json={}))
    assert (await validate(shop, license_["key"]))["ok"] is False
    good(await shop.staff.post(f"/v1/licenses/{license_['id']}/reinstate"))
    assert (await validate(shop, license_["key"]))["ok"] is True


async def test_another_product(shop: Shop) -> None:
    license_ = await shop.license(await shop.tier(), duration_seconds=1)
    shop.clock.advance(timedelta(seconds=2))  # expired as well, but the product comes first
    assert await validate(shop, license_["key"], product_slug="viewer", fingerprint="laptop") == {
        "ok": False,
        "reason": "product_mismatch",
    }
    assert await shop.rows("machines") == []


async def test_expiry_and_grace_to_the_microsecond(shop: Shop) -> None:
    license_ = await shop.license(await shop.tier(), duration_seconds=HOUR, grace_seconds=60, max_machines=1)
    expires, ends = "2026-01-02T04:04:05Z", "2026-01-02T04:05:05Z"
    issued = datetime.fromisoformat(license_["issued_at"])
    assert rfc3339(issued) == "2026-01-02T03:04:05Z"
    tick = timedelta(microseconds=1)

    async def at(moment: datetime) -> dict[str, Any]:
        shop.clock.advance(moment - shop.clock.now())
        return await validate(shop, license_["key"], fingerprint="laptop")

    before = await at(issued + timedelta(seconds=HOUR) - tick)
    assert (before["ok"], before["expires_at"]) == (True, expires)
    assert not {"grace_until", "in_grace_period"} & before.keys()
    for moment in (issued + timedelta(seconds=HOUR), issued + timedelta(seconds=HOUR + 60) - tick):
        grace = await at(moment)
        assert (grace["ok"], grace["in_grace_period"], grace["grace_until"]) == (True, True, ends)
        assert grace["expires_at"] == expires
    over = await at(issued + timedelta(seconds=HOUR + 60))
    assert over == {
        "ok": False,
        "reason": "expired",
        "license_id": str(to_uuid(license_["id"])),
        "product_id": str(to_uuid(license_["product_id"])),
        "expires_at": expires,
    }
    assert [line["result"] for line in sorted(await shop.rows("validation_log"), key=lambda line: line["id"])] == [
        "ok", "ok", "ok", "expired",
    ]  # fmt: skip


async def test_an_expired_license_takes_no_place(shop: Shop) -> None:
    license_ = await shop.license(await shop.tier(), duration_seconds=HOUR)
    shop.clock.advance(timedelta(seconds=HOUR))
    assert (await validate(shop, license_["key"], fingerprint="laptop"))["reason"] == "expired"
    assert await shop.rows("machines") == []
    assert (await shop.row("licenses"))["machine_count"] == 0


async def test_too_many_machines(shop: Shop) -> None:
    license_ = await shop.license(await shop.tier(), max_machines=2)
    for machine in ("laptop", "desktop"):
        assert (await validate(shop, license_["key"], fingerprint=machine))["ok"] is True
    shop.clock.advance(timedelta(seconds=1))
    assert await validate(shop, license_["key"], fingerprint="phone") == {
        "ok": False,
        "reason": "too_many_machines",
        "license_id": str(to_uuid(license_["id"])),
        "product_id": str(to_uuid(license_["product_id"])),
        "max_machines": 2,
    }
    line = await last_line(shop)
    assert (line["result"], line["fingerprint_hash"]) == ("too_many_machines", fingerprint("phone"))
    assert (await validate(shop, license_["key"], fingerprint="laptop"))["ok"] is True


async def test_too_many_questions_from_one_address(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    async with opening(database_url, clock, master, validations_per_minute=2) as shop:
        license_ = await shop.license(await shop.tier())
        answers = []
        async with client_of(shop.app, address="192.0.2.7") as http:
            for _ in range(3):
                response = await http.post("/v1/validate", json={"key": license_["key"]})
                assert response.status_code == 200
                answers.append(response.json())
        assert [answer["ok"] for answer in answers] == [True, True, False]
        assert answers[2] == {"ok": False, "reason": "rate_limited"}


# -- what nobody is told ------------------------------------------------------------------------------


async def test_answers_never_say_whose_license_it_is(shop: Shop) -> None:
    """On every public license route, for every outcome: no address, note, order, name or reason."""
    sold = await shop.tier(license={"max_machines": 1, "duration_seconds": HOUR}, name="Team")
    private = ["ann@buyer.example", "buyer", "Order for Ann", "Ann Buyer"]
    opened = await shop.checkout(sold, email="ann@buyer.example", note="Order for Ann", metadata={"name": "Ann Buyer"})
    await shop.play(opened, "pay")
    order, license_ = await shop.row("orders"), await shop.row("licenses")
    private += [order["id"], opened["id"], license_["id"]]
    key = (await shop.claim(opened))["license_keys"][0]
    heard = []

    async def everything() -> None:
        for machine in ("laptop", "desktop"):
            body = {"key": key, "fingerprint": machine}
            heard.append((await shop.http.post("/v1/validate", json=body)).text)
            heard.append((await shop.http.post("/v1/validate", json={**body, "product_slug": "x"})).text)
            heard.extend(
                [(await shop.http.post(f"/v1/machines/{verb}", json=body)).text for verb in ("activate", "heartbeat")]
            )

    await everything()
    good(await shop.staff.post(f"/v1/licenses/{license_['id']}/suspend", json={"reason": "Ann Buyer is late"}))
    await everything()
    good(await shop.staff.post(f"/v1/licenses/{license_['id']}/reinstate"))
    shop.clock.advance(timedelta(hours=2))
    await everything()
    good(await shop.staff.post(f"/v1/licenses/{license_['id']}/revoke", json={"reason": "Ann Buyer"}))
    await everything()
    reasons = {json.loads(text).get("reason") for text in heard}
    assert reasons >= {
        None, "fingerprint_mismatch", "product_mismatch", "too_many_machines", "suspended", "expired", "revoked",
    }  # fmt: skip
    for text in heard:
        for secret in private:
            assert secret.lower() not in text.lower()


async def test_a_fingerprint_is_kept_only_as_a_hash(shop: Shop) -> None:
    license_ = await shop.license(await shop.tier())
    await validate(shop, license_["key"], fingerprint="board-serial-0815")
    assert "board-serial-0815" not in str(await shop.everything())


# -- many at once -------------------------------------------------------------------------------------


async def test_many_at_once_get_each_their_own_answer(shop: Shop) -> None:
    sold = await shop.tier()
    fine = await shop.license(sold, max_machines=0)
    single = await shop.license(sold, max_machines=1)
    stopped = await shop.license(sold)
    good(await shop.staff.post(f"/v1/licenses/{stopped['id']}/revoke", json={}))
    asked: list[tuple[dict[str, Any], str | None]] = []
    for place in range(40):
        asked += [
            ({"key": fine["key"], "fingerprint": f"fine-{place}"}, None),
            ({"key": single["key"], "fingerprint": "the-one"}, None),
            ({"key": stopped["key"]}, "revoked"),
            ({"key": f"nonsense-{place}"}, "bad_format"),
            ({"key": forged(fine["key"])}, "bad_signature"),
        ]
    answers = await asyncio.gather(*(shop.http.post("/v1/validate", json=body) for body, _ in asked))
    for (body, reason), response in zip(asked, answers, strict=True):
        answer = good(response)
        assert answer.get("reason") == reason
        if reason is None:
            expected = fine if body["key"] == fine["key"] else single
            assert answer["license_id"] == str(to_uuid(expected["id"]))
            (machine,) = await shop.rows("machines", fingerprint_hash=fingerprint(body["fingerprint"]))
            assert answer["machine_id"] == machine["id"]
    results = [line["result"] for line in await shop.rows("validation_log")]
    assert {result: results.count(result) for result in results} == {
        "ok": 80, "revoked": 40, "bad_format": 40, "bad_signature": 40,
    }  # fmt: skip


async def test_one_shared_transaction_answers_in_the_order_asked(shop: Shop) -> None:
    sold = await shop.tier()
    first, second = await shop.license(sold, max_machines=1), await shop.license(sold, max_machines=1)
    questions = [
        Question(license_id=second["id"]),
        Question(license_id=None, refused="bad_format"),
        Question(license_id=first["id"], product_slug="other"),
        Question(license_id="lic_01j00000000000000000000000"),
        Question(license_id=first["id"]),
    ]
    answers = await shop.scope.run(validation.validate_many, questions)
    assert [
        (answer.reason, answer.license.id if answer.license else None)
        for answer in answers
        if isinstance(answer, validation.Answer)
    ] == [
        (None, second["id"]),
        ("bad_format", None),
        ("product_mismatch", first["id"]),
        ("not_found", None),
        (None, first["id"]),
    ]


# -- signing keys -------------------------------------------------------------------------------------


async def test_keys_keep_verifying_when_the_signing_key_is_rotated(
    database_url: str, clock: ManualClock, master: MasterKey
) -> None:
    async with opening(database_url, clock, master) as before:
        old = await before.license(await before.tier())
        await before.scope.run(signing_keys.rotate, master, PrivateKey.generate())
    async with opening(database_url, clock, master) as after:
        new = await after.license(await after.tier("viewer"))
        assert (await validate(after, old["key"]))["ok"] is True
        assert (await validate(after, new["key"]))["ok"] is True
        assert (await after.row("licenses", id=old["id"]))["signing_key_id"] != (
            await after.row("licenses", id=new["id"])
        )["signing_key_id"]
        again = good(await after.staff.get(f"/v1/licenses/{old['id']}"))
        assert again["key"] == old["key"]


async def test_old_lines_of_the_log_are_forgotten(shop: Shop) -> None:
    license_ = await shop.license(await shop.tier())
    for _ in range(3):
        await validate(shop, license_["key"])
        shop.clock.advance(timedelta(days=1))
    assert await shop.scope.run(validation.tidy, keep=timedelta(days=2)) == 1
    kept = sorted(line["created_at"] for line in await shop.rows("validation_log"))
    assert kept == [shop.clock.now() - timedelta(days=2), shop.clock.now() - timedelta(days=1)]


async def test_another_tenants_key_is_nothing_here(shop: Shop, master: MasterKey) -> None:
    """Two shops on one installation sign with their own keys."""
    from counterfoil.accounts import tenants

    other = shop.house.scope("ten_01j00000000000000000000000")
    await other.run(tenants.create, "other", "Other")
    await other.run(signing_keys.create_first, master, PrivateKey.generate())
    shop.house._tenants_read = float("-inf")  # other processes look again after some seconds
    license_ = await shop.license(await shop.tier())
    there = await shop.http.post("/t/other/v1/validate", json={"key": license_["key"]})
    assert good(there) == {"ok": False, "reason": "bad_signature"}
    assert await shop.rows("validation_log") == []
