"""Enrollment, and what passkeys and recovery codes promise below the faces."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from tests.support.authenticator import Authenticator

from counterfoil.accounts import enrollment, passkeys, recovery_codes, roles, staff, users
from counterfoil.accounts.access import Identity
from counterfoil.accounts.enrollment import Enrolled
from counterfoil.accounts.passkeys import Answer, NewPasskey
from counterfoil.accounts.permissions import ALL, SUPER_ADMIN
from counterfoil.accounts.tables import (
    one_time_tokens,
    role_assignments,
    user_emails,
)
from counterfoil.accounts.tables import passkeys as passkeys_table
from counterfoil.accounts.tables import users as users_table
from counterfoil.db.base import Database, Scope
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.events.tables import events
from counterfoil.http import webauthn
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.errors import Conflict, CounterfoilError, Forbidden, Invalid, NotFound, Unauthorized
from counterfoil.kernel.secrets import MasterKey, new_secret
from counterfoil.mail.tables import emails

EMAIL = "ada@example.com"
WATCHED = (users_table, user_emails, role_assignments, passkeys_table, one_time_tokens, emails, events)


@pytest.fixture
async def scope(database: Database, tenant: str) -> Scope:
    made = database.scope(tenant)
    await made.run(roles.furnish)
    return made


def _all(tx: Tx) -> dict[str, list[tuple[Any, ...]]]:
    return {table.name: sorted(tuple(row) for row in tx.all(table.select().where(mine(table)))) for table in WATCHED}


def _count(tx: Tx, *tables: str) -> list[int]:
    rows = _all(tx)
    return [len(rows[name]) for name in tables]


def new_passkey(**fields: Any) -> NewPasskey:
    given = {
        "credential_id": new_secret(20), "public_key": Authenticator().cose(), "sign_count": 1,
        "transports": ["usb"], "aaguid": "00000000-0000-0000-0000-000000000000", "backed_up": False,
    }  # fmt: skip
    return NewPasskey(**{**given, **fields})


async def invite(scope: Scope, email: str = EMAIL, **fields: Any) -> str:
    token = enrollment.new_token()
    await scope.run(enrollment.invite, token, email=email, **fields)
    return token


async def ask(scope: Scope, token: str) -> Answer:
    """Hand out a challenge, as the page does."""
    answer = Answer(new_secret(20), token)

    def begin(tx: Tx) -> None:
        passkeys.challenge(tx, passkeys.REGISTER, answer, user_id=enrollment.read(tx, token).user_id)

    await scope.run(begin)
    return answer


async def enroll(scope: Scope, token: str, answer: Answer, master: MasterKey, **fields: Any) -> Enrolled:
    given = {"first_name": "Ada", "last_name": "Lovelace", "name": "Key", "codes": recovery_codes.new_codes(), **fields}
    new = given.pop("new", None) or new_passkey()
    return await scope.run(enrollment.enroll, token, answer, new, master=master, **given)


async def test_the_first_owner_enrolls(scope: Scope, master: MasterKey) -> None:
    token = await invite(scope, " Ada@Example.com ", first_name="Augusta")
    found = await scope.read(enrollment.read, token)
    assert (found.email, found.role, found.known, found.first_name) == (EMAIL, SUPER_ADMIN, False, "Augusta")
    assert found.expires_at == scope.database.clock.now() + timedelta(hours=24)
    assert await scope.read(_count, "users", "role_assignments") == [0, 0]
    made = await enroll(scope, token, await ask(scope, token), master)
    assert len(made.recovery_codes) == 10
    user = await scope.read(users.by_email, EMAIL)
    assert user is not None
    assert (user.id, user.first_name, user.last_name) == (made.user_id, "Ada", "Lovelace")
    assert (user.role, user.status, user.password_hash) == ("owner", "active", None)
    (address,) = await scope.read(users.emails_of, user.id)
    assert (address.via, address.is_primary, address.verified_at) == ("enrollment", True, user.created_at)
    assert [one.name for one in await scope.read(passkeys.of_user, user.id)] == ["Key"]
    assert [(one.user_id, one.role) for one in (await scope.read(staff.list_)).data] == [(user.id, SUPER_ADMIN)]
    assert await scope.read(_count, "emails") == [0]
    types = sorted({row[2] for row in (await scope.read(_all))["events"]} - {"signing_key.created"})
    assert types == [
        "passkey.added", "recovery_codes.made", "role.granted", "staff.enrolled", "staff.invited", "user.created",
        "user.made_owner",
    ]  # fmt: skip
    before = await scope.read(_all)
    with pytest.raises(NotFound, match="was used"):
        await scope.read(enrollment.read, token)
    with pytest.raises(NotFound, match="was used"):
        await enroll(scope, token, Answer("x", token), master)
    assert await scope.read(_all) == before


async def test_only_the_first_superadmin_is_the_owner(scope: Scope, master: MasterKey) -> None:
    for email, role, system_role in (
        ("billing@example.com", "BillingAdmin", "member"),
        (EMAIL, SUPER_ADMIN, "owner"),
        ("bob@example.com", SUPER_ADMIN, "member"),
    ):
        token = await invite(scope, email, role=role)
        made = await enroll(scope, token, await ask(scope, token), master)
        assert (await scope.read(users.get, made.user_id)).role == system_role


async def test_an_account_that_exists_becomes_staff(scope: Scope, master: MasterKey) -> None:
    known = await scope.run(users.create, email=EMAIL, first_name="Known", last_name="Person", via="tests")
    token = await invite(scope, EMAIL, role="ReadOnly")
    found = await scope.read(enrollment.read, token)
    assert (found.known, found.user_id, found.first_name) == (True, known.id, "Known")
    made = await enroll(scope, token, await ask(scope, token), master, first_name="Other", last_name="Name")
    assert made.user_id == known.id
    assert (await scope.read(users.get, known.id)).first_name == "Known"
    # Who had an account is told of the passkey that opens it now.
    assert [row[2] for row in (await scope.read(_all))["emails"]] == [EMAIL]
    # The way back for who has lost everything: another link, another passkey; their recovery codes stay.
    again = await invite(scope, EMAIL, role="ReadOnly")
    second = await enroll(scope, again, await ask(scope, again), master)
    assert (second.user_id, second.recovery_codes) == (known.id, [])
    assert len(await scope.read(passkeys.of_user, known.id)) == 2
    assert await scope.read(_count, "role_assignments") == [1]


def _disable(tx: Tx, user_id: str) -> None:
    tx.execute(users_table.update().where(mine(users_table), users_table.c.id == user_id).values(status="disabled"))


async def test_who_is_disabled_is_not_let_in_by_a_link(scope: Scope, master: MasterKey) -> None:
    known = await scope.run(users.create, email=EMAIL, first_name="K", last_name="P", via="tests")
    token = await invite(scope)
    answer = await ask(scope, token)
    await scope.run(_disable, known.id)
    await _refused(scope, Conflict, "user_disabled", token, answer, master)


async def _refused(
    scope: Scope, kind: type[CounterfoilError], code: str, token: str, answer: Answer, master: MasterKey, **fields: Any
) -> None:
    before = await scope.read(_all)
    with pytest.raises(kind) as refused:
        await enroll(scope, token, answer, master, **fields)
    assert refused.value.code == code
    assert await scope.read(_all) == before


async def test_what_a_link_does_not_do(scope: Scope, master: MasterKey, clock: ManualClock) -> None:
    token, other = await invite(scope), await invite(scope, "bob@example.com")
    answer, others = await ask(scope, token), await ask(scope, other)
    await _refused(scope, Conflict, "challenge_expired", token, others, master)
    await _refused(scope, Conflict, "challenge_expired", token, Answer(answer.challenge, other), master)
    await _refused(scope, NotFound, "enrollment_not_found", "a" * 32, answer, master)
    await _refused(scope, NotFound, "enrollment_not_found", "", answer, master)
    for field in ("first_name", "last_name"):
        for bad in ("x" * 201, "a\nb", "a\u202eb"):
            await _refused(scope, Invalid, "invalid_request", token, answer, master, **{field: bad})
    await _refused(scope, Invalid, "invalid_request", token, answer, master, name="")
    clock.advance(timedelta(minutes=5))
    await _refused(scope, Conflict, "challenge_expired", token, answer, master)
    clock.advance(timedelta(hours=24) - timedelta(minutes=5))
    await _refused(scope, NotFound, "enrollment_not_found", token, answer, master)


async def test_a_passkey_of_somebody_else_enrolls_nobody(scope: Scope, master: MasterKey) -> None:
    token, other = await invite(scope), await invite(scope, "bob@example.com")
    new = new_passkey()
    await enroll(scope, token, await ask(scope, token), master, new=new)
    await _refused(scope, Conflict, "passkey_known", other, await ask(scope, other), master, new=new)


async def test_one_link_used_by_many_at_once_makes_one_account(scope: Scope, master: MasterKey) -> None:
    token = await invite(scope)
    answers = [await ask(scope, token) for _ in range(30)]
    tries = [enroll(scope, token, answer, master) for answer in answers]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(one, Enrolled) for one in done) == 1
    assert sum(isinstance(one, NotFound) for one in done) == 29
    assert await scope.read(_count, "users", "user_emails", "role_assignments", "passkeys") == [1, 1, 1, 1]


async def test_two_links_for_one_address_at_once_make_one_account(scope: Scope, master: MasterKey) -> None:
    tokens = [await invite(scope) for _ in range(10)]
    answers = [await ask(scope, token) for token in tokens]
    done = await asyncio.gather(
        *[enroll(scope, token, answer, master) for token, answer in zip(tokens, answers, strict=True)],
        return_exceptions=True,
    )
    # The others' passkeys were made for an account that never came to be.
    assert sum(isinstance(one, Enrolled) for one in done) == 1
    assert {one.code for one in done if isinstance(one, CounterfoilError)} == {"challenge_expired"}
    assert await scope.read(_count, "users", "passkeys", "role_assignments") == [1, 1, 1]
    (left, *_) = [token for token, one in zip(tokens, done, strict=True) if not isinstance(one, Enrolled)]
    await enroll(scope, left, await ask(scope, left), master)
    assert await scope.read(_count, "users", "passkeys", "role_assignments") == [1, 2, 1]


async def test_many_first_owners_at_once_leave_one(scope: Scope, master: MasterKey) -> None:
    tokens = [await invite(scope, f"p{number}@example.com") for number in range(10)]
    answers = [await ask(scope, token) for token in tokens]
    made = await asyncio.gather(
        *[enroll(scope, token, answer, master) for token, answer in zip(tokens, answers, strict=True)]
    )
    system_roles = [(await scope.read(users.get, one.user_id)).role for one in made]
    assert sorted(system_roles) == ["member"] * 9 + ["owner"]


async def test_a_link_falls_with_the_rights_of_who_sent_it(scope: Scope, master: MasterKey) -> None:
    for email in (EMAIL, "bob@example.com"):
        token = await invite(scope, email)
        boss = await enroll(scope, token, await ask(scope, token), master)
    ada = Identity(tenant=scope.tenant, kind="user", id=boss.user_id, name="B", held=ALL)
    sent = await invite(scope, "eve@example.com", grantor=ada)
    kept = await invite(scope, "carol@example.com", grantor=ada)
    made = await enroll(scope, kept, await ask(scope, kept), master)
    (granted,) = [one for one in (await scope.read(staff.list_)).data if one.user_id == made.user_id]
    assert granted.granted_by == boss.user_id
    answer = await ask(scope, sent)
    role = await scope.read(roles.by_name, SUPER_ADMIN)
    await scope.run(staff.revoke, None, boss.user_id, role.id)
    await _refused(scope, NotFound, "enrollment_not_found", sent, answer, master)


async def test_who_lost_a_right_meanwhile_invites_nobody(scope: Scope) -> None:
    nobody = await scope.run(users.create, email=EMAIL, first_name="N", last_name="", via="tests")
    once = Identity(tenant=scope.tenant, kind="user", id=nobody.id, name="N", held=ALL)
    before = await scope.read(_all)
    with pytest.raises(Forbidden):
        await scope.run(enrollment.invite, "t", email="bob@example.com", grantor=once)
    assert await scope.read(_all) == before


async def test_a_hundred_tries_at_one_code_open_one_session(scope: Scope, master: MasterKey) -> None:
    token = await invite(scope)
    made = await enroll(scope, token, await ask(scope, token), master)
    code = made.recovery_codes[0]
    done = await asyncio.gather(
        *[scope.run(recovery_codes.spend, master, EMAIL, code) for _ in range(100)], return_exceptions=True
    )
    assert [one for one in done if isinstance(one, str)] == [made.user_id]
    assert sum(isinstance(one, Unauthorized) for one in done) == 99
    assert await scope.read(recovery_codes.left, made.user_id) == 9


def test_codes_are_random_and_readable() -> None:
    codes = recovery_codes.new_codes() + recovery_codes.new_codes()
    assert len(set(codes)) == 20
    for code in codes:
        assert [len(part) for part in code.split("-")] == [4, 4, 4, 4]
        assert set(code) <= set("abcdefghijklmnopqrstuvwxyz234567-")


@pytest.mark.parametrize(
    ("base", "id_", "origin", "at"),
    [
        ("http://127.0.0.1:8787", "localhost", "http://localhost:8787", "http://localhost:8787"),
        ("http://[::1]:80/shop/", "localhost", "http://localhost", "http://localhost/shop"),
        ("http://localhost:8787/t/other", "localhost", "http://localhost:8787", "http://localhost:8787/t/other"),
        ("http://shop.localhost", "shop.localhost", "http://shop.localhost", "http://shop.localhost"),
        ("https://Shop.Example:443", "shop.example", "https://shop.example", "https://shop.example"),
        ("https://shop.example:8443/a", "shop.example", "https://shop.example:8443", "https://shop.example:8443/a"),
        ("https://bücher.example", "xn--bcher-kva.example", "https://xn--bcher-kva.example",
         "https://xn--bcher-kva.example"),
    ],
)  # fmt: skip
def test_who_we_are_to_browsers(base: str, id_: str, origin: str, at: str) -> None:
    party = webauthn.relying_party(base)
    assert (party.id, party.origin, party.base_url) == (id_, origin, at)


@pytest.mark.parametrize("base", ["http://shop.example", "https://192.0.2.1", "https://[2001:db8::1]", "https://a..b"])
def test_where_there_are_no_passkeys(base: str) -> None:
    with pytest.raises(Conflict) as refused:
        webauthn.relying_party(base)
    assert refused.value.code == "passkeys_unavailable"


def test_handles_tell_nothing_and_differ(master: MasterKey) -> None:
    handles = {
        webauthn.user_handle(master, "ten_a", "usr_a"),
        webauthn.user_handle(master, "ten_a", "usr_b"),
        webauthn.user_handle(master, "ten_b", "usr_a"),
        webauthn.user_handle(MasterKey(bytes(32)), "ten_a", "usr_a"),
    }
    assert [len(one) for one in handles] == [32] * 4
    assert webauthn.user_handle(master, "ten_a", "usr_a") in handles


def test_a_start_does_not_pay_for_passkeys() -> None:
    """The library that verifies them is imported when the first one is made or shown."""
    told = subprocess.run(
        [sys.executable, "-c", "import sys, counterfoil.server; print({'webauthn', 'cbor2'} & set(sys.modules))"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert told.stdout == "set()\n"
