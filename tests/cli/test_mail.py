from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Cli
from tests.peers.mail_server import running_mail_server

from counterfoil.house import load_master_key
from counterfoil.mail import outgoing
from counterfoil.settings import Settings

CONTEXT = {"link": "https://shop.example/s3cr3t", "expires": "in one hour"}


def queue(cli: Cli) -> str:
    cli("health")  # makes the tenant and the master key
    master = load_master_key(Settings.load())
    return cli.on_database(outgoing.queue, master, "ada@example.com", "reset_password", CONTEXT)


def test_letters_are_listed_and_shown_without_what_they_say(cli: Cli) -> None:
    letter_id = queue(cli)
    lines = cli("mail", "list").splitlines()
    assert lines[0].split() == ["ID", "STATUS", "LETTER", "TO", "QUEUED", "ERROR"]
    assert lines[1].split()[:4] == [letter_id, "queued", "reset_password", "ada@example.com"]
    assert cli.json("mail", "list", "--status", "unknown")["data"] == []
    shown = cli.json("mail", "show", letter_id)
    assert shown == cli.json("mail", "list", "--status", "queued")["data"][0]
    assert (shown["status"], shown["recipient"], "context_sealed" in shown) == ("queued", "ada@example.com", False)
    assert "status           queued" in cli("mail", "show", letter_id)
    assert cli.refused("mail", "show", "eml_x") == ("error: There is no such letter.\nhint:  counterfoil mail list\n")


def test_a_person_decides_about_a_letter_in_doubt(cli: Cli) -> None:
    letter_id = queue(cli)
    letter = cli.on_database(outgoing.claim, "smtp/one")
    assert letter is not None
    cli.on_database(outgoing.mark_unknown, letter, "no answer")
    assert cli("mail", "list", "--status", "unknown").splitlines()[1].endswith("no answer")
    assert cli.json("mail", "retry", letter_id)["status"] == "queued"
    assert cli.json("mail", "cancel", letter_id)["status"] == "canceled"
    assert cli.refused("mail", "retry", letter_id) == "error: This letter is canceled.\n"


def test_a_test_letter_lands_in_the_folder(cli: Cli, elsewhere: Path) -> None:
    written, sent = cli("mail", "test", "ada@example.com").splitlines()
    letter_id = sent.split()[0]
    assert (written, sent) == (f"written to var/mail/{letter_id}.html", f"{letter_id} is sent")
    assert "<title>A test letter from Shop</title>" in (elsewhere / "var" / "mail" / f"{letter_id}.html").read_text()
    assert "not an e-mail address" in cli.refused("mail", "test", "ada")


def test_a_test_letter_tells_what_the_mail_server_said(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERFOIL_MAIL_TRANSPORT", "smtp")
    assert "COUNTERFOIL_SMTP_HOST: is needed when COUNTERFOIL_MAIL_TRANSPORT is smtp" in cli.refused("mail", "list")
    with running_mail_server() as peer:
        peer.at_rcpt["gone@example.com"] = "550 No such user"
        monkeypatch.setenv("COUNTERFOIL_SMTP_HOST", "127.0.0.1")
        monkeypatch.setenv("COUNTERFOIL_SMTP_PORT", str(peer.port))
        monkeypatch.setenv("COUNTERFOIL_SMTP_TLS", "none")
        assert cli("mail", "test", "ada@example.com").endswith(" is sent\n")
        assert "is failed: 550 No such user\n" in cli.refused("mail", "test", "gone@example.com")
    assert peer.recipients == ["ada@example.com"]


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("MAIL_FROM", "a@b.example, c@d.example", "must be one address"),
        ("MAIL_FROM", "Shop <a@b.example>\nBcc: c@d.example", "must be one address"),
        ("MAIL_FROM", "", "must be one address"),
        ("SMTP_USERNAME", "shop", "COUNTERFOIL_SMTP_PASSWORD: goes together with COUNTERFOIL_SMTP_USERNAME"),
        ("SMTP_PORT", "0", "COUNTERFOIL_SMTP_PORT: must be a whole number, at least 1, at most 65535"),
    ],
)
def test_mail_settings_that_make_no_sense(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, value: str, complaint: str
) -> None:
    monkeypatch.setenv(f"COUNTERFOIL_{name}", value)
    assert complaint in cli.refused("mail", "list")


def test_a_password_is_not_sent_in_clear_to_another_machine(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERFOIL_SMTP_TLS", "none")
    for host, good in (("mail.example.com", False), ("192.0.2.1", False), ("localhost", True), ("::1", True)):
        monkeypatch.setenv("COUNTERFOIL_SMTP_HOST", host)
        if good:
            cli("mail", "list")
        else:
            assert "COUNTERFOIL_SMTP_TLS: may be none for a mail server on this machine only" in cli.refused(
                "mail", "list"
            )
