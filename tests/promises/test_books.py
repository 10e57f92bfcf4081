"""Carts, stock, discounts, orders, parcels and refunds against a model small enough to be believed.

Hypothesis makes up what people do; after every step the shop's rows must say what the model says. ``make prove``
runs 50,000 steps, ``make test`` some hundreds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import httpx
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from tests.support.app import Shop, Sold, good, opening, problem
from tests.support.databases import Databases, Dialect

from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.money import Money
from counterfoil.kernel.secrets import MasterKey
from counterfoil.rails.base import CheckoutReport, PaymentFact
from counterfoil.settlement.checkout import expire_due

STEPS = int(os.environ.get("COUNTERFOIL_PROVE_STEPS", "300"))
STEPS_EACH = 50
"""In one shop."""

PRICES = {"mug": 1000, "shirt": 770, "editor": 330}
"""In cents; a tenth of each is whole, so that the model needs no rounding rule."""
SHIPPED = ("mug", "shirt")
ADDRESS = {"name": "Ada", "line1": "1 Mill Lane", "city": "London", "postal_code": "N1", "country": "GB"}
TEN, FIVE = "TEN", "FIVE"
LIMITS = {TEN: 3, FIVE: 2}


@dataclass
class Stock:
    on_hand: int
    reserved: int = 0
    denies: bool = True

    def has(self, quantity: int) -> bool:
        return not self.denies or self.reserved + quantity <= self.on_hand


@dataclass
class Sale:
    """A checkout, and the order it becomes."""

    id: str
    reference: str
    wanted: dict[str, int]
    code: str | None
    amount: int
    status: str = "open"
    holds: bool = True
    order_id: str = ""
    order_status: str = ""
    payment_id: str = ""
    claimed: int = 0
    refunded: int = 0

    def line_of(self, slug: str) -> int:
        return list(self.wanted).index(slug)

    @property
    def to_ship(self) -> dict[str, int]:
        return {slug: count for slug, count in self.wanted.items() if slug in SHIPPED}


@dataclass
class Parcel:
    id: str
    sale: Sale
    items: dict[str, int]
    status: str = "pending"


@dataclass
class Refund:
    id: str
    sale: Sale
    amount: int
    status: str = "pending"


@dataclass
class Model:
    """What there should be."""

    stock: dict[str, Stock] = field(default_factory=lambda: {"mug": Stock(6), "shirt": Stock(2, denies=False)})
    uses: dict[str, int] = field(default_factory=lambda: {TEN: 0, FIVE: 0})
    sales: list[Sale] = field(default_factory=list)
    parcels: list[Parcel] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)

    def why_not(self, wanted: dict[str, int], code: str | None) -> set[str]:
        """Every reason to refuse."""
        found = set()
        if not all(self.stock[slug].has(count) for slug, count in wanted.items() if slug in self.stock):
            found.add("out_of_stock")
        if code is not None and self.uses[code] >= LIMITS[code]:
            found.add("discount_exhausted")
        return found

    @staticmethod
    def price(wanted: dict[str, int], code: str | None) -> int:
        total = sum(PRICES[slug] * count for slug, count in wanted.items())
        match code:
            case "TEN":
                return total - total // 10
            case "FIVE":
                return max(0, total - 500)
        return total

    def hold(self, sale: Sale) -> None:
        for slug, count in sale.wanted.items():
            if slug in self.stock:
                self.stock[slug].reserved += count
        if sale.code is not None:
            self.uses[sale.code] += 1
        sale.holds = True

    def let_go(self, sale: Sale) -> None:
        for slug, count in sale.wanted.items():
            if slug in self.stock:
                self.stock[slug].reserved -= count
        if sale.code is not None:
            self.uses[sale.code] -= 1
        sale.holds = False

    def ship_out(self, sale: Sale) -> None:
        """Stock leaves the shelf; a use that is held stays used."""
        for slug, count in sale.wanted.items():
            if slug in self.stock:
                self.stock[slug].reserved -= count
                self.stock[slug].on_hand -= count

    def packed(self, sale: Sale, slug: str, *, at: tuple[str, ...] = ("pending", "shipped", "delivered")) -> int:
        return sum(one.items.get(slug, 0) for one in self.parcels if one.sale is sale and one.status in at)

    def status_by_parcels(self, sale: Sale) -> str:
        """Where an order's parcels put it."""
        live = [one for one in self.parcels if one.sale is sale and one.status != "canceled"]
        if not live:
            return "processing"
        everything = sum(sale.to_ship.values())

        def count(*statuses: str) -> int:
            return sum(self.packed(sale, slug, at=statuses) for slug in sale.to_ship)

        if count("delivered") == everything:
            return "delivered"
        if count("shipped", "delivered") == everything:
            return "shipped"
        return "fulfilled" if count("pending", "shipped", "delivered") == everything else "partially_fulfilled"


class Books(RuleBasedStateMachine):
    """One shop."""

    databases: ClassVar[Databases]
    dialect: ClassVar[Dialect]
    master: ClassVar[MasterKey]
    loop: ClassVar[asyncio.Runner]

    sales = Bundle("sales")
    parcels = Bundle("parcels")
    refunds = Bundle("refunds")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.rooms = contextlib.AsyncExitStack()
        self.numbers = 0

    def run(self, work: Any) -> Any:
        return self.loop.run(work)

    @initialize()
    def open_shop(self) -> None:
        async def open_() -> Shop:
            url = self.rooms.enter_context(self.databases.clean(self.dialect))
            clock = ManualClock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
            shop = await self.rooms.enter_async_context(opening(url, clock, self.master))
            self.tiers: dict[str, Sold] = {}
            for slug, amount in PRICES.items():
                made = await shop.tier(slug, amount=amount, asset="USD")
                if slug in SHIPPED:
                    body = {"tier": "default", "goods": {"sku": slug}}
                    good(await shop.staff.put(f"/v1/products/{made.product_id}/benefits", json=body))
                self.tiers[slug] = made
            for slug, stock in self.model.stock.items():
                policy = "deny" if stock.denies else "allow_backorder"
                path = f"/v1/products/{slug}/stock"
                good(await shop.staff.put(path, json={"on_hand": stock.on_hand, "policy": policy}))
            await shop.discount(TEN, amount=1000, usage_limit=LIMITS[TEN])
            await shop.discount(FIVE, kind="flat", amount=500, asset="USD", usage_limit=LIMITS[FIVE])
            return shop

        self.shop: Shop = self.run(open_())

    def teardown(self) -> None:
        self.run(self.rooms.aclose())

    # -- buying ------------------------------------------------------------------------------------

    @rule(
        target=sales,
        wanted=st.dictionaries(st.sampled_from(sorted(PRICES)), st.integers(1, 3), min_size=1),
        code=st.sampled_from([None, None, TEN, FIVE]),
        by_cart=st.booleans(),
    )
    def buy(self, wanted: dict[str, int], code: str | None, by_cart: bool) -> Any:
        answer = self.run(self._checkout(wanted, code, by_cart=by_cart))
        reasons = self.model.why_not(wanted, code)
        if reasons:
            assert answer.status_code in {409, 422}, answer.text
            assert answer.json()["code"] in reasons
            return multiple()
        opened = good(answer)
        assert opened["amount"] == self.model.price(wanted, code)
        (row,) = self.run(self.shop.rows("checkouts", id=opened["id"]))
        sale = Sale(opened["id"], row["rail_reference"], wanted, code, opened["amount"])
        self.model.sales.append(sale)
        self.model.hold(sale)
        if sale.amount == 0:  # nothing to pay: an order at once
            self._become_order(sale)
        return sale

    async def _checkout(self, wanted: dict[str, int], code: str | None, *, by_cart: bool) -> httpx.Response:
        lines = [{"price_id": self.tiers[slug].price_id, "quantity": count} for slug, count in wanted.items()]
        body: dict[str, Any] = {"lines": lines, **({"code": code} if code else {})}
        if by_cart:
            cart = await self.shop.http.post("/v1/carts", json=body)
            if not cart.is_success:
                return cart
            body = {"cart_id": cart.json()["claim"]}
        if set(wanted) & set(SHIPPED):
            body["shipping"] = ADDRESS
        return await self.shop.http.post("/v1/checkouts", json=body)

    def _become_order(self, sale: Sale) -> None:
        self.model.ship_out(sale)
        sale.status, sale.order_status = "settled", "paid"
        sale.order_id = self.run(self.shop.row("orders", checkout_id=sale.id))["id"]
        sale.payment_id = self.run(self.shop.row("payments", checkout_id=sale.id))["id"]

    @rule(sale=sales, again=st.booleans())
    def pay(self, sale: Sale, again: bool) -> None:
        """Pay in full, perhaps late; news of it may come twice."""
        if sale.amount == 0:
            return
        report = CheckoutReport(
            rail="sandbox",
            reference=sale.reference,
            checkout_id=sale.id,
            state="settled",
            payments=(PaymentFact(reference=f"p-{sale.id}", amount=Money(sale.amount, "USD"), occurred_at=self.now),),
            final=True,
        )
        for _ in range(2 if again else 1):
            self.run(self.shop.settle(report))
        if sale.status == "settled":
            return
        if sale.holds:
            self._become_order(sale)
        elif not self.model.why_not(sale.wanted, sale.code):  # let go of, but there is still enough
            self.model.hold(sale)
            self._become_order(sale)
        # Else the money is there, and what it was for is not: that waits for a person, or for more stock.

    @property
    def now(self) -> datetime:
        return self.shop.clock.now()

    @rule(sale=sales)
    def cancel(self, sale: Sale) -> None:
        answer = self.run(self.shop.staff.post(f"/v1/checkouts/{sale.id}/cancel"))
        if sale.status == "open":
            assert good(answer)["status"] == "canceled"
            sale.status = "canceled"
            self.model.let_go(sale)
        elif sale.status == "canceled":
            assert answer.status_code in {200, 409}
        else:
            assert answer.status_code == 409, answer.text

    @rule()
    def time_passes(self) -> None:
        self.shop.clock.advance(timedelta(minutes=16))
        self.run(self.shop.scope.run(expire_due))
        for sale in self.model.sales:
            if sale.status == "open":
                sale.status = "expired"
                self.model.let_go(sale)

    @rule(slug=st.sampled_from(["mug", "shirt"]), by=st.integers(-4, 4).filter(bool))
    def count_stock(self, slug: str, by: int) -> None:
        stock = self.model.stock[slug]
        answer = self.run(self.shop.staff.post(f"/v1/products/{slug}/stock/adjust", json={"by": by}))
        if stock.denies and stock.on_hand + by < stock.reserved:
            problem(answer, 409, "stock_reserved")
        else:
            stock.on_hand += by
            assert good(answer)["on_hand"] == stock.on_hand

    # -- parcels -----------------------------------------------------------------------------------

    @rule(target=parcels, sale=sales, slug=st.sampled_from(SHIPPED), count=st.integers(1, 3))
    def pack(self, sale: Sale, slug: str, count: int) -> Any:
        if not sale.order_id or slug not in sale.to_ship:
            return multiple()
        body = {"items": [{"line": sale.line_of(slug), "quantity": count}]}
        answer = self.run(self.shop.staff.post(f"/v1/orders/{sale.order_id}/fulfillments", json=body))
        if sale.order_status == "refunded":
            assert answer.status_code == 409, answer.text
            return multiple()
        if self.model.packed(sale, slug) + count > sale.wanted[slug]:
            assert answer.json()["code"] == "quantity_exceeds_order", answer.text
            return multiple()
        parcel = Parcel(good(answer)["id"], sale, {slug: count})
        self.model.parcels.append(parcel)
        sale.order_status = self.model.status_by_parcels(sale)
        return parcel

    @rule(parcel=parcels, deed=st.sampled_from(["ship", "deliver", "cancel"]))
    def move_parcel(self, parcel: Parcel, deed: str) -> None:
        after = {
            ("pending", "ship"): "shipped",
            ("shipped", "deliver"): "delivered",
            ("pending", "cancel"): "canceled",
        }.get((parcel.status, deed))
        body = {"json": {}} if deed == "ship" else {}
        answer = self.run(self.shop.staff.post(f"/v1/fulfillments/{parcel.id}/{deed}", **body))
        if after is None:
            assert answer.status_code in {200, 409}, answer.text
            if answer.status_code == 200:
                assert answer.json()["status"] == parcel.status
            return
        assert good(answer)["status"] == after
        parcel.status = after
        if parcel.sale.order_status != "refunded":
            parcel.sale.order_status = self.model.status_by_parcels(parcel.sale)

    # -- money back --------------------------------------------------------------------------------

    @rule(target=refunds, sale=sales, amount=st.integers(1, 3000))
    def ask_for_money(self, sale: Sale, amount: int) -> Any:
        if not sale.order_id or not sale.amount:
            return multiple()
        answer = self.run(self.shop.staff.post("/v1/refunds", json={"order_id": sale.order_id, "amount": amount}))
        if sale.claimed + amount > sale.amount:
            problem(answer, 409, "refund_exceeds_payment")
            return multiple()
        sale.claimed += amount
        refund = Refund(good(answer)["id"], sale, amount)
        self.model.refunds.append(refund)
        return refund

    @rule(refund=refunds, yes=st.booleans())
    def decide(self, refund: Refund, yes: bool) -> None:
        deed = "approve" if yes else "deny"
        nonce = good(self.run(self.shop.staff.post("/v1/nonces", json={"purpose": f"refund.{deed}"})))["nonce"]
        path = f"/v1/refunds/{refund.id}/{deed}"
        answer = self.run(self.shop.staff.post(path, json={}, headers={"Nonce": nonce}))
        if refund.status != "pending":
            problem(answer, 409, "refund_not_pending")
            return
        assert good(answer)["status"] == ("approved" if yes else "denied")
        if not yes:
            refund.status = "denied"
            refund.sale.claimed -= refund.amount
            return
        self.run(self._give_back())
        refund.status = "processed"
        refund.sale.refunded += refund.amount
        if refund.sale.refunded == refund.sale.amount:
            refund.sale.order_status = "refunded"

    async def _give_back(self) -> None:
        refunder = self.shop.house.refunder
        await refunder.execute_due(refunder.scope(self.shop.scope.tenant))

    # -- what must hold ----------------------------------------------------------------------------

    @invariant()
    def the_books_agree(self) -> None:
        if not hasattr(self, "shop"):
            return
        rows = self.run(self.shop.everything("events", "event_seals"))
        products = {row["id"]: row["slug"] for row in rows["products"]}
        stock = {products[row["product_id"]]: (row["on_hand"], row["reserved"]) for row in rows["stock_items"]}
        assert stock == {slug: (one.on_hand, one.reserved) for slug, one in self.model.stock.items()}
        held: dict[str, int] = dict.fromkeys(stock, 0)
        items = {row["id"]: products[row["product_id"]] for row in rows["stock_items"]}
        for row in rows["stock_reservations"]:
            if row["status"] == "active":
                held[items[row["stock_item_id"]]] += row["quantity"]
        assert held == {slug: reserved for slug, (_, reserved) in stock.items()}
        assert {row["code"]: row["times_used"] for row in rows["discounts"]} == self.model.uses
        assert {row["id"]: row["status"] for row in rows["checkouts"]} == {
            sale.id: sale.status for sale in self.model.sales
        }
        assert {row["id"]: (row["status"], row["amount"], row["refunded"]) for row in rows["orders"]} == {
            sale.order_id: (sale.order_status, sale.amount, sale.refunded) for sale in self.model.sales if sale.order_id
        }
        assert {
            row["id"]: (row["amount"], row["refund_reserved"], row["refunded"])
            for row in rows["payments"]
            if row["checkout_id"] in {sale.id for sale in self.model.sales if sale.order_id}
        } == {sale.payment_id: (sale.amount, sale.claimed, sale.refunded) for sale in self.model.sales if sale.order_id}
        assert {row["id"]: row["status"] for row in rows["refunds"]} == {
            refund.id: refund.status for refund in self.model.refunds
        }
        assert {row["id"]: row["status"] for row in rows["fulfillments"]} == {
            parcel.id: parcel.status for parcel in self.model.parcels
        }
        # What was given: a license for every unit, good unless all its money went back.
        revoked = {sale.order_id for sale in self.model.sales if sale.order_status == "refunded"}
        for row in rows["licenses"]:
            assert (row["status"] == "revoked") == (row["order_id"] in revoked)
        assert len(rows["licenses"]) == sum(sum(sale.wanted.values()) for sale in self.model.sales if sale.order_id)


def test_the_books_agree_with_a_model(databases: Databases, dialect: Dialect, master: MasterKey) -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as loop:
        machine = type("Books", (Books,), {"databases": databases, "dialect": dialect, "master": master, "loop": loop})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=max(1, STEPS // STEPS_EACH),
                stateful_step_count=STEPS_EACH,
                deadline=None,
                database=None,
                derandomize=STEPS < 1000,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],  # what fails is short enough to read, and making it shorter takes minutes
            ),
        )
