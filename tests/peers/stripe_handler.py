"""The requests our part of the Stripe peer answers: what the world does not have.

Part of the Stripe peer (stripe_world.py says how it runs). Parameters are read by the specification in
the world's package; answers are checked against it in test_stripe_peers.py.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from datetime import UTC
from email.utils import format_datetime
from importlib.resources import files
from typing import Any

import stripe_amends  # noqa: F401 (it widens the world's part)
import stripe_checkout
import stripe_control
import stripe_forms
import stripe_invoice_payments
from seahaven.http import HttpResponse
from seahaven_stripe_world.dispatch.response import ApiResponse
from seahaven_stripe_world.http_api import handler as theirs
from seahaven_stripe_world.http_api import wire
from seahaven_stripe_world.middleware.idempotency import replay_or_run
from seahaven_stripe_world.middleware.stripe_envelope import mint_request
from stripe_store import Declined, StripeApiError, call, expand, invalid_request, livemode, now, one, page, store, token

_PATHS = json.loads(files("seahaven_stripe_world").joinpath("spec/spec3.json").read_bytes())["paths"]
_WEBHOOKS_AT_MOST = 16


def get_account(ctx: Any, asked: dict[str, Any]) -> dict[str, Any]:
    account = ctx.state["account"]["object"]
    display = {**account["settings"]["dashboard"], "display_name": "A shop"}
    settings = {**account["settings"], "dashboard": display}
    return {**account, "charges_enabled": True, "details_submitted": True, "settings": settings, "metadata": {}}


def create_portal(ctx: Any, asked: dict[str, Any]) -> dict[str, Any]:
    if "customer" not in asked:
        raise invalid_request("You must provide a customer.", param="customer")
    call(ctx, "GET", f"/v1/customers/{asked['customer']}")
    session_id = token(ctx, "bps_")
    return {
        "id": session_id,
        "object": "billing_portal.session",
        "configuration": asked.get("configuration", "bpc_1Default"),
        "created": now(ctx),
        "customer": asked["customer"],
        "customer_account": None,
        "flow": None,
        "livemode": livemode(ctx),
        "locale": asked.get("locale"),
        "on_behalf_of": None,
        "return_url": asked.get("return_url"),
        "url": f"https://billing.stripe.com/p/session/{session_id}",
    }


def create_webhook(ctx: Any, asked: dict[str, Any]) -> dict[str, Any]:
    kept = store(ctx)
    if len(kept.webhooks) >= _WEBHOOKS_AT_MOST:
        raise invalid_request(f"You have reached the maximum of {_WEBHOOKS_AT_MOST} webhook endpoints.")
    _check_url(asked["url"])
    webhook_id, secret = token(ctx, "we_"), token(ctx, "whsec_", 32)
    value = {
        "id": webhook_id,
        "object": "webhook_endpoint",
        "api_version": asked.get("api_version"),
        "application": None,
        "created": now(ctx),
        "description": asked.get("description") or None,
        "enabled_events": asked["enabled_events"],
        "livemode": livemode(ctx),
        "metadata": asked.get("metadata") or {},
        "status": "enabled",
        "url": asked["url"],
    }
    kept.webhooks[webhook_id] = value
    kept.secrets[webhook_id] = secret
    return {**value, "secret": secret}


def _check_url(url: str) -> None:
    if not re.match(r"https?://.", url):
        raise invalid_request("Invalid URL: An explicit scheme (such as https) must be provided.", param="url")


def list_webhooks(ctx: Any, asked: dict[str, Any]) -> dict[str, Any]:
    return page(list(store(ctx).webhooks.values()), asked, "/v1/webhook_endpoints", "webhook_endpoint")


def get_webhook(ctx: Any, asked: dict[str, Any], webhook_id: str) -> dict[str, Any]:
    return one(store(ctx).webhooks, "webhook endpoint", webhook_id)


def update_webhook(ctx: Any, asked: dict[str, Any], webhook_id: str) -> dict[str, Any]:
    value = dict(get_webhook(ctx, asked, webhook_id))
    if "url" in asked:
        _check_url(asked["url"])
    if "disabled" in asked:
        value["status"] = "disabled" if asked["disabled"] else "enabled"
    value.update({name: asked[name] for name in ("url", "enabled_events", "description", "metadata") if name in asked})
    store(ctx).webhooks[webhook_id] = value
    return value


def delete_webhook(ctx: Any, asked: dict[str, Any], webhook_id: str) -> dict[str, Any]:
    get_webhook(ctx, asked, webhook_id)
    del store(ctx).webhooks[webhook_id], store(ctx).secrets[webhook_id]
    return {"id": webhook_id, "object": "webhook_endpoint", "deleted": True}


def list_invoice_payments(ctx: Any, asked: dict[str, Any]) -> dict[str, Any]:
    found = stripe_invoice_payments.all_of(ctx)
    for name, wanted in asked.items():
        if name == "payment":
            found = [each for each in found if each["payment"].items() >= wanted.items()]
        elif name in {"invoice", "status"}:
            found = [each for each in found if each[name] == wanted]
    answer = page(found, asked, "/v1/invoice_payments", "invoice_payment")
    return _expanded_list(ctx, answer, asked)


def list_sessions(ctx: Any, asked: dict[str, Any]) -> dict[str, Any]:
    found = [
        each
        for each in store(ctx).sessions.values()
        if all(each[name] == asked[name] for name in _SESSION_FILTERS if name in asked)
    ]
    return _expanded_list(ctx, page(found, asked, "/v1/checkout/sessions", "checkout.session"), asked)


_SESSION_FILTERS = ("customer", "payment_intent", "status", "subscription")


def _expanded_list(ctx: Any, answer: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    paths = [path.removeprefix("data.") for path in asked.get("expand", ())]
    if paths:
        answer["data"] = [expand(ctx, each, paths, _extra(ctx, each)) for each in answer["data"]]
    return answer


def get_session(ctx: Any, asked: dict[str, Any], session_id: str) -> dict[str, Any]:
    value = one(store(ctx).sessions, "checkout.session", session_id)
    return expand(ctx, value, asked.get("expand", []), _extra(ctx, value))


def create_session(ctx: Any, asked: dict[str, Any]) -> dict[str, Any]:
    value = stripe_checkout.create(ctx, asked)
    return expand(ctx, value, asked.get("expand", []), _extra(ctx, value))


def expire_session(ctx: Any, asked: dict[str, Any], session_id: str) -> dict[str, Any]:
    return stripe_checkout.expire(ctx, one(store(ctx).sessions, "checkout.session", session_id))


def list_lines(ctx: Any, asked: dict[str, Any], session_id: str) -> dict[str, Any]:
    one(store(ctx).sessions, "checkout.session", session_id)
    lines = store(ctx).wishes[session_id]["lines"]
    return page(lines[::-1], asked, f"/v1/checkout/sessions/{session_id}/line_items", "item")


def _extra(ctx: Any, value: dict[str, Any]) -> dict[str, Any]:
    if value["object"] != "checkout.session":
        return {}
    return {"line_items": list_lines(ctx, {}, value["id"])}


_ROUTES: list[tuple[str, str, Callable[..., dict[str, Any]]]] = [
    ("GET", "/v1/account", get_account),
    ("POST", "/v1/billing_portal/sessions", create_portal),
    ("GET", "/v1/checkout/sessions", list_sessions),
    ("POST", "/v1/checkout/sessions", create_session),
    ("GET", "/v1/checkout/sessions/{session}", get_session),
    ("POST", "/v1/checkout/sessions/{session}/expire", expire_session),
    ("GET", "/v1/checkout/sessions/{session}/line_items", list_lines),
    ("GET", "/v1/invoice_payments", list_invoice_payments),
    ("GET", "/v1/webhook_endpoints", list_webhooks),
    ("POST", "/v1/webhook_endpoints", create_webhook),
    ("GET", "/v1/webhook_endpoints/{webhook_endpoint}", get_webhook),
    ("POST", "/v1/webhook_endpoints/{webhook_endpoint}", update_webhook),
    ("DELETE", "/v1/webhook_endpoints/{webhook_endpoint}", delete_webhook),
]
_COMPILED = [
    (method, re.compile(re.sub(r"\{\w+\}", "([^/]+)", path)), _PATHS[path][method.lower()], answer)
    for method, path, answer in _ROUTES
]


def handle(ctx: Any, request: Any) -> HttpResponse:
    """Ours, or the world's own, dated by the account's time."""
    response = _handle(ctx, request)
    date = ("date", format_datetime(ctx.clock.now().astimezone(UTC), usegmt=True))
    return dataclasses.replace(response, headers=(*response.headers, date))


def _handle(ctx: Any, request: Any) -> HttpResponse:
    if request.path.startswith("/_control/"):
        return _control(ctx, request)
    for method, pattern, operation, answer in _COMPILED:
        match = pattern.fullmatch(request.path) if method == request.method else None
        if match is not None:
            return _answer(ctx, request, operation, answer, match.groups())
    return theirs.handle(ctx, request)


def _answer(
    ctx: Any, request: Any, operation: dict[str, Any], answer: Callable[..., dict[str, Any]], ids: tuple[str, ...]
) -> HttpResponse:
    key = request.header("idempotency-key") or None
    mint_request(ctx, key)
    replayed = False

    def run() -> ApiResponse:
        with ctx.db.transaction():
            return ApiResponse(200, answer(ctx, stripe_forms.read(operation, form), *ids))

    try:
        if not theirs._has_key(request.header("authorization")):
            raise invalid_request(theirs._NO_KEY, status=401, pre_execution=True)
        form = wire.decode(request).raw()
        if request.method == "POST" and key is not None:
            response, replayed = replay_or_run(
                ctx, method=request.method, path=request.path, params=form, key=key, run=run
            )
        else:
            response = run()
    except StripeApiError as error:
        response = ApiResponse(error.status, error.envelope())
    return theirs._render(ctx, response, replayed=replayed)


def _control(ctx: Any, request: Any) -> HttpResponse:
    mint_request(ctx, None)
    body = json.loads(request.body or b"{}")
    try:
        with ctx.db.transaction():
            return HttpResponse.json(stripe_control.act(ctx, request.path.removeprefix("/_control/"), body))
    except StripeApiError as error:
        return HttpResponse.json(error.envelope(), status=error.status)
    except Declined as error:
        return HttpResponse.json(error.body, status=error.status)
