"""Something to sell at the Stripe stand-in, by Stripe's own client: import what you need, explicitly."""

from __future__ import annotations

from typing import Any

from tests.peers import stripe_schema
from tests.peers.stripe_peers import StripePeer

DONE = "https://shop.example/done"
REFUSED_LATER = "4000000000000341"
"""A card that can be attached, and that no charge goes through with."""
LINE = {"price_data": {"currency": "eur", "unit_amount": 900, "product_data": {"name": "A"}}, "quantity": 1}


def catalog(client: Any) -> tuple[str, str, str]:
    """A product with our id, sold once for 15.00 and monthly for 9.00: the ids of the product and its prices."""
    product = client.products.create({"id": "prd_1", "name": "Editor"}).id
    once = client.prices.create({"product": product, "currency": "eur", "unit_amount": 1500})
    monthly = client.prices.create(
        {"product": product, "currency": "eur", "unit_amount": 900, "recurring": {"interval": "month"}}
    )
    return product, once.id, monthly.id


def open_session(client: Any, mode: str, *lines: dict[str, Any], **more: Any) -> Any:
    """A checkout session."""
    wanted = {"mode": mode, "success_url": DONE, "line_items": lines, "metadata": {"checkout_id": "chk_1"}, **more}
    return client.checkout.sessions.create(wanted)


def subscribe(peer: StripePeer, client: Any, **more: Any) -> dict[str, Any]:
    """A paid subscription of the monthly price: its session."""
    _product, _once, monthly = catalog(client)
    return peer.pay(open_session(client, "subscription", {"price": monthly, "quantity": 1}, **more).id)


def pay_once(peer: StripePeer, client: Any) -> str:
    """15.00 paid: the payment intent's id."""
    _product, once, _monthly = catalog(client)
    return str(peer.pay(open_session(client, "payment", {"price": once, "quantity": 1}).id)["payment_intent"])


def kinds(peer: StripePeer, since: int = 0) -> list[str]:
    """The types of the events after the first ``since`` ones."""
    return [event["type"] for event in peer.events(since)]


def plain(answer: Any) -> dict[str, Any]:
    """What came over the wire, of an answer of Stripe's client."""
    return answer.last_response.data  # type: ignore[no-any-return]


def assert_shaped(name: str, value: dict[str, Any]) -> None:
    """It is as the specification says."""
    assert stripe_schema.faults(name, value) == []
