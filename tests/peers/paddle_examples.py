"""Paddle's own words as test vectors: its specification's webhook examples, and a signature its SDK publishes."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tests.peers.prism import PADDLE


@dataclass(frozen=True)
class Signed:
    """A signature that is known to be right, among others of its time."""

    ts: int
    body: bytes
    header: str
    """The value of ``Paddle-Signature``."""
    secret: str
    """Signed it."""
    strangers: tuple[str, ...]
    """Did not."""


_SETTING = "pdl_ntf_01hbpjmytsa32fhr36nqgc3kgb"
SIGNED = Signed(
    ts=1_696_195_954,
    body=b"hello-world",
    header="ts=1696195954;h1=dummy;h1=d96299976a6eb066f484d7fde011ac56fc32b38fc9940bc419d6e537fdc6ef02",
    secret=f"{_SETTING}_WvRO0eL4Bj9rgYYIBZY6wZhG4EHy9jzh",
    strangers=(f"{_SETTING}_TjIG2BXbm83HPXqNfziwe506sBEdqL/4", f"{_SETTING}_vB/yIOnTOCWIvpBadM5jzBZPHc7OmdSo"),
)
"""What the SDK's own tests hold to be right while secrets are exchanged."""


@functools.cache
def _specification() -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, Any] = yaml.load(PADDLE.read_bytes(), Loader=loader)
    return found


def missing() -> str | None:
    """Why there are no examples here; None when there are."""
    return None if PADDLE.is_file() else f"the specification {PADDLE.name} is not in ../shared/specs"


@functools.cache
def _webhooks() -> dict[str, bytes]:
    specification = _specification()
    found = {}
    for name, webhook in specification["webhooks"].items():
        examples = webhook["post"]["requestBody"]["content"]["application/json"]["examples"]
        for example in examples.values():
            value = example
            while "$ref" in value:
                *_, group, key = value["$ref"].split("/")
                value = specification["components"][group][key]
            found[name] = json.dumps(value["value"], separators=(",", ":"), default=_moment).encode()
    return found


def _moment(value: Any) -> str:
    # YAML reads an unquoted moment as one.
    return str(value.isoformat()).replace("+00:00", "Z")


def webhooks() -> dict[str, bytes]:
    """A body of every type of webhook, by type. Skips the test where the specification is missing."""
    if reason := missing():
        pytest.skip(reason)
    return dict(_webhooks())


def webhook(name: str) -> dict[str, Any]:
    """One of them, read."""
    found: dict[str, Any] = json.loads(webhooks()[name])
    return found


@functools.cache
def _validator(name: str) -> Any:
    specification = _specification()
    body = specification["webhooks"][name]["post"]["requestBody"]["content"]["application/json"]
    return jsonschema_rs.Draft202012Validator({**body["schema"], "components": specification["components"]})


def violations(body: bytes) -> list[str]:
    """What the specification has against a webhook. Skips the test where the specification is missing."""
    if reason := missing():
        pytest.skip(reason)
    event = json.loads(body)
    return [f"{error.instance_path}: {error.message}" for error in _validator(event["event_type"]).iter_errors(event)]
