"""Stripe's stand-ins, as tests use them: import what you need, explicitly.

``running_stripe``: stateful, with events (stripe_world.py). ``running_steady``: says what is wrong with a
request by Stripe's own specification. ``running_localstripe``: another's sender of signed webhooks.
``available()`` of each tool in tools.py says why one cannot be used here.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import stripe

from counterfoil.rails.base import HttpRequest, HttpResponse
from tests.peers import tools
from tests.peers.fixtures import send

_WORLD = Path(__file__).with_name("stripe_world.py")
_LOCALSTRIPE = (
    "import sys; from aiohttp import web; from localstripe.server import app; "
    "web.run_app(app, host='127.0.0.1', port=int(sys.argv[1]))"
)
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Delivery:
    """One event sent to one endpoint, and the answer's status; None when no answer came."""

    event: dict[str, Any]
    url: str
    status: int | None


class StripePeer:
    """One account at the stateful stand-in, and its controls (stripe_control.py says what each does)."""

    def __init__(self, server: str, name: str, client: httpx.Client, *, livemode: bool = False) -> None:
        self.server = server
        self.name = name
        self.client = client
        self.livemode = livemode
        self.url = f"{server}/worlds/{name}"
        """For a rail's ``base_url`` and for ``base_addresses["api"]`` of Stripe's own client."""
        self.api_key = "sk_live_peer" if livemode else "sk_test_peer"
        self._delivered = 0

    def fresh(self, *, livemode: bool = False, now: datetime | None = None) -> StripePeer:
        """Another account, with nothing in it; with ``now``, its time stands there until ``control("clock")``."""
        peer = StripePeer(self.server, f"{self.name}-{next(_NUMBERS)}", self.client, livemode=livemode)
        options: dict[str, Any] = {"startup": {"livemode": livemode}}
        if now is not None:
            options |= {"now": now.isoformat(), "clock_mode": "fixed"}
        self.client.put(peer.url, json=options).raise_for_status()
        return peer

    def official(self) -> Any:
        """Stripe's own client (its ``v1`` services), with our account's key."""
        return stripe.StripeClient(self.api_key, base_addresses={"api": self.url}).v1

    def close(self) -> None:
        """Forget the account."""
        self.client.delete(self.url)

    def control(self, path: str, **body: Any) -> Any:
        """``POST /_control/<path>``; raises for any answer but a success."""
        response = self.client.post(f"{self.url}/_control/{path}", json=body)
        if response.is_error:
            raise AssertionError(f"{path}: {response.status_code} {response.text}")
        return response.json()

    def look(self, path: str) -> dict[str, Any]:
        """``GET /v1/<path>``: not among the requests, and without bad luck. Raises for any answer but a success."""
        headers = {"authorization": f"Bearer {self.api_key}", "x-control": "look"}
        response = self.client.get(f"{self.url}/v1/{path}", headers=headers)
        if response.is_error:
            raise AssertionError(f"{path}: {response.status_code} {response.text}")
        return response.json()  # type: ignore[no-any-return]

    def pay(self, session_id: str, **buyer: Any) -> dict[str, Any]:
        """The buyer pays: the session as it is then. Raises CardRefused."""
        answer = self.control(f"sessions/{session_id}/pay", **buyer)
        if "error" in answer:
            raise CardRefused(answer["error"])
        return answer["session"]  # type: ignore[no-any-return]

    def fail(self, match: str = "", **fault: Any) -> None:
        """Bad luck for the next request whose ``METHOD path`` matches.

        ``count`` requests instead of one; ``status`` (with ``retry_after`` in seconds, or ``error`` for Stripe's
        error object) or ``hang_up`` instead of an answer; ``after``: the work is done all the same; ``delay`` in
        seconds before anything.
        """
        self.control("fail", match=match, **fault)

    def requests(self, match: str = "") -> list[dict[str, Any]]:
        """What was asked, oldest first, whose ``METHOD path`` matches: with ``idempotency_key`` and ``status``."""
        seen = self.control("requests")
        return [each for each in seen if re.search(match, f"{each['method']} {each['path']}")]

    def objects(self) -> dict[str, list[str]]:
        """The ids of all there is, by kind (charges, refunds, sessions, ...), oldest first."""
        return self.control("objects")  # type: ignore[no-any-return]

    def send(self, request: HttpRequest) -> HttpResponse:
        """Send a rail's request; raises httpx.TransportError when no answer comes."""
        return send(self.client, request)

    def events(self, since: int = 0) -> list[dict[str, Any]]:
        """The events after the first ``since`` ones, oldest first."""
        return [each["event"] for each in self.control("events", after=since)]

    def sign(self, event: dict[str, Any], secret: str, *, at: int | None = None) -> tuple[dict[str, str], bytes]:
        """The headers and the body Stripe would send; ``at`` in seconds since 1970, now without."""
        body = json.dumps(event, indent=2, ensure_ascii=False)
        moment = int(time.time()) if at is None else at
        header = stripe.WebhookSignature.generate_signature_header(body, secret, timestamp=moment)
        return {"content-type": "application/json; charset=utf-8", "stripe-signature": header}, body.encode()

    def deliver(self, event: dict[str, Any], url: str, secret: str, *, at: int | None = None) -> Delivery:
        """Send one event once."""
        headers, body = self.sign(event, secret, at=at)
        try:
            status: int | None = self.client.post(url, content=body, headers=headers).status_code
        except httpx.TransportError:
            status = None
        return Delivery(event, url, status)

    def deliver_new(self, *, at: int | None = None) -> list[Delivery]:
        """Send what happened since the last time to every endpoint that wants it, in order, once."""
        news = self.control("events", after=self._delivered)
        webhooks = [each for each in self.control("webhooks") if each["status"] == "enabled"]
        if news:
            self._delivered = news[-1]["number"]
        return [
            self.deliver(entry["event"], webhook["url"], webhook["secret"], at=at)
            for entry in news
            for webhook in webhooks
            if {"*", entry["event"]["type"]} & set(webhook["enabled_events"])
        ]

    @contextlib.contextmanager
    def delivering(self, every: float = 0.05) -> Iterator[list[Delivery]]:
        """Deliver in the background until the block ends, at last what is left; the list grows."""
        sent: list[Delivery] = []
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(every):
                sent.extend(self.deliver_new())

        worker = threading.Thread(target=run, daemon=True)
        worker.start()
        try:
            yield sent
        finally:
            stop.set()
            worker.join()
            sent.extend(self.deliver_new())


class CardRefused(Exception):
    """The buyer's card was refused; the argument is Stripe's error object."""


def stripe_available() -> str | None:
    """Why the stateful stand-in cannot be used here; None when it can."""
    return tools.STRIPE_WORLD.available()


@contextlib.contextmanager
def running_stripe(*, max_seconds: float = 900) -> Iterator[StripePeer]:
    """The stateful stand-in in a process of its own, with an account in test mode; ``fresh()`` makes more."""
    command = [str(tools.STRIPE_WORLD.python), str(_WORLD), "--max-seconds", str(max_seconds)]
    with tools.running(command, ready="http://") as server, httpx.Client(timeout=60, trust_env=False) as client:
        yield StripePeer(server, "account", client).fresh()


class Steady:
    """Stripe's specification as a server that keeps nothing: is this request one Stripe could take?"""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self.url = url
        self.client = client

    def check(self, request: HttpRequest) -> HttpResponse:
        """Its answer, whose ids mean nothing. Raises AssertionError with what is wrong with the request.

        It does not see unknown names below the first level; the stateful stand-in does.
        """
        response = send(self.client, request)
        wrong = {name: value for name, value in response.headers.items() if name.startswith("x-steady-error")}
        if wrong.pop("x-steady-error-count", "0") != "0" or wrong or response.status >= 400:
            raise AssertionError(f"{request.method} {request.url}: x-steady-error {wrong} {response.body[:2000]!r}")
        return response


@contextlib.contextmanager
def running_steady() -> Iterator[Steady]:
    """The validator with Stripe's full specification, on loopback."""
    port = tools.free_port()
    command = [str(tools.STEADY.binary), "--host", "127.0.0.1", "-p", str(port)]
    command += ["--validator-form-array-format=brackets", "--validator-form-object-format=brackets"]
    with (
        tools.running([*command, str(tools.STRIPE_SPEC)], ready=str(port)),
        httpx.Client(timeout=60, trust_env=False) as client,
    ):
        yield Steady(f"http://127.0.0.1:{port}", client)


def steady_available() -> str | None:
    """Why the validator cannot be used here; None when it can."""
    return tools.STEADY.available() or tools.STRIPE_WORLD.available()


class LocalStripe:
    """localstripe 1.15.10: old shapes (API 2017-08-15), but another's code that signs and sends webhooks."""

    api_key = "sk_test_localstripe"

    def __init__(self, url: str, client: httpx.Client) -> None:
        self.url = url
        self.client = client

    def listen(self, url: str, secret: str, name: str = "counterfoil") -> None:
        """Send every event to ``url``, some second after it happens."""
        form = {"url": url, "secret": secret}
        self.client.post(f"{self.url}/_config/webhooks/{name}", data=form).raise_for_status()

    def ask(self, method: str, path: str, **form: str) -> dict[str, Any]:
        """One request with a form. Raises for any answer but a success."""
        headers = {"authorization": f"Bearer {self.api_key}"}
        response = self.client.request(method, f"{self.url}{path}", data=form, headers=headers)
        response.raise_for_status()
        return response.json()  # type: ignore[no-any-return]


def localstripe_available() -> str | None:
    """Why localstripe cannot be used here; None when it can."""
    return tools.LOCALSTRIPE.available()


@contextlib.contextmanager
def running_localstripe() -> Iterator[LocalStripe]:
    """localstripe on loopback."""
    port = tools.free_port()
    command = [str(tools.LOCALSTRIPE.python), "-u", "-c", _LOCALSTRIPE, str(port)]
    with tools.running(command, ready="Running on"), httpx.Client(timeout=60, trust_env=False) as client:
        yield LocalStripe(f"http://127.0.0.1:{port}", client)
