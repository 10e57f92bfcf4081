"""Letters in the database: there with what they report, sealed, and each in one pair of hands."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.app import TRANSACTIONS_OVERLAP

from counterfoil.accounts import tenants
from counterfoil.db.base import Database, Scope
from counterfoil.db.schema import metadata
from counterfoil.db.tx import Tx
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.errors import Conflict, Invalid, NotFound
from counterfoil.kernel.secrets import MasterKey, SealBroken, fingerprint
from counterfoil.mail import outgoing
from counterfoil.mail.outgoing import Unrenderable
from counterfoil.mail.types import Email

LINK = "https://shop.example/reset/s3cr3t-t0ken"
CONTEXT = {"link": LINK, "expires": "in one hour"}


@pytest.fixture
def scope(database: Database, tenant: str) -> Scope:
    return database.scope(tenant)


async def queue(scope: Scope, master: MasterKey, recipient: str = "ada@example.com") -> str:
    return await scope.run(outgoing.queue, master, recipient, "reset_password", CONTEXT)


async def states(scope: Scope) -> list[str]:
    return [letter.status for letter in (await scope.read(outgoing.list_, limit=100)).data]


def _everything(tx: Tx) -> str:
    return repr([tuple(row) for name in ("emails", "events") for row in tx.all(sa.select(metadata.tables[name]))])


async def test_queued_and_sealed(scope: Scope, master: MasterKey, clock: ManualClock) -> None:
    letter_id = await queue(scope, master, " Ada@Example.COM ")
    letter = await scope.read(outgoing.get, letter_id)
    assert letter == Email(
        id=letter_id,
        recipient="ada@example.com",
        template="reset_password",
        context_sealed=letter.context_sealed,
        status="queued",
        attempts=0,
        next_attempt_at=clock.now(),
        claimed_by=None,
        claimed_until=None,
        error=None,
        sent_at=None,
        created_at=clock.now(),
        updated_at=clock.now(),
    )
    assert outgoing.unseal(letter, scope.tenant, master) == CONTEXT
    with pytest.raises(SealBroken):
        outgoing.unseal(letter, "ten_other", master)
    written = await scope.read(_everything)
    assert "s3cr3t" not in written
    assert written.count("ada@example.com") == 1  # the letter's own row
    assert fingerprint("ada@example.com") in written  # the event's


async def test_a_letter_comes_and_goes_with_what_it_reports(scope: Scope, master: MasterKey) -> None:
    def work(tx: Tx) -> None:
        outgoing.queue(tx, master, "ada@example.com", "reset_password", CONTEXT)
        raise Invalid("no, after all")

    with pytest.raises(Invalid):
        await scope.run(work)
    assert await states(scope) == []


@pytest.mark.parametrize(
    ("template", "context", "words"),
    [
        ("nonsense", CONTEXT, "there is no letter 'nonsense'"),
        ("../secrets", CONTEXT, "there is no letter '../secrets'"),
        ("reset_password", {"link": LINK}, "the context lacks expires"),
        ("invitation", CONTEXT, "the context lacks customer_name, inviter_name, role"),
        ("reset_password", {**CONTEXT, "expires": 3600}, "expires must be text"),
        ("reset_password", {**CONTEXT, "link": "javascript:alert(1)"}, "link must be a web address"),
        ("reset_password", {**CONTEXT, "link": LINK + "\r\nBcc: x@example.com"}, "link must be a web address"),
        ("reset_password", {**CONTEXT, "link": LINK + "\n"}, "link must be a web address"),
        ("test", {"unsubscribe_url": "https://a.example/> <mailto:x@example.com"}, "unsubscribe_url must be a web"),
        ("test", {"unsubscribe_url": "https://a.example/" + "x" * 900}, "unsubscribe_url must be a web"),
    ],
)
async def test_what_cannot_be_a_letter(
    scope: Scope, master: MasterKey, template: str, context: dict[str, Any], words: str
) -> None:
    with pytest.raises(Unrenderable, match=words) as caught:
        await scope.run(outgoing.queue, master, "ada@example.com", template, context)
    assert "s3cr3t" not in str(caught.value)
    assert await states(scope) == []


@pytest.mark.parametrize("recipient", ["", "ada", "ada@example.com\nBcc: x@example.com", "a@b, c@d", "<a@b.example>"])
async def test_recipients_that_are_none(scope: Scope, master: MasterKey, recipient: str) -> None:
    with pytest.raises(Invalid):
        await queue(scope, master, recipient)
    assert await states(scope) == []


async def test_each_letter_has_one_claim(scope: Scope, master: MasterKey, clock: ManualClock) -> None:
    made = [await queue(scope, master) for _ in range(20)]
    taken = await asyncio.gather(*[scope.run(outgoing.claim, f"smtp/{number}") for number in range(100)])
    ids = [letter.id for letter in taken if letter is not None]
    assert sorted(ids) == sorted(made)
    assert {(letter.status, letter.attempts, letter.claimed_until) for letter in taken if letter is not None} == {
        ("sending", 1, clock.now() + outgoing.CLAIM_LASTS)
    }
    assert await scope.run(outgoing.claim, "smtp/late", letter_id=made[0]) is None


@TRANSACTIONS_OVERLAP
async def test_a_claim_passes_by_what_others_are_claiming(scope: Scope, master: MasterKey) -> None:
    """One does not wait for the other's transaction to end."""
    first, second = await queue(scope, master), await queue(scope, master)

    def claim_and_let_another(tx: Tx) -> list[str]:
        from sqlalchemy.util import await_only

        mine = outgoing.claim(tx, "smtp/one")
        other: Email | None = await_only(scope.run(outgoing.claim, "smtp/two"))
        none: Email | None = await_only(scope.run(outgoing.claim, "smtp/three"))
        assert mine is not None
        assert other is not None
        assert none is None
        return [mine.id, other.id]

    assert set(await scope.run(claim_and_let_another)) == {first, second}
    assert await states(scope) == ["sending", "sending"]


async def test_claims_are_taken_in_order_of_waiting(scope: Scope, master: MasterKey, clock: ManualClock) -> None:
    first = await queue(scope, master)
    clock.advance(timedelta(seconds=1))
    second = await queue(scope, master)
    one = await scope.run(outgoing.claim, "smtp/one")
    assert one is not None
    assert one.id == first
    await scope.run(outgoing.mark_postponed, one, "450 later")
    two = await scope.run(outgoing.claim, "smtp/one")
    assert two is not None
    assert two.id == second
    assert await scope.run(outgoing.claim, "smtp/one") is None


async def test_only_the_last_attempt_says_how_it_ended(scope: Scope, master: MasterKey, clock: ManualClock) -> None:
    letter_id = await queue(scope, master)
    first = await scope.run(outgoing.claim, "mailbox/one")
    assert first is not None
    clock.advance(outgoing.CLAIM_LASTS)
    assert await scope.run(outgoing.give_up_lost) == 0  # a file may be written again
    second = await scope.run(outgoing.claim, "mailbox/two")
    assert second is not None
    await scope.run(outgoing.mark_failed, first, "late news")
    await scope.run(outgoing.mark_sent, first)
    assert (await scope.read(outgoing.get, letter_id)).status == "sending"
    await scope.run(outgoing.mark_sent, second)
    await scope.run(outgoing.mark_unknown, second, "later still")
    assert (await scope.read(outgoing.get, letter_id)).status == "sent"


async def test_sent_after_all_while_a_person_had_it_queued_again(
    scope: Scope, master: MasterKey, clock: ManualClock
) -> None:
    letter_id = await queue(scope, master)
    slow = await scope.run(outgoing.claim, "smtp/slow")
    assert slow is not None
    clock.advance(outgoing.CLAIM_LASTS)
    assert await scope.run(outgoing.give_up_lost) == 1
    await scope.run(outgoing.retry, letter_id)
    await scope.run(outgoing.mark_sent, slow)
    assert await scope.run(outgoing.claim, "smtp/other") is None


async def test_what_a_person_decides(scope: Scope, master: MasterKey) -> None:
    waiting, taken = await queue(scope, master), await queue(scope, master)
    canceled = await scope.run(outgoing.cancel, waiting)
    assert (canceled.status, canceled.context_sealed) == ("canceled", b"")
    one = await scope.run(outgoing.claim, "smtp/one")
    assert one is not None
    assert one.id == taken
    for operation in (outgoing.retry, outgoing.cancel):
        for letter_id, status in ((waiting, "canceled"), (taken, "sending")):
            with pytest.raises(Conflict, match=f"This letter is {status}") as caught:
                await scope.run(operation, letter_id)
            assert caught.value.code == "email_not_waiting"
        with pytest.raises(NotFound) as missing:
            await scope.run(operation, "eml_nothing")
        assert missing.value.code == "email_not_found"
    assert sorted(await states(scope)) == ["canceled", "sending"]
    await scope.run(outgoing.mark_unknown, one, "no answer")
    again = await scope.run(outgoing.retry, taken)
    assert (again.status, outgoing.unseal(again, scope.tenant, master)) == ("queued", CONTEXT)


async def test_retrying_what_waits_does_not_wait(scope: Scope, master: MasterKey, clock: ManualClock) -> None:
    letter_id = await queue(scope, master)
    one = await scope.run(outgoing.claim, "smtp/one")
    assert one is not None
    await scope.run(outgoing.mark_postponed, one, "450 later")
    assert await scope.run(outgoing.claim, "smtp/one") is None
    await scope.run(outgoing.retry, letter_id)
    assert await scope.run(outgoing.claim, "smtp/one") is not None


async def test_letters_of_another_tenant(scope: Scope, database: Database, master: MasterKey) -> None:
    other = database.scope("ten_00000000000000000000000001")
    assert await other.run(tenants.create, "other", "Other")
    theirs = await queue(other, master)
    assert await scope.read(outgoing.due, most=10) == 0
    assert await scope.run(outgoing.claim, "smtp/one") is None
    assert await scope.run(outgoing.claim, "smtp/one", letter_id=theirs) is None
    with pytest.raises(NotFound):
        await scope.run(outgoing.cancel, theirs)
    assert await states(scope) == []
    assert await states(other) == ["queued"]


async def test_lists_page_by_status(scope: Scope, master: MasterKey) -> None:
    made = [await queue(scope, master) for _ in range(5)]
    await scope.run(outgoing.cancel, made[2])
    page = await scope.read(outgoing.list_, status="queued", limit=3)
    assert len(page.data) == 3
    assert page.next is not None
    rest = await scope.read(outgoing.list_, status="queued", after=page.data[-1].id, limit=3)
    assert [letter.id for letter in [*page.data, *rest.data]] == sorted(set(made) - {made[2]})
    assert rest.next is None


async def test_letters_that_are_done_with_are_forgotten_in_time(
    scope: Scope, master: MasterKey, clock: ManualClock
) -> None:
    kept = await queue(scope, master)
    gone = await queue(scope, master)
    await scope.run(outgoing.cancel, gone)
    clock.advance(timedelta(days=90))
    assert await scope.run(outgoing.tidy, keep=timedelta(days=90)) == 0
    assert sorted(await states(scope)) == ["canceled", "queued"]
    clock.advance(timedelta(microseconds=1))
    assert await scope.run(outgoing.tidy, keep=timedelta(days=90)) == 1
    assert [letter.id for letter in (await scope.read(outgoing.list_, limit=100)).data] == [kept]
