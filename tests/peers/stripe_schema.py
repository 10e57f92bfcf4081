"""Is this object what Stripe's specification says it is?"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema_rs

from tests.peers import tools

_NULL_ALL_THE_SAME = (("charge", "radar_options"), ("payment_method", "radar_options"))
"""What the world, which says it follows recordings of the real API, answers null against the document."""


@cache
def _components() -> dict[str, Any]:
    components = json.loads(tools.STRIPE_SPEC.read_bytes())["components"]["schemas"]
    for name, field in _NULL_ALL_THE_SAME:
        components[name]["properties"][field]["nullable"] = True
    return {name: _plain(schema) for name, schema in components.items()}


def _plain(schema: Any) -> Any:
    """OpenAPI 3.0 to JSON Schema: ``nullable`` becomes a type, words for people go."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: value for name, value in schema.items() if not name.startswith("x-") and name != "nullable"}
    for name in ("items", "additionalProperties", "anyOf"):
        if name in kept:
            kept[name] = _plain(kept[name])
    if "properties" in kept:
        kept["properties"] = {name: _plain(value) for name, value in kept["properties"].items()}
    kept.pop("description", None)
    kept.pop("format", None)
    return {"anyOf": [kept, {"type": "null"}]} if schema.get("nullable") else kept


@cache
def _validator(name: str) -> Any:
    root = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": _components()}}
    return jsonschema_rs.Draft4Validator(root)


def faults(name: str, value: dict[str, Any]) -> list[str]:
    """What is wrong with an object of that schema; names the schema does not have are wrong, too."""
    errors = _validator(name).iter_errors(value)
    found = [f"{'/'.join(map(str, error.instance_path))}: {error.message[:200]}" for error in errors]
    return found + [f"{key}: unknown" for key in sorted(set(value) - set(_components()[name]["properties"]))]
