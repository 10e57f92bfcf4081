"""The sandbox, against a real server: its webhooks travel over real HTTP, and end in the books."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, get_args

import httpx
import pytest
from tests.support.app import good
from tests.support.databases import Databases, Dialect
from tests.web.html import Form, Page
from tests.web.selling import Seller, selling

from counterfoil.rails.sandbox.session import Action

pytestmark = pytest.mark.xdist_group("web-sandbox")


@pytest.fixture(scope="module", params=get_args(Dialect))
def seller(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Seller]:
    with databases.fresh(request.param) as url, selling(url, tmp_path_factory.mktemp("server")) as opened:
        yield opened


@pytest.fixture
def buyer(seller: Seller) -> Iterator[httpx.Client]:
    """A browser without JavaScript, which follows redirects and keeps cookies."""
    with httpx.Client(base_url=seller.server.url, timeout=60, trust_env=False, follow_redirects=True) as client:
        yield client


def press_buy(buyer: httpx.Client, slug: str, **fields: str) -> Page:
    """From the product page to the sandbox."""
    form = Page(buyer.get(f"/p/{slug}")).form
    page = Page(buyer.post(form.action, data={**form.fields, **fields}))
    assert "Sandbox: no real money" in page.text
    return page


def press(buyer: httpx.Client, form: Form, action: str, **fields: str) -> Page:
    """Press one of the sandbox's buttons."""
    assert action in form.buttons
    page = Page(buyer.post(form.action, data={**form.fields, **fields, "action": action}))
    assert page.status == 200, page.text
    return page


def deliveries(page: Page) -> list[tuple[str, str, str]]:
    """Each webhook: its news, the status it was answered with, and what that means."""
    cells = [element.text for element in page.all("td")]
    return list(zip(cells[::3], cells[1::3], cells[2::3], strict=True))


def way_back(page: Page) -> str:
    return page.one("a", id="back").attributes["href"]


def checkout_of(page: Page) -> str:
    (back,) = {link for link in page.links if "/thanks/chk_" in link}
    return back.rpartition("/")[2]


STORIES: list[tuple[tuple[Action, ...], list[str], str]] = [
    (("pay",), ["settled"], "settled"),
    (("underpay",), ["underpaid"], "open"),
    (("underpay", "pay"), ["settled", "settled"], "settled"),
    (("underpay", "underpay", "pay"), ["settled", "settled", "settled"], "settled"),
    (("overpay",), ["overpaid"], "settled"),
    (("pay_late",), ["late"], "settled"),
    (("underpay", "pay_late"), ["late", "settled"], "settled"),
    (("wrong_asset",), ["unmatched"], "open"),
    (("wrong_asset", "pay"), ["settled", "unmatched"], "settled"),
    (("expire",), [], "expired"),
    (("expire", "pay"), ["settled"], "settled"),
    (("underpay", "expire"), ["underpaid"], "expired"),
    (("decline",), [], "open"),
    (("decline", "pay"), ["settled"], "settled"),
]
"""What the tester does; the payments' statuses in the end, sorted; the checkout's. An order iff it settled."""


@pytest.mark.parametrize(("copies", "reorder"), [("1", False), ("3", True)], ids=["as it comes", "thrice and reversed"])
@pytest.mark.parametrize(("actions", "payments", "status"), STORIES, ids=["-".join(story[0]) for story in STORIES])
def test_every_action_ends_where_it_should(
    seller: Seller,
    buyer: httpx.Client,
    actions: tuple[Action, ...],
    payments: list[str],
    status: str,
    copies: str,
    reorder: bool,
) -> None:
    page = press_buy(buyer, seller.product())
    checkout_id = checkout_of(page)
    travel = {"copies": copies, **({"reorder": "yes"} if reorder else {})}
    for action in actions:
        page = press(buyer, page.forms[0], action, **travel)
        sent = deliveries(page)
        assert {answer for _, answer, _ in sent} == {"200"}
        news = list(dict.fromkeys(name for name, _, _ in sent))
        assert len(sent) == len(news) * int(copies)
        assert [meaning for _, _, meaning in sent].count("taken in") == len(news)
        if action in {"pay", "overpay", "pay_late"}:
            assert news[-1 if not reorder else 0] == "checkout.settled"
    assert sorted(row["status"] for row in seller.payments(checkout_id)) == payments
    assert seller.checkout(checkout_id)["status"] == status
    assert len(seller.orders(checkout_id)) == (status == "settled")
    assert way_back(page) == f"{seller.server.url}/thanks/{checkout_id}"
    thanks = Page(buyer.get(way_back(page)))
    assert len(thanks.keys) == (status == "settled")
    for key in thanks.keys:
        assert good(buyer.post("/v1/validate", json={"key": key}))["ok"]


def test_sending_again_changes_nothing(seller: Seller, buyer: httpx.Client) -> None:
    page = press(buyer, press_buy(buyer, seller.product()).form, "pay")
    checkout_id = checkout_of(page)
    before = (seller.payments(checkout_id), seller.orders(checkout_id), seller.checkout(checkout_id))
    again = press(buyer, page.form, "pay")
    assert {meaning for _, _, meaning in deliveries(again)} == {"known already"}
    assert (seller.payments(checkout_id), seller.orders(checkout_id), seller.checkout(checkout_id)) == before


async def test_pressing_at_once_is_one_payment(seller: Seller, buyer: httpx.Client) -> None:
    page = press_buy(buyer, seller.product())
    form = {**page.form.fields, "action": "pay", "copies": "2"}
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        answers = await asyncio.gather(*[client.post(page.form.action, data=form) for _ in range(5)])
    assert [answer.status_code for answer in answers] == [200] * 5
    checkout_id = checkout_of(page)
    assert [row["status"] for row in seller.payments(checkout_id)] == ["settled"]
    assert len(seller.orders(checkout_id)) == 1
    meanings = [meaning for answer in answers for _, _, meaning in deliveries(Page(answer))]
    assert sorted(set(meanings)) == ["known already", "taken in"]
    assert meanings.count("taken in") == 2  # the payment under way, and its end


def test_going_back_and_paying_again_is_another_payment(seller: Seller, buyer: httpx.Client) -> None:
    page = press_buy(buyer, seller.product())
    press(buyer, page.form, "underpay")
    press(buyer, page.form, "pay")
    statuses = sorted(row["status"] for row in seller.payments(checkout_of(page)))
    assert statuses == ["overpaid", "settled"]
    assert len(seller.orders(checkout_of(page))) == 1


def test_what_is_left_is_carried_along(seller: Seller, buyer: httpx.Client) -> None:
    page = press(buyer, press_buy(buyer, seller.product(amount=1001)).form, "underpay")
    assert "$5.01 is left to pay" in page.text
    assert page.forms[0].buttons[0] == "pay"
    done = press(buyer, page.forms[0], "pay")
    amounts = sorted(row["amount"] for row in seller.payments(checkout_of(page)))
    assert amounts == [500, 501]
    assert len(done.forms) == 1  # only sending again is left


@pytest.mark.parametrize(("asset", "amount", "said"), [("JPY", 1, "¥1"), ("SAT", 3, "3 sats"), ("EUR", 999, "€9.99")])
def test_any_asset_can_be_paid(seller: Seller, buyer: httpx.Client, asset: str, amount: int, said: str) -> None:
    page = press_buy(buyer, seller.product(asset=asset, amount=amount))
    assert f"Pay {said}" in page.text
    checkout_id = checkout_of(press(buyer, page.form, "pay"))
    (payment,) = seller.payments(checkout_id)
    facts: dict[str, Any] = {name: payment[name] for name in ("amount", "asset", "status", "rail")}
    assert facts == {"amount": amount, "asset": asset, "status": "settled", "rail": "sandbox"}
