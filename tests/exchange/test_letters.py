"""Sending letters, to a real mail server and to one that misbehaves: each once, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from tests.peers.mail_server import (
    PASSWORD,
    USERNAME,
    MailPeer,
    ScriptedServer,
    make_certificate,
    running_mail_server,
    scripted_mail_server,
)
from tests.support.app import MINUTE, Shop, opening

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.schema import mine
from counterfoil.db.tx import Tx
from counterfoil.exchange.letters import postman as postman_module
from counterfoil.exchange.letters import smtp
from counterfoil.exchange.letters.sender import Sender
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.secrets import MasterKey
from counterfoil.mail import outgoing
from counterfoil.mail.tables import emails
from counterfoil.mail.types import Email

HOUR = timedelta(hours=1)
LINK = "https://shop.example/reset/s3cr3t-t0ken"
OpenShop = Callable[..., AbstractAsyncContextManager[Shop]]


@pytest.fixture
def open_shop(database_url: str, clock: ManualClock, master: MasterKey) -> OpenShop:
    """Opens a shop that sends to a mail server on this port, without encryption unless told otherwise."""

    def open_(port: int, **settings: Any) -> AbstractAsyncContextManager[Shop]:
        given = {"mail_transport": "smtp", "smtp_host": "127.0.0.1", "smtp_port": port, "smtp_tls": "none", **settings}
        given.setdefault("mail_from", "Example Shop <no-reply@shop.example>")
        given.setdefault("public_url", "https://shop.example")
        return opening(database_url, clock, master, **given)

    return open_


@pytest.fixture
def peer() -> Any:
    with running_mail_server() as running:
        yield running


async def queue(shop: Shop, recipient: str = "ada@example.com", **more: str) -> str:
    context = {"link": LINK, "expires": "in one hour", **more}
    return await shop.scope.run(outgoing.queue, shop.house.master, recipient, "reset_password", context)


async def send(shop: Shop) -> int:
    return await shop.house.postman.sender.send_due(shop.scope)


async def letter(shop: Shop, letter_id: str) -> Email:
    return await shop.scope.read(outgoing.get, letter_id)


async def after(shop: Shop, letter_id: str) -> timedelta:
    return (await letter(shop, letter_id)).next_attempt_at - shop.clock.now()


# -- taken --------------------------------------------------------------------------------------------


async def test_a_letter_is_sent_once_and_then_forgotten(peer: MailPeer, open_shop: OpenShop) -> None:
    async with open_shop(peer.port) as shop:
        letter_id = await queue(shop)
        queued_at = shop.clock.now()
        assert (await letter(shop, letter_id)).context_sealed != b""
        shop.clock.advance(MINUTE)
        assert (await send(shop), await send(shop)) == (1, 0)
        sent = await letter(shop, letter_id)
        assert (sent.status, sent.attempts, sent.error, sent.claimed_by, sent.claimed_until) == (
            "sent", 1, None, None, None,
        )  # fmt: skip
        assert (sent.sent_at, sent.context_sealed) == (shop.clock.now(), b"")
        assert await shop.events("email.queued", "email.sent") == ["email.queued", "email.sent"]
    (received,) = peer.received
    assert (received.sender, received.recipients) == ("no-reply@shop.example", ["ada@example.com"])
    mail = received.mail
    assert {name: str(value) for name, value in mail.items() if not name.lower().startswith(("content", "mime"))} == {
        "From": "Example Shop <no-reply@shop.example>",
        "To": "ada@example.com",
        "Subject": "Choose a new password for Shop",
        "Date": "Fri, 02 Jan 2026 03:04:05 +0000",
        "Message-ID": f"<{letter_id}@shop.example>",
        "Auto-Submitted": "auto-generated",
    }
    assert mail["Date"].datetime == queued_at.replace(microsecond=0).astimezone(UTC)
    assert LINK in received.part("plain")
    assert f'href="{LINK}"' in received.part("html")


async def test_unsubscribing_takes_one_click(peer: MailPeer, open_shop: OpenShop) -> None:
    url = "https://shop.example/unsubscribe/" + "t" * 300
    async with open_shop(peer.port) as shop:
        await queue(shop, unsubscribe_url=url)
        await send(shop)
    (received,) = peer.received
    # RFC 8058, section 3.1; on one line, or mail programs do not know it again.
    assert f"\r\nList-Unsubscribe: <{url}>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n".encode() in (
        received.content
    )
    assert f"Unsubscribe: {url}\n" in received.part("plain")
    assert f'<a href="{url}">Unsubscribe</a>' in received.part("html")


async def test_the_letter_arrives_as_it_was_written(peer: MailPeer, open_shop: OpenShop) -> None:
    """A line that begins with a dot would end the letter; names come in every script."""
    context = {"link": LINK, "expires": "in one hour", "customer_name": "Ångström 中文", "role": "admin"}
    async with open_shop(peer.port) as shop:
        await shop.scope.run(
            outgoing.queue, shop.house.master, "ada@bücher.example", "invitation", {**context, "inviter_name": ".dot"}
        )
        await send(shop)
    (received,) = peer.received
    assert received.recipients == ["ada@xn--bcher-kva.example"]
    assert received.mail["Subject"] == ".dot invites you to Ångström 中文"
    assert "\n.dot invites you to join Ångström 中文 at Shop" in received.part("plain")
    assert received.content.isascii()


async def test_addresses_in_any_script_need_a_server_that_takes_them(open_shop: OpenShop) -> None:
    with running_mail_server(enable_SMTPUTF8=False) as plain, running_mail_server() as modern:
        async with open_shop(plain.port) as shop:
            refused = await letter(shop, await queue(shop, "søren@example.com"))
            await send(shop)
            refused = await letter(shop, refused.id)
            assert (refused.status, refused.error) == ("failed", "the mail server takes only addresses in ASCII")
        async with open_shop(modern.port) as shop:
            await queue(shop, "søren@example.com")
            await send(shop)
        assert (plain.recipients, modern.recipients) == ([], ["søren@example.com"])
        assert modern.received[0].mail["To"] == "søren@example.com"


async def test_one_connection_takes_many(peer: MailPeer, open_shop: OpenShop) -> None:
    async with open_shop(peer.port) as shop:
        for number in range(20):
            await queue(shop, f"n{number}@example.com")
        assert await send(shop) == 20
    assert sorted(peer.recipients) == sorted(f"n{number}@example.com" for number in range(20))
    assert peer.connections <= 4


async def test_two_senders_send_each_letter_once(peer: MailPeer, open_shop: OpenShop) -> None:
    async with open_shop(peer.port) as shop:
        everybody = [f"n{number}@example.com" for number in range(200)]
        await asyncio.gather(*[queue(shop, recipient) for recipient in everybody])
        house = shop.house
        senders = [Sender(house.settings, house.master, house.base_url) for _ in range(2)]
        counts = await asyncio.gather(*[sender.send_due(shop.scope) for sender in senders])
        assert sum(counts) == 200
        assert {row["status"] for row in await shop.rows("emails")} == {"sent"}
        assert {row["attempts"] for row in await shop.rows("emails")} == {1}
    assert sorted(peer.recipients) == sorted(everybody)
    assert len({received.mail["Message-ID"] for received in peer.received}) == 200


# -- encryption ---------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One that this process trusts."""
    made = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.path))
    return made


def guarded(certificate: Any) -> Any:
    """A server that speaks only with who encrypts and signs in."""
    checked = MailPeer()
    return running_mail_server(
        tls_context=certificate.context, require_starttls=True, auth_required=True, authenticator=checked.check
    )


async def test_starttls_and_password(certificate: Any, open_shop: OpenShop) -> None:
    login = {"smtp_tls": "starttls", "smtp_username": USERNAME, "smtp_password": PASSWORD}
    with guarded(certificate) as peer:
        async with open_shop(peer.port, **login) as shop:
            await queue(shop)
            await send(shop)
        assert [received.encrypted for received in peer.received] == [True]


async def test_wrong_password_is_not_the_letters_fault(certificate: Any, open_shop: OpenShop) -> None:
    login = {"smtp_tls": "starttls", "smtp_username": USERNAME, "smtp_password": "wrong"}
    with guarded(certificate) as peer:
        async with open_shop(peer.port, **login) as shop:
            letter_id = await queue(shop)
            await send(shop)
            waits = await letter(shop, letter_id)
            assert (waits.status, waits.error) == ("queued", "535 5.7.8 Authentication credentials invalid")
            assert await after(shop, letter_id) == MINUTE
        assert peer.received == []


async def test_encrypted_from_the_start(certificate: Any, open_shop: OpenShop) -> None:
    with running_mail_server(ssl_context=certificate.context) as peer:
        async with open_shop(peer.port, smtp_tls="implicit") as shop:
            await queue(shop)
            await send(shop)
        assert [received.recipients for received in peer.received] == [["ada@example.com"]]


async def test_nothing_is_said_to_a_server_nobody_vouches_for(tmp_path: Path, open_shop: OpenShop) -> None:
    with running_mail_server(tls_context=make_certificate(tmp_path).context) as peer:
        async with open_shop(peer.port, smtp_tls="starttls") as shop:
            letter_id = await queue(shop)
            await send(shop)
            waits = await letter(shop, letter_id)
            assert waits.status == "queued"
            assert waits.error is not None
            assert "certificate verify failed" in waits.error
        assert peer.received == []


async def test_nothing_is_said_in_clear_when_it_must_be_encrypted(peer: MailPeer, open_shop: OpenShop) -> None:
    async with open_shop(peer.port, smtp_tls="starttls") as shop:
        letter_id = await queue(shop)
        await send(shop)
        assert (await letter(shop, letter_id)).status == "queued"
    assert peer.received == []


# -- refused ------------------------------------------------------------------------------------------


async def test_refused_for_good(peer: MailPeer, open_shop: OpenShop) -> None:
    peer.at_rcpt["gone@example.com"] = "550 5.1.1 No such user"
    peer.at_data["picky@example.com"] = f"554 5.7.1 I dislike {LINK} (see https://help.example/why)"
    async with open_shop(peer.port) as shop:
        gone, picky, ada = [await queue(shop, f"{name}@example.com") for name in ("gone", "picky", "ada")]
        assert await send(shop) == 3
        shop.clock.advance(24 * HOUR)
        assert await send(shop) == 0
        refused = [await letter(shop, letter_id) for letter_id in (gone, picky)]
        # The server repeated a link of ours, which is a secret.
        assert [one.error for one in refused] == [
            "550 5.1.1 No such user",
            "554 5.7.1 I dislike [link] (see https://help.example/why)",
        ]
        assert {(one.status, one.attempts, one.context_sealed, one.sent_at) for one in refused} == {
            ("failed", 1, b"", None)
        }
        assert (await letter(shop, ada)).status == "sent"
        assert sorted(await shop.events("email.failed", "email.sent")) == ["email.failed", "email.failed", "email.sent"]
    assert peer.recipients == ["ada@example.com"]


async def test_tried_again_at_growing_intervals_and_then_no_more(peer: MailPeer, open_shop: OpenShop) -> None:
    peer.at_rcpt["ada@example.com"] = "450 4.2.1 Try later"
    async with open_shop(peer.port) as shop:
        letter_id = await queue(shop)
        waited = []
        while (await letter(shop, letter_id)).status == "queued":
            assert await send(shop) == 1
            pause = await after(shop, letter_id)
            if pause:
                waited.append(pause)
                shop.clock.advance(pause - timedelta(microseconds=1))
                assert await send(shop) == 0
                shop.clock.advance(timedelta(microseconds=1))
        assert waited == [MINUTE, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 12 * HOUR]
        failed = await letter(shop, letter_id)
        assert (failed.status, failed.attempts, failed.error) == ("failed", 7, "450 4.2.1 Try later")
        assert failed.context_sealed == b""
        assert await shop.events("email.failed") == ["email.failed"]
    assert peer.received == []


async def test_what_was_refused_for_now_arrives_later(peer: MailPeer, open_shop: OpenShop) -> None:
    peer.at_data["ada@example.com"] = "451 4.3.0 Busy"
    async with open_shop(peer.port) as shop:
        letter_id = await queue(shop)
        await queue(shop, "bob@example.com")
        await send(shop)
        assert peer.recipients == ["bob@example.com"]
        del peer.at_data["ada@example.com"]
        shop.clock.advance(MINUTE)
        await send(shop)
        sent = await letter(shop, letter_id)
        assert (sent.status, sent.attempts, sent.error) == ("sent", 2, None)
    assert peer.recipients == ["bob@example.com", "ada@example.com"]


@pytest.mark.parametrize(
    ("at", "answer"),
    [
        ("greeting", "421 too busy"),
        ("greeting", "hang up"),
        ("greeting", "silence"),
        ("ehlo", "hang up"),
        ("mail", "550 not for you"),
        ("mail", "421 closing"),
        ("rcpt", "hang up"),
        ("rcpt", "nonsense"),
        ("rcpt", "silence"),
        ("data", "451 not now"),
        ("data", "hang up"),
        ("data", "silence"),
        ("letter", "452 no room"),
    ],
)
async def test_what_was_surely_not_sent_waits(
    at: str, answer: str, open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "COMMAND_SECONDS", 0.2 if answer == "silence" else 20)
    async with scripted_mail_server(**{at: answer}) as server, open_shop(server.port) as shop:
        letter_id = await queue(shop)
        await send(shop)
        waits = await letter(shop, letter_id)
        assert (waits.status, waits.attempts, waits.claimed_by) == ("queued", 1, None)
        assert waits.error
        assert await after(shop, letter_id) == MINUTE


async def test_nobody_listens(open_shop: OpenShop) -> None:
    async with open_shop(1) as shop:
        letter_id = await queue(shop)
        await send(shop)
        waits = await letter(shop, letter_id)
        assert waits.status == "queued"
        assert waits.error is not None
        assert waits.error.startswith("Error connecting to 127.0.0.1 on port 1")


async def test_a_letter_that_cannot_be_written_fails_at_once(peer: MailPeer, open_shop: OpenShop) -> None:
    async with open_shop(peer.port) as shop:
        letter_id = await queue(shop)
        other = await queue(shop)
        moved = (await letter(shop, other)).context_sealed
        await shop.scope.run(_overwrite, letter_id, moved)
        assert await send(shop) == 2
        failed = await letter(shop, letter_id)
        assert failed.status == "failed"
        assert failed.error is not None
        assert failed.error.startswith("it cannot be written: SealBroken(")
        assert (await letter(shop, other)).status == "sent"
    assert len(peer.received) == 1


def _overwrite(tx: Tx, letter_id: str, sealed: bytes) -> None:
    tx.execute(sa.update(emails).where(mine(emails), emails.c.id == letter_id).values(context_sealed=sealed))


# -- in doubt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["hang up", "silence", "nonsense", "354 what?"])
async def test_in_doubt_it_is_not_sent_again(answer: str, open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "ANSWER_SECONDS", 0.2 if answer == "silence" else 20)
    async with scripted_mail_server(letter=answer) as server, open_shop(server.port) as shop:
        letter_id = await queue(shop)
        assert await send(shop) == 1
        doubtful = await letter(shop, letter_id)
        assert (doubtful.status, doubtful.sent_at) == ("unknown", None)
        assert doubtful.error is not None
        assert doubtful.error.startswith("the mail server took the letter and ")
        assert await shop.events("email.unknown") == ["email.unknown"]
        for _ in range(3):
            shop.clock.advance(24 * HOUR)
            assert await send(shop) == 0
        assert server.letters == 1

        await shop.scope.run(outgoing.retry, letter_id)  # a person says so
        assert await send(shop) == 1
        assert server.letters == 2


async def test_a_sender_that_died_leaves_doubt(peer: MailPeer, open_shop: OpenShop) -> None:
    async with open_shop(peer.port) as shop:
        letter_id = await queue(shop)
        taken = await shop.scope.run(outgoing.claim, shop.house.postman.sender.worker)
        assert taken is not None
        shop.clock.advance(outgoing.CLAIM_LASTS - timedelta(microseconds=1))
        assert await send(shop) == 0
        assert (await letter(shop, letter_id)).status == "sending"
        shop.clock.advance(timedelta(microseconds=1))
        assert await send(shop) == 0
        doubtful = await letter(shop, letter_id)
        assert (doubtful.status, doubtful.error) == ("unknown", "whoever was sending it was cut off")
        assert doubtful.context_sealed != b""  # a person may have it sent again

        await shop.scope.run(outgoing.mark_sent, taken)  # it was only slow
        assert (await letter(shop, letter_id)).status == "sent"
        assert await send(shop) == 0
    assert peer.received == []


async def test_stopping_before_the_letter_went_out_leaves_it_waiting(open_shop: OpenShop) -> None:
    async with scripted_mail_server(rcpt="silence") as server, open_shop(server.port) as shop:
        letter_id = await queue(shop)
        await cut_off(shop, server.told)
        waits = await letter(shop, letter_id)
        assert (waits.status, waits.claimed_by, await after(shop, letter_id)) == ("queued", None, timedelta(0))
        server.go_on.set()
        await send(shop)
        assert (await letter(shop, letter_id)).status == "sent"
        assert server.letters == 1


async def test_stopping_after_the_letter_went_out_leaves_doubt(open_shop: OpenShop) -> None:
    async with scripted_mail_server(letter="silence") as server, open_shop(server.port) as shop:
        letter_id = await queue(shop)
        await cut_off(shop, server.told)
        assert (await letter(shop, letter_id)).status == "sending"
        server.go_on.set()
        shop.clock.advance(outgoing.CLAIM_LASTS)
        await send(shop)
        assert (await letter(shop, letter_id)).status == "unknown"
        assert server.letters == 1


async def cut_off(shop: Shop, moment: asyncio.Event) -> None:
    task = asyncio.create_task(send(shop))
    await moment.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- beside the rest ----------------------------------------------------------------------------------


async def test_a_letter_leaves_at_once_and_nobody_waits(peer: MailPeer, open_shop: OpenShop) -> None:
    async with open_shop(peer.port) as shop:
        letter_id = await queue(shop)
        shop.house.send_mail(DEFAULT_TENANT)  # here the jobs run elsewhere
        shop.house.settings = msgspec.structs.replace(shop.house.settings, jobs=True)
        assert (await letter(shop, letter_id)).status == "queued"
        shop.house.send_mail(DEFAULT_TENANT)
        await queue(shop, "bob@example.com")
        await shop.house.postman.soon(DEFAULT_TENANT)
    assert sorted(peer.recipients) == ["ada@example.com", "bob@example.com"]


async def test_a_slow_mail_server_holds_up_no_other_job(open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postman_module, "_ROUND_SECONDS", 0)
    async with scripted_mail_server(letter="silence") as server, open_shop(server.port) as shop:
        letter_id = await queue(shop)
        async with asyncio.timeout(30):
            await shop.house.runner().run_due()
            await server.told.wait()
            jobs = await shop.rows("jobs")
            assert "send_mail" in {row["id"] for row in jobs}
            assert {(row["finished_at"], row["error"]) for row in jobs} == {(shop.clock.now(), None)}
            assert (await letter(shop, letter_id)).status == "sending"
            round_ = shop.house.postman.soon(DEFAULT_TENANT)
            server.go_on.set()
            assert await round_ == 1
        assert (await letter(shop, letter_id)).status == "sent"


async def answer_when_stopping(server: ScriptedServer, sender: Sender) -> None:
    async with asyncio.timeout(30):
        while not sender.stopping:  # noqa: ASYNC110 # it tells nobody
            await asyncio.sleep(0.001)
    server.go_on.set()


async def test_closing_the_house_lets_the_letter_in_hand_leave(open_shop: OpenShop, clock: ManualClock) -> None:
    async with scripted_mail_server(letter="silence") as server:
        async with open_shop(server.port) as shop:
            for number in range(10):
                await queue(shop, f"n{number}@example.com")
            shop.house.postman.soon(DEFAULT_TENANT)
            await server.told.wait()
            answering = asyncio.create_task(answer_when_stopping(server, shop.house.postman.sender))
        await answering
        async with open_shop(server.port) as shop:
            states = [row["status"] for row in await shop.rows("emails")]
    assert set(states) <= {"sent", "queued"}
    assert states.count("sent") == server.letters >= 1
    assert "queued" in states


# -- the folder ---------------------------------------------------------------------------------------


@pytest.fixture
async def folder_shop(database_url: str, clock: ManualClock, master: MasterKey, tmp_path: Path) -> AsyncIterator[Shop]:
    async with opening(database_url, clock, master, mail_folder=tmp_path / "some" / "mail") as shop:
        yield shop


async def test_letters_in_a_folder(folder_shop: Shop, tmp_path: Path) -> None:
    shop = folder_shop
    letter_id = await queue(shop)
    assert await send(shop) == 1
    folder = tmp_path / "some" / "mail"
    assert sorted(path.name for path in folder.iterdir()) == [f"{letter_id}.eml", f"{letter_id}.html"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert f'href="{LINK}"' in (folder / f"{letter_id}.html").read_text()
    assert f"Choose a new password: {LINK}" in (folder / f"{letter_id}.eml").read_text()
    assert (await letter(shop, letter_id)).context_sealed == b""


async def test_a_lost_claim_on_a_file_is_written_again(folder_shop: Shop, tmp_path: Path) -> None:
    shop = folder_shop
    letter_id = await queue(shop)
    taken = await shop.scope.run(outgoing.claim, shop.house.postman.sender.worker)
    assert taken is not None
    shop.clock.advance(outgoing.CLAIM_LASTS)
    assert await send(shop) == 1
    sent = await letter(shop, letter_id)
    assert (sent.status, sent.attempts) == ("sent", 2)
    assert len(list((tmp_path / "some" / "mail").iterdir())) == 2
    assert await shop.events("email.unknown") == []


async def test_a_folder_that_cannot_be_written(folder_shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "some").write_text("a file in the way")
    letter_id = await queue(folder_shop)
    assert await send(folder_shop) == 1
    waits = await letter(folder_shop, letter_id)
    assert (waits.status, waits.error) == ("queued", f"{tmp_path / 'some' / 'mail'} cannot be written: Not a directory")
