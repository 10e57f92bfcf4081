"""Portals: pages of a rail where a customer sees to means of payment, bills and subscriptions, for a short time."""

from __future__ import annotations

import functools
import re

import msgspec

from counterfoil.accounts import customers
from counterfoil.db.base import Scope
from counterfoil.db.tx import Tx
from counterfoil.exchange import outbox, subscription_details
from counterfoil.exchange.pusher import Pusher, readable
from counterfoil.exchange.rails import Rails
from counterfoil.kernel.errors import Conflict, Invalid, RailFailed, Unavailable
from counterfoil.kernel.paging import MAX_LIMIT
from counterfoil.rails.base import RailRefused, RailUnavailable
from counterfoil.rails.mirror import Portal
from counterfoil.settlement import links
from counterfoil.subscriptions import subscriptions
from counterfoil.subscriptions.subscriptions import SubscriptionFilter


class Payer(msgspec.Struct, frozen=True):
    """Somebody as a rail knows them."""

    rail: str
    reference: str
    subscriptions: tuple[str, ...]
    """The rail's names of what the portal is about."""


def of_subscription(tx: Tx, subscription_id: str, *, customer_id: str | None = None) -> Payer:
    """Who pays a subscription. ``customer_id``: whose it has to be.

    Raises NotFound; Conflict (``rail_keeps_no_copies``, ``payer_unknown``).
    """
    details = subscription_details.of(tx, subscription_id, customer_id=customer_id)
    found = details.subscription
    if found.rail not in outbox.MIRRORED:
        raise Conflict(f"{found.rail} has no portal.", code="rail_keeps_no_copies")
    reference = found.customer_reference
    if reference is None and found.customer_id is not None:
        known = links.get(tx, found.rail, "customer", found.customer_id)
        reference = known.reference if known else None
    if reference is None:
        raise Conflict(f"{found.rail} has not told yet who pays.", code="payer_unknown")
    return Payer(found.rail, reference, () if details.reference is None else (details.reference,))


def of_customer(tx: Tx, customer_id: str, rail: str | None) -> Payer:
    """A customer on a rail, or on the only one that knows them, with their subscriptions there that go on.

    Raises NotFound; Invalid (``rail_required``); Conflict (``payer_unknown``).
    """
    customers.get(tx, customer_id)
    known = [one for one in links.of_object(tx, "customer", customer_id) if one.rail in outbox.MIRRORED]
    wanted = [one for one in known if rail in {None, one.rail}]
    if not wanted:
        detail = "No rail knows this customer." if rail is None else f"{rail[:40]} does not know this customer."
        raise Conflict(detail, code="payer_unknown")
    if len(wanted) > 1:
        raise Invalid.field("rail", f"one of {', '.join(one.rail for one in wanted)}", code="rail_required")
    link = wanted[0]
    page = subscriptions.list_(tx, SubscriptionFilter(customer_id=customer_id), limit=MAX_LIMIT)
    going_on = [one.id for one in page.data if one.rail == link.rail and one.status != "canceled"]
    names = links.references(tx, link.rail, "subscription", going_on)
    return Payer(link.rail, link.reference, tuple(names[one] for one in going_on if one in names))


async def open_portal(scope: Scope, rails: Rails, pusher: Pusher, payer: Payer, return_url: str) -> Portal:
    """A fresh session, for this payer alone. ``return_url``: where its way back leads, where the rail has one.

    Raises Invalid; NotFound (``rail_not_connected``); RailFailed; Unavailable (``rail_unavailable``).
    """
    if not re.fullmatch(r"https?://[^\s\x00-\x1f<>\"]{1,2000}", return_url):
        raise Invalid.field("return_url", "must be an http or https address")
    connection = await rails.get(scope.tenant, payer.rail)
    mirror, settings = connection.mirror, connection.settings
    request = mirror.portal_request(settings, payer.reference, payer.subscriptions, return_url)
    try:
        return await pusher.ask(scope, connection, request, functools.partial(mirror.read_portal, settings))
    except RailRefused as error:
        raise RailFailed(f"{payer.rail}: {readable(error)}") from error
    except RailUnavailable as error:
        raise Unavailable(f"{payer.rail} did not answer; try again.", code="rail_unavailable") from error
