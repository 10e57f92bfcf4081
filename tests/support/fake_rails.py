"""A rail in this process that keeps copies and renews: what our side makes of its answers, exact and quick.

How real providers speak is tested against their peers, in tests/rails and tests/exchange.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
import pytest

from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.exchange.client import RailClient
from counterfoil.exchange.rails import Connection, Rails
from counterfoil.kernel.clock import SystemClock
from counterfoil.kernel.errors import NotFound
from counterfoil.kernel.money import Money
from counterfoil.rails.base import (
    CheckoutIntent,
    CheckoutReport,
    HttpRequest,
    HttpResponse,
    OpenedCheckout,
    PaymentFact,
    RailRefused,
    RailUnavailable,
)
from counterfoil.rails.facts import InvoiceFact, ItemFact, RailCopy, ScheduledChange, SubscriptionFact
from counterfoil.rails.mirror import NoFollowUps, Portal, Rate, Subject, SubscriptionChange
from counterfoil.settlement import billing, subscribing
from tests.support.app import Shop, Sold, good

NAME = "stripe-test"
_URL = "http://rail.invalid/"


class FakeRail(NoFollowUps):
    """Translates to and from the words of :class:`Provider`."""

    name = NAME

    def rate(self, settings: Any) -> Rate:
        return Rate(10_000, 1.0, 10)

    def assets(self, settings: Any) -> None:
        return None

    def open_request(self, settings: Any, intent: CheckoutIntent) -> OpenedCheckout:
        return OpenedCheckout(reference=f"cs-{intent.checkout_id}", url=_URL)

    def find_request(self, settings: Any, checkout_id: str) -> None:
        return None

    def create_request(self, settings: Any, subject: Subject, key: str) -> HttpRequest:
        return _request("POST", f"copies/{subject.id}", kind=type(subject).__name__.lower())

    def update_request(self, settings: Any, subject: Subject, reference: str, key: str) -> None:
        return None

    def find_copy_request(self, settings: Any, subject: Subject) -> HttpRequest:
        return _request("GET", f"copies/{subject.id}")

    def read_copy(self, settings: Any, kind: str, response: HttpResponse) -> RailCopy:
        return msgspec.json.decode(_read(response), type=RailCopy)

    def read_found_copy(self, settings: Any, subject: Subject, response: HttpResponse) -> RailCopy | None:
        return None if response.status == 404 else self.read_copy(settings, "", response)

    def expected(self, settings: Any, subject: Subject) -> dict[str, Any]:
        return {}

    def subscription_request(self, settings: Any, reference: str) -> HttpRequest:
        return _request("GET", f"subscriptions/{reference}")

    def read_subscription(self, settings: Any, response: HttpResponse) -> SubscriptionFact:
        return msgspec.json.decode(_read(response), type=SubscriptionFact)

    def change_request(
        self, settings: Any, reference: str, change: SubscriptionChange, items: tuple[ItemFact, ...], key: str
    ) -> HttpRequest:
        return _request("POST", f"subscriptions/{reference}", **msgspec.to_builtins(change))

    def is_changed(self, change: SubscriptionChange, fact: SubscriptionFact) -> bool:
        scheduled = fact.scheduled_change.action if fact.scheduled_change else None
        match change.action:
            case "pause":
                return fact.status == "paused" or (change.at_period_end and scheduled == "pause")
            case "resume":
                return fact.status == "active"
            case "cancel":
                return fact.status == "canceled" or (change.at_period_end and scheduled == "cancel")
            case "keep":
                return scheduled is None
            case "change":
                items = {item.price_reference: item.quantity for item in fact.items}
                return (not change.items or dict(change.items) == items) and (
                    change.discount_reference in {None, fact.discount_reference or ""}
                )

    def portal_request(
        self, settings: Any, customer_reference: str, subscriptions: tuple[str, ...], return_url: str
    ) -> HttpRequest:
        return _request("POST", f"portals/{customer_reference}", subscriptions=subscriptions, return_url=return_url)

    def read_portal(self, settings: Any, response: HttpResponse) -> Portal:
        return msgspec.json.decode(_read(response), type=Portal)


def _request(method: str, path: str, **body: Any) -> HttpRequest:
    return HttpRequest(method=method, url=_URL + path, body=msgspec.json.encode(body))


def _read(response: HttpResponse) -> bytes:
    if response.status >= 500:
        raise RailUnavailable("no answer that makes sense")
    if response.status >= 400:
        raise RailRefused(response.body.decode())
    return response.body


class Provider:
    """The provider's side: what it was asked, what it has, and what it answers."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._moments = 0
        self.connected = True
        self.facts: dict[str, SubscriptionFact] = {}
        self.copies: dict[str, RailCopy] = {}
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        """Method, path and body of every request."""
        self.failing: dict[str, tuple[int, str]] = {}
        """By method: the status and the words of every answer."""

    def changes(self) -> list[dict[str, Any]]:
        """The changes of subscriptions that it was asked for."""
        return [body for method, path, body in self.asked if method == "POST" and path.startswith("subscriptions/")]

    async def send(self, request: HttpRequest) -> HttpResponse:
        path = urlsplit(request.url).path.lstrip("/")
        body = msgspec.json.decode(request.body)
        self.asked.append((request.method, path, body))
        if request.method in self.failing:
            status, words = self.failing[request.method]
            return HttpResponse(status=status, body=words.encode())
        kind, _, name = path.partition("/")
        done = self._done(kind, name, request.method, body)
        return HttpResponse(status=404 if done is None else 200, body=msgspec.json.encode(done))

    def _done(self, kind: str, name: str, method: str, body: dict[str, Any]) -> Any:
        if kind == "copies":
            if method == "POST":
                self.copies[name] = RailCopy(
                    kind=body["kind"], reference=f"r-{name}", our_id=name, occurred_at=None, active=True, values={}
                )
            return self.copies.get(name)
        if kind == "portals":
            return Portal(url=f"https://rail.example/p/{name}", cancel=",".join(body["subscriptions"]) or None)
        if method == "POST":
            self.change(name, **_after(self.facts[name], msgspec.convert(body, SubscriptionChange)))
        return self.facts[name]

    def sell(self, checkout: dict[str, Any], prices: dict[str, int]) -> tuple[CheckoutReport, SubscriptionFact]:
        """The buyer pays a checkout for these prices and quantities: what it says of that."""
        number = len(self.facts) + 1
        now = self._now()
        money = Money(checkout["amount"], checkout["asset"])
        report = CheckoutReport(
            rail=NAME,
            reference=checkout["rail_reference"],
            checkout_id=checkout["id"],
            state="settled",
            payments=(PaymentFact(reference=f"pi-{number}", amount=money, occurred_at=now),),
            final=True,
        )
        items = tuple(
            ItemFact(reference=f"si-{place}", price_reference=f"r-{price}", quantity=quantity)
            for place, (price, quantity) in enumerate(prices.items())
        )
        fact = SubscriptionFact(
            reference=f"sub-{number}",
            checkout_id=checkout["id"],
            occurred_at=now,
            status="active",
            asset=checkout["asset"],
            items=items,
            period_start=now,
            period_end=now + timedelta(days=31),
            billing_interval="month",
            interval_count=1,
            started_at=now,
            next_billed_at=now + timedelta(days=31),
            customer_reference=f"cus-{number}",
        )
        self.facts[fact.reference] = fact
        return report, fact

    def change(self, reference: str, **values: Any) -> SubscriptionFact:
        """Something becomes of a subscription there; later than whatever was before."""
        self._moments += 1
        at = self._now() + timedelta(seconds=self._moments)
        fact = msgspec.structs.replace(self.facts[reference], occurred_at=at, **values)
        self.facts[reference] = fact
        return fact


def _after(fact: SubscriptionFact, change: SubscriptionChange) -> dict[str, Any]:
    end = fact.period_end
    assert end is not None
    waits: dict[str, Literal["cancel", "pause"]] = {"cancel": "cancel", "pause": "pause"}
    match change.action:
        case "pause" | "cancel" if change.at_period_end:
            later = ScheduledChange(action=waits[change.action], effective_at=end, resume_at=change.resume_at)
            return {"scheduled_change": later, "ends_at": end if change.action == "cancel" else None}
        case "pause":
            return {"status": "paused", "paused_at": fact.occurred_at}
        case "cancel":
            return {"status": "canceled", "canceled_at": fact.occurred_at, "ends_at": fact.occurred_at}
        case "resume":
            return {"status": "active", "paused_at": None, "scheduled_change": None}
        case "keep":
            return {"scheduled_change": None, "ends_at": None}
        case _:
            items = tuple(
                ItemFact(reference=None, price_reference=name, quantity=count) for name, count in change.items
            )
            changed: dict[str, Any] = {"items": items} if items else {}
            if change.discount_reference is not None:
                changed["discount_reference"] = change.discount_reference or None
            return changed


def connect(shop: Shop) -> Provider:
    """Connect the shop to a provider of its own, under the name :data:`NAME`."""
    provider = Provider(shop.clock.now)
    house = shop.house
    house.rails._known[DEFAULT_TENANT, NAME] = (float("inf"), Connection(FakeRail(), None))  # type: ignore[arg-type]
    house.client.send = provider.send  # type: ignore[method-assign]
    return provider


def connect_everywhere(monkeypatch: pytest.MonkeyPatch) -> Provider:
    """Have every house that opens meanwhile be connected to one provider."""
    provider = Provider(SystemClock().now)

    async def get(self: Rails, tenant: str, name: str, *, fresh: bool = False) -> Connection:
        if not provider.connected:
            raise NotFound("The rail is not connected.", code="rail_not_connected")
        return Connection(FakeRail(), None)  # type: ignore[arg-type]

    async def send(self: RailClient, request: HttpRequest) -> HttpResponse:
        return await provider.send(request)

    monkeypatch.setattr(Rails, "get", get)
    monkeypatch.setattr(RailClient, "send", send)
    return provider


async def subscribe(
    shop: Shop, provider: Provider, *lines: Sold | tuple[Sold, int], customer_id: str | None = None, **fields: Any
) -> str:
    """Buy and pay what is paid every month; the id of the active subscription, which the rail calls ``sub-1``, ..."""
    wanted = [line if isinstance(line, tuple) else (line, 1) for line in lines]
    body = {"lines": [{"price_id": sold.price_id, "quantity": count} for sold, count in wanted], "rail": NAME, **fields}
    path = "/v1/checkouts" if customer_id is None else f"/v1/customers/{customer_id}/checkouts"
    opened = good(await shop.staff.post(path, json=body))
    checkout = await shop.row("checkouts", id=opened["id"])
    report, fact = provider.sell(checkout, {sold.price_id: count for sold, count in wanted})
    await shop.settle(report)
    await tell(shop, provider, fact.reference)
    return str((await shop.row("subscriptions", checkout_id=checkout["id"]))["id"])


async def tell(shop: Shop, provider: Provider, reference: str) -> None:
    """The rail's news of a subscription as it is there now."""
    assert await shop.scope.run(subscribing.apply, NAME, provider.facts[reference]) == "applied"


async def renew(shop: Shop, provider: Provider, reference: str, **values: Any) -> None:
    """The next period of a subscription is billed and paid."""
    fact = provider.facts[reference]
    assert fact.period_end is not None
    end = fact.period_end + timedelta(days=31)
    paid = PaymentFact(
        reference=f"pi-{reference}-{end:%m%d}", amount=Money(1_000, fact.asset), occurred_at=fact.period_end
    )
    bill: dict[str, Any] = {
        "reference": f"in-{reference}-{end:%m%d}",
        "occurred_at": fact.period_end,
        "status": "paid",
        "amount": 1_000,
        "tax": 0,
        "asset": fact.asset,
        "number": "A-2",
        "billing_reason": "subscription_cycle",
        "subscription_reference": reference,
        "period_start": fact.period_end,
        "period_end": end,
        "payment": paid,
        "paid_at": fact.period_end,
        "hosted_url": "https://rail.example/i/2",
        "details": {"secret": "of the seller"},
    }
    assert await shop.scope.run(billing.bill, NAME, InvoiceFact(**{**bill, **values})) == "applied"


async def push(shop: Shop) -> int:
    """What the job does now: what is owed to rails is tried; how many attempts it took."""
    return await shop.house.pusher.go_round(DEFAULT_TENANT)
