"""Where the world's part of the Stripe peer is narrower than Stripe, made wider.

Part of the Stripe peer (stripe_world.py says how it runs). Each function takes the place of the one it calls.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from seahaven_stripe_world.billing import subscription_lifecycle
from seahaven_stripe_world.dispatch import params
from seahaven_stripe_world.resources import products, search, subscriptions
from seahaven_stripe_world.serialize import expand
from stripe_store import call, invalid_request

_check = params._check
_product_columns = products._product_columns
_parse = search.parse
_inflate_level = expand._inflate_level
_apply_update = subscription_lifecycle.apply_update
_QUOTED = re.compile(r"""\"(?:[^\"\\]|\\.)*\"|'((?:[^'\\]|\\.)*)'""")


def check(param: Any, *rest: Any, **options: Any) -> Any:
    """The world wants ``prod_`` in front of a product's id; at Stripe whoever makes a product may choose any."""
    if param.id_prefixes == ("prod_",):
        param = dataclasses.replace(param, id_prefixes=())
    return _check(param, *rest, **options)


def product_columns(ctx: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """The world breaks at the second product with one id."""
    if ctx.db.one("SELECT id FROM products WHERE id = ?", wanted.get("id")) is not None:
        raise invalid_request("Product already exists.", code="resource_already_exists", param="id")
    return _product_columns(ctx, wanted)  # type: ignore[no-any-return]


def parse(query: str) -> Any:
    """The world reads values in double quotes only; Stripe's own examples have single ones."""
    return _parse(_QUOTED.sub(lambda match: match[0] if match[1] is None else json.dumps(match[1]), query))


def inflate_level(ctx: Any, frontier: list[dict[str, Any]], edges: dict[str, Any]) -> None:
    """The world expands no discounts, though it keeps them whole."""
    _inflate_level(ctx, frontier, edges)
    if "discounts" not in edges:
        return
    for value in frontier:
        table = {"subscription": "subscriptions", "invoice": "invoices"}.get(value["object"])
        if table is not None and value.get("discounts"):
            row = ctx.db.one(f"SELECT discounts FROM {table} WHERE id = ?", value["id"])
            kept = {each["id"]: each for each in json.loads(row["discounts"])}
            value["discounts"] = [_discount(value, kept[name]) for name in value["discounts"]]


def _discount(owner: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    subscription = owner["id"] if owner["object"] == "subscription" else None
    unset = ("checkout_session", "customer_account", "invoice", "invoice_item", "promotion_code", "subscription_item")
    return {**dict.fromkeys(unset), "customer": owner["customer"], "subscription": subscription, **kept}


def apply_update(ctx: Any, subscription_id: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """The world takes items away one by one, and not with ``items[0][deleted]``."""
    items = wanted.get("items", [])
    going = [item["id"] for item in items if item.get("deleted")]
    if not going:
        return _apply_update(ctx, subscription_id, wanted)  # type: ignore[no-any-return]
    staying = [item for item in items if not item.get("deleted")]
    rest = {name: value for name, value in wanted.items() if name != "items"}
    _apply_update(ctx, subscription_id, {**rest, "items": staying} if staying else rest)
    how = {name: wanted[name] for name in ("proration_behavior", "proration_date") if name in wanted}
    for item_id in going:
        call(ctx, "DELETE", f"/v1/subscription_items/{item_id}", how)
    return call(ctx, "GET", f"/v1/subscriptions/{subscription_id}")


_DELETED = params.Param(name="deleted", kind="boolean")
object.__setattr__(subscriptions._ITEMS_SHAPE, "shape", (*subscriptions._ITEMS_SHAPE.shape, _DELETED))
params._check = check
products._product_columns = product_columns
search.parse = parse
expand._inflate_level = inflate_level
subscription_lifecycle.apply_update = apply_update
