"""The page a buyer comes back to: how the payment stands, and the license key once it has settled."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from litestar import Response, get
from litestar.params import FromPath

from counterfoil.catalog import products
from counterfoil.catalog.types import Product
from counterfoil.db.tx import Tx
from counterfoil.house import House
from counterfoil.http.access import Asker, house_of, public_scope
from counterfoil.http.buying import Purchase, keys_of, read_purchase
from counterfoil.http.problems import route
from counterfoil.kernel.money import Money, show
from counterfoil.licensing.types import License
from counterfoil.sales import payments, quotes
from counterfoil.sales.types import CartLine, Checkout, Payment
from counterfoil.web import words
from counterfoil.web.render import NOT_INDEXED, NOT_STORED, page

CLAIM_COOKIE = "cf_claim_"
_WAITS = (2, 2, 3, 3, 5, 5, 8, 10, 15, 20, 30)
"""Seconds until the page looks again, the first time, the second, ...; then every minute."""


def claim_cookie_name(checkout_id: str) -> str:
    """The cookie that holds the claim on a checkout."""
    return CLAIM_COOKIE + checkout_id.partition("_")[2]


class Receipt(msgspec.Struct, frozen=True):
    """A purchase with everything its page tells."""

    purchase: Purchase
    product: Product
    lines: list[CartLine]
    payments: list[Payment]


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """How a checkout stands, in plain words."""

    title: str
    text: list[str]
    good: bool = False
    waiting: bool = False
    """Whether it may change by itself soon, so that looking again makes sense."""
    pay_url: str | None = None
    pay_label: str = ""
    again: bool = False
    """Whether the buyer may want to start over."""


def read_receipt(tx: Tx, checkout_id: str) -> Receipt:
    """Everything about one checkout. Raises NotFound."""
    purchase = read_purchase(tx, checkout_id)
    lines = quotes.lines_of(tx, purchase.checkout.cart_id)
    product = products.get(tx, lines[0].product_id)
    return Receipt(purchase, product, lines, payments.of_checkout(tx, checkout_id))


def tell(receipt: Receipt, keys: int, key_until: datetime | None) -> Story:
    """The story of a checkout that shows this many keys, for whoever paid it."""
    checkout = receipt.purchase.checkout
    foreign = [Money(one.amount, one.asset) for one in receipt.payments if one.asset != checkout.asset]
    match checkout.status:
        case "settled":
            story = _settled(receipt, keys, key_until)
        case "processing" if checkout.rail_final:
            story = _for_the_seller(checkout)
        case "open" | "processing" if foreign or 0 < checkout.paid < checkout.amount:
            story = _short(checkout, foreign)
        case "processing":
            story = _CONFIRMING
        case "open":
            story = _open(checkout)
        case "expired":
            story = _expired(checkout, foreign)
        case "canceled":
            story = _canceled(checkout, foreign)
        case "failed":
            story = _FAILED
    if any(benefit["kind"] == "license" for line in receipt.lines for benefit in line.benefits):
        return story
    return msgspec.structs.replace(story, text=[_without_key(sentence) for sentence in story.text])


def _without_key(sentence: str) -> str:
    """What a buyer reads of a purchase that gives no license."""
    return sentence.replace("shows your license key", "says so").replace(", and there is no license key for it", "")


_CONFIRMING = Story(
    title="Your payment is being confirmed",
    text=["It has been seen and is on its way. This page shows your license key once it is final."],
    waiting=True,
)
_FAILED = Story(
    title="The payment did not go through",
    text=[
        "This purchase was not completed, and there is no license key for it.",
        "If money has left your account all the same, tell the seller the reference below.",
    ],
    again=True,
)


def _open(checkout: Checkout) -> Story:
    return Story(
        title="Waiting for your payment",
        text=[
            "As soon as it arrives, this page shows your license key.",
            f"The price holds until {words.minute(checkout.expires_at)}.",
        ],
        waiting=True,
        pay_url=checkout.url or None,
        pay_label="Go to the payment page",
    )


def _for_the_seller(checkout: Checkout) -> Story:
    return Story(
        title="The seller is looking at your payment",
        text=[
            f"Your payment has arrived, but this purchase could not be completed by itself. {_so_far(checkout)}",
            "The seller sees it and decides. Once they accept it, this page shows your license key.",
        ],
    )


def _settled(receipt: Receipt, keys: int, key_until: datetime | None) -> Story:
    checkout, licenses = receipt.purchase.checkout, receipt.purchase.licenses
    text = []
    if keys:
        text.append(f"Your payment has arrived. {'Here is your license key.' if keys == 1 else 'Here are your keys.'}")
        if not checkout.amount:
            text = ["Here is your license key." if keys == 1 else "Here are your license keys."]
    elif any(one.status == "active" for one in licenses):
        until = words.day(key_until) if key_until else "a while ago"
        text.append(f"Your license is valid. Its key was shown here until {until}; ask the seller for it.")
    elif licenses:
        text.append("This purchase is complete, but its license is not active now. Ask the seller about it.")
    else:
        text.append("Your payment has arrived and your purchase is complete.")
    if checkout.paid > checkout.amount:
        extra = show(Money(checkout.paid - checkout.amount, checkout.asset))
        text.append(f"You paid {extra} more than it costs. The seller sees that; ask them about the difference.")
    return Story(title="Thank you", text=text, good=True)


def _short(checkout: Checkout, foreign: list[Money]) -> Story:
    text = []
    if foreign:
        came = ", ".join(show(one) for one in foreign)
        asked = show(Money(checkout.amount, checkout.asset))
        text.append(f"{came} arrived, but {asked} was asked for. Another currency does not count toward it by itself.")
        text.append("The seller sees your payment. Ask them about it before you pay again.")
    if checkout.paid:
        text.append(_so_far(checkout))
        text.append(f"Pay the rest by {words.minute(checkout.expires_at)}, and this page shows your license key.")
    return Story(
        title="Your payment does not match" if foreign else "Part of your payment is missing",
        text=text,
        waiting=True,
        pay_url=checkout.url or None,
        pay_label="Pay the rest" if checkout.paid else "Go to the payment page",
    )


def _expired(checkout: Checkout, foreign: list[Money]) -> Story:
    if checkout.paid or foreign:
        came = _so_far(checkout) if checkout.paid else "A payment in another currency has arrived."
        return Story(
            title="Time ran out before it was paid in full",
            text=[f"{came} The seller sees your payment; ask them what happens to it."],
        )
    return Story(
        title="This checkout has expired",
        text=[
            "No payment arrived in time, and there is no license key for it.",
            "Have you paid? Money that arrives late still counts: look here again in a few minutes.",
        ],
        again=True,
    )


def _canceled(checkout: Checkout, foreign: list[Money]) -> Story:
    if checkout.paid or foreign:
        came = _so_far(checkout) if checkout.paid else "A payment in another currency has arrived."
        return Story(
            title="This checkout was canceled",
            text=[f"{came} The seller sees your payment; ask them what happens to it."],
        )
    return Story(title="This checkout was canceled", text=["Nothing was charged."], again=True)


def _so_far(checkout: Checkout) -> str:
    paid, amount = Money(checkout.paid, checkout.asset), Money(checkout.amount, checkout.asset)
    if checkout.paid >= checkout.amount:
        return f"We received {show(paid)}."
    return f"We received {show(paid)} of {show(amount)}; still missing: {show(amount - paid)}."


@get("/thanks/{checkout_id:str}", include_in_schema=False, **route("public", 404))
async def thanks(request: Asker, checkout_id: FromPath[str]) -> Response[str]:
    """How a purchase stands, for the browser that holds its claim. Everybody else learns nothing."""
    scope = await public_scope(request)
    house = house_of(request)
    headers = {**NOT_STORED, **NOT_INDEXED}
    claim = request.cookies.get(claim_cookie_name(checkout_id), "")
    if not claim or house.claims.read(scope.tenant, claim) != checkout_id:
        return await page(request, "thanks_stranger.html", headers=headers)
    receipt = await scope.read(read_receipt, checkout_id)
    checkout = receipt.purchase.checkout
    keys = await keys_of(house, scope.tenant, receipt.purchase)
    until = _key_until(house, checkout)
    story = tell(receipt, len(keys), until)
    return await page(
        request,
        "thanks.html",
        headers=headers,
        story=story,
        refresh=_refresh(request) if story.waiting else None,
        checkout=checkout,
        order=receipt.purchase.order,
        total=words.amount(Money(checkout.amount, checkout.asset)),
        lines=receipt.lines,
        product=receipt.product,
        ships_to=_ships_to(checkout.shipping),
        licenses=_shown(receipt, keys),
        until=words.day(until) if until else "",
    )


def _key_until(house: House, checkout: Checkout) -> datetime | None:
    return checkout.settled_at + house.settings.claim_lasts if checkout.settled_at else None


def _refresh(request: Asker) -> dict[str, int]:
    given = request.query_params.get("n", "")
    seen = int(given) if given.isascii() and given.isdecimal() and len(given) < 4 else 0
    return {"seconds": _WAITS[seen] if seen < len(_WAITS) else 60, "next": min(seen + 1, 999)}


def _shown(receipt: Receipt, keys: list[str]) -> list[dict[str, Any]]:
    active = [one for one in receipt.purchase.licenses if one.status == "active"]
    names = {line.position: line.name for line in receipt.lines}
    return [
        {"key": key, "name": names.get(license_.line or 0, receipt.product.name), "promises": _terms(license_)}
        for key, license_ in zip(keys, active, strict=False)
    ]


def _ships_to(address: dict[str, Any] | None) -> list[str]:
    """An address as it is written on a parcel."""
    if address is None:
        return []
    town = f"{address['postal_code']} {address['city']}".strip()
    lines = [address["name"], address["line1"], address["line2"], town, address["region"], address["country"]]
    return [line for line in lines if line]


def _terms(license_: License) -> list[str]:
    ends = f"Valid until {words.day(license_.expires_at)}" if license_.expires_at else "Never expires"
    return [words.machines(license_.max_machines), ends, *license_.entitlements]
