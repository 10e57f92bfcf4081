"""Working off what we owe the rails: at once after the commit that owes it, and again on a schedule.

A rail is never asked to make something blindly twice. Whatever ends without an answer stays in doubt, and the next
attempt first looks for what the one before may have made. Only the rail's own no stops it.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, TypeVar

import msgspec

from counterfoil.db.base import Database, DatabaseUnavailable, Scope
from counterfoil.db.tx import Tx
from counterfoil.events.types import Actor
from counterfoil.exchange import copies, outbox, subjects, variants
from counterfoil.exchange.client import RailClient
from counterfoil.exchange.pace import PATIENCE_SECONDS, NoTurn, Paces
from counterfoil.exchange.rails import Connection, Rails
from counterfoil.exchange.rounds import Rounds
from counterfoil.exchange.subjects import Missing
from counterfoil.exchange.subscription_changes import OwedChange
from counterfoil.exchange.types import Owed
from counterfoil.kernel.errors import Conflict, CounterfoilError, NotFound, RailFailed, Unavailable
from counterfoil.kernel.text import clean_line
from counterfoil.logs import get_logger
from counterfoil.rails.base import HttpRequest, HttpResponse, RailRefused, RailUnavailable
from counterfoil.rails.facts import RailCopy, SubscriptionFact
from counterfoil.rails.mirror import Address, Business, Discount, Price, RailBusy, Rhythm, Subject, SubscriptionChange
from counterfoil.settlement import links, subscribing
from counterfoil.settlement.types import RailLink
from counterfoil.subscriptions import subscriptions

_BATCH = 100
_LONGEST_SECONDS = 60.0
"""How long one attempt may take: well within its claim."""
_LONGEST_HOLD = 300.0
"""For how many seconds at most a rail is left alone because it said so."""
_ROUND_SECONDS = 5.0
_WAIT_SECONDS = 10.0
"""How long somebody waits for a copy that another worker is making."""

R = TypeVar("R")

_log = get_logger(__name__)


class _Lost(Exception):
    """It took so long that another worker has it now."""


class Pusher(Rounds):
    """Brings each tenant's rails in step in the background, side by side."""

    what = "what rails are owed"

    def __init__(self, database: Database, rails: Rails, client: RailClient) -> None:
        super().__init__()
        self._database = database
        self._rails = rails
        self._paces = Paces(client)
        self.worker = f"{os.getpid()}-{secrets.token_hex(4)}"

    async def work(self, scope: Scope) -> int:
        """The job: see to what is due, and look on for a moment; how many."""
        return await self.look_on(scope.tenant, _ROUND_SECONDS)

    def scope(self, tenant: str) -> Scope:
        """The database as this sees it: what follows from a rail's answer is nobody's request."""
        return self._database.scope(tenant, Actor("job", "push", source="job"))

    async def go_round(self, tenant: str) -> int:
        """Try everything that is due now, rail by rail; how many attempts it took."""
        scope = self.scope(tenant)
        rails = await scope.read(outbox.rails_due)
        counts = await asyncio.gather(*[self._push_rail(scope, rail) for rail in rails])
        return sum(counts)

    async def _push_rail(self, scope: Scope, rail: str) -> int:
        try:
            connection = await self._rails.get(scope.tenant, rail)
        except NotFound:
            return 0  # what is owed waits until it is connected again
        pace = self._paces.of(scope.tenant, connection)
        count = 0
        while not self.stopping and pace.seconds_to_wait() < PATIENCE_SECONDS:  # else the job comes again
            claimed = await scope.run(outbox.claim, rail, self._name(), most=min(_BATCH, pace.soon))
            if not claimed:
                break
            count += len(claimed)
            for rank in sorted({one.rank for one in claimed}):
                alike = [one for one in claimed if one.rank == rank]
                await asyncio.gather(*[self._try(scope, connection, one) for one in alike])
        return count

    def _name(self) -> str:
        return f"{self.worker}/{secrets.token_hex(4)}"

    async def ask(
        self, scope: Scope, connection: Connection, request: HttpRequest, read: Callable[[HttpResponse], R]
    ) -> R:
        """Ask a rail something within its limits, and read the answer.

        Raises RailBusy, RailUnavailable and what reading does.
        """
        return await self._paces.ask(scope.tenant, connection, request, read)

    async def _try(self, scope: Scope, connection: Connection, owed: Owed) -> None:
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                await self._attempt(scope, connection, owed)
        except DatabaseUnavailable:
            raise
        except _Lost:
            return
        except RailRefused as error:
            await scope.run(outbox.refused, owed, readable(error))
        except RailBusy as error:
            pause = error.retry_after if error.retry_after is not None else 30.0
            if not isinstance(error, NoTurn):
                self._paces.of(scope.tenant, connection).hold(min(pause, _LONGEST_HOLD))
            again = timedelta(seconds=pause)
            await scope.run(outbox.postpone, owed, readable(error), status=_as_it_was(owed), pause=again, counts=False)
        except CounterfoilError as error:  # the answer does not fit our books: a person has to look
            await scope.run(outbox.refused, owed, readable(error))
        except Exception as error:  # noqa: BLE001 # what we do not understand may have been done
            if not isinstance(error, (RailUnavailable, TimeoutError)):
                _log.exception("a rail's answer makes no sense", rail=owed.rail, kind=owed.kind, id=owed.object_id)
            await scope.run(outbox.postpone, owed, readable(error), status="in_doubt")

    async def _attempt(self, scope: Scope, connection: Connection, owed: Owed) -> None:
        if owed.action != outbox.PUSH:
            await self._change(scope, connection, owed)
            return
        subject, known = await scope.read(_look, owed)
        if isinstance(subject, Missing):
            await scope.run(_wait_for, owed, subject)
            return
        if subject is None or (known is None and owed.status != "in_doubt" and _needs_no_copy(connection, subject)):
            await scope.run(outbox.done, owed)
            return
        copy, known = await self._push(scope, connection, owed, subject, known)
        if copy is not None and not copy.gone:
            known, copy = await self._follow_up(scope, connection, owed, subject, known, copy)
        same = copy is None or copies.is_in_step(connection.mirror, connection.settings, subject, copy)
        await scope.run(_in_step, owed, known, copy, same=same)

    async def _push(
        self, scope: Scope, connection: Connection, owed: Owed, subject: Subject, known: RailLink | None
    ) -> tuple[RailCopy | None, RailLink | None]:
        """Bring the copy in step: the rail's answer, None where nothing of it can change there; and the link."""
        mirror, settings = connection.mirror, connection.settings
        is_gone = known is not None and copies.is_gone(known)
        if is_gone and not subject.active:
            return None, known
        if known is not None and not is_gone:
            return await self._update(scope, connection, owed, subject, known), known
        found = None
        if owed.status == "in_doubt":
            request = mirror.find_copy_request(settings, subject)
            found = await self.ask(
                scope, connection, request, lambda response: mirror.read_found_copy(settings, subject, response)
            )
        is_new = found is None
        if found is None:
            found = await self._create(scope, connection, owed, subject)
        if found.our_id not in {None, subject.id}:
            raise RailRefused(f"{owed.rail} has {found.reference} as the copy of another object, {found.our_id}")
        if found.our_id is not None and (
            (is_new and found.active == subject.active) or copies.is_in_step(mirror, settings, subject, found)
        ):
            return found, known
        # Somebody made it there, or an earlier attempt did, or it was made active and is not: it follows us now.
        known = await scope.run(_link, owed, found)
        return await self._update(scope, connection, owed, subject, known) or found, known

    async def _create(self, scope: Scope, connection: Connection, owed: Owed, subject: Subject) -> RailCopy:
        mirror, settings, kind = connection.mirror, connection.settings, owed.kind
        request = mirror.create_request(settings, subject, "")
        request = mirror.create_request(settings, subject, _key(owed, request))
        if not await scope.run(outbox.sending, owed):
            raise _Lost
        read: Any = functools.partial(mirror.read_copy, settings, kind)  # type: ignore[arg-type]
        made: RailCopy = await self.ask(scope, connection, request, read)
        return made

    async def _update(
        self, scope: Scope, connection: Connection, owed: Owed, subject: Subject, known: RailLink
    ) -> RailCopy | None:
        mirror, settings, kind = connection.mirror, connection.settings, owed.kind
        request = mirror.update_request(settings, subject, known.reference, "")
        if request is None:
            return None
        request = mirror.update_request(settings, subject, known.reference, _key(owed, request))
        assert request is not None
        read: Any = functools.partial(mirror.read_copy, settings, kind)  # type: ignore[arg-type]
        copy: RailCopy = await self.ask(scope, connection, request, read)
        if copy.reference != known.reference:
            raise RailRefused(f"{owed.rail} has {copy.reference} in the place of {known.reference}")
        return copy

    async def _follow_up(
        self,
        scope: Scope,
        connection: Connection,
        owed: Owed,
        subject: Subject,
        known: RailLink | None,
        copy: RailCopy,
    ) -> tuple[RailLink | None, RailCopy]:
        """Make what belongs to the copy, or have it in use as the copy is; its name is kept with the copy."""
        mirror, settings = connection.mirror, connection.settings
        if mirror.switch_follow_up_request(settings, subject, "", "") is None:
            return known, copy
        # Whatever becomes of it, the copy itself is there.
        if known is None:
            known = await scope.run(_link, owed, copy)
        read = functools.partial(mirror.read_follow_up, settings)
        reference = copies.follow_up_of(known)
        is_in_use = None
        if reference is None:
            request = mirror.find_follow_up_request(settings, subject)
            reference = await self.ask(
                scope, connection, request, lambda response: mirror.read_found_follow_up(settings, subject, response)
            )
            is_in_use = reference is not None
        if reference is None:
            if not subject.active:
                return known, copy
            making = mirror.follow_up_request(settings, subject, copy, owed.id)
            assert making is not None
            reference = await self.ask(scope, connection, making, read)
        elif is_in_use is not subject.active:
            switching = mirror.switch_follow_up_request(settings, subject, reference, "")
            assert switching is not None
            key = _key(owed, switching)
            switching = mirror.switch_follow_up_request(settings, subject, reference, key)
            assert switching is not None
            await self.ask(scope, connection, switching, read)
        return known, copies.with_follow_up(copy, reference)

    async def _change(self, scope: Scope, connection: Connection, owed: Owed) -> None:
        """Make a change of a subscription, unless it is made already."""
        mirror, settings = connection.mirror, connection.settings
        known = await scope.read(links.get, owed.rail, "subscription", owed.object_id)
        if known is None:
            why = "waits for the rail's name of the subscription"
            pause = outbox.DEPENDS_PAUSE
            await scope.run(outbox.postpone, owed, why, status=_as_it_was(owed), pause=pause, counts=False)
            return
        try:
            change = await self._named(scope, owed)
        except Unavailable as error:
            pause = outbox.DEPENDS_PAUSE
            await scope.run(outbox.postpone, owed, error.detail, status=_as_it_was(owed), pause=pause, counts=False)
            return
        request = mirror.subscription_request(settings, known.reference)
        read = functools.partial(mirror.read_subscription, settings)
        now = await self.ask(scope, connection, request, read)
        if not mirror.is_changed(change, now):
            request = mirror.change_request(settings, known.reference, change, now.items, "")
            request = mirror.change_request(settings, known.reference, change, now.items, _key(owed, request))
            if not await scope.run(outbox.sending, owed):
                raise _Lost
            now = await self.ask(scope, connection, request, read)
        await scope.run(_changed, owed, now)

    async def _named(self, scope: Scope, owed: Owed) -> SubscriptionChange:
        """An owed change with the rail's names for its prices and its discount, copied first where they are not.

        Raises RailFailed, Unavailable.
        """
        wanted = msgspec.convert(owed.payload, OwedChange)
        amounts = await scope.read(variants.amounts, owed.object_id, [price for price, _ in wanted.prices])
        names = {
            price: await self.ensure_price(scope, owed.rail, price, amounts.get(price)) for price, _ in wanted.prices
        }
        items = tuple((names[price].reference, quantity) for price, quantity in wanted.prices)
        of_variants = tuple((price, name.reference) for price, name in names.items() if name.is_variant)
        fields = {name: getattr(wanted, name) for name in SubscriptionChange.__struct_fields__}
        fields["discount_reference"] = await self._discount_named(scope, owed, wanted.discount_id)
        return SubscriptionChange(**{**fields, "items": (*wanted.items, *items), "variants": of_variants})

    async def _discount_named(self, scope: Scope, owed: Owed, discount_id: str | None) -> str | None:
        """The rail's name for a discount that a subscription is to carry; what names none stays as it is."""
        if not discount_id:
            return discount_id
        known = await scope.read(links.get, owed.rail, "discount", discount_id)
        if known is not None and copies.is_gone(known):  # it was archived, and is back: a copy is owed already
            raise Unavailable(f"waits for the discount {discount_id}", code="rail_unavailable")
        rhythm = await scope.read(_rhythm, owed)
        if rhythm is None:
            return await self.ensure(scope, owed.rail, "discount", discount_id)
        await self.check_discount(scope, owed.rail, discount_id, rhythm)
        return await self.ensure_discount(scope, owed.rail, discount_id, rhythm)

    async def push_object(self, tenant: str, rail: str, kind: str, object_id: str) -> None:
        """Try now what is due to a rail of one object, in its order. Raises NotFound (``rail_not_connected``)."""
        connection = await self._rails.get(tenant, rail)
        scope = self.scope(tenant)
        while claimed := await scope.run(outbox.claim, rail, self._name(), most=1, only=(kind, object_id)):
            await self._try(scope, connection, claimed[0])

    async def ensure(self, scope: Scope, rail: str, kind: str, object_id: str) -> str:
        """The rail's name for an object, which is copied now when it has no copy yet, with what it refers to.

        Raises RailFailed when the rail refuses it; Unavailable when there is no answer now.
        """
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            known = await scope.read(links.get, rail, kind, object_id)  # type: ignore[arg-type]
            if known is not None:
                return known.reference
            missing = await scope.read(_missing, rail, kind, object_id)
            if missing is not None:
                await self.ensure(scope, rail, missing.kind, missing.object_id)
                continue
            connection = await self._rails.get(scope.tenant, rail)
            own = self.scope(scope.tenant)
            await own.run(_owe_now, rail, kind, object_id)
            for owed in await own.run(outbox.claim, rail, self._name(), most=1, only=(kind, object_id)):
                await self._try(own, connection, owed)
            known = await scope.read(links.get, rail, kind, object_id)  # type: ignore[arg-type]
            if known is not None:
                return known.reference
            why = await scope.read(_why, rail, kind, object_id)
            if why is not None and why.status == "refused":
                raise RailFailed(f"{rail}: {why.error}")
            if why is not None and why.status == "done":
                raise RailFailed(f"{rail} takes no copy of this {kind}.")
            if time.monotonic() > until or (why is not None and why.claimed_by is None):
                raise Unavailable(f"{rail} did not answer; try again.", code="rail_unavailable")
            await asyncio.sleep(0.05)  # somebody else is at it

    async def ensure_price(self, scope: Scope, rail: str, price_id: str, unit_amount: int | None) -> variants.Named:
        """The rail's name for a price that is sold at this amount (None: its own), made now where it has none yet.

        Raises as :meth:`ensure`, and RailRefused, RailBusy, RailUnavailable.
        """
        copy = await self.ensure(scope, rail, "price", price_id)
        if unit_amount is None:
            return variants.Named(copy, is_variant=False)
        connection = await self._rails.get(scope.tenant, rail)
        return await variants.price(self, scope, connection, price_id, copy, unit_amount)

    async def check_discount(self, scope: Scope, rail: str, discount_id: str, rhythm: Rhythm) -> None:
        """Raise RailRefused when a discount cannot last as it says on a subscription so paid; nothing is made there."""
        await variants.check_discount(scope, await self._rails.get(scope.tenant, rail), discount_id, rhythm)

    async def ensure_discount(self, scope: Scope, rail: str, discount_id: str, rhythm: Rhythm) -> str:
        """The rail's name for a discount that lasts as it says on a subscription so paid. As :meth:`ensure_price`."""
        copy = await self.ensure(scope, rail, "discount", discount_id)
        connection = await self._rails.get(scope.tenant, rail)
        return await variants.discount(self, scope, connection, discount_id, copy, rhythm)


def _as_it_was(owed: Owed) -> Literal["owed", "in_doubt"]:
    """What it was before this attempt, in which surely nothing was done."""
    return "in_doubt" if owed.status == "in_doubt" else "owed"


def _key(owed: Owed, request: HttpRequest) -> str:
    """The same for the same attempt to say the same."""
    said = hashlib.sha256(f"{request.method} {request.url} ".encode() + request.body).hexdigest()[:16]
    return f"{owed.id}-{owed.revision}-{said}"


def _look(tx: Tx, owed: Owed) -> tuple[Subject | Missing | None, RailLink | None]:
    kind: Any = owed.kind
    return subjects.read(tx, owed.rail, owed.kind, owed.object_id), links.get(tx, owed.rail, kind, owed.object_id)


def _needs_no_copy(connection: Connection, subject: Subject) -> bool:
    """Whether nothing there would refer to a copy: what is not sold any more, or never for money of the rail's."""
    if isinstance(subject, Price):
        assets = connection.rail.assets(connection.settings)
        return assets is not None and subject.asset not in assets
    return not subject.active and isinstance(subject, (Discount, Address, Business))


def _wait_for(tx: Tx, owed: Owed, missing: Missing) -> None:
    """Come again once the rail has what this refers to, which is owed, too."""
    other = outbox.of_object(tx, owed.rail, missing.kind, missing.object_id)
    why = f"waits for the {missing.kind} {missing.object_id}"
    if other is None:
        outbox.owe(tx, owed.rail, [(missing.kind, missing.object_id)])
    elif other.status == "done":  # and yet no copy: it was in another account, or is nothing for this rail
        outbox.owe(tx, owed.rail, [(missing.kind, missing.object_id)])
        outbox.postpone(tx, owed, why, status=_as_it_was(owed))
        return
    elif other.status == "refused":  # not so soon: a person has to see to that one first
        outbox.postpone(tx, owed, f"{why}, which was refused", status=_as_it_was(owed))
        return
    outbox.postpone(tx, owed, why, status=_as_it_was(owed), pause=outbox.DEPENDS_PAUSE, counts=False)


def _link(tx: Tx, owed: Owed, copy: RailCopy) -> RailLink:
    """Note the copy's name before more is asked about it."""
    kind: Any = owed.kind
    return links.link(
        tx, owed.rail, kind, owed.object_id, copy.reference, sync_status="pending", pending_since=tx.now, raw=copy.raw
    )


def _in_step(tx: Tx, owed: Owed, known: RailLink | None, copy: RailCopy | None, *, same: bool) -> None:
    """The rail's copy is as ours was when it was read; note its name, and what it says that we did not mean."""
    kind: Any = owed.kind
    if known is None:
        if copy is None:
            raise Conflict(f"{owed.rail} gave no name for {owed.object_id}.", code="rail_answer_incomplete")
        known = links.link(tx, owed.rail, kind, owed.object_id, copy.reference, raw=copy.raw)
    is_whole = outbox.done(tx, owed)
    status: Any = ("synced" if same else "different") if is_whole else "pending"
    pending = None if is_whole else (known.pending_since or tx.now)
    links.sync(tx, known, status, pending_since=pending, raw=copy.raw if copy else None)


def _rhythm(tx: Tx, owed: Owed) -> Rhythm | None:
    """How a subscription goes on to be paid; None where its rail has not said."""
    found = subscriptions.get(tx, owed.object_id)
    if found.billing_interval is None:
        return None
    begins = owed.created_at
    trial = found.trial_end - begins if found.status == "trialing" and found.trial_end else timedelta(0)
    return Rhythm(found.billing_interval, found.interval_count or 1, max(trial.days, 0), begins)


def _changed(tx: Tx, owed: Owed, fact: SubscriptionFact) -> None:
    subscribing.apply(tx, owed.rail, fact)
    outbox.done(tx, owed)


def _missing(tx: Tx, rail: str, kind: str, object_id: str) -> Missing | None:
    found = subjects.read(tx, rail, kind, object_id)
    if found is None:
        raise NotFound(f"There is no such {kind}.", code=f"{kind}_not_found")
    return found if isinstance(found, Missing) else None


def _owe_now(tx: Tx, rail: str, kind: str, object_id: str) -> None:
    known = outbox.of_object(tx, rail, kind, object_id)
    if known is None or known.status in {"done", "refused"}:
        outbox.owe(tx, rail, [(kind, object_id)])
    else:
        outbox.hurry(tx, known.id)


def _why(tx: Tx, rail: str, kind: str, object_id: str) -> Owed | None:
    return outbox.of_object(tx, rail, kind, object_id)


def readable(error: Exception) -> str:
    """A rail's words, in text that every database can hold."""
    words = " ".join(str(error).split()) or type(error).__name__
    return clean_line(words, most=500)
