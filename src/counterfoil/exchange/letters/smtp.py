"""Letters to a mail server (RFC 5321).

What matters is to know whether a letter may have left: until the server has said "354, go on" it has not,
and from then on only the server's answer tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

from aiosmtplib import SMTP, SMTPException, SMTPRecipientRefused, SMTPResponseException

from counterfoil.exchange.letters.message import Message, host_of
from counterfoil.exchange.letters.transport import Postponed, Refused, Uncertain
from counterfoil.settings import Settings

COMMAND_SECONDS = 20.0
BEFORE_CONTENT_SECONDS = 60.0
ANSWER_SECONDS = 120.0
"""How long the server may take to look at a letter. Giving up too soon is what makes letters arrive twice
(RFC 5321, section 4.5.3.2.6)."""

_GOODBYE_SECONDS = 2.0
_GO_ON = 354
_CLOSING = 421
_LEADING_DOT = re.compile(rb"(?m)^\.")


class MailServer:
    """One connection to a mail server, made for the first letter and kept for those that follow."""

    def __init__(self, settings: Settings) -> None:
        self.begun = False
        self._announced = False
        password = settings.smtp_password
        self._smtp = SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_username,
            password=password.reveal() if password else None,
            use_tls=settings.smtp_tls == "implicit",
            start_tls=settings.smtp_tls == "starttls",
            local_hostname=host_of(settings.base_url),
            timeout=COMMAND_SECONDS,
        )

    async def send(self, message: Message) -> None:
        """Hand a letter over. Raises Refused, Postponed, Uncertain."""
        self.begun = False
        try:
            async with asyncio.timeout(BEFORE_CONTENT_SECONDS):
                await self._announce(message)
        except SMTPRecipientRefused as error:
            raise _judged(error.code, error.message) from error
        except (SMTPException, OSError) as error:  # not this letter's fault: another would meet the same
            self._smtp.close()
            raise Postponed(_words_of(error), others=True) from error
        except ValueError as error:
            raise Refused(f"no address for a mail server: {error}") from error
        await self._hand_over(message.content)

    async def _announce(self, message: Message) -> None:
        """Everything that comes before the letter itself."""
        if not self._smtp.is_connected:
            await self._smtp.connect()
        elif self._announced:  # a letter that was refused
            await self._smtp.rset()
        options = []
        if message.smtputf8:
            if self._smtp.is_ehlo_or_helo_needed:
                await self._smtp.ehlo()
            if not self._smtp.supports_extension("smtputf8"):
                raise Refused("the mail server takes only addresses in ASCII")
            options = ["SMTPUTF8"]
        self._announced = True
        await self._smtp.mail(message.sender, options=options)
        await self._smtp.rcpt(message.recipient, encoding="utf-8" if message.smtputf8 else "ascii")
        answer = await self._smtp.execute_command(b"DATA")
        if answer.code != _GO_ON:
            raise _judged(answer.code, answer.message)

    async def _hand_over(self, content: bytes) -> None:
        protocol = self._smtp.protocol
        if protocol is None:
            raise Postponed("the mail server has gone away", others=True)
        stuffed = _LEADING_DOT.sub(b"..", content)  # RFC 5321, section 4.5.2
        self.begun = True
        try:
            protocol.write(stuffed + b".\r\n")
            answer = await protocol.read_response(timeout=ANSWER_SECONDS)
        except (SMTPException, OSError) as error:
            self._smtp.close()
            raise Uncertain(f"the mail server took the letter and gave no answer: {_words_of(error)}") from error
        if 200 <= answer.code < 300:
            self._announced = False
        elif 400 <= answer.code < 600:
            raise _judged(answer.code, answer.message)
        else:
            self._smtp.close()
            raise Uncertain(f"the mail server took the letter and answered {answer.code} {answer.message}")

    async def close(self) -> None:
        """Say goodbye. Raises nothing."""
        if self._smtp.is_connected:
            with contextlib.suppress(SMTPException, OSError):
                await self._smtp.quit(timeout=_GOODBYE_SECONDS)
        self._smtp.close()


def _judged(code: int, words: str) -> Refused | Postponed:
    """What an answer that is no yes means for the letter."""
    if 500 <= code < 600:
        return Refused(f"{code} {words}")
    return Postponed(f"{code} {words}", others=code == _CLOSING)


def _words_of(error: Exception) -> str:
    if isinstance(error, SMTPResponseException):
        return f"{error.code} {error.message}"
    return str(error) or type(error).__name__
