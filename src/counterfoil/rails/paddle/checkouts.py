"""Checkouts on Paddle: each is a transaction, which Paddle's checkout collects.

Source: Paddle's OpenAPI specification of 2025-05-27, operations ``create-transaction``, ``list-transactions`` and
``get-transaction``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from counterfoil.kernel.ids import made_at
from counterfoil.rails.base import (
    CheckoutIntent,
    CheckoutReport,
    HttpRequest,
    HttpResponse,
    LineIntent,
    OpenedCheckout,
    RailRefused,
    RailUnavailable,
)
from counterfoil.rails.mirror import MoreToAsk
from counterfoil.rails.paddle.settings import PaddleSettings
from counterfoil.rails.paddle.transactions import Reading
from counterfoil.rails.paddle.wire import CHECKOUT_ID, OUR_ID, Json, answered_at, call, read, read_page, write_moment

CURRENCIES: Final = frozenset(
    {
        "USD", "EUR", "GBP", "JPY", "AUD", "CAD", "CHF", "HKD", "SGD", "SEK", "ARS", "BRL", "CNY", "COP", "CZK", "DKK",
        "HUF", "ILS", "INR", "KRW", "MXN", "NOK", "NZD", "PLN", "RUB", "THB", "TRY", "TWD", "UAH", "VND", "ZAR",
    }  # schema currency_code
)  # fmt: skip
TAX_CATEGORIES: Final = frozenset(
    {
        "digital-goods",
        "ebooks",
        "implementation-services",
        "professional-services",
        "saas",
        "software-programming-services",
        "standard",
        "training-services",
        "website-hosting",
    }
)
MOST_QUANTITY: Final = 999_999_999
_MOST_LINES: Final = 100
_DEFAULT_QUANTITY: Final = 100
_LONGEST_NAME: Final = 150
_LONGEST_PRODUCT_NAME: Final = 200
_LONGEST_DESCRIPTION: Final = 500
_PAGE: Final = "30"
_SKEW: Final = timedelta(minutes=10)
"""By how much our clock may be ahead of Paddle's."""

# Where money is, or may yet come, first.
_PREFERENCE: Final = ("completed", "paid", "billed", "past_due", "ready", "draft", "canceled")


def tax_mode(settings: PaddleSettings, mode: str) -> str:
    """A price's tax mode as we send it: always one of the two that do not depend on the account."""
    return mode if mode in {"internal", "external"} else settings.tax_mode


def tax_category(category: str) -> str:
    """A product's tax category as Paddle knows it; ``standard`` for those that it does not."""
    return category if category in TAX_CATEGORIES else "standard"


def cut(text: str, most: int) -> str:
    """A text that is for reading only, cut where Paddle takes no more."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def price_description(*texts: str) -> str:
    """The first that says something, as a price's internal description: 2 to 500 characters."""
    text = next((text for text in texts if text.strip()), "Price")
    return cut(text if len(text) >= 2 else f"{text} -", _LONGEST_DESCRIPTION)


class Checkouts:
    """The part of the rail about checkouts."""

    name: str

    def assets(self, settings: PaddleSettings) -> frozenset[str] | None:
        """The currencies that Paddle charges in."""
        return CURRENCIES

    def open_request(self, settings: PaddleSettings, intent: CheckoutIntent) -> HttpRequest:
        """``POST /transactions``, with our checkout's id in its ``custom_data``.

        A line at its full price names the copy of its price; any other is charged at what it costs here, as a price
        of its own, so that no rounding of Paddle's can differ from ours. So is one whose price depends on the country:
        Paddle would go by the buyer's, which may not be the one that the price was made for. Where Paddle is told of
        a discount (``discount_reference``), it takes it off all lines that it is for, so all are sent at their full
        prices.

        ``return_url`` and ``email`` have no place in it: what becomes of the browser is told to Paddle's checkout by
        the page that opens it.

        Raises RailRefused for what a transaction cannot say.
        """
        _check(intent)
        lines = [_item(settings, intent, line) for line in intent.lines]
        body: Json = {
            "items": lines or [_lump(settings, intent)],
            "currency_code": intent.amount.asset,
            "collection_mode": "automatic",
            "custom_data": {CHECKOUT_ID: intent.checkout_id, "amount": intent.amount.amount},
        }
        if settings.checkout_url is not None:
            body["checkout"] = {"url": settings.checkout_url}
        return call(settings, "POST", "transactions", body=body | _references(intent))

    def read_opened(self, settings: PaddleSettings, response: HttpResponse) -> OpenedCheckout:
        """The transaction. Raises RailRefused, RailBusy; RailUnavailable when it may or may not have been made."""
        return _opened(settings, Reading(settings, read(response)))

    def find_request(self, settings: PaddleSettings, checkout_id: str, after: str | None = None) -> HttpRequest:
        """``GET /transactions``, oldest first, from the time on at which our checkout was made (its id tells).

        Paddle has no idempotency keys and does not search ``custom_data``, so we look ourselves. ``after``: the
        last transaction of the page before.
        """
        try:
            made = made_at(checkout_id)
        except ValueError as error:
            raise RailRefused(f"{checkout_id!r} is not the id of a checkout") from error
        query = [
            ("created_at[GTE]", write_moment(made - _SKEW)),
            ("status", ",".join(reversed(_PREFERENCE))),
            ("order_by", "id[ASC]"),
            ("per_page", _PAGE),
        ]
        return call(settings, "GET", "transactions", query=query + ([("after", after)] if after else []))

    def read_found(
        self, settings: PaddleSettings, response: HttpResponse, checkout_id: str | None = None
    ) -> OpenedCheckout | None:
        """Our checkout's transaction; of several on the page the one with money on it, then the newest.

        Raises MoreToAsk when it is not on this page and there is another; RailUnavailable without ``checkout_id``,
        for then nothing can be told.
        """
        page, after = read_page(response)
        if checkout_id is None:
            raise RailUnavailable("Paddle's list cannot be searched without the checkout's id")
        readings = [Reading(settings, data) for data in page]
        ours = [reading for reading in readings if reading.checkout_id == checkout_id]
        if ours:
            ours.sort(key=lambda found: found.entity.id, reverse=True)
            return _opened(settings, min(ours, key=_preference))
        if after is not None:
            more = self.find_request(settings, checkout_id, after)
            raise MoreToAsk("the transaction may be on the next page of Paddle's list", more)
        return None

    def report_requests(self, settings: PaddleSettings, reference: str) -> tuple[HttpRequest, ...]:
        """``GET /transactions/{id}``."""
        return (call(settings, "GET", "transactions", reference),)

    def read_report(self, settings: PaddleSettings, responses: tuple[HttpResponse, ...]) -> CheckoutReport:
        """What the transaction says. Raises RailRefused where Paddle knows none; RailBusy, RailUnavailable."""
        if len(responses) != 1:
            raise RailUnavailable("a report needs the one answer")
        return Reading(settings, read(responses[0])).report(self.name, answered_at(responses[0]))


def _opened(settings: PaddleSettings, reading: Reading) -> OpenedCheckout:
    entity = reading.entity
    url = entity.checkout.url if entity.checkout is not None else None
    if not url and entity.is_paid:
        url = settings.checkout_url
    if not url:
        raise RailRefused("Paddle gives no page to pay on: set a default payment link in its checkout settings")
    if not url.startswith(("https://", "http://")):  # it becomes a redirect of the buyer's browser
        raise RailUnavailable("Paddle gives an address to pay at that is none")
    return OpenedCheckout(reference=entity.id, url=url)


def _preference(reading: Reading) -> int:
    status = reading.entity.status
    return _PREFERENCE.index(status) if status in _PREFERENCE else len(_PREFERENCE)


def _check(intent: CheckoutIntent) -> None:
    """Raises RailRefused for a checkout that Paddle cannot collect as it is."""
    if intent.amount.asset not in CURRENCIES:
        raise RailRefused(f"Paddle does not charge in {intent.amount.asset}")
    if intent.amount.amount <= 0 and not intent.is_subscription:
        raise RailRefused("Paddle takes amounts above zero only, except where a subscription starts")
    if len(intent.lines) > _MOST_LINES:
        raise RailRefused(f"Paddle takes at most {_MOST_LINES} lines at once")
    now = sum(0 if line.trial_days else line.total for line in intent.lines)
    if intent.lines and now != intent.amount.amount:
        raise RailRefused("the lines do not add up to the amount, and Paddle charges by line")


def _references(intent: CheckoutIntent) -> Json:
    """Who buys, and the discount, by Paddle's names. An address or a business needs its customer."""
    found = {"customer_id": intent.customer_reference, "discount_id": intent.discount_reference}
    if intent.customer_reference is not None:
        found |= {"address_id": intent.address_reference, "business_id": intent.business_reference}
    return {name: reference for name, reference in found.items() if reference is not None}


def _item(settings: PaddleSettings, intent: CheckoutIntent, line: LineIntent) -> Json:
    full = line.unit_amount * line.quantity
    # What Paddle discounts by itself is sent at its full price, and so is what is tried first.
    total = full if intent.discount_reference is not None or line.trial_days else line.total
    if total == full and line.price_reference is not None and not line.by_country:
        return {"price_id": line.price_reference, "quantity": line.quantity}
    if line.quantity > MOST_QUANTITY:
        raise RailRefused(f"Paddle takes at most {MOST_QUANTITY} of one thing")
    if line.interval is None:
        return _once(settings, intent.amount.asset, line, total)
    if total != full:
        raise RailRefused("a discount on a subscription needs its copy at Paddle, or it would be given for ever")
    return {
        "quantity": line.quantity,
        "price": _price(settings, intent.amount.asset, line, line.name, line.unit_amount)
        | {
            "billing_cycle": {"interval": line.interval, "frequency": line.interval_count or 1},
            "trial_period": {"interval": "day", "frequency": line.trial_days} if line.trial_days else None,
            "quantity": {"minimum": 1, "maximum": max(line.quantity, _DEFAULT_QUANTITY)},
            "custom_data": {OUR_ID: line.price_id},  # the subscription's items tell it
        },
    }


def _once(settings: PaddleSettings, asset: str, line: LineIntent, total: int) -> Json:
    """A line that is paid once, at what it costs. Nobody can change its quantity in Paddle's checkout."""
    quantity, name, unit = line.quantity, line.name, total // line.quantity
    if unit * quantity != total:
        quantity, name, unit = 1, f"{line.name} × {line.quantity}", total  # noqa: RUF001 # a multiplication sign
    price = _price(settings, asset, line, name, unit)
    return {"quantity": quantity, "price": price | {"quantity": {"minimum": quantity, "maximum": quantity}}}


def _price(settings: PaddleSettings, asset: str, line: LineIntent, name: str, unit: int) -> Json:
    product: Json = (
        {"product_id": line.product_reference}
        if line.product_reference is not None
        else {"product": {"name": cut(name, _LONGEST_PRODUCT_NAME), "tax_category": tax_category(line.tax_category)}}
    )
    return {
        "description": price_description(name),
        "name": cut(name, _LONGEST_NAME),
        "billing_cycle": None,
        "trial_period": None,
        "tax_mode": tax_mode(settings, line.tax_mode),
        "unit_price": {"amount": str(unit), "currency_code": asset},
        **product,
    }


def _lump(settings: PaddleSettings, intent: CheckoutIntent) -> Json:
    """The whole amount as one thing, where nobody said what it is for."""
    line = LineIntent(
        price_id="",
        price_reference=None,
        product_reference=None,
        name=intent.description.strip() or "Purchase",
        quantity=1,
        unit_amount=intent.amount.amount,
        total=intent.amount.amount,
    )
    item: dict[str, Any] = _once(settings, intent.amount.asset, line, line.total)
    return item
