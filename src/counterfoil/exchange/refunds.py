"""Giving money back on the rail it came by.

A refund is claimed, its rail is asked outside any transaction, and then it is marked with what came of it.

A rail is never asked blindly twice. Whatever ends without an answer leaves the refund ``processing``, and the next
attempt first finds out what became of the one before. Only the rail's own no makes it ``failed``.
"""

from __future__ import annotations

import asyncio
import os
import secrets

from counterfoil.db.base import Database, DatabaseUnavailable, Scope
from counterfoil.db.tx import Tx
from counterfoil.events.types import Actor
from counterfoil.exchange.client import RailClient, follow
from counterfoil.exchange.rails import RAILS, Connection, Rails
from counterfoil.exchange.rounds import Rounds
from counterfoil.kernel.errors import Conflict, NotFound
from counterfoil.kernel.money import Money
from counterfoil.kernel.text import clean_line
from counterfoil.logs import get_logger
from counterfoil.rails.base import (
    HttpRequest,
    RailRefused,
    RailUnavailable,
    RefundDone,
    RefundFailed,
    RefundIntent,
    RefundUnderWay,
)
from counterfoil.sales import payments, refund_attempts, refunds
from counterfoil.sales.types import Refund
from counterfoil.settlement import reverse

_LONGEST_SECONDS = 60.0
"""How long one attempt may take: well within its claim."""
_ROUND_SECONDS = 5.0
"""How long the job that gives money back looks on."""

_log = get_logger(__name__)


class Refunder(Rounds):
    """Gives money back in the background."""

    what = "refunds"

    def __init__(self, database: Database, rails: Rails, client: RailClient) -> None:
        super().__init__()
        self._database = database
        self._rails = rails
        self._client = client
        self.worker = f"{os.getpid()}-{secrets.token_hex(4)}"

    async def work(self, scope: Scope) -> int:
        """The job: deny requests whose time is over, see to what is due, and look on for a moment; how many."""
        expired = await scope.run(refunds.expire_due)
        return expired + await self.look_on(scope.tenant, _ROUND_SECONDS)

    async def go_round(self, tenant: str) -> int:
        """Try what is due of a tenant, each once; how many."""
        return await self.execute_due(self.scope(tenant))

    def scope(self, tenant: str) -> Scope:
        """The database as this sees it: what a rail does is nobody's request."""
        return self._database.scope(tenant, Actor("job", "execute_refunds", source="job"))

    async def execute_due(self, scope: Scope) -> int:
        """Try what is due of the scope's tenant, each once; how many."""
        due = await scope.read(refund_attempts.due)
        done = 0
        for refund_id in due:
            if self.stopping:
                break
            try:
                done += await self.execute(scope, refund_id)
            except DatabaseUnavailable:
                raise
            except Exception:  # noqa: BLE001 # whatever it is, the others have their turn
                _log.exception("a refund could not be seen to", refund=refund_id, tenant=scope.tenant)
        return done

    async def execute(self, scope: Scope, refund_id: str) -> bool:
        """Try one refund that is due; whether it was ours to try."""
        refund, intent = await scope.read(_intent, refund_id)
        try:
            connection = await self._rails.get(scope.tenant, refund.rail)
        except NotFound:
            if refund.rail in RAILS:
                await scope.run(refund_attempts.wait, refund_id, "its rail is not connected")
            else:
                await scope.run(refund_attempts.leave_to_hand, refund_id, _BY_HAND)
            return False
        asked = _asked(connection, intent)
        if asked is None:
            await scope.run(refund_attempts.leave_to_hand, refund_id, _BY_HAND)
            return False
        claimed = await scope.run(refund_attempts.claim, refund_id, self.worker)
        if claimed is None:
            return False
        await self._attempt(scope, connection, claimed, intent, asked)
        return True

    async def _attempt(
        self, scope: Scope, connection: Connection, refund: Refund, intent: RefundIntent, asked: _Asked
    ) -> None:
        done: RefundDone | RefundUnderWay | None = None
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                if refund.attempts > 1:
                    done = await self._find(connection, intent)
                if done is None:
                    done = await self._ask(connection, intent, asked)
        except RailRefused as error:
            await scope.run(refund_attempts.fail, refund, _readable(error))
            return
        except Exception as error:  # noqa: BLE001 # what we do not understand may have given the money back
            if not isinstance(error, (RailUnavailable, TimeoutError)):
                _log.exception("a refund's answer makes no sense", refund=refund.id, rail=refund.rail)
            await scope.run(refund_attempts.postpone, refund, _readable(error))
            return
        if isinstance(done, RefundUnderWay):
            await scope.run(_note_under_way, refund.id, done.reference)
            return
        try:
            await scope.run(reverse.reverse, refund.id, reference=done.reference)
        except Conflict as error:
            # It was taken for failed, and its money was claimed by another refund before this answer came.
            _log.error("a refund was made that cannot be booked", refund=refund.id, why=str(error))

    async def _find(self, connection: Connection, intent: RefundIntent) -> RefundDone | RefundUnderWay | None:
        """What became of an earlier attempt.

        Raises RefundFailed when it came to nothing; RailUnavailable as long as the rail does not say.
        """
        rail, settings = connection
        try:
            intent = await self._informed(connection, intent)
            lookup = rail.find_refund_request(settings, intent)
            if not isinstance(lookup, HttpRequest):
                return lookup
            return await follow(
                self._client, lookup, lambda response: rail.read_found_refund(settings, intent, response)
            )
        except RefundFailed:
            raise
        except RailRefused as error:  # to tell us, and not to give money back
            raise RailUnavailable(f"it does not say what became of the refund: {error}") from error

    async def _informed(self, connection: Connection, intent: RefundIntent) -> RefundIntent:
        """The intent with what the rail has to say of the payment first. Raises RailUnavailable, RailRefused."""
        rail, settings = connection
        question = rail.refund_question(settings, intent)
        if question is None:
            return intent
        return await follow(
            self._client, question, lambda response: rail.read_refund_question(settings, intent, response)
        )

    async def _ask(self, connection: Connection, intent: RefundIntent, asked: _Asked) -> RefundDone | RefundUnderWay:
        """Have the rail give the money back. Raises RailRefused, RailUnavailable."""
        informed = await self._informed(connection, intent)
        if informed is not intent:
            asked = _asked(connection, informed) or RailRefused("it gives no money back")
        if isinstance(asked, Exception):
            raise asked
        if isinstance(asked, HttpRequest):
            return connection.rail.read_refunded(connection.settings, await self._client.send(asked))
        return asked


def _note_under_way(tx: Tx, refund_id: str, reference: str) -> None:
    refund_attempts.under_way(tx, refund_attempts.lock(tx, refund_id), reference)


_Asked = HttpRequest | RefundDone | RailRefused | RailUnavailable

_BY_HAND = "its rail gives no money back by itself: do it by hand, and settle this refund"


def _asked(connection: Connection, intent: RefundIntent) -> _Asked | None:
    """How the rail is asked, or its answer where it needs no asking; None where it cannot give money back."""
    rail, settings = connection
    try:
        return rail.refund_request(settings, intent)
    except (RailRefused, RailUnavailable) as error:
        return error


def _intent(tx: Tx, refund_id: str) -> tuple[Refund, RefundIntent]:
    refund = refunds.get(tx, refund_id)
    payment = payments.get(tx, refund.payment_id)
    intent = RefundIntent(
        refund_id=refund.id,
        payment_reference=payment.reference,
        amount=Money(refund.amount, refund.asset),
        reason=refund.reason,
        recipient=refund.recipient,
        details=payment.details,
    )
    return refund, intent


def _readable(error: Exception) -> str:
    """A rail's words, in text that every database can hold."""
    words = " ".join(str(error).split()) or type(error).__name__
    return clean_line(words, most=500)
