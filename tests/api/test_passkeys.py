"""Passkeys, recovery codes and invitations of staff over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.support.app import MINUTE, Shop, client_of, good, opening, problem
from tests.support.authenticator import BS, UP, UV, Authenticator, bytes_of, text_of
from tests.support.passkeys import (
    browser,
    new_options,
    register,
    session_in,
    sign_in_options,
    try_register,
    try_sign_in,
)
from tests.support.people import Person, person

from counterfoil.accounts import api_keys, assignments, roles, tenants
from counterfoil.accounts.tables import users as users_table
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey, fingerprint

EMAIL = "ada@example.com"
OTHER = "ten_01jgkx0000000000000000000b"


@pytest.fixture
async def shop(database_url: str, clock: ManualClock, master: MasterKey) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master) as opened:
        yield opened


@pytest.fixture
async def ada(shop: Shop) -> Person:
    """Staff, in a session in which a passkey was shown."""
    return await person(shop, EMAIL, staff="SuperAdmin")


@pytest.fixture
def key() -> Authenticator:
    return Authenticator()


def _set_status(tx: Tx, user_id: str, **values: Any) -> None:
    assert tx.execute(users_table.update().where(mine(users_table), users_table.c.id == user_id).values(**values)) == 1


# -- registering --------------------------------------------------------------------------------------


async def test_what_the_browser_is_asked_for(shop: Shop, ada: Person, key: Authenticator) -> None:
    answer = good(await ada.http.post("/v1/me/passkeys/options"))
    options = answer["options"]
    challenge, handle = options.pop("challenge"), options["user"].pop("id")
    assert (len(bytes_of(challenge)), len(bytes_of(handle))) == (32, 32)
    assert answer["expires_at"] == "2026-01-02T03:09:05.678901Z"
    assert options == {
        "rp": {"id": "localhost", "name": "Counterfoil"},
        "user": {"name": EMAIL, "displayName": "Ada"},
        "pubKeyCredParams": [{"type": "public-key", "alg": alg} for alg in (-7, -8, -257)],
        "timeout": 300_000,
        "excludeCredentials": [],
        "authenticatorSelection": {
            "residentKey": "preferred", "requireResidentKey": False, "userVerification": "required",
        },
        "attestation": "none",
    }  # fmt: skip
    http, _ = await register(shop, ada.http, key)
    again = await new_options(http)
    assert again["user"]["id"] == handle
    assert again["challenge"] != challenge
    assert again["excludeCredentials"] == [{"type": "public-key", "id": key.id, "transports": ["nfc", "usb"]}]
    kept = {row["token_hash"] for row in await shop.rows("one_time_tokens", purpose="passkey.register")}
    assert fingerprint(f"{ada.id}:{challenge}") in kept
    assert challenge not in repr(await shop.everything())


@pytest.mark.parametrize("algorithm", [-7, -8, -257])
async def test_a_passkey_is_registered_and_opens_a_session(shop: Shop, ada: Person, algorithm: Any) -> None:
    key = Authenticator(algorithm)
    http, made = await register(shop, ada.http, key, "YubiKey 5")
    row = await shop.row("passkeys")
    assert made["passkey"] == {
        "id": row["id"],
        "name": "YubiKey 5",
        "transports": ["nfc", "usb"],
        "aaguid": "00000000-0000-0000-0000-000000000000",
        "backed_up": False,
        "last_used_at": None,
        "created_at": "2026-01-02T03:04:05.678901Z",
    }
    assert (row["user_id"], row["credential_id"], row["sign_count"]) == (ada.id, key.id, 1)
    assert [len(code) for code in made["recovery_codes"]] == [19] * 10
    assert len(set(made["recovery_codes"])) == 10
    shop.clock.advance(MINUTE)
    signed_in = await try_sign_in(shop.http, key)
    assert good(signed_in) == {"user_id": ada.id}
    cookie = signed_in.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/" in cookie
    good(await browser(shop, session_in(signed_in)).get("/v1/orders"))
    assert (await shop.row("passkeys"))["sign_count"] == 2
    listed = good(await http.get("/v1/me/passkeys"))
    assert listed["recovery_codes_left"] == 10
    assert listed["data"] == [{**made["passkey"], "last_used_at": "2026-01-02T03:05:05.678901Z"}]
    assert sorted(await shop.events("passkey.added", "recovery_codes.made", "session.opened")) == [
        "passkey.added", "recovery_codes.made", "session.opened", "session.opened", "session.opened",
    ]  # fmt: skip
    assert [(one.template, one.context) for one in await shop.letters(EMAIL)] == [
        ("new_passkey", {"name": "YubiKey 5"})
    ]


async def test_making_a_passkey_replaces_the_session(shop: Shop, ada: Person, key: Authenticator) -> None:
    http, _ = await register(shop, ada.http, key)
    problem(await ada.http.get("/v1/me/passkeys"), 401, "unauthorized")
    good(await http.get("/v1/me/passkeys"))


async def test_codes_come_with_the_first_passkey_only(shop: Shop, ada: Person) -> None:
    http, first = await register(shop, ada.http, Authenticator())
    _, second = await register(shop, http, Authenticator())
    assert (len(first["recovery_codes"]), second["recovery_codes"]) == (10, [])


_WRONG_MAKES: dict[str, dict[str, Any]] = {
    "another origin": {"origin": "http://localhost:8788"},
    "a subdomain": {"origin": "http://evil.localhost:8787"},
    "https": {"origin": "https://localhost:8787"},
    "the loopback address": {"origin": "http://127.0.0.1:8787"},
    "another relying party": {"rp_id": "evil.example"},
    "nobody present": {"flags": UV},
    "nobody verified": {"flags": UP},
    "backed up but cannot be": {"flags": UP | UV | BS},
    "shown instead of made": {"kind": "webauthn.get"},
    "in a frame": {"more": {"crossOrigin": True}},
    "in a frame of": {"more": {"topOrigin": "https://evil.example"}},
    "a key that is none": {"public_key": b"\xa0"},
    "a key that is a number": {"public_key": b"\x18\x2a"},
    "an algorithm we do not take": {
        "public_key": bytes.fromhex("a5010203382220012158200000000000000000000000000000000000000000000000000000000000"
                                    "0000002258200000000000000000000000000000000000000000000000000000000000000000")
    },
    "a point that is not on the curve": {
        "public_key": bytes.fromhex("a5010203262001215820" + "01" * 32 + "225820" + "01" * 32)
    },
    "the client data of another kind": {"more": {"challenge": 5}},
}  # fmt: skip


@pytest.mark.parametrize("wrong", _WRONG_MAKES)
async def test_a_passkey_that_proves_nothing_is_refused(shop: Shop, ada: Person, wrong: str) -> None:
    options = await new_options(ada.http)
    before = await shop.everything()
    credential = Authenticator().make(options, **_WRONG_MAKES[wrong])
    problem(await ada.http.post("/v1/me/passkeys", json={"credential": credential}), 422, "bad_passkey")
    assert await shop.everything() == before


async def test_weak_keys_and_mixed_up_ones_are_refused(shop: Shop, ada: Person) -> None:
    problem(await try_register(ada.http, Authenticator(-257, rsa_bits=1024)), 422, "bad_passkey")
    cose = bytearray(Authenticator(-7).cose())
    assert bytes(cose[:5]) == bytes.fromhex("a501020326")
    cose[4] = 0x27  # an elliptic curve's key that says EdDSA
    problem(await try_register(ada.http, Authenticator(), public_key=bytes(cose)), 422, "bad_passkey")
    other = Authenticator()
    credential = Authenticator().make(await new_options(ada.http)) | {"id": other.id, "rawId": other.id}
    problem(await ada.http.post("/v1/me/passkeys", json={"credential": credential}), 422, "bad_passkey")
    long = Authenticator(credential_id=b"x" * 1024)
    problem(await try_register(ada.http, long), 422, "bad_passkey")
    assert await shop.count("passkeys") == 0
    good(await try_register(ada.http, Authenticator(credential_id=b"x" * 1023)))


_GARBAGE: list[Any] = [
    {},
    {"id": 5, "response": []},
    {"response": {"clientDataJSON": "ä"}},
    {"response": {"clientDataJSON": "!"}},
    {"id": "a", "rawId": "a", "type": "public-key", "response": {"clientDataJSON": "e30"}},
    {"id": "\\ud800"},
]


@pytest.mark.parametrize("garbage", range(len(_GARBAGE)))
async def test_garbage_is_refused(shop: Shop, ada: Person, key: Authenticator, garbage: int) -> None:
    http, _ = await register(shop, ada.http, key)
    bad = _GARBAGE[garbage]
    asked = await sign_in_options(shop.http)
    before = await shop.everything()
    problem(await http.post("/v1/me/passkeys", json={"credential": bad}), 422, "bad_passkey")
    problem(await shop.http.post("/v1/session/passkey", json={"token": "x", "credential": bad}), 401, "bad_credentials")
    shown = key.show(asked["options"])
    for member in ("clientDataJSON", "authenticatorData", "signature"):
        for value in ("", "AAAA", 5, None, "x" * 100_000):
            credential = {**shown, "response": {**shown["response"], member: value}}
            answer = await shop.http.post(
                "/v1/session/passkey", json={"token": asked["token"], "credential": credential}
            )
            problem(answer, 401, "bad_credentials")
    assert await shop.everything() == before


async def test_a_challenge_is_for_its_user_once_for_five_minutes(shop: Shop, ada: Person) -> None:
    bob = await person(shop, "bob@example.com", staff="SuperAdmin")
    theirs = await new_options(bob.http)
    credential = Authenticator().make(theirs)
    problem(await ada.http.post("/v1/me/passkeys", json={"credential": credential}), 409, "challenge_expired")
    made_up = Authenticator().make(theirs, challenge=text_of(bytes(32)))
    problem(await ada.http.post("/v1/me/passkeys", json={"credential": made_up}), 409, "challenge_expired")
    options = await new_options(ada.http)
    shop.clock.advance(5 * MINUTE)
    late = Authenticator().make(options)
    problem(await ada.http.post("/v1/me/passkeys", json={"credential": late}), 409, "challenge_expired")
    options = await new_options(ada.http)
    shop.clock.advance(5 * MINUTE - timedelta(microseconds=1))
    made = await ada.http.post("/v1/me/passkeys", json={"credential": Authenticator().make(options)})
    good(made)
    http = browser(shop, session_in(made))
    replayed = Authenticator().make(options)
    problem(await http.post("/v1/me/passkeys", json={"credential": replayed}), 409, "challenge_expired")
    assert await shop.count("passkeys") == 1


async def test_a_passkey_has_one_owner(shop: Shop, ada: Person, key: Authenticator) -> None:
    http, _ = await register(shop, ada.http, key)
    bob = await person(shop, "bob@example.com", staff="SuperAdmin")
    problem(await try_register(bob.http, key), 409, "passkey_known")
    problem(await try_register(http, key), 409, "passkey_known")
    assert await shop.count("passkeys") == 1
    good(await bob.http.get("/v1/me/passkeys"))  # their session goes on


async def test_one_of_many_registrations_of_one_passkey_wins(shop: Shop, key: Authenticator) -> None:
    people = [await person(shop, f"p{n}@example.com", staff="ReadOnly") for n in range(20)]
    answers = await asyncio.gather(*[try_register(one.http, key) for one in people])
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    assert {answer.json().get("code") for answer in answers} == {None, "passkey_known"}
    assert await shop.count("passkeys") == 1
    assert await shop.events("passkey.added") == ["passkey.added"]


async def test_one_answer_sent_a_hundred_times_counts_once(shop: Shop, ada: Person, key: Authenticator) -> None:
    credential = key.make(await new_options(ada.http))
    sent = [ada.http.post("/v1/me/passkeys", json={"credential": credential}) for _ in range(100)]
    answers = await asyncio.gather(*sent)
    # Who comes after has an ended session, or a spent challenge.
    assert sorted({answer.status_code for answer in answers}) in ([201, 409], [201, 401], [201, 401, 409])
    assert sum(answer.is_success for answer in answers) == 1
    assert await shop.count("passkeys") == 1


async def test_twenty_are_enough(shop: Shop, ada: Person) -> None:
    http = ada.http
    for _ in range(20):
        http, _ = await register(shop, http, Authenticator())
    problem(await try_register(http, Authenticator()), 409, "too_many_passkeys")
    assert await shop.count("passkeys") == 20


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "a\nb"])
async def test_names_are_lines(shop: Shop, ada: Person, name: str) -> None:
    problem(await try_register(ada.http, Authenticator(), name), 422, "invalid_request")
    http, made = await register(shop, ada.http, Authenticator())
    path = f"/v1/me/passkeys/{made['passkey']['id']}"
    problem(await http.patch(path, json={"name": name}), 422, "invalid_request")
    assert (await shop.row("passkeys"))["name"] == "Key"


# -- who may add, rename and remove -------------------------------------------------------------------


async def test_a_password_alone_adds_no_passkey_for_staff(shop: Shop) -> None:
    weak = await person(shop, EMAIL, staff="SuperAdmin", method="password")
    problem(await weak.http.get("/v1/orders"), 403, "passkey_required")
    before = await shop.everything()
    problem(await weak.http.post("/v1/me/passkeys/options"), 403, "passkey_required")
    assert await shop.everything() == before


async def test_staff_who_became_it_while_they_made_a_passkey_need_one(shop: Shop) -> None:
    bob = await person(shop, "bob@example.com")
    options = await new_options(bob.http)
    await shop.scope.run(lambda tx: assignments.grant(tx, bob.id, roles.by_name(tx, "SuperAdmin").id, None))
    credential = Authenticator().make(options)
    problem(await bob.http.post("/v1/me/passkeys", json={"credential": credential}), 403, "passkey_required")
    assert await shop.count("passkeys") == 0


async def test_a_member_needs_no_passkey_for_the_first_but_for_the_next(shop: Shop) -> None:
    bob = await person(shop, "bob@example.com")
    _, made = await register(shop, bob.http, Authenticator())
    weak = await person(shop, "bob@example.com")
    before = await shop.everything()
    path = f"/v1/me/passkeys/{made['passkey']['id']}"
    problem(await weak.http.post("/v1/me/passkeys/options"), 403, "passkey_required")
    problem(await weak.http.patch(path, json={"name": "Mine"}), 403, "passkey_required")
    problem(await weak.http.delete(path), 403, "passkey_required")
    problem(await weak.http.post("/v1/me/recovery-codes"), 403, "passkey_required")
    assert await shop.everything() == before


async def test_a_passkey_counts_for_twelve_hours(shop: Shop, ada: Person, key: Authenticator) -> None:
    http, made = await register(shop, ada.http, key)
    shop.clock.advance(timedelta(hours=12) - timedelta(microseconds=1))
    good(await http.get("/v1/orders"))
    shop.clock.advance(timedelta(microseconds=1))
    problem(await http.get("/v1/orders"), 403, "passkey_required")
    problem(await http.post("/v1/me/passkeys/options"), 403, "passkey_required")
    problem(await http.delete(f"/v1/me/passkeys/{made['passkey']['id']}"), 403, "passkey_required")
    stepped_up = await try_sign_in(http, key)
    good(stepped_up)
    assert session_in(stepped_up) != http.headers["cookie"].partition("=")[2]
    problem(await http.get("/v1/me/passkeys"), 401, "unauthorized")  # the old token is worth nothing
    good(await browser(shop, session_in(stepped_up)).get("/v1/orders"))


async def test_stepping_up_from_a_password(shop: Shop, ada: Person, key: Authenticator) -> None:
    await register(shop, ada.http, key)
    weak = await person(shop, EMAIL, method="password")
    problem(await weak.http.get("/v1/orders"), 403, "passkey_required")
    asked = await sign_in_options(weak.http)
    assert asked["options"]["allowCredentials"] == [{"type": "public-key", "id": key.id}]
    stepped_up = await try_sign_in(weak.http, key)
    problem(await weak.http.get("/v1/me/passkeys"), 401, "unauthorized")
    good(await browser(shop, session_in(stepped_up)).get("/v1/orders"))


async def test_stepping_up_takes_ones_own_passkey(shop: Shop, ada: Person, key: Authenticator) -> None:
    await register(shop, ada.http, key)
    weak = await person(shop, EMAIL, method="password")
    bob = await person(shop, "bob@example.com", staff="SuperAdmin")
    theirs = Authenticator()
    await register(shop, bob.http, theirs)
    problem(await try_sign_in(weak.http, theirs), 401, "bad_credentials")
    good(await weak.http.get("/v1/me/passkeys"))


async def test_renaming_and_removing(shop: Shop, ada: Person) -> None:
    http, first = await register(shop, ada.http, Authenticator(), "First")
    http, second = await register(shop, http, Authenticator(), "Second")
    elsewhere = await person(shop, EMAIL)
    path = f"/v1/me/passkeys/{first['passkey']['id']}"
    assert good(await http.patch(path, json={"name": "Spare"}))["name"] == "Spare"
    assert (await http.delete(path)).status_code == 204
    problem(await http.delete(path), 404, "passkey_not_found")
    problem(await http.patch(path, json={"name": "Spare"}), 404, "passkey_not_found")
    assert [one["id"] for one in good(await http.get("/v1/me/passkeys"))["data"]] == [second["passkey"]["id"]]
    problem(await elsewhere.http.get("/v1/me/passkeys"), 401, "unauthorized")
    problem(await http.delete(f"/v1/me/passkeys/{second['passkey']['id']}"), 409, "last_passkey")
    assert await shop.count("passkeys") == 1
    events = await shop.events("passkey.renamed", "passkey.removed", "session.revoked_all")
    assert sorted(events) == ["passkey.removed", "passkey.renamed", "session.revoked_all"]


async def test_a_member_may_remove_the_last_one(shop: Shop) -> None:
    bob = await person(shop, "bob@example.com")
    http, made = await register(shop, bob.http, Authenticator())
    assert (await http.delete(f"/v1/me/passkeys/{made['passkey']['id']}")).status_code == 204
    assert await shop.count("passkeys") == 0


async def test_staff_who_remove_all_at_once_keep_one(shop: Shop, ada: Person) -> None:
    http, ids = ada.http, []
    for _ in range(10):
        http, made = await register(shop, http, Authenticator())
        ids.append(made["passkey"]["id"])
    answers = await asyncio.gather(*[http.delete(f"/v1/me/passkeys/{one}") for one in ids])
    assert sorted(answer.status_code for answer in answers) == [204] * 9 + [409]
    assert await shop.count("passkeys") == 1


async def test_nobody_touches_anothers_passkeys(shop: Shop, ada: Person) -> None:
    _, made = await register(shop, ada.http, Authenticator())
    bob = await person(shop, "bob@example.com", staff="SuperAdmin")
    path = f"/v1/me/passkeys/{made['passkey']['id']}"
    before = await shop.everything()
    problem(await bob.http.patch(path, json={"name": "Mine"}), 404, "passkey_not_found")
    problem(await bob.http.delete(path), 404, "passkey_not_found")
    assert await shop.everything() == before
    assert good(await bob.http.get("/v1/me/passkeys")) == {"data": [], "recovery_codes_left": 0}


async def test_keys_have_no_passkeys(shop: Shop) -> None:
    for method, path in (
        ("GET", "/v1/me/passkeys"),
        ("POST", "/v1/me/passkeys/options"),
        ("DELETE", "/v1/me/passkeys/psk_x"),
        ("POST", "/v1/me/recovery-codes"),
    ):
        problem(await shop.staff.request(method, path), 403, "users_only")
    body = {"credential": {}}
    problem(await shop.staff.post("/v1/me/passkeys", json=body), 403, "users_only")


# -- signing in ---------------------------------------------------------------------------------------


_WRONG_SHOWS: dict[str, dict[str, Any]] = {
    "another origin": {"origin": "http://localhost:8788"},
    "another relying party": {"rp_id": "127.0.0.1"},
    "nobody present": {"flags": UV},
    "nobody verified": {"flags": UP},
    "made instead of shown": {"kind": "webauthn.create"},
    "in a frame": {"more": {"crossOrigin": True}},
    "a changed signature": {"tamper": True},
    "another user's handle": {"user_handle": bytes(32)},
}


@pytest.mark.parametrize("wrong", _WRONG_SHOWS)
async def test_a_passkey_shown_wrongly_opens_nothing(shop: Shop, ada: Person, key: Authenticator, wrong: str) -> None:
    await register(shop, ada.http, key)
    asked = await sign_in_options(shop.http)
    before = await shop.everything()
    body = {"token": asked["token"], "credential": key.show(asked["options"], **_WRONG_SHOWS[wrong])}
    answer = await shop.http.post("/v1/session/passkey", json=body)
    problem(answer, 401, "bad_credentials")
    assert "set-cookie" not in answer.headers
    assert await shop.everything() == before


async def test_another_keys_signature_opens_nothing(shop: Shop, ada: Person, key: Authenticator) -> None:
    await register(shop, ada.http, key)
    other = Authenticator(credential_id=key.credential_id, user_handle=key.user_handle, counter=7)
    problem(await try_sign_in(shop.http, other), 401, "bad_credentials")
    problem(await try_sign_in(shop.http, Authenticator()), 401, "bad_credentials")
    assert (await shop.row("passkeys"))["sign_count"] == 1


async def test_a_sign_in_challenge_is_for_its_token_once_for_five_minutes(
    shop: Shop, ada: Person, key: Authenticator
) -> None:
    await register(shop, ada.http, key)
    opened = await shop.count("sessions")
    asked, other = await sign_in_options(shop.http), await sign_in_options(shop.http)

    async def send(token: str, **how: Any) -> httpx.Response:
        body = {"token": token, "credential": key.show(asked["options"], **how)}
        return await shop.http.post("/v1/session/passkey", json=body)

    problem(await send(other["token"]), 409, "challenge_expired")
    problem(await send(asked["token"], challenge=text_of(bytes(32))), 409, "challenge_expired")
    problem(await send(""), 409, "challenge_expired")
    assert await shop.count("sessions") == opened
    good(await send(asked["token"]))
    problem(await send(asked["token"]), 409, "challenge_expired")
    shop.clock.advance(5 * MINUTE)
    asked = other
    problem(await send(other["token"]), 409, "challenge_expired")
    assert await shop.count("sessions") == opened + 1


async def test_a_registrations_challenge_signs_nobody_in(shop: Shop, ada: Person, key: Authenticator) -> None:
    http, _ = await register(shop, ada.http, key)
    options = await new_options(http)
    body = {"token": ada.id, "credential": key.show(options)}
    problem(await shop.http.post("/v1/session/passkey", json=body), 409, "challenge_expired")


@pytest.mark.parametrize(("known", "shown"), [(5, 4), (5, 5), (5, 0), (1, 1)])
async def test_a_counter_that_does_not_move_on_is_refused_and_recorded(
    shop: Shop, ada: Person, known: int, shown: int
) -> None:
    key = Authenticator(counter=known - 1)
    await register(shop, ada.http, key)
    opened = await shop.count("sessions")
    asked = await sign_in_options(shop.http)
    body = {"token": asked["token"], "credential": key.show(asked["options"], counter=shown)}
    answer = await shop.http.post("/v1/session/passkey", json=body)
    problem(answer, 403, "passkey_cloned")
    assert "set-cookie" not in answer.headers
    event = (await shop.rows("events", type="passkey.rollback_refused"))[0]
    assert event["details"] == {"user_id": ada.id, "known": known, "shown": shown}
    assert event["address"] == "127.0.0.1"
    assert await shop.count("sessions") == opened
    row = await shop.row("passkeys")
    assert (row["sign_count"], row["last_used_at"]) == (known, None)
    # Its challenge is spent; the real key goes on.
    replay = {"token": asked["token"], "credential": key.show(asked["options"], counter=known + 1)}
    problem(await shop.http.post("/v1/session/passkey", json=replay), 409, "challenge_expired")
    good(await try_sign_in(shop.http, key, counter=known + 1))


async def test_a_key_without_a_counter_may_always_say_zero(shop: Shop, ada: Person) -> None:
    key = Authenticator(counts=False)
    await register(shop, ada.http, key)
    for _ in range(3):
        good(await try_sign_in(shop.http, key))
    assert (await shop.row("passkeys"))["sign_count"] == 0
    good(await try_sign_in(shop.http, key, counter=9))
    problem(await try_sign_in(shop.http, key, counter=0), 403, "passkey_cloned")


async def test_of_two_copies_that_say_the_same_number_one_gets_in(shop: Shop, ada: Person, key: Authenticator) -> None:
    await register(shop, ada.http, key)
    answers = await asyncio.gather(*[try_sign_in(shop.http, key, counter=2) for _ in range(20)])
    assert sorted(answer.status_code for answer in answers) == [200] + [403] * 19
    assert (await shop.row("passkeys"))["sign_count"] == 2
    assert await shop.events("passkey.rollback_refused") == ["passkey.rollback_refused"] * 19


async def test_one_answer_sent_by_a_hundred_opens_one_session(shop: Shop, ada: Person) -> None:
    key = Authenticator(counts=False)
    await register(shop, ada.http, key)
    opened = await shop.count("sessions")
    asked = await sign_in_options(shop.http)
    body = {"token": asked["token"], "credential": key.show(asked["options"])}
    answers = await asyncio.gather(*[client_of(shop.app).post("/v1/session/passkey", json=body) for _ in range(100)])
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 99
    assert await shop.count("sessions") == opened + 1


async def test_an_address_asks_for_its_passkeys(shop: Shop, ada: Person, key: Authenticator) -> None:
    await register(shop, ada.http, key)
    asked = await sign_in_options(shop.http, " Ada@Example.com ")
    assert asked["options"]["allowCredentials"] == [{"type": "public-key", "id": key.id}]
    assert asked["options"]["userVerification"] == "required"
    assert asked["options"]["rpId"] == "localhost"
    good(await try_sign_in(shop.http, key, EMAIL))
    problem(await try_sign_in(shop.http, key, "nobody@example.com"), 401, "bad_credentials")
    problem(await shop.http.post("/v1/session/passkey/options", json={"email": "x"}), 422, "invalid_request")


async def test_an_unknown_address_looks_like_any_other(shop: Shop, ada: Person, key: Authenticator) -> None:
    await register(shop, ada.http, key)
    await person(shop, "bob@example.com")  # has no passkey
    known = await sign_in_options(shop.http, EMAIL)
    seen = set()
    for email in ("nobody@example.com", "bob@example.com"):
        first, second = await sign_in_options(shop.http, email), await sign_in_options(shop.http, email)
        assert first.keys() == known.keys()
        assert first["options"].keys() == known["options"].keys()
        (fake,) = first["options"]["allowCredentials"]
        assert fake.keys() == known["options"]["allowCredentials"][0].keys()
        assert len(bytes_of(fake["id"])) == 32
        assert first["options"]["allowCredentials"] == second["options"]["allowCredentials"]
        assert first["options"]["challenge"] != second["options"]["challenge"]
        seen.add(fake["id"])
    assert len(seen) == 2


@pytest.mark.parametrize("gone", ["disabled", "deleted"])
async def test_who_is_gone_is_like_who_never_was(
    shop: Shop, ada: Person, key: Authenticator, clock: ManualClock, gone: str
) -> None:
    _, made = await register(shop, ada.http, key)
    values = {"status": "disabled"} if gone == "disabled" else {"deleted_at": clock.now()}
    await shop.scope.run(_set_status, ada.id, **values)
    refused = problem(await try_sign_in(shop.http, key), 401, "bad_credentials")
    assert refused == problem(await try_sign_in(shop.http, Authenticator()), 401, "bad_credentials")
    asked = await sign_in_options(shop.http, EMAIL)
    assert key.id not in repr(asked)
    body = {"email": EMAIL, "code": made["recovery_codes"][0]}
    problem(await shop.http.post("/v1/session/recovery", json=body), 401, "bad_credentials")
    assert (await shop.row("passkeys"))["sign_count"] == 1


async def test_another_tenants_passkey_opens_nothing(shop: Shop, ada: Person, key: Authenticator) -> None:
    await shop.house.scope(OTHER).run(tenants.create, "other", "Other")
    shop.house.forget_tenants()
    _, made = await register(shop, ada.http, key)
    asked = good(await shop.http.post("/t/other/v1/session/passkey/options", json={"email": EMAIL}))
    assert key.id not in repr(asked)
    body = {"token": asked["token"], "credential": key.show(asked["options"])}
    problem(await shop.http.post("/t/other/v1/session/passkey", json=body), 401, "bad_credentials")
    ours = await sign_in_options(shop.http)
    body = {"token": ours["token"], "credential": key.show(ours["options"])}
    problem(await shop.http.post("/t/other/v1/session/passkey", json=body), 401, "bad_credentials")
    code = {"email": EMAIL, "code": made["recovery_codes"][0]}
    problem(await shop.http.post("/t/other/v1/session/recovery", json=code), 401, "bad_credentials")
    # On the tenant's own path, its cookie has a name of its own.
    signed_in = await shop.http.post("/t/default/v1/session/passkey", json=body)
    good(signed_in)
    assert "cf_session_default=" in signed_in.headers["set-cookie"]


async def test_other_sites_cannot_sign_a_browser_in(shop: Shop, ada: Person, key: Authenticator) -> None:
    _, made = await register(shop, ada.http, key)
    asked = await sign_in_options(shop.http)
    body = {"token": asked["token"], "credential": key.show(asked["options"])}
    recovery = {"email": EMAIL, "code": made["recovery_codes"][0]}
    before = await shop.everything()
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        problem(await shop.http.post("/v1/session/passkey", json=body, headers=headers), 403, "cross_site")
        problem(await shop.http.post("/v1/session/recovery", json=recovery, headers=headers), 403, "cross_site")
    assert await shop.everything() == before


async def test_signing_in_ends_the_session_of_whoever_was_there_before(
    shop: Shop, ada: Person, key: Authenticator
) -> None:
    await register(shop, ada.http, key)
    bob = await person(shop, "bob@example.com")
    asked = await sign_in_options(shop.http)
    body = {"token": asked["token"], "credential": key.show(asked["options"])}
    good(await bob.http.post("/v1/session/passkey", json=body))
    problem(await bob.http.get("/v1/me/passkeys"), 401, "unauthorized")


@pytest.mark.parametrize("url", ["http://shop.example", "https://192.0.2.7"])
async def test_without_https_or_a_name_there_are_no_passkeys(
    database_url: str, clock: ManualClock, master: MasterKey, url: str
) -> None:
    async with opening(database_url, clock, master, public_url=url) as shop:
        ada = await person(shop, EMAIL)
        problem(await shop.http.post("/v1/session/passkey/options", json={}), 409, "passkeys_unavailable")
        refused = await ada.http.post("/v1/me/passkeys/options") if url.startswith("http:") else None
        if refused is not None:
            problem(refused, 409, "passkeys_unavailable")


async def test_behind_a_name_passkeys_belong_to_it(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    async with opening(database_url, clock, master, public_url="https://Büro.example:443/shop") as shop:
        asked = await sign_in_options(shop.http)
        assert asked["options"]["rpId"] == "xn--bro-hoa.example"


# -- recovery codes -----------------------------------------------------------------------------------


async def _with_codes(shop: Shop, ada: Person) -> list[str]:
    _, made = await register(shop, ada.http, Authenticator())
    codes: list[str] = made["recovery_codes"]
    return codes


async def _recover(http: httpx.AsyncClient, code: str, email: str = EMAIL) -> httpx.Response:
    return await http.post("/v1/session/recovery", json={"email": email, "code": code})


async def test_a_recovery_code_opens_a_session_that_may_add_one_passkey(shop: Shop, ada: Person) -> None:
    codes = await _with_codes(shop, ada)
    answer = await _recover(shop.http, f" {codes[3].upper().replace('-', ' ')} ")
    assert good(answer) == {"user_id": ada.id}
    http = browser(shop, session_in(answer))
    problem(await http.get("/v1/orders"), 403, "passkey_required")
    problem(await http.post("/v1/me/recovery-codes"), 403, "passkey_required")
    assert good(await http.get("/v1/me/passkeys"))["recovery_codes_left"] == 9
    options = [await new_options(http), await new_options(http)]
    key = Authenticator()
    made = await http.post("/v1/me/passkeys", json={"credential": key.make(options[0]), "name": "New"})
    assert good(made)["recovery_codes"] == []
    again = await http.post("/v1/me/passkeys", json={"credential": Authenticator().make(options[1])})
    problem(again, 401, "unauthorized")
    good(await browser(shop, session_in(made)).get("/v1/orders"))
    good(await try_sign_in(shop.http, key))
    letters = [one.template for one in await shop.letters(EMAIL)]
    assert sorted(letters) == ["new_passkey", "new_passkey", "sign_in_recovered"]
    event = (await shop.rows("events", type="recovery_code.used"))[0]
    assert (event["object_id"], event["details"]) == (ada.id, {"left": 9})


async def test_of_two_passkeys_at_once_a_recovered_session_adds_one(shop: Shop, ada: Person) -> None:
    codes = await _with_codes(shop, ada)
    http = browser(shop, session_in(await _recover(shop.http, codes[0])))
    options = [await new_options(http) for _ in range(10)]
    sent = [http.post("/v1/me/passkeys", json={"credential": Authenticator().make(one)}) for one in options]
    answers = await asyncio.gather(*sent)
    assert sum(answer.is_success for answer in answers) == 1
    assert {answer.status_code for answer in answers} <= {201, 401, 403}
    assert await shop.count("passkeys") == 2


async def test_a_recovery_code_works_once_whoever_tries(shop: Shop, ada: Person) -> None:
    codes = await _with_codes(shop, ada)
    answers = await asyncio.gather(*[_recover(client_of(shop.app), codes[0]) for _ in range(100)])
    assert sum(answer.is_success for answer in answers) == 1
    assert {answer.status_code for answer in answers} <= {200, 401, 429}  # guessing is slowed down
    assert await shop.count("sessions", method="recovery_code") == 1
    assert await shop.events("recovery_code.used") == ["recovery_code.used"]


async def test_wrong_codes_and_addresses_are_refused_alike(shop: Shop, ada: Person) -> None:
    codes = await _with_codes(shop, ada)
    bob = await person(shop, "bob@example.com", staff="ReadOnly")
    await register(shop, bob.http, Authenticator())
    good(await _recover(shop.http, codes[0]))
    before = await shop.everything()
    refusals = [
        problem(await _recover(shop.http, code, email), 401, "bad_credentials")
        for code, email in (
            (codes[0], EMAIL),  # used
            ("aaaa-aaaa-aaaa-aaaa", EMAIL),
            ("", EMAIL),
            (codes[1], "bob@example.com"),
            (codes[1], "nobody@example.com"),
            (codes[1], "not an address"),
        )
    ]
    assert all(one == refusals[0] for one in refusals)
    assert await shop.everything() == before


async def test_new_codes_end_the_old_ones(shop: Shop, ada: Person) -> None:
    http, made = await register(shop, ada.http, Authenticator())
    fresh = good(await http.post("/v1/me/recovery-codes"))["recovery_codes"]
    assert len(set(fresh) | set(made["recovery_codes"])) == 20
    problem(await _recover(shop.http, made["recovery_codes"][0]), 401, "bad_credentials")
    good(await _recover(shop.http, fresh[9]))


async def test_codes_last_and_are_kept_as_hashes_only(shop: Shop, ada: Person) -> None:
    codes = await _with_codes(shop, ada)
    everything = repr(await shop.everything())
    assert not [code for code in codes if code in everything or code.replace("-", "") in everything]
    shop.clock.advance(timedelta(days=3650))
    good(await _recover(shop.http, codes[0]))


# -- staff to be --------------------------------------------------------------------------------------


async def _nonce(http: httpx.AsyncClient, **headers: str) -> dict[str, str]:
    made = await http.post("/v1/nonces", json={"purpose": "staff.grant"}, headers=headers)
    return {"Nonce": good(made)["nonce"], **headers}


async def test_staff_invite_staff_by_letter(shop: Shop, ada: Person) -> None:
    body = {"email": "Bob@Example.com", "role": "BillingAdmin"}
    answer = await ada.http.post("/v1/staff-enrollments", json=body, headers=await _nonce(ada.http))
    assert good(answer) == {
        "email": "bob@example.com", "role": "BillingAdmin", "expires_at": "2026-01-03T03:04:05.678901Z",
    }  # fmt: skip
    (letter,) = await shop.letters("bob@example.com")
    assert letter.template == "staff_enrollment"
    assert letter.context["link"].startswith("http://localhost:8787/enroll/")
    token = letter.context["link"].rpartition("/")[2]
    assert token not in answer.text
    row = await shop.row("one_time_tokens", purpose="enroll")
    assert row["token_hash"] == fingerprint(token)
    assert token not in repr(await shop.everything())
    assert await shop.count("users") == 1


async def test_nobody_invites_to_more_than_they_hold(shop: Shop) -> None:
    secret = api_keys.new_secret()
    await shop.scope.run(api_keys.create, "some", ["staff:write", "orders:read"], secret=secret)
    some = {"Authorization": f"Bearer {secret}"}
    weak = await person(shop, "weak@example.com", staff="SuperAdmin", method="password")
    ours, theirs = await _nonce(shop.staff), await _nonce(shop.http, **some)
    before = await shop.everything()
    body = {"email": "bob@example.com", "role": "SuperAdmin"}
    problem(await shop.staff.post("/v1/staff-enrollments", json=body), 403, "nonce_required")
    problem(await shop.http.post("/v1/staff-enrollments", json=body, headers=theirs), 403, "cannot_grant")
    problem(await weak.http.post("/v1/staff-enrollments", json=body), 403, "passkey_required")
    problem(await shop.http.post("/v1/staff-enrollments", json=body), 401, "unauthorized")
    for wrong, status, code in (
        ({**body, "role": "Nobody"}, 404, "role_not_found"),
        ({**body, "email": "nobody"}, 422, "invalid_request"),
        ({"email": "bob@example.com"}, 422, "invalid_request"),
    ):
        problem(await shop.staff.post("/v1/staff-enrollments", json=wrong, headers=ours), status, code)
    assert await shop.everything() == before
