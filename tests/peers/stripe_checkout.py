"""Checkout sessions, which no stateful peer has: opened, expired, and paid with the world's own objects.

Part of the Stripe peer (stripe_world.py says how it runs). Shapes follow the specification; what the
buyer does on Stripe's page is ``pay`` and ``settle``. Taxes, shipping and 3-D Secure are not played.
"""

from __future__ import annotations

import json
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from seahaven_stripe_world.resources import invoiceitems
from stripe_store import Declined, StripeApiError, call, emit, invalid_request, livemode, now, store, token

_DAY = 24 * 3600
_SHORTEST = 30 * 60
_SMALLEST_CHARGE = 50
_ONCE = "counterfoil_once"


def create(ctx: Any, params: dict[str, Any]) -> dict[str, Any]:
    """``POST /v1/checkout/sessions``."""
    _check(ctx, params)
    mode = params["mode"]
    bought = [(_price(ctx, line), line.get("quantity", 1)) for line in params["line_items"]]
    _check_prices(mode, [price for price, _quantity in bought])
    coupon, promotion = _discount(ctx, params)
    trial = params.get("subscription_data", {}).get("trial_period_days", 0)
    session_id = token(ctx, "cs_live_" if livemode(ctx) else "cs_test_", 58)
    lines = _lines(ctx, bought, coupon, trial)
    total = sum(line["amount_total"] for line in lines)
    subtotal = sum(line["amount_subtotal"] for line in lines)
    currency = bought[0][0]["currency"]
    if mode == "payment" and 0 < total < _SMALLEST_CHARGE:
        raise invalid_request(
            "The Checkout Session's total amount due must add up to at least the smallest charge.",
            code="amount_too_small",
        )
    value = {
        "id": session_id,
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": False},
        "after_expiration": None,
        "allow_promotion_codes": params.get("allow_promotion_codes"),
        "amount_subtotal": subtotal,
        "amount_total": total,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": params.get("billing_address_collection"),
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": now(ctx),
        "currency": currency,
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": {
            "after_submit": None,
            "shipping_address": None,
            "submit": None,
            "terms_of_service_acceptance": None,
        },
        "customer": params.get("customer"),
        "customer_account": None,
        "customer_creation": None if "customer" in params else _creates_customer(params),
        "customer_details": None,
        "customer_email": params.get("customer_email"),
        "discounts": [{"coupon": coupon["id"], "promotion_code": promotion}] if coupon else [],
        "expires_at": params.get("expires_at", now(ctx) + _DAY),
        "invoice": None,
        "invoice_creation": None,
        "livemode": livemode(ctx),
        "locale": params.get("locale"),
        "metadata": params.get("metadata") or {},
        "mode": mode,
        "origin_context": None,
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": "always" if mode == "subscription" else "if_required",
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "payment_status": "unpaid" if total else "no_payment_required",
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": "open",
        "submit_type": None,
        "subscription": None,
        "success_url": params.get("success_url"),
        "total_details": {"amount_discount": subtotal - total, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": f"https://checkout.stripe.com/c/pay/{session_id}",
        "wallet_options": None,
    }
    if params.get("automatic_tax", {}).get("enabled"):
        value["automatic_tax"] = {
            "enabled": True,
            "liability": {"type": "self"},
            "provider": "stripe",
            "status": "requires_location_inputs",
        }
    kept = store(ctx)
    kept.sessions[session_id] = value
    kept.wishes[session_id] = {"params": params, "lines": lines, "coupon": coupon, "intent": None}
    return value


def _creates_customer(params: dict[str, Any]) -> str:
    return "always" if params["mode"] == "subscription" else params.get("customer_creation", "if_required")


def _check(ctx: Any, params: dict[str, Any]) -> None:
    if params.get("mode") not in {"payment", "subscription"}:
        raise invalid_request("This peer has sessions of the modes payment and subscription.", param="mode")
    if not params.get("line_items"):
        raise invalid_request("You must pass `line_items`.", param="line_items")
    if "success_url" not in params:
        raise invalid_request("Missing required param: success_url.", code="parameter_missing", param="success_url")
    for first, second in (("customer", "customer_email"), ("discounts", "allow_promotion_codes")):
        if params.get(first) and params.get(second):
            raise invalid_request(f"You may only specify one of these parameters: {first}, {second}.")
    for other, mode in (("payment_intent_data", "subscription"), ("subscription_data", "payment")):
        if other in params and params["mode"] == mode:
            raise invalid_request(f"You can not pass `{other}` in `{mode}` mode.", param=other)
    if "customer" in params:
        call(ctx, "GET", f"/v1/customers/{params['customer']}")
    if not _SHORTEST <= params.get("expires_at", now(ctx) + _DAY) - now(ctx) <= _DAY:
        raise invalid_request(
            "The `expires_at` timestamp must be from 30 minutes to 24 hours after Checkout Session creation.",
            param="expires_at",
        )


def _price(ctx: Any, line: dict[str, Any]) -> dict[str, Any]:
    """The price of a line: the world's, or one made of ``price_data``, which nobody can use again."""
    if ("price" in line) == ("price_data" in line):
        raise invalid_request("Each line item needs one of `price` and `price_data`.", param="line_items")
    if line.get("quantity", 1) < 1:
        raise invalid_request("Invalid integer: quantity must be at least 1.", param="line_items")
    if "price" in line:
        price = call(ctx, "GET", f"/v1/prices/{line['price']}", {"expand": ["product"]})
        if not price["active"]:
            raise invalid_request(
                f"The price specified is inactive: {price['id']}. This field only accepts active prices.",
                param="line_items[0][price]",
            )
        return price
    data = dict(line["price_data"])
    product_id = data.pop("product", None)
    named = data.pop("product_data", None)
    if (product_id is None) == (named is None):
        raise invalid_request("`price_data` needs one of `product` and `product_data`.", param="line_items")
    if named is not None:
        product_id = call(ctx, "POST", "/v1/products", named)["id"]
    price_id = call(ctx, "POST", "/v1/prices", {**data, "product": product_id})["id"]
    price = call(ctx, "GET", f"/v1/prices/{price_id}", {"expand": ["product"]})
    ctx.db.execute("UPDATE prices SET active = 0 WHERE id = ?", price_id)
    if named is not None:
        ctx.db.execute("UPDATE products SET active = 0 WHERE id = ?", product_id)
    return {**price, "active": False}


def _check_prices(mode: str, prices: list[dict[str, Any]]) -> None:
    recurs = [price["recurring"] is not None for price in prices]
    if mode == "payment" and any(recurs):
        raise invalid_request(
            "You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode or "
            "use only one-time prices.",
            param="mode",
        )
    if mode == "subscription" and not any(recurs):
        raise invalid_request("You must provide at least one recurring price in `subscription` mode.", param="mode")
    if len({price["currency"] for price in prices}) > 1:
        raise invalid_request("All line items must have the same currency.", param="line_items")
    if any(price["unit_amount"] is None for price in prices):
        raise invalid_request("This peer takes prices with a `unit_amount` only.", param="line_items")


def _discount(ctx: Any, params: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    discounts = params.get("discounts") or []
    if not discounts:
        return None, None
    if len(discounts) > 1 or len(discounts[0]) != 1:
        raise invalid_request("You may only specify one discount.", param="discounts")
    promotion_id = discounts[0].get("promotion_code")
    coupon_id = discounts[0].get("coupon")
    if promotion_id is not None:
        promotion = call(ctx, "GET", f"/v1/promotion_codes/{promotion_id}", {"expand": ["promotion.coupon"]})
        if not promotion["active"]:
            raise invalid_request(f"This promotion code is not active: {promotion_id}", param="discounts")
        coupon_id = promotion["promotion"]["coupon"]["id"]
    coupon = call(ctx, "GET", f"/v1/coupons/{coupon_id}", {"expand": ["applies_to"]})
    if not coupon["valid"]:
        raise invalid_request(f"Coupon {coupon_id} is not valid.", code="coupon_expired", param="discounts")
    return coupon, promotion_id


def _lines(
    ctx: Any, bought: list[tuple[dict[str, Any], int]], coupon: dict[str, Any] | None, trial: int
) -> list[dict[str, Any]]:
    lines = []
    for price, quantity in bought:
        free = bool(trial) and price["recurring"] is not None
        amount = 0 if free else price["unit_amount"] * quantity
        line = {
            "id": token(ctx, "li_"),
            "object": "item",
            "adjustable_quantity": None,
            "amount_discount": 0,
            "amount_subtotal": amount,
            "amount_tax": 0,
            "amount_total": amount,
            "currency": price["currency"],
            "description": price["product"]["name"],
            "metadata": {},
            "price": {**price, "product": price["product"]["id"]},
            "quantity": quantity,
        }
        lines.append(line)
    if coupon is not None:
        _reduce(lines, coupon)
    return lines


def _reduce(lines: list[dict[str, Any]], coupon: dict[str, Any]) -> None:
    """Take the coupon off the lines it is for, each in proportion; the last one bears the rounding."""
    only = (coupon.get("applies_to") or {}).get("products")
    chosen = [line for line in lines if only is None or line["price"]["product"] in only]
    whole = sum(line["amount_subtotal"] for line in chosen)
    if coupon["percent_off"] is not None:
        exact = Decimal(whole) * Decimal(str(coupon["percent_off"])) / 100
        left = int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))
    else:
        left = min(coupon["amount_off"], whole)
    for line in chosen:
        part = left if whole <= line["amount_subtotal"] else left * line["amount_subtotal"] // whole
        whole -= line["amount_subtotal"]
        left -= part
        line["amount_discount"] = part
        line["amount_total"] -= part


def expire(ctx: Any, session: dict[str, Any]) -> dict[str, Any]:
    """``POST /v1/checkout/sessions/{id}/expire``, and what time does."""
    if session["status"] != "open":
        raise invalid_request(
            'Only Checkout Sessions with a status in ["open"] can be expired. '
            f"This Checkout Session has a status of {session['status']}.",
        )
    value = {**session, "status": "expired", "url": None}
    _keep(ctx, value, "checkout.session.expired")
    return value


def _keep(ctx: Any, value: dict[str, Any], event: str) -> None:
    emit(ctx, event, value)
    store(ctx).sessions[value["id"]] = value


def pay(ctx: Any, session: dict[str, Any], buyer: dict[str, Any]) -> dict[str, Any]:
    """The buyer pays on Stripe's page; ``error`` in the answer says that the card was refused.

    ``card``, ``email``, ``name``, ``country``; ``later`` = the bank decides afterwards (``settle``).
    """
    if session["status"] != "open":
        raise invalid_request(f"The session is {session['status']}: there is nothing to pay.")
    buyer = {"card": "4242424242424242", "name": "Ada Buyer", "country": "DE", "later": False, **buyer}
    buyer.setdefault("email", session["customer_email"] or "buyer@example.com")
    try:
        # What the world refuses leaves nothing behind; a declined charge does, with its payment intent.
        with ctx.db.transaction():
            paid = _pay_once(ctx, session, buyer) if session["mode"] == "payment" else _subscribe(ctx, session, buyer)
    except StripeApiError as error:
        if error.status != 402:
            raise
        return {"session": session, "error": error.envelope()["error"]}
    if "error" in paid:
        return {"session": session, "error": paid["error"]}
    details = {
        "address": {
            "city": None,
            "country": buyer["country"],
            "line1": None,
            "line2": None,
            "postal_code": None,
            "state": None,
        },
        "business_name": None,
        "email": buyer["email"],
        "individual_name": None,
        "name": buyer["name"],
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [],
    }
    value = {**session, **paid, "customer_details": details, "status": "complete", "url": None}
    if value["automatic_tax"]["enabled"]:
        value["automatic_tax"] = {**value["automatic_tax"], "status": "complete"}
    _keep(ctx, value, "checkout.session.completed")
    return {"session": value}


def settle(ctx: Any, session: dict[str, Any], *, paid: bool) -> dict[str, Any]:
    """The bank's decision on a session that was completed with ``later``."""
    wish = store(ctx).wishes[session["id"]]
    if session["payment_status"] != "unpaid" or session["status"] != "complete":
        raise invalid_request("The session waits for no bank.")
    ctx.db.execute("UPDATE payment_intents SET status = 'requires_confirmation' WHERE id = ?", wish["intent"])
    method = _method(ctx, {**wish["buyer"], "card": wish["buyer"]["card"] if paid else "4000000000009995"})
    refused = _confirm(ctx, wish["intent"], method)
    if refused is None:
        value = {**session, "payment_status": "paid"}
        _keep(ctx, value, "checkout.session.async_payment_succeeded")
        return value
    _keep(ctx, session, "checkout.session.async_payment_failed")
    return session


def payment_method(ctx: Any, card: str, **details: Any) -> str:
    """A card, by one of Stripe's test numbers."""
    values = {"number": card, "exp_month": 12, "exp_year": 2040, "cvc": "123"}
    wanted = {"type": "card", "card": values, "billing_details": details}
    return str(call(ctx, "POST", "/v1/payment_methods", wanted)["id"])


def _method(ctx: Any, buyer: dict[str, Any]) -> str:
    address = {"country": buyer["country"]}
    return payment_method(ctx, buyer["card"], email=buyer["email"], name=buyer["name"], address=address)


def _customer(ctx: Any, session: dict[str, Any], buyer: dict[str, Any]) -> str:
    if session["customer"] is not None:
        return str(session["customer"])
    wanted = {"email": buyer["email"], "name": buyer["name"], "address": {"country": buyer["country"]}}
    return str(call(ctx, "POST", "/v1/customers", wanted)["id"])


def _pay_once(ctx: Any, session: dict[str, Any], buyer: dict[str, Any]) -> dict[str, Any]:
    wish = store(ctx).wishes[session["id"]]
    customer = session["customer"]
    if session["customer_creation"] == "always":
        customer = _customer(ctx, session, buyer)
    _redeem(ctx, wish["coupon"])
    if session["amount_total"] == 0:
        return {"customer": customer}
    data = wish["params"].get("payment_intent_data", {})
    wanted = {name: data[name] for name in ("metadata", "description", "receipt_email") if name in data}
    wanted |= {"amount": session["amount_total"], "currency": session["currency"]}
    if customer is not None:
        wanted["customer"] = customer
    intent = wish["intent"]
    if intent is None or ctx.db.one("SELECT id FROM payment_intents WHERE id = ?", intent) is None:
        intent = wish["intent"] = str(call(ctx, "POST", "/v1/payment_intents", wanted)["id"])
    if buyer["later"]:
        wish["buyer"] = buyer
        ctx.db.execute("UPDATE payment_intents SET status = 'processing' WHERE id = ?", intent)
        emit(ctx, "payment_intent.processing", call(ctx, "GET", f"/v1/payment_intents/{intent}"))
        return {"customer": customer, "payment_intent": intent, "payment_status": "unpaid"}
    refused = _confirm(ctx, intent, _method(ctx, buyer))
    if refused is not None:
        return {"error": refused}
    return {"customer": customer, "payment_intent": intent, "payment_status": "paid"}


def _confirm(ctx: Any, intent: str, method: str) -> dict[str, Any] | None:
    """None, or why the card was refused."""
    try:
        call(ctx, "POST", f"/v1/payment_intents/{intent}/confirm", {"payment_method": method})
    except Declined as declined:
        return declined.body["error"]  # type: ignore[no-any-return]
    return None


def _redeem(ctx: Any, coupon: dict[str, Any] | None) -> None:
    if coupon is not None:
        ctx.db.execute("UPDATE coupons SET times_redeemed = times_redeemed + 1 WHERE id = ?", coupon["id"])


def _bill_once(ctx: Any, customer: str, price: dict[str, Any], quantity: int, description: str) -> None:
    """A one-time line of a subscription's first invoice."""
    once = {"customer": customer, "currency": price["currency"], "description": description}
    ctx.state[_ONCE] = price
    try:
        call(ctx, "POST", "/v1/invoiceitems", {**once, "amount": price["unit_amount"], "quantity": quantity})
    finally:
        ctx.state[_ONCE] = None


def _pricing(ctx: Any, **wanted: Any) -> str:
    """The world makes a price and a product for each item; a session's line has its own."""
    price = ctx.state.get(_ONCE)
    if price is None:
        return _make_pricing(ctx, **wanted)  # type: ignore[no-any-return]
    named = {"price": price["id"], "product": price["product"]}
    return json.dumps(
        {"type": "price_details", "price_details": named, "unit_amount_decimal": str(price["unit_amount"])}
    )


_make_pricing = invoiceitems._pricing_body
invoiceitems._pricing_body = _pricing


def _subscribe(ctx: Any, session: dict[str, Any], buyer: dict[str, Any]) -> dict[str, Any]:
    wish = store(ctx).wishes[session["id"]]
    data = wish["params"].get("subscription_data", {})
    customer, method = _customer(ctx, session, buyer), _method(ctx, buyer)
    call(ctx, "POST", f"/v1/payment_methods/{method}/attach", {"customer": customer})
    items = []
    for line in wish["lines"]:
        price, quantity = line["price"], line["quantity"]
        if price["recurring"] is None:
            _bill_once(ctx, customer, price, quantity, line["description"])
        else:
            items.append({"price": price["id"], "quantity": quantity})
    wanted: dict[str, Any] = {
        "customer": customer,
        "items": items,
        "default_payment_method": method,
        "payment_behavior": "error_if_incomplete",
        "metadata": data.get("metadata", {}),
    }
    wanted |= {name: data[name] for name in ("description", "trial_period_days", "trial_settings") if name in data}
    if wish["coupon"] is not None:
        wanted["discounts"] = [{"coupon": wish["coupon"]["id"]}]
    subscription = call(ctx, "POST", "/v1/subscriptions", wanted)
    invoice = call(ctx, "GET", f"/v1/invoices/{subscription['latest_invoice']}")
    return {
        "amount_subtotal": invoice["subtotal"],
        "amount_total": invoice["total"],
        "customer": customer,
        "invoice": invoice["id"],
        "payment_status": "paid" if invoice["total"] else "no_payment_required",
        "subscription": subscription["id"],
    }
