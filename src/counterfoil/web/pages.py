"""The pages' routes: the shop, a product and how it is bought, and the files they need."""

from __future__ import annotations

import hashlib
import re
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
from litestar import Response, Router, get, post
from litestar.datastructures import Cookie
from litestar.params import FromPath, FromQuery

from counterfoil.catalog import products, shelf
from counterfoil.catalog.products import Offer
from counterfoil.catalog.types import Price
from counterfoil.db.base import Scope
from counterfoil.exchange import rail_settings
from counterfoil.exchange.rails import RAILS, RENEWING
from counterfoil.house import House
from counterfoil.http.access import Asker, check_rate, house_of, public_scope
from counterfoil.http.buying import NewCheckout, open_for
from counterfoil.http.problems import route
from counterfoil.kernel.errors import CounterfoilError, Invalid, NotFound, RailFailed, TooManyRequests
from counterfoil.kernel.ids import is_id
from counterfoil.kernel.money import Money
from counterfoil.kernel.paging import DEFAULT_LIMIT, decode_cursor
from counterfoil.sales.quotes import WantedLine
from counterfoil.sales.types import Checkout
from counterfoil.settlement import pricing
from counterfoil.settlement.checkout import FREE
from counterfoil.web import shipping, words
from counterfoil.web.forms import is_attempt, new_attempt, read_form
from counterfoil.web.render import error_page, page, proper_address, root_of, see_other, static_response
from counterfoil.web.sandbox import sandbox_page, sandbox_pay
from counterfoil.web.thanks import CLAIM_COOKIE, claim_cookie_name, thanks

PAGE: dict[str, Any] = {"include_in_schema": False, **route("public", 404)}
"""What every page declares."""

_RAIL_NAMES = {
    "sandbox": "Sandbox (no real money)",
    "btcpay": "Bitcoin or Lightning",
    "stripe": "Card (Stripe)",
    "stripe-test": "Card (Stripe, no real money)",
    "paddle": "Card or PayPal (Paddle)",
    "paddle-test": "Card or PayPal (Paddle, no real money)",
}
_MOST_CLAIMS = 40
"""How many purchases a browser remembers: more cookies than that and servers refuse its requests."""

_FIELDS = {
    "code": "code",
    "email": "email",
    "rail": "rail",
    "lines/0/quantity": "quantity",
    "lines/0/price_id": "price",
    **shipping.FIELDS,
}
_FIELD_OF_CODE = {"price_not_found": "price", "rail_not_connected": "rail"}


# -- the shop -----------------------------------------------------------------------------------------


@get("/", **PAGE)
async def index(request: Asker, after: FromQuery[str | None] = None) -> Response[Any]:
    """The products that are for sale."""
    if (home := proper_address(request)) is not None:
        return see_other(home)
    scope = await public_scope(request)
    start = str(decode_cursor(after, (str,))[0]) if after else ""
    shown = await scope.read(shelf.list_, after=start, limit=DEFAULT_LIMIT)
    rows = [
        {
            "slug": product.slug,
            "name": product.name,
            "summary": next(iter(words.paragraphs(product.description)), ""),
            "image": _image(product.image_url),
            "price": words.from_prices(product.prices) if product.prices else "",
        }
        for product in shown.data
    ]
    return await page(
        request, "index.html", headers={"Cache-Control": "no-cache"}, products=rows, next=shown.next, first=not after
    )


def _image(url: str | None) -> str | None:
    # The policy of our pages allows no other pictures, so that a page on https stays on https.
    return url if url is not None and url.startswith("https://") else None


# -- a product ----------------------------------------------------------------------------------------


@get("/p/{slug:str}", **PAGE)
async def product(request: Asker, slug: FromPath[str]) -> Response[Any]:
    """One product, and the form that buys it."""
    if (home := proper_address(request)) is not None:
        return see_other(home)
    scope = await public_scope(request)
    return await _product_page(request, scope, await _offer(scope, slug), {})


@get("/p/{slug:str}/buy", **PAGE)
async def buy_again(request: Asker, slug: FromPath[str]) -> Response[Any]:
    """Where a reload ends up after the form came back with errors: at the product."""
    return see_other(f"{root_of(request)}/p/{quote(slug, safe='')}")


async def _offer(scope: Scope, slug: str) -> Offer:
    """What can be bought now: a price by the month only where a rail takes money again by itself."""
    offer = await scope.read(products.offer, slug)
    if offer.product.status != "active":
        raise NotFound("There is no such product.", code="product_not_found")
    if not RENEWING.isdisjoint(await _rails(scope)):
        return offer
    return msgspec.structs.replace(offer, prices=[price for price in offer.prices if price.type == "one_time"])


async def _product_page(
    request: Asker,
    scope: Scope,
    offer: Offer,
    form: dict[str, str],
    *,
    status: int = 200,
    errors: dict[str, str] | None = None,
) -> Response[str]:
    house = house_of(request)
    rails = await _rails(scope)
    chosen = form.get("price_id") or (offer.prices[0].id if offer.prices else "")
    attempt = form.get("attempt", "")
    cheaper = await scope.read(pricing.reduced, offer.prices, rail=rails[0] if len(rails) == 1 else None)
    return await page(
        request,
        "product.html",
        status=status,
        form_action=await _form_action(house, scope.tenant, rails),
        product=offer.product,
        image=_image(offer.product.image_url),
        paragraphs=words.paragraphs(offer.product.description),
        prices=[_choice(offer, price, cheaper.get(price.id), chosen=chosen) for price in offer.prices],
        rails=[{"rail": rail, "name": _RAIL_NAMES.get(rail, rail.capitalize())} for rail in rails],
        for_sale=bool(offer.prices) and (bool(rails) or any(not price.unit_amount for price in offer.prices)),
        several=any(price.quantity_max > 1 for price in offer.prices),
        least=min((price.quantity_min for price in offer.prices), default=1),
        most=max((price.quantity_max for price in offer.prices), default=1),
        **_shipping(offer, form),
        form={
            "attempt": attempt if is_attempt(attempt) else new_attempt(),
            "rail": form.get("rail") or (rails[0] if rails else ""),
            "quantity": form.get("quantity", ""),
            "email": form.get("email", ""),
            "code": form.get("code", ""),
        },
        errors=errors or {},
    )


def _shipping(offer: Offer, form: dict[str, str]) -> dict[str, Any]:
    """What the page asks about shipping: of every buyer, of those who choose what is shipped, or of nobody."""
    shipped = [shipping.ships(offer.benefits, price.tier) for price in offer.prices]
    if not any(shipped):
        return {"ships": ""}
    typed = {part: form.get(f"ship_{part}", "") for part in shipping.PARTS}
    return {"ships": "all" if all(shipped) else "some", "address": typed, "countries": shipping.countries()}


def _choice(offer: Offer, price: Price, reduced: int | None, *, chosen: str) -> dict[str, Any]:
    full = words.amount(Money(price.unit_amount, price.asset))
    return {
        "id": price.id,
        "name": words.tier_name(price) or offer.product.name,
        "description": price.description,
        "amount": full if reduced is None else words.amount(Money(reduced, price.asset)),
        "before": None if reduced is None else full,
        "period": words.period(price),
        "promises": words.promises(offer.benefits, price),
        "chosen": price.id == chosen,
    }


async def _rails(scope: Scope) -> list[str]:
    """The connected rails, real ones first."""
    rows = await scope.read(rail_settings.list_)
    active = [row.rail for row in rows if row.status == "active" and row.rail in RAILS]
    return sorted(active, key=lambda rail: (RAILS[rail].is_test, rail))


async def _form_action(house: House, tenant: str, rails: list[str]) -> str:
    """Where the buy form may lead.

    Browsers apply ``form-action`` to the redirect that follows a form as well, and that one goes to a
    rail: on any https address (providers let sellers bring their own domains), or without TLS only at
    the address the rail is connected at. The form itself carries nothing that is secret.
    """
    allowed = {_origin(house.settings.base_url)}
    for rail in rails:
        connection = await house.rails.get(tenant, rail)
        allowed.add(_origin(getattr(connection.settings, "base_url", "")))
    return " ".join(["'self'", "https:", *sorted(origin for origin in allowed if origin.startswith("http://"))])


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


# -- buying -------------------------------------------------------------------------------------------


@post("/p/{slug:str}/buy", status_code=303, **PAGE)
async def buy(request: Asker, slug: FromPath[str]) -> Response[Any]:
    """Open a checkout and send the buyer to pay it; what is free goes straight to its key."""
    scope = await public_scope(request)
    check_rate(request, scope.tenant)
    form = await read_form(request)
    house = house_of(request)
    offer = await _offer(scope, slug)
    try:
        wanted = _wanted(offer, form, await _rails(scope))
        checkout = await _open(house, scope, wanted, form.get("attempt", ""))
    except TooManyRequests:
        raise
    except CounterfoilError as error:
        errors = _errors(error)
        status = error.status if "form" in errors else Invalid.status
        return await _product_page(request, scope, offer, form, status=status, errors=errors)
    own = f"{root_of(request)}/thanks/{checkout.id}"
    return see_other(checkout.url or own, _claim_cookies(request, house, scope.tenant, checkout.id))


def _wanted(offer: Offer, form: dict[str, str], rails: list[str]) -> NewCheckout:
    price = next((price for price in offer.prices if price.id == form.get("price_id")), None)
    if price is None:
        raise Invalid.field("lines/0/price_id", "choose what to buy", code="price_not_found")
    quantity = form.get("quantity") or str(price.quantity_min)
    if not re.fullmatch(r"[0-9]{1,9}", quantity):
        raise Invalid.field("lines/0/quantity", "enter a whole number")
    rail = form.get("rail") or (rails[0] if len(rails) == 1 else None)
    return NewCheckout(
        lines=[WantedLine(price_id=price.id, quantity=int(quantity))],
        rail=rail if price.unit_amount or price.type == "recurring" else FREE,
        code=form.get("code") or None,
        email=form.get("email") or None,
        shipping=shipping.address_of(form) if shipping.ships(offer.benefits, price.tier) else None,
    )


async def _open(house: House, scope: Scope, wanted: NewCheckout, attempt: str) -> Checkout:
    if is_attempt(attempt):
        # One form, sent twice with the same choices, is one checkout: it must not use a code up twice.
        choices = hashlib.sha256(msgspec.json.encode(wanted)).hexdigest()[:16]
        checkout = await open_for(house, scope, wanted, f"page-{attempt}-{choices}")
        if checkout.status in {"open", "processing", "settled"}:
            return _payable(checkout)
    return _payable(await open_for(house, scope, wanted, None))


def _payable(checkout: Checkout) -> Checkout:
    """Refuse to send a browser anywhere but to a web address. Raises RailFailed."""
    if checkout.url and not checkout.url.startswith(("https://", "http://")):
        raise RailFailed(f"{checkout.rail} gave no web address to pay at.")
    return checkout


def _errors(error: CounterfoilError) -> dict[str, str]:
    """What to say beside which field; beside ``form`` what belongs to none."""
    found = {
        field: words.field_error(error.code, one.detail)
        for one in error.errors
        if (field := _FIELDS.get(one.pointer.removeprefix("/"))) is not None
    }
    if not found and error.code in _FIELD_OF_CODE:
        found[_FIELD_OF_CODE[error.code]] = words.field_error(error.code, error.detail)
    return found or {"form": words.form_error(error)}


def _claim_cookies(request: Asker, house: House, tenant: str, checkout_id: str) -> list[Cookie]:
    """The cookie that shows this purchase to its buyer, and the end of the oldest ones of too many."""
    secure = house.settings.base_url.startswith("https://")
    claim = Cookie(
        key=claim_cookie_name(checkout_id),
        value=house.claims.make(tenant, checkout_id),
        max_age=int(house.settings.claim_lasts.total_seconds()),
        path="/",
        httponly=True,
        secure=secure,
        samesite="lax",
    )
    held = sorted(
        name
        for name in request.cookies
        if name.startswith(CLAIM_COOKIE) and is_id("chk", "chk_" + name.removeprefix(CLAIM_COOKIE))
    )
    old = [
        Cookie(key=name, value="", max_age=0, path="/", httponly=True, secure=secure, samesite="lax")
        for name in held[: max(0, len(held) + 1 - _MOST_CLAIMS)]
    ]
    return [claim, *old]


# -- files --------------------------------------------------------------------------------------------


@get("/style.css", **PAGE)
async def style(v: FromQuery[str | None] = None) -> Response[bytes]:
    """The style sheet."""
    return static_response("style.css", v)


@get("/app.js", **PAGE)
async def script(v: FromQuery[str | None] = None) -> Response[bytes]:
    """The script, which only adds what pages can do without."""
    return static_response("app.js", v)


@get("/passkeys.js", **PAGE)
async def passkeys_script(v: FromQuery[str | None] = None) -> Response[bytes]:
    """The script that makes and shows passkeys, on the pages that are about them."""
    return static_response("passkeys.js", v)


pages = Router(
    path="/",
    exception_handlers={Exception: error_page},
    route_handlers=[index, product, buy, buy_again, thanks, sandbox_page, sandbox_pay, style, script, passkeys_script],
)
