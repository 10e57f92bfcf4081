"""What letters say: every one of them, also about people with hostile names."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from html.parser import HTMLParser
from importlib import resources

import pytest
from jinja2 import TemplateNotFound, UndefinedError

from counterfoil.exchange.letters.message import build, host_of
from counterfoil.exchange.letters.rendering import Words, render
from counterfoil.mail.outgoing import TEMPLATES

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PLAIN = {
    "host": "hooks.example.com",
    "endpoint_id": "whe_1",
    "reason": "failing",
    "link": "https://shop.example/do/it?token=s3cr3t&x=1",
    "reset_link": "https://shop.example/reset?token=0th3r&y=2",
    "expires": "in one hour",
    "first_name": "Ada",
    "customer_name": "Engine & Co",
    "inviter_name": "Charles",
    "role": "admin",
}
HOSTILE = "</p><script>alert(1)</script>{{ link }}\r\nBcc: victim@example.com\r\n\r\n<img src=x onerror='x'>\""
SUBJECTS = {
    "verify_sign_up": "Confirm your e-mail address for Inkwell",
    "already_registered": "You already have an account at Inkwell",
    "verify_address": "Confirm your new e-mail address for Inkwell",
    "reset_password": "Choose a new password for Inkwell",
    "password_changed": "Your password for Inkwell was changed",
    "invitation": "Charles invites you to Engine & Co",
    "staff_enrollment": "Set up your staff account at Inkwell",
    "new_passkey": "A passkey was added to your account at Inkwell",
    "sign_in_recovered": "A recovery code was used for your account at Inkwell",
    "webhook_disabled": "Inkwell no longer sends webhooks to an endpoint",
    "test": "A test letter from Inkwell",
}


class Page(HTMLParser):
    """The tags and links of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name in {"href", "src"}}


def context_of(template: str, values: dict[str, str]) -> dict[str, str]:
    return {name: values[name] for name in TEMPLATES[template]}


def mail_of(words: Words, **more: str) -> EmailMessage:
    given = {"sender": "Inkwell <no-reply@shop.example>", "recipient": "ada@example.com", "unsubscribe_url": "", **more}
    made = build("eml_1", words, base_url="https://shop.example", at=AT, **given)
    assert made.content.isascii()
    assert max(len(line) for line in made.content.split(b"\r\n")) <= 998  # RFC 5322, section 2.1.1
    parsed = message_from_bytes(made.content, policy=default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def test_there_is_a_pair_of_files_for_each() -> None:
    folder = resources.files("counterfoil.exchange.letters").joinpath("templates")
    names = {path.name for path in folder.iterdir() if not path.name.startswith("_")}
    assert names == {f"{name}.{kind}" for name in TEMPLATES for kind in ("txt", "html")}
    assert set(SUBJECTS) == set(TEMPLATES)


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_every_letter(template: str) -> None:
    context = context_of(template, PLAIN)
    words = render(template, context, "Inkwell")
    assert words.subject == SUBJECTS[template]
    links = {value for name, value in context.items() if "link" in name}
    assert set(re.findall(r"https?://\S+", words.text)) == links
    page = Page(words.html)
    assert page.links == links
    assert page.tags <= {"html", "head", "meta", "title", "body", "div", "p", "a"}  # nothing that is fetched
    assert ("The link works once and expires in one hour." in words.text) == ("expires" in context)
    for name in ("first_name", "role", "customer_name"):
        if name in context:
            assert context[name] in words.text
    assert words.text.startswith("Hello")
    assert words.text.endswith("\n\n-- \nInkwell\n")
    assert "\n\n\n" not in words.text
    assert all(len(line) <= 76 or "://" in line for line in words.text.split("\n"))
    assert '<meta name="color-scheme" content="light dark">' in words.html


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_hostile_names_stay_text(template: str) -> None:
    hostile = {**PLAIN, **dict.fromkeys(("first_name", "customer_name", "inviter_name", "role", "expires"), HOSTILE)}
    words = render(template, context_of(template, hostile), HOSTILE)
    page = Page(words.html)
    assert page.tags <= {"html", "head", "meta", "title", "body", "div", "p", "a"}
    assert not {"onerror", "src"} & page.attributes
    assert "s3cr3t&x" not in words.html  # escaped
    assert page.links == {value for name, value in context_of(template, hostile).items() if "link" in name}
    assert "\n" not in words.subject
    assert "\r" not in words.subject
    mail = mail_of(words)
    assert mail["Bcc"] is None
    assert mail["Subject"] == words.subject
    assert [name for name in mail if name == "To"] == ["To"]


@pytest.mark.parametrize("header", ["Inkwell\r\nBcc: victim@example.com", "Inkwell\nBcc: victim@example.com"])
def test_no_header_slips_in(header: str) -> None:
    """Even where no template stands between."""
    words = Words("Hello", "text", "<p>text</p>")
    with pytest.raises(ValueError, match="linefeed or carriage return"):
        mail_of(words._replace(subject=header))
    with pytest.raises(ValueError, match="CR or LF"):
        mail_of(words, recipient=header.replace("Inkwell", "ada@example.com"))
    assert mail_of(words, sender=header.replace("Inkwell", "Inkwell <a@shop.example>"))["Bcc"] is None
    mail = mail_of(words, unsubscribe_url="https://shop.example/" + header)
    assert mail["Bcc"] is None


def test_a_passkey_may_have_a_name() -> None:
    words = render("new_passkey", {"name": "<Ada's laptop>"}, "Inkwell")
    assert "A new passkey (<Ada's laptop>) can now" in " ".join(words.text.split())
    assert "A new passkey (&lt;Ada&#39;s laptop&gt;) can now" in words.html


def test_long_and_foreign_names_are_encoded() -> None:
    name = "Ångström 中文 " * 20
    mail = mail_of(render("invitation", {**PLAIN, "customer_name": name}, "Inkwell"))
    assert mail["Subject"] == f"Charles invites you to {name.strip()}"


def test_the_same_letter_is_the_same_message() -> None:
    words = render("test", {}, "Inkwell")
    given = {"sender": "a@b.example", "recipient": "ada@example.com", "unsubscribe_url": ""}
    one, two = (build("eml_1", words, base_url="https://shop.example", at=AT, **given) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("base_url", "host"),
    [
        ("https://shop.example/back/office", "shop.example"),
        ("http://127.0.0.1:8787", "[127.0.0.1]"),
        ("http://[::1]:8787", "[IPv6:::1]"),
        ("https://bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_host_as_mail_writes_it(base_url: str, host: str) -> None:
    assert host_of(base_url) == host


def test_what_cannot_be_rendered() -> None:
    with pytest.raises(TemplateNotFound):
        render("nonsense", {}, "Inkwell")
    with pytest.raises(UndefinedError, match="link"):
        render("reset_password", {"expires": "soon"}, "Inkwell")
