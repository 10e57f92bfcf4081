"""Mail servers to send to: a real one (aiosmtpd), and one that says what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.server import free_port

USERNAME = "shop"
PASSWORD = "correct horse"


class Received(NamedTuple):
    """One letter that the server took."""

    sender: str
    recipients: list[str]
    content: bytes
    encrypted: bool

    @property
    def mail(self) -> EmailMessage:
        parsed = message_from_bytes(self.content, policy=default)
        assert isinstance(parsed, EmailMessage)
        assert parsed.defects == []
        return parsed

    def part(self, kind: str) -> str:
        """The text of the part ``plain`` or ``html``."""
        part = self.mail.get_body((kind,))
        assert part is not None
        text = part.get_content()
        assert isinstance(text, str)
        return text.replace("\r\n", "\n")


class MailPeer:
    """A running mail server."""

    def __init__(self) -> None:
        self.port = free_port()
        self.received: list[Received] = []
        self.connections = 0
        self.at_rcpt: dict[str, str] = {}
        """What it answers to a recipient, when that is not 250."""
        self.at_data: dict[str, str] = {}
        """What it answers to a letter for this recipient, when that is not 250."""

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        self.connections += 1
        session.host_name = hostname
        return responses

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self.at_rcpt.get(address, "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        answer = self.at_data.get(envelope.rcpt_tos[0], "250 OK")
        if answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            assert envelope.mail_from is not None
            one = Received(envelope.mail_from, envelope.rcpt_tos, envelope.content, session.ssl is not None)
            self.received.append(one)
        return answer

    def check(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        good = data == LoginPassword(USERNAME.encode(), PASSWORD.encode())
        return AuthResult(success=good, handled=False)

    @property
    def recipients(self) -> list[str]:
        return [address for letter in self.received for address in letter.recipients]


@contextlib.contextmanager
def running_mail_server(*, ssl_context: ssl.SSLContext | None = None, **more: Any) -> Iterator[MailPeer]:
    """A mail server on a loopback port, in a thread of its own. ``ssl_context``: encrypted from the start."""
    peer = MailPeer()
    controller = Controller(peer, hostname="127.0.0.1", port=peer.port, ssl_context=ssl_context, **more)
    controller.start()
    peer.connections = 0
    try:
        yield peer
    finally:
        controller.stop()


class Certificate(NamedTuple):
    """A certificate for 127.0.0.1 and localhost that vouches for itself."""

    path: Path
    context: ssl.SSLContext
    """For the server that shows it."""


def make_certificate(folder: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path, key_path = folder / "certificate.pem", folder / "key.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path, key_path)
    return Certificate(path, context)


class ScriptedServer:
    """A mail server that goes through the motions, and says or does one thing of its own."""

    def __init__(self, script: dict[str, str]) -> None:
        self.port = 0
        self.letters = 0
        """How many arrived with their last line."""
        self.told = asyncio.Event()
        """The odd thing was done."""
        self.go_on = asyncio.Event()
        """Ends a silence."""
        self._script = script

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(writer, "greeting", "220 here")
            while line := await reader.readline():
                verb = line[:4].decode().strip().lower()
                if verb == "data":
                    await self._answer(writer, "data", "354 go on")
                    await reader.readuntil(b"\r\n.\r\n")
                    self.letters += 1
                    await self._answer(writer, "letter", "250 taken")
                elif verb == "quit":
                    await self._answer(writer, "quit", "221 bye")
                    break
                else:
                    await self._answer(writer, verb, "250 fine")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, to: str, usual: str) -> None:
        answer = self._script.get(to, usual)
        if to in self._script:
            self.told.set()
        if answer == "silence":
            await self.go_on.wait()
            answer = usual
        if answer == "hang up":
            raise ConnectionError
        writer.write(answer.encode() + b"\r\n")
        await writer.drain()


@contextlib.asynccontextmanager
async def scripted_mail_server(**script: str) -> AsyncIterator[ScriptedServer]:
    """What it answers to ``greeting``, ``ehlo``, ``mail``, ``rcpt``, ``data``, ``letter``: a line, ``"hang up"``
    or ``"silence"``, until ``go_on`` is set."""
    scripted = ScriptedServer(script)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    scripted.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted
    finally:
        scripted.go_on.set()
        server.close()
        await server.wait_closed()
