"""Letters as Internet messages (RFC 5322)."""

from __future__ import annotations

from datetime import datetime
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy
from email.utils import format_datetime, parseaddr
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from counterfoil.exchange.letters.rendering import Words

_UNTOUCHED = {"message-id", "list-unsubscribe"}
"""Headers of one long word, which must be neither folded nor encoded."""


class Message(NamedTuple):
    """A letter ready to be handed over."""

    letter_id: str
    sender: str
    recipient: str
    """The envelope's address; its domain in ASCII."""
    content: bytes
    """Headers and body, with CRLF."""
    html: str
    smtputf8: bool
    """Whether the recipient's address needs a server that takes addresses in any script (RFC 6531)."""


class _Policy(EmailPolicy):
    """Folds headers so that programs know them again."""

    def fold(self, name: str, value: Any) -> str:
        """One header, on as many lines as it needs."""
        if name.lower() in _UNTOUCHED:
            return f"{name}: {value}{self.linesep}"
        if name.lower() == "subject" and not str(value).isascii():
            # EmailPolicy of some Python versions loses blanks between encoded words.
            words = Header(str(value), "utf-8", header_name=name).encode(linesep=self.linesep)
            return f"{name}: {words}{self.linesep}"
        folded: str = super().fold(name, value)
        return folded

    def fold_binary(self, name: str, value: Any) -> bytes:
        """One header as bytes."""
        return self.fold(name, value).encode()


# Seven bits go through every server.
_ASCII = _Policy(linesep=SMTP.linesep, cte_type="7bit")
_UTF8 = _Policy(linesep=SMTP.linesep, cte_type="7bit", utf8=True)


def build(
    letter_id: str, words: Words, *, sender: str, recipient: str, base_url: str, at: datetime, unsubscribe_url: str
) -> Message:
    """Make a message of a letter's words; the same letter always has the same Message-ID.

    ``sender`` may have a name. Raises ValueError for an address or a header that cannot be.
    """
    local, _, domain = recipient.rpartition("@")
    to = Address(username=local, domain=_ascii(domain))
    name, sender = parseaddr(sender)
    smtputf8 = not local.isascii()
    mail = EmailMessage(policy=_UTF8 if smtputf8 else _ASCII)
    mail["From"] = Address(name, addr_spec=sender)
    mail["To"] = to
    mail["Subject"] = words.subject
    mail["Date"] = format_datetime(at)
    mail["Message-ID"] = f"<{letter_id}@{host_of(base_url)}>"
    mail["Auto-Submitted"] = "auto-generated"  # no answer from a machine, please (RFC 3834)
    if unsubscribe_url:
        mail["List-Unsubscribe"] = f"<{quote(unsubscribe_url, safe=_ALL_OF_ASCII)}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    mail.set_content(words.text)
    mail.add_alternative(words.html, subtype="html")
    mail.set_boundary(f"={letter_id}")  # nothing at random: written again, it is the same
    return Message(letter_id, sender, to.addr_spec, mail.as_bytes(), words.html, smtputf8)


_ALL_OF_ASCII = "".join(map(chr, range(0x21, 0x7F)))


def host_of(base_url: str) -> str:
    """The host of an address of ours, as mail writes it: a name in ASCII, or an address in brackets."""
    host = urlsplit(base_url).hostname or "localhost"
    if ":" in host:
        return f"[IPv6:{host}]"
    return f"[{host}]" if host.replace(".", "").isdigit() else _ascii(host)


def _ascii(domain: str) -> str:
    return domain.encode("idna").decode()  # its UnicodeError is a ValueError
