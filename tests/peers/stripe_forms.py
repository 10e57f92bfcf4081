"""Reading a form by the specification's own schema: types given, what it does not know refused.

Part of the Stripe peer (stripe_world.py says how it runs).
"""

from __future__ import annotations

import re
from typing import Any

from seahaven_stripe_world.stripe_errors import invalid_request, missing_parameter, unknown_parameter

_INTEGER = re.compile(r"-?[0-9]+")
_BOOLEANS = {"true": True, "false": False}


def read(operation: dict[str, Any], form: dict[str, Any]) -> dict[str, Any]:
    """The parameters of one operation of the specification. Raises StripeApiError 400."""
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/x-www-form-urlencoded", {}).get("schema", {})
    properties = dict(schema.get("properties", {}))
    required = list(schema.get("required", ()))
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            properties[parameter["name"]] = parameter["schema"]
            if parameter["required"]:
                required.append(parameter["name"])
    return _object({"properties": properties, "required": required}, form, "")


def _object(schema: dict[str, Any], value: dict[str, Any], at: str) -> dict[str, Any]:
    properties = schema.get("properties", {})
    free = schema.get("additionalProperties")
    read_so_far: dict[str, Any] = {}
    for name, item in value.items():
        where = f"{at}[{name}]" if at else name
        if name in properties:
            read_so_far[name] = _value(properties[name], item, where)
        elif isinstance(free, dict):
            read_so_far[name] = _value(free, item, where)
        else:
            raise unknown_parameter(where)
    for name in schema.get("required", ()):
        if name not in read_so_far:
            raise missing_parameter(f"{at}[{name}]" if at else name)
    return read_so_far


def _value(schema: dict[str, Any], value: Any, at: str) -> Any:
    if "anyOf" in schema:
        return _any(schema["anyOf"], value, at)
    kind = schema["type"]
    if kind == "object":
        if not isinstance(value, dict):
            raise _misfit(f"Invalid object: {at}", at)
        return _object(schema, value, at)
    if kind == "array":
        return _array(schema, value, at)
    if not isinstance(value, str):
        raise _misfit(f"Invalid {kind}: {at}", at)
    return _scalar(schema, kind, value, at)


def _any(alternatives: list[dict[str, Any]], value: Any, at: str) -> Any:
    last: Exception | None = None
    # An empty text means "clear it" only where nothing else fits.
    for schema in sorted(alternatives, key=lambda each: each.get("enum") == [""]):
        try:
            return _value(schema, value, at)
        except Exception as error:  # noqa: BLE001 (whatever the alternative raised, the next may fit)
            last = error
    assert last is not None
    raise last


def _array(schema: dict[str, Any], value: Any, at: str) -> list[Any]:
    if value == "":
        return []
    if isinstance(value, dict) and all(_INTEGER.fullmatch(key) for key in value):
        value = [value[key] for key in sorted(value, key=int)]
    if not isinstance(value, list):
        raise _misfit("Invalid array", at)
    return [_value(schema["items"], item, f"{at}[{index}]") for index, item in enumerate(value)]


def _scalar(schema: dict[str, Any], kind: str, value: str, at: str) -> Any:
    if kind == "integer":
        if not _INTEGER.fullmatch(value):
            raise _misfit(f"Invalid integer: {value}", at)
        return int(value)
    if kind == "boolean":
        if value not in _BOOLEANS:
            raise _misfit(f"Invalid boolean: {value}", at)
        return _BOOLEANS[value]
    if kind == "number":
        return float(value)
    choices = schema.get("enum")
    if choices is not None and value not in choices:
        raise _misfit(f"Invalid {at}: must be one of {', '.join(choices[:20])}", at)
    if len(value) > schema.get("maxLength", 5000):
        raise _misfit(f"Invalid string: {at} is too long", at)
    return value


def _misfit(message: str, at: str) -> Exception:
    return invalid_request(message, param=at, pre_execution=True)
