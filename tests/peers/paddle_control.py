"""What tests can make happen at the stand-in for Paddle: the buyer, the bank, Paddle's people, time and bad luck."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from tests.peers.paddle_adjustments import Adjustments
from tests.peers.paddle_catalog import Catalog
from tests.peers.paddle_hooks import Hooks
from tests.peers.paddle_sales import Sales
from tests.peers.paddle_subscriptions import Subscriptions
from tests.peers.paddle_world import Request, Row, World, parse, stamp


@dataclass
class Fault:
    """Bad luck for the next requests whose ``METHOD path`` matches."""

    count: int
    match: re.Pattern[str]
    status: int | None
    """Answer with this; None: as always."""
    body: str | None
    after: bool
    """Act first, then have the bad luck."""
    hang_up: bool
    retry_after: int | None
    latency: float


class Paddle:
    """The whole stand-in."""

    def __init__(self) -> None:
        self.world = World()
        self.hooks = Hooks(self.world)
        self.catalog = Catalog(self.world)
        self.sales = Sales(self.world, self.catalog)
        self.subscriptions = Subscriptions(self.world, self.sales)
        self.adjustments = Adjustments(self.world)
        self.forget()

    def forget(self) -> None:
        self.faults: list[Fault] = []
        self.requests: deque[Row] = deque(maxlen=10_000)
        self.counts: Counter[str] = Counter()
        self.rate_limit: int | None = None
        self.rate_seconds = 60.0
        self.recent: deque[float] = deque()

    def reset(self) -> None:
        self.world.reset()
        self.hooks.reset()
        self.subscriptions.reset()
        self.forget()


class Control:
    """``/_control``."""

    def __init__(self, paddle: Paddle) -> None:
        self.paddle = paddle
        self.world = paddle.world

    async def done(self, request: Request, answer: Any = None) -> Any:
        """Answer once every webhook that this caused was delivered or given up, unless told not to wait."""
        if request.json().get("wait", True):
            await self.paddle.hooks.idle()
        return answer

    # -- the stand-in itself ---------------------------------------------------------------------------

    async def reset(self, _request: Request) -> Any:
        self.paddle.reset()

    async def config(self, request: Request) -> Any:
        """Change what Paddle's dashboard, or fate, decides; see _CHOICES for the names."""
        for name, value in request.json().items():
            owner, kind = _CHOICES[name]
            setattr(getattr(self.paddle, owner) if owner else self.paddle, name, kind(value))

    async def clock(self, request: Request) -> Any:
        """``{set: moment}`` or ``{advance: seconds}``, and ``{freeze: bool}``; the moment that it is then."""
        body = request.json()
        moment = parse(body["set"]) if "set" in body else self.world.now()
        moment += timedelta(seconds=float(body.get("advance", 0)))
        if {"set", "advance", "freeze"} & set(body):
            self.world.set_clock(moment, freeze=bool(body.get("freeze", self.world.frozen is not None)))
        return {"now": stamp(moment)}

    async def fail(self, request: Request) -> Any:
        body = request.json()
        self.paddle.faults.append(
            Fault(
                count=int(body.get("count", 1)),
                match=re.compile(body.get("match", "")),
                status=body.get("status"),
                body=body.get("body"),
                after=bool(body.get("after", False)),
                hang_up=bool(body.get("hang_up", False)),
                retry_after=body.get("retry_after"),
                latency=float(body.get("latency", 0)),
            )
        )

    async def requests(self, _request: Request) -> Any:
        return list(self.paddle.requests)

    async def counts(self, _request: Request) -> Any:
        return dict(self.paddle.counts)

    async def drain(self, _request: Request) -> Any:
        await self.paddle.hooks.idle()

    # -- buyers and their banks ------------------------------------------------------------------------

    def sale(self, request: Request) -> Row:
        return self.world.get("transaction", request.params["id"])

    async def pay(self, request: Request) -> Any:
        """``{email, name, country_code, postal_code, until: "ready" | "paid" | "completed"}``."""
        row, body, sales = self.sale(request), request.json(), self.paddle.sales
        sales.introduce(row, body)
        if body.get("until") != "ready":
            sales.pay(row)
            if body.get("until") != "paid":
                sales.finish(row)
        return await self.done(request, row)

    async def finish(self, request: Request) -> Any:
        row = self.sale(request)
        self.paddle.sales.finish(row)
        return await self.done(request, row)

    async def decline(self, request: Request) -> Any:
        """``{error_code}`` and what ``pay`` takes: a payment that does not go through."""
        row, body = self.sale(request), request.json()
        self.paddle.sales.introduce(row, body)
        self.paddle.sales.fail(row, body.get("error_code", "declined"))
        return await self.done(request, row)

    async def cancel(self, request: Request) -> Any:
        row = self.sale(request)
        self.paddle.sales.cancel(row)
        return await self.done(request, row)

    async def chargeback(self, request: Request) -> Any:
        """``{warning: bool, reason}``: the adjustment."""
        body = request.json()
        action = "chargeback_warning" if body.get("warning") else "chargeback"
        row = self.paddle.adjustments.befall(self.sale(request), action, body.get("reason", "fraud"))
        return await self.done(request, row)

    # -- time for a subscription -----------------------------------------------------------------------

    def subscription(self, request: Request) -> Row:
        return self.world.get("subscription", request.params["id"])

    async def due(self, request: Request) -> Any:
        """``{declined: bool}``: the end of the period or trial, or the moment of what is scheduled; time moves on."""
        row = self.subscription(request)
        self.paddle.subscriptions.due(row, declined=bool(request.json().get("declined", False)))
        return await self.done(request, row)

    async def recover(self, request: Request) -> Any:
        row = self.subscription(request)
        self.paddle.subscriptions.recover(row)
        return await self.done(request, row)

    async def fail_again(self, request: Request) -> Any:
        row = self.subscription(request)
        self.paddle.sales.fail(self.paddle.subscriptions.owed(row))
        return await self.done(request, row)

    async def give_up(self, request: Request) -> Any:
        """The last try failed: canceled."""
        row = self.subscription(request)
        self.paddle.subscriptions.end(row)
        return await self.done(request, row)

    # -- Paddle's people -------------------------------------------------------------------------------

    def adjustment(self, request: Request) -> Row:
        return self.world.get("adjustment", request.params["id"])

    async def approve(self, request: Request) -> Any:
        row = self.adjustment(request)
        self.paddle.adjustments.decide(row, "approved")
        return await self.done(request, row)

    async def reject(self, request: Request) -> Any:
        row = self.adjustment(request)
        self.paddle.adjustments.decide(row, "rejected")
        return await self.done(request, row)

    async def reverse(self, request: Request) -> Any:
        """Take a chargeback, a warning or a credit back: the adjustment that does."""
        row = self.paddle.adjustments.reverse(self.adjustment(request))
        return await self.done(request, row)

    # -- webhooks --------------------------------------------------------------------------------------

    async def events(self, _request: Request) -> Any:
        """Every event, oldest first, each as a webhook's body without its notification."""
        return list(self.world.rows["event"].values())

    async def notifications(self, _request: Request) -> Any:
        """Every notification with the bytes and headers that would be sent now."""
        found = []
        for row in self.world.rows["notification"].values():
            headers, body = self.paddle.hooks.signed(row)
            found.append({**row, "headers": headers, "body": body.decode()})
        return found

    async def send(self, request: Request) -> Any:
        """``{times}``: deliver again, so many times at once, past the queue."""
        row = self.world.get("notification", request.params["id"])
        hooks = self.paddle.hooks
        await asyncio.gather(*(hooks.send(row) for _ in range(int(request.json().get("times", 1)))))
        return row

    async def rotate(self, request: Request) -> Any:
        """A new secret; ``{drop: true}``: the old ones sign no more."""
        row = self.world.get("setting", request.params["id"])
        secret = self.paddle.hooks.rotate(row)
        if request.json().get("drop"):
            row["secrets"] = [secret]
        return {"endpoint_secret_key": secret}


def _url(value: str | None) -> str | None:
    return value


_CHOICES: dict[str, tuple[str, Any]] = {
    "tax_rate": ("world", Decimal),
    "account_tax_mode": ("world", str),  # "external" or "internal"
    "default_checkout_url": ("world", _url),
    "auto_approve": ("world", bool),  # refunds, as sometimes in the sandbox
    "payout_currency": ("world", str),
    "exchange_rate": ("world", Decimal),  # minor units of the payout for one minor unit of another currency
    "api_keys": ("world", set),
    "capture": ("hooks", bool),  # keep notifications, send none
    "world_time": ("hooks", bool),  # sign with the moved clock; otherwise with the real one
    "retries": ("hooks", int),
    "retry_seconds": ("hooks", float),
    "decline": ("subscriptions", bool),  # charges that API calls cause
    "rate_limit": ("", int),  # requests in rate_seconds
    "rate_seconds": ("", float),
}

CONTROLS: tuple[tuple[str, str, str], ...] = (
    ("POST", "/reset", "reset"),
    ("POST", "/config", "config"),
    ("POST", "/clock", "clock"),
    # {count, match: regex on "METHOD path", status, body, after: act first, hang_up, retry_after, latency}
    ("POST", "/fail", "fail"),
    ("POST", "/drain", "drain"),
    ("GET", "/requests", "requests"),
    ("GET", "/counts", "counts"),
    ("GET", "/events", "events"),
    ("GET", "/notifications", "notifications"),
    ("POST", "/notifications/{id}/send", "send"),
    ("POST", "/settings/{id}/rotate", "rotate"),
    ("POST", "/transactions/{id}/pay", "pay"),
    ("POST", "/transactions/{id}/finish", "finish"),
    ("POST", "/transactions/{id}/decline", "decline"),
    ("POST", "/transactions/{id}/cancel", "cancel"),
    ("POST", "/transactions/{id}/chargeback", "chargeback"),
    ("POST", "/subscriptions/{id}/due", "due"),
    ("POST", "/subscriptions/{id}/recover", "recover"),
    ("POST", "/subscriptions/{id}/fail-again", "fail_again"),
    ("POST", "/subscriptions/{id}/give-up", "give_up"),
    ("POST", "/adjustments/{id}/approve", "approve"),
    ("POST", "/adjustments/{id}/reject", "reject"),
    ("POST", "/adjustments/{id}/reverse", "reverse"),
)
