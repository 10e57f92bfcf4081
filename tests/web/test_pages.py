"""The shop's pages, in this process, on both databases."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec
import pytest
from tests.support.app import Shop, Sold, client_of, good, opening
from tests.web.html import Page

from counterfoil.accounts import tenants
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.exchange import rail_settings
from counterfoil.kernel.clock import ManualClock
from counterfoil.kernel.money import Money
from counterfoil.kernel.secrets import MasterKey
from counterfoil.kernel.signing import PrivateKey
from counterfoil.licensing import licenses, signing_keys
from counterfoil.rails.base import CheckoutReport, CheckoutState, PaymentFact
from counterfoil.rails.btcpay.settings import BTCPaySettings
from counterfoil.rails.sandbox.rail import SandboxSettings
from counterfoil.rails.sandbox.session import Action, act, seal, unseal
from counterfoil.rails.stripe import StripeSettings
from counterfoil.sales import checkouts
from counterfoil.web import words

MINUTE = timedelta(minutes=1)
SCRIPT = "<script>alert(1)</script>"
CLAIM = re.compile(r"pur_[0-9a-z]{52}")


async def see(visitor: httpx.AsyncClient, path: str, status: int = 200) -> Page:
    """Open a page, which must carry the headers of every page and run nothing."""
    return check(await visitor.get(path), status)


def check(response: httpx.Response, status: int = 200) -> Page:
    assert response.status_code == status, response.text
    headers = response.headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["img-src"] == "'self' https: data:"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    page = Page(response)
    page.assert_inert()
    return page


async def send(visitor: httpx.AsyncClient, page: Page, **changes: str) -> httpx.Response:
    """Send the page's form with some fields filled in."""
    return await visitor.post(page.form.action, data={**page.form.fields, **changes})


async def buy(visitor: httpx.AsyncClient, slug: str, **changes: str) -> str:
    """Press Buy; where the browser is sent."""
    response = await send(visitor, await see(visitor, f"/p/{slug}"), **changes)
    assert response.status_code == 303, response.text
    return str(response.headers["location"])


async def latest(shop: Shop) -> dict[str, Any]:
    return (await shop.rows("checkouts"))[-1]


async def bought(shop: Shop, visitor: httpx.AsyncClient, sold: Sold, **changes: str) -> str:
    """Press Buy; the id of the checkout that came of it."""
    known = {row["id"] for row in await shop.rows("checkouts")}
    await buy(visitor, sold.slug, price_id=sold.price_id, **changes)
    (fresh,) = [row["id"] for row in await shop.rows("checkouts") if row["id"] not in known]
    return str(fresh)


async def play(shop: Shop, checkout_id: str, *actions: Action) -> None:
    """What a tester does on the sandbox page, told in order."""
    row = await shop.row("checkouts", id=checkout_id)
    await shop.play({"url": row["url"]}, *actions)


# -- the shop -----------------------------------------------------------------------------------------


async def test_the_shop_lists_what_is_for_sale(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier("editor", amount=2900, asset="USD", tier="personal")
    await shop.tier("editor", amount=9900, asset="USD", tier="studio")
    await shop.tier("viewer", amount=0, asset="EUR")
    archived = await shop.tier("relic")
    good(await shop.staff.patch(f"/v1/products/{archived.product_id}", json={"status": "archived"}))
    page = await see(visitor, "/")
    assert "from $29.00" in page.text
    assert "Free" in page.text
    assert {link for link in page.links if link.startswith("/p/")} == {"/p/editor", "/p/viewer"}
    assert "Relic" not in page.text


async def test_an_empty_shop_says_so(shop: Shop, visitor: httpx.AsyncClient) -> None:
    assert "nothing for sale yet" in (await see(visitor, "/")).text


async def test_the_shop_goes_on_page_by_page(shop: Shop, visitor: httpx.AsyncClient) -> None:
    names = [f"product-{number:02}" for number in range(23)]
    for name in names:
        good(await shop.staff.post("/v1/products", json={"slug": name, "name": name}))
        shop.clock.advance(timedelta(seconds=1))
    first = await see(visitor, "/")
    (more,) = [element.attributes["href"] for element in first.all("a", rel="next")]
    second = await see(visitor, more)
    shown = [link.removeprefix("/p/") for page in (first, second) for link in page.links if link.startswith("/p/")]
    assert shown == names
    assert not second.all("a", rel="next")


async def test_a_made_up_cursor_is_refused(shop: Shop, visitor: httpx.AsyncClient) -> None:
    for after in ("junk", "%ff", "WyJhIiwiYiJd", "1" * 500):
        assert (await see(visitor, f"/?after={after}", 422)).heading


# -- a product ----------------------------------------------------------------------------------------


async def test_a_product_says_what_it_promises(shop: Shop, visitor: httpx.AsyncClient) -> None:
    sold = await shop.tier("editor", amount=2900, asset="USD", tier="personal", license={"max_machines": 3})
    shop.clock.advance(MINUTE)
    year = {"max_machines": 0, "duration_seconds": 365 * 86_400, "grace_seconds": 14 * 86_400}
    await shop.tier(
        "editor",
        amount=9900,
        asset="USD",
        tier="all-of-it",
        license={**year, "entitlements": ["export", "sync"]},
        description="For teams.",
    )
    await shop.tier(
        "editor", amount=500, asset="USD", tier="monthly", type="recurring", interval="month", interval_count=1
    )
    changes = {"description": "One\nline.\n\nTwo.", "image_url": "https://pictures.test/a.png"}
    good(await shop.staff.patch(f"/v1/products/{sold.product_id}", json=changes))
    page = await see(visitor, "/p/editor")
    assert page.heading == "Editor"
    assert [element.text for element in page.all("p") if element.text in {"One line.", "Two."}] == ["One line.", "Two."]
    assert page.one("img").attributes["src"] == "https://pictures.test/a.png"
    personal, studio = page.all("label", class_="choice")
    assert personal.text == "Personal $29.00 3 machines Never expires"
    assert studio.text == (
        "All of it $99.00 For teams. "
        "Any number of machines 1 year, then 14 days of grace export sync"
    )  # fmt: skip
    assert page.form.fields["price_id"] == sold.price_id
    assert re.fullmatch(r"[0-9a-f]{32}", page.form.fields["attempt"])


async def test_what_is_paid_again_is_sold_where_a_rail_takes_money_again(
    shop: Shop, visitor: httpx.AsyncClient
) -> None:
    await shop.tier("editor", amount=2900, asset="USD", tier="personal")
    shop.clock.advance(MINUTE)
    monthly = {"type": "recurring", "interval": "month", "interval_count": 1, "trial_days": 14}
    sold = await shop.tier("editor", amount=500, asset="USD", tier="monthly", **monthly)
    assert len((await see(visitor, "/p/editor")).all("label", class_="choice")) == 0
    settings = StripeSettings(base_url="http://127.0.0.1:9", api_key="sk_test_x", livemode=False)
    await shop.scope.run(rail_settings.save, shop.house.master, "stripe-test", settings, {})
    page = await see(visitor, "/p/editor")
    _once, again, *rails = page.all("label", class_="choice")
    assert again.text == "Monthly $5.00 per month, after 14 days free 1 machine Good for as long as it is paid"
    assert [rail.text for rail in rails] == ["Sandbox (no real money)", "Card (Stripe, no real money)"]
    before = await shop.everything()
    form = {**page.form.fields, "price_id": sold.price_id, "rail": "sandbox"}
    refused = await visitor.post("/p/editor/buy", data=form)
    assert refused.status_code == 422
    assert "This is paid again and again: choose another way to pay." in refused.text
    assert await shop.everything() == before


async def test_a_form_is_never_stored_nor_shown_twice(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier()
    first, second = await visitor.get("/p/editor"), await visitor.get("/p/editor")
    assert first.headers["cache-control"] == "no-store"
    assert check(first).form.fields["attempt"] != check(second).form.fields["attempt"]


async def test_a_picture_without_tls_is_left_out(shop: Shop, visitor: httpx.AsyncClient) -> None:
    sold = await shop.tier()
    good(await shop.staff.patch(f"/v1/products/{sold.product_id}", json={"image_url": "http://pictures.test/a.png"}))
    assert not (await see(visitor, "/p/editor")).all("img")
    assert not (await see(visitor, "/")).all("img")


async def test_what_cannot_be_bought_has_no_form(shop: Shop, visitor: httpx.AsyncClient) -> None:
    good(await shop.staff.post("/v1/products", json={"slug": "bare", "name": "Bare"}))
    page = await see(visitor, "/p/bare")
    assert not page.forms
    assert "Not for sale now" in page.text


async def test_what_applies_by_itself_is_on_the_page(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier("editor", amount=2_900, asset="USD", tier="personal")
    shop.clock.advance(MINUTE)
    team = await shop.tier("editor", amount=9_900, asset="USD", tier="team")
    assert "instead of" not in (await see(visitor, "/p/editor")).text
    body = {"kind": "percentage", "amount": 1_000, "auto_apply": True, "price_ids": [team.price_id]}
    good(await shop.staff.post("/v1/discounts", json=body))
    text = " ".join((await see(visitor, "/p/editor")).text.split())
    assert "$89.10 instead of $99.00" in text
    assert text.count("instead of") == 1


async def test_unknown_and_archived_products_are_not_there(shop: Shop, visitor: httpx.AsyncClient) -> None:
    sold = await shop.tier()
    shown = await see(visitor, "/p/editor")
    good(await shop.staff.patch(f"/v1/products/{sold.product_id}", json={"status": "archived"}))
    for path in ("/p/editor", "/p/nothing", "/p/pro_x", "/p/<script>"):
        page = await see(visitor, path, 404)
        assert page.heading == "We cannot find that page"
    response = await send(visitor, shown, price_id=sold.price_id)
    assert check(response, 404).heading == "We cannot find that page"
    assert await shop.count("checkouts") == 0


@pytest.mark.parametrize("hostile", [SCRIPT, '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "{{ 7*7 }}"])
async def test_hostile_texts_are_only_texts(shop: Shop, visitor: httpx.AsyncClient, hostile: str) -> None:
    product = {"slug": "bad", "name": hostile, "description": f"{hostile}\n\n{hostile}"}
    made = good(await shop.staff.post("/v1/products", json={**product, "image_url": "https://x.test/'onload='a"}))
    promise = {"license": {"entitlements": [hostile]}}
    good(await shop.staff.put(f"/v1/products/{made['id']}/benefits", json=promise))
    price = {"asset": "USD", "unit_amount": 100, "name": hostile, "description": hostile}
    good(await shop.staff.post(f"/v1/products/{made['id']}/prices", json=price))
    good(await shop.staff.post(f"/v1/products/{made['id']}/prices", json=price))
    assert " ".join(hostile.split()) in (await see(visitor, "/")).text
    page = await see(visitor, "/p/bad")
    assert page.heading == hostile
    failed = check(await send(visitor, page, email=hostile, code=hostile), 422)
    assert {failed.form.fields["email"], failed.form.fields["code"]} == {hostile}
    location = await buy(visitor, "bad")
    assert (await see(visitor, location.removeprefix("http://127.0.0.1:8787"))).heading.startswith(hostile)
    checkout = await latest(shop)
    await play(shop, checkout["id"], "pay")
    page = await see(visitor, f"/thanks/{checkout['id']}")
    assert page.keys
    assert hostile in page.text


# -- buying -------------------------------------------------------------------------------------------


async def test_buying_leads_to_the_rail_and_leaves_a_cookie(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier(amount=2900, asset="USD")
    response = await send(visitor, await see(visitor, "/p/editor"), email=" Buyer@Example.com ", quantity="2")
    assert response.status_code == 303
    checkout = await latest(shop)
    assert response.headers["location"] == checkout["url"]
    assert (checkout["amount"], checkout["email"]) == (5800, "buyer@example.com")
    (cookie,) = response.headers.get_list("set-cookie")
    name, _, rest = cookie.partition("=")
    assert name == f"cf_claim_{checkout['id'][4:]}"
    value, *attributes = [part.strip().lower() for part in rest.split(";")]
    assert CLAIM.fullmatch(value)
    assert set(attributes) == {"path=/", "httponly", "samesite=lax", f"max-age={30 * 86_400}"}
    # The rail learns the way back, but never what shows the key.
    session = await shop.session({"url": checkout["url"]})
    assert session.return_url == f"http://127.0.0.1:8787/thanks/{checkout['id']}"
    assert not CLAIM.search(msgspec.json.encode(session).decode())
    assert not CLAIM.search(checkout["url"])


async def test_a_shop_on_tls_sends_its_cookies_over_tls_only(
    database_url: str, clock: ManualClock, master: MasterKey
) -> None:
    async with opening(database_url, clock, master, public_url="https://shop.test") as shop:
        await shop.tier()
        async with client_of(shop.app) as visitor:
            visitor.base_url = "https://shop.test"  # type: ignore[assignment]
            first = await visitor.get("/p/editor")
            response = await send(visitor, check(first))
    for answer, name in ((first, "__Host-cf_visitor="), (response, "cf_claim_")):
        (cookie,) = answer.headers.get_list("set-cookie")
        assert cookie.startswith(name)
        assert "; secure" in cookie.lower()
    assert response.headers["location"].startswith("https://shop.test/sandbox/pay/")


MISTAKES = [
    ("code", "NOPE", "We do not know this code."),
    ("code", "x" * 5000, "We do not know this code."),
    ("code", "'; DROP TABLE discounts; --", "We do not know this code."),
    ("code", "GONE", "This code has expired."),
    ("code", "SPENT", "This code has been used up."),
    ("code", "OTHER", "This code is not for what you chose."),
    ("email", "not an address", "Not an e-mail address."),
    ("email", "a@b@c", "Not an e-mail address."),
    ("email", "a" * 100 + "@x.test", "Not an e-mail address."),
    ("email", "a@x.test\r\nBcc: everybody@x.test", "Not an e-mail address."),
    ("quantity", "0", "This price sells from 1 to 5."),
    ("quantity", "6", "This price sells from 1 to 5."),
    ("quantity", "1.5", "Enter a whole number."),
    ("quantity", "-1", "Enter a whole number."),
    ("quantity", "\uff11", "Enter a whole number."),
    ("quantity", "9" * 40, "Enter a whole number."),
    ("price_id", "pri_nope", "This is no longer for sale at that price. Please choose again."),
    ("price_id", "", "This is no longer for sale at that price. Please choose again."),
    ("rail", "nope", "This way to pay is not available. Please choose another."),
    ("rail", "free", "Choose how to pay."),
]


async def test_mistakes_are_told_beside_their_field(shop: Shop, visitor: httpx.AsyncClient) -> None:
    sold = await shop.tier(amount=1000, asset="USD", quantity_max=5)
    other = await shop.tier("other", amount=1000, asset="USD")
    await shop.discount("GONE", amount=1000, expires_at="2026-01-01T00:00:00Z")
    await shop.discount("SPENT", amount=1000, usage_limit=1)
    await shop.discount("OTHER", amount=1000, product_ids=[other.product_id])
    await shop.checkout(sold, code="SPENT")
    before = await shop.everything()
    for field, value, message in MISTAKES:
        page = check(await send(visitor, await see(visitor, "/p/editor"), **{field: value}), 422)
        name = "price" if field == "price_id" else field
        assert page.one("p", id=f"{name}-error").text == message, value
        assert page.one("div", role="alert")
        if field in {"code", "email"}:
            control = page.one("input", name=field)
            assert control.attributes["value"] == value.strip()
            assert control.attributes["aria-invalid"] == "true"
            assert f"{field}-error" in control.attributes["aria-describedby"].split()
    assert await shop.everything() == before
    assert set(visitor.cookies) == {"cf_visitor"}


async def test_a_price_of_another_product_is_not_sold_here(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier(amount=1000)
    cheap = await shop.tier("cheap", amount=1)
    page = check(await send(visitor, await see(visitor, "/p/editor"), price_id=cheap.price_id), 422)
    assert "no longer for sale" in page.text
    assert await shop.count("checkouts") == 0


async def test_a_changed_price_is_not_charged_unseen(shop: Shop, visitor: httpx.AsyncClient) -> None:
    sold = await shop.tier(amount=1000, asset="USD")
    await shop.checkout(sold)
    page = await see(visitor, "/p/editor")
    shop.clock.advance(MINUTE)
    good(await shop.staff.patch(f"/v1/prices/{sold.price_id}", json={"unit_amount": 2000}))
    again = check(await send(visitor, page), 422)
    assert "no longer for sale at that price" in again.text
    assert "$20.00" in again.text
    assert (await send(visitor, again)).status_code == 303
    assert (await latest(shop))["amount"] == 2000


async def test_what_no_form_sends_is_refused(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier()
    form = "application/x-www-form-urlencoded"
    csrf = b"csrf=" + (await see(visitor, "/p/editor")).form.fields["csrf"].encode()
    # What the shop answers to each, and what the sandbox does, where a form without a session is for nobody.
    for body, kind, status, of_sandbox in [
        (b"email=%00", form, 422, 422),
        (b"email=\x00", form, 422, 422),
        (csrf + b"&email=%ff%fe", form, 422, 404),
        (b"email=%ff%fe", form, 403, 404),
        (b"&".join(b"f%d=1" % number for number in range(60)), form, 400, 400),
        (b"{}", "application/json", 415, 415),
        (b"", "text/plain", 415, 415),
        (b"--x", "multipart/form-data; boundary=x", 415, 415),
        (csrf, form, 422, 404),
        (b"", form, 403, 404),
    ]:
        for path, expected in (("/p/editor/buy", status), ("/sandbox/pay", of_sandbox)):
            check(await visitor.post(path, content=body, headers={"Content-Type": kind}), expected)
    assert await shop.count("checkouts") == 0


async def test_a_form_of_another_page_or_browser_buys_nothing(
    shop: Shop, visitor: httpx.AsyncClient, other_visitor: httpx.AsyncClient
) -> None:
    await shop.tier()
    page, other = await see(visitor, "/p/editor"), await see(other_visitor, "/p/editor")
    for csrf in ("", "0" * 40, other.form.fields["csrf"], page.form.fields["csrf"][:-1], "é"):
        assert "This form is too old" in check(await send(visitor, page, csrf=csrf), 403).text
    async with client_of(shop.app) as without_cookies:
        check(await send(without_cookies, page), 403)
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
    ):
        check(await visitor.post(page.form.action, data=page.form.fields, headers=headers), 403)
    assert await shop.count("checkouts") == 0
    for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://127.0.0.1:8787"}):
        answer = await visitor.post(page.form.action, data=page.form.fields, headers=headers)
        assert answer.status_code == 303


async def test_a_free_price_goes_straight_to_its_key(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier(amount=0)
    location = await buy(visitor, "editor")
    checkout = await latest(shop)
    assert location == f"/thanks/{checkout['id']}"
    page = await see(visitor, location)
    assert page.heading == "Thank you"
    assert len(page.keys) == 1
    assert "payment" not in page.one("div", role="status").text


async def test_a_code_that_makes_it_free_goes_straight_to_its_key(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier()
    await shop.discount("GIFT", kind="free")
    page = await see(visitor, await buy(visitor, "editor", code=" gift "))
    assert len(page.keys) == 1


async def test_pressing_twice_opens_one_checkout(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier()
    await shop.discount("ONCE", amount=1000, usage_limit=1)
    page = await see(visitor, "/p/editor")
    first = await send(visitor, page, code="ONCE")
    second = await send(visitor, page, code="ONCE")
    assert first.status_code == second.status_code == 303
    assert first.headers["location"] == second.headers["location"]
    assert await shop.count("checkouts") == 1
    # Another choice on the same form is another wish, not the same one again.
    third = await send(visitor, page, quantity="3")
    assert third.headers["location"] != first.headers["location"]
    assert await shop.count("checkouts") == 2


async def test_a_form_whose_checkout_is_over_opens_another(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier()
    page = await see(visitor, "/p/editor")
    first = await send(visitor, page)
    shop.clock.advance(16 * MINUTE)
    await shop.scope.run(checkouts.expire_due)
    second = await send(visitor, page)
    assert first.headers["location"] != second.headers["location"]
    assert await shop.count("checkouts") == 2


async def test_a_made_up_attempt_is_no_name_for_anothers_checkout(
    shop: Shop, visitor: httpx.AsyncClient, other_visitor: httpx.AsyncClient
) -> None:
    await shop.tier()
    pages = [(who, await see(who, "/p/editor")) for who in (visitor, other_visitor)]
    for attempt in ("1", "", "x" * 32, "../" * 10):
        first, second = [await send(who, page, attempt=attempt) for who, page in pages]
        assert first.headers["location"] != second.headers["location"]


async def test_a_browser_does_not_drown_in_cookies(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier()
    for _ in range(45):
        await buy(visitor, "editor")
        shop.clock.advance(timedelta(seconds=1))
    held = {cookie.name for cookie in visitor.cookies.jar}
    ids = [row["id"][4:] for row in await shop.rows("checkouts")]
    assert held == {"cf_visitor", *(f"cf_claim_{one}" for one in ids[-40:])}


async def test_too_many_purchases_are_slowed_down(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    async with opening(database_url, clock, master, validations_per_minute=2) as shop:
        await shop.tier()
        async with client_of(shop.app) as visitor:
            page = await see(visitor, "/p/editor")
            answers = [await send(visitor, page) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [303, 303, 429]
            assert check(answers[-1], 429).heading == "One moment, please"
            # Nor may the sandbox be used to flood the shop with webhooks.
            check(await visitor.post("/sandbox/pay", data={"token": "x"}), 429)


async def test_reloading_after_a_mistake_leads_back(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier()
    response = await visitor.get("/p/editor/buy")
    assert (response.status_code, response.headers["location"]) == (303, "/p/editor")
    response = await visitor.get("/p/%2F%2Fevil.test/buy")
    assert not response.headers.get("location", "").startswith("//")


# -- how it is paid -----------------------------------------------------------------------------------


async def connect_btcpay(shop: Shop, base_url: str) -> None:
    settings = BTCPaySettings(base_url=base_url, store_id="s", api_key="k", webhook_id=None, webhook_secret="w")
    await shop.scope.run(rail_settings.save, shop.house.master, "btcpay", settings, {})


async def test_where_there_are_several_rails_the_buyer_chooses(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier()
    assert (await see(visitor, "/p/editor")).form.fields["quantity"] == "1"
    await connect_btcpay(shop, "http://btcpay.local:8080")
    response = await visitor.get("/p/editor")
    page = check(response)
    assert [one.attributes["value"] for one in page.all("input", name="rail")] == ["btcpay", "sandbox"]
    assert page.form.fields["rail"] == "btcpay"
    # A browser must be allowed to follow the redirect to a rail, also to one without TLS on the seller's own network.
    policy = response.headers["content-security-policy"]
    assert "form-action 'self' https: http://127.0.0.1:8787 http://btcpay.local:8080;" in policy
    assert (await send(visitor, page, rail="sandbox")).status_code == 303
    assert (await latest(shop))["rail"] == "sandbox"


async def test_a_rail_that_does_not_answer_is_no_dead_end(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier()
    await connect_btcpay(shop, "http://127.0.0.1:9")  # the discard port: nobody listens
    page = await see(visitor, "/p/editor")
    failed = check(await send(visitor, page, rail="btcpay", email="a@x.test"), 503)
    assert "Nothing was charged" in failed.one("div", role="alert").text
    assert failed.form.fields["email"] == "a@x.test"
    # Trying again is the same attempt, so that no second invoice is made for it.
    check(await send(visitor, failed, rail="btcpay"), 503)
    assert await shop.count("checkouts", rail="btcpay") == 1


async def test_without_a_rail_only_what_is_free_can_be_had(
    database_url: str, clock: ManualClock, master: MasterKey
) -> None:
    async with opening(database_url, clock, master, sandbox=False) as shop:
        await shop.tier("editor", amount=100)
        await shop.tier("viewer", amount=0)
        async with client_of(shop.app) as visitor:
            page = await see(visitor, "/p/editor")
            assert not page.forms
            assert "cannot take payments yet" in page.text
            assert (await see(visitor, await buy(visitor, "viewer"))).keys


# -- after paying -------------------------------------------------------------------------------------


@asynccontextmanager
async def waiting(shop: Shop, visitor: httpx.AsyncClient, amount: int = 1000) -> AsyncIterator[str]:
    """A checkout in USD, and that its page says nothing to strangers whatever happens."""
    checkout_id = await bought(shop, visitor, await shop.tier(amount=amount, asset="USD"))
    yield checkout_id
    async with client_of(shop.app) as stranger:
        response = await stranger.get(f"/thanks/{checkout_id}")
    unknown = await visitor.get("/thanks/chk_01aryz6s41tsv4rrffq69g5fav")
    assert check(response).html == check(unknown).html


async def test_the_page_waits_ever_more_patiently(shop: Shop, visitor: httpx.AsyncClient) -> None:
    async with waiting(shop, visitor) as checkout_id:
        page = await see(visitor, f"/thanks/{checkout_id}")
        assert page.heading == "Waiting for your payment"
        assert not page.keys
        assert (await latest(shop))["url"] in page.links
        waits = []
        for number in [*range(14), 999]:
            page = await see(visitor, f"/thanks/{checkout_id}?n={number}")
            content = page.one("meta", **{"http-equiv": "refresh"}).attributes["content"]
            seconds, _, rest = content.partition("; url=?n=")
            assert int(rest) == min(number + 1, 999)
            waits.append(int(seconds))
        assert waits == sorted(waits)
        assert (waits[0], waits[-1]) == (2, 60)
        for junk in ("", "-1", "x", "²", "9" * 50, "1;url=//evil.test"):
            page = await see(visitor, f"/thanks/{checkout_id}?{urlencode({'n': junk})}")
            assert page.one("meta", **{"http-equiv": "refresh"}).attributes["content"] == "2; url=?n=1"


async def test_a_settled_payment_shows_the_key(shop: Shop, visitor: httpx.AsyncClient) -> None:
    async with waiting(shop, visitor) as checkout_id:
        await play(shop, checkout_id, "pay")
        response = await visitor.get(f"/thanks/{checkout_id}")
        page = check(response)
        assert page.heading == "Thank you"
        assert not page.all("meta", **{"http-equiv": "refresh"})
        claim = visitor.cookies[f"cf_claim_{checkout_id[4:]}"]
        assert page.keys == (await shop.claim({"claim": claim}))["license_keys"]
        (order,) = await shop.rows("orders")
        assert order["id"] in page.text
        assert "paste it where it asks for a license key" in page.text
        assert "until 1 February 2026" in page.text
        assert claim not in page.html
        assert response.headers["cache-control"] == "no-store"
        assert "noindex" in response.headers["x-robots-tag"]
        assert "form-action 'none'" in response.headers["content-security-policy"]
        # Copying needs the script; without it the button is not there, and the key can be selected.
        assert "hidden" in page.one("button", class_="copy").attributes


async def test_several_licenses_show_several_keys(shop: Shop, visitor: httpx.AsyncClient) -> None:
    checkout_id = await bought(shop, visitor, await shop.tier(), quantity="3")
    await play(shop, checkout_id, "pay")
    page = await see(visitor, f"/thanks/{checkout_id}")
    assert len(set(page.keys)) == 3
    assert "2 of 3" in page.text


@pytest.mark.parametrize(
    ("actions", "heading", "words_of_it", "waits", "keys"),
    [
        (("underpay",), "Part of your payment is missing", "still missing: $5.00", True, 0),
        (("underpay", "pay"), "Thank you", "Here is your license key", False, 1),
        (("overpay",), "Thank you", "You paid $1.00 more than it costs", False, 1),
        (("pay_late",), "Thank you", "Here is your license key", False, 1),
        (("wrong_asset",), "Your payment does not match", "€10.00 arrived, but $10.00 was asked for", True, 0),
        (("expire",), "This checkout has expired", "Money that arrives late still counts", False, 0),
        (("underpay", "expire"), "Time ran out before it was paid in full", "still missing: $5.00", False, 0),
        (("wrong_asset", "expire"), "Time ran out before it was paid in full", "another currency", False, 0),
        (("expire", "pay"), "Thank you", "Here is your license key", False, 1),
        (("decline",), "Waiting for your payment", "The price holds until", True, 0),
    ],
)
async def test_every_way_to_pay_has_its_words(
    shop: Shop,
    visitor: httpx.AsyncClient,
    actions: tuple[Action, ...],
    heading: str,
    words_of_it: str,
    waits: bool,
    keys: int,
) -> None:
    async with waiting(shop, visitor) as checkout_id:
        await play(shop, checkout_id, *actions)
        page = await see(visitor, f"/thanks/{checkout_id}")
        assert page.heading == heading
        assert words_of_it in page.text
        assert bool(page.all("meta", **{"http-equiv": "refresh"})) is waits
        assert len(page.keys) == keys
        if heading == "This checkout has expired":
            assert "/p/editor" in page.links


def report(
    checkout: dict[str, Any], state: CheckoutState, *paid: int, at: ManualClock, final: bool = False
) -> CheckoutReport:
    return CheckoutReport(
        rail=checkout["rail"],
        reference=checkout["rail_reference"],
        checkout_id=checkout["id"],
        state=state,
        payments=tuple(
            PaymentFact(reference=f"ref-{place}", amount=Money(amount, checkout["asset"]), occurred_at=at.now())
            for place, amount in enumerate(paid)
        ),
        final=final,
    )


async def test_a_payment_under_way_is_being_confirmed(shop: Shop, visitor: httpx.AsyncClient) -> None:
    async with waiting(shop, visitor) as checkout_id:
        await shop.settle(report(await latest(shop), "processing", at=shop.clock))
        page = await see(visitor, f"/thanks/{checkout_id}")
        assert page.heading == "Your payment is being confirmed"
        assert page.all("meta", **{"http-equiv": "refresh"})


async def test_a_failed_payment_says_so(shop: Shop, visitor: httpx.AsyncClient) -> None:
    async with waiting(shop, visitor) as checkout_id:
        await shop.settle(report(await latest(shop), "failed", at=shop.clock, final=True))
        page = await see(visitor, f"/thanks/{checkout_id}")
        assert page.heading == "The payment did not go through"
        assert not page.all("meta", **{"http-equiv": "refresh"})
        assert "/p/editor" in page.links


async def test_what_a_person_must_decide_is_told(shop: Shop, visitor: httpx.AsyncClient) -> None:
    async with waiting(shop, visitor) as checkout_id:
        await shop.settle(report(await latest(shop), "settled", 900, at=shop.clock, final=True))
        page = await see(visitor, f"/thanks/{checkout_id}")
        assert page.heading == "The seller is looking at your payment"
        assert "We received $9.00 of $10.00; still missing: $1.00." in page.text
        (payment,) = await shop.rows("payments")
        accepted = {"resolution": "accepted"}
        good(await shop.staff.post(f"/v1/payments/{payment['id']}/resolve", json=accepted))
        assert len((await see(visitor, f"/thanks/{checkout_id}")).keys) == 1


async def test_keys_are_shown_for_as_long_as_the_claim_lasts(shop: Shop, visitor: httpx.AsyncClient) -> None:
    async with waiting(shop, visitor) as checkout_id:
        await play(shop, checkout_id, "pay")
        cookie = {f"cf_claim_{checkout_id[4:]}": visitor.cookies[f"cf_claim_{checkout_id[4:]}"]}
        shop.clock.advance(timedelta(days=30))
        async with client_of(shop.app) as later:
            later.cookies.update(cookie)
            page = await see(later, f"/thanks/{checkout_id}")
    assert not page.keys
    assert "Its key was shown here until 1 February 2026" in page.text


async def test_a_revoked_license_shows_no_key(shop: Shop, visitor: httpx.AsyncClient) -> None:
    async with waiting(shop, visitor) as checkout_id:
        await play(shop, checkout_id, "pay")
        (license_,) = await shop.rows("licenses")
        await shop.scope.run(licenses.revoke, license_["id"], reason="test")
        page = await see(visitor, f"/thanks/{checkout_id}")
        assert not page.keys
        assert "not active now" in page.text


async def test_a_purchase_without_a_license_is_complete(shop: Shop, visitor: httpx.AsyncClient) -> None:
    made = good(await shop.staff.post("/v1/products", json={"slug": "mug", "name": "Mug"}))
    price = {"asset": "USD", "unit_amount": 100}
    price_id = good(await shop.staff.post(f"/v1/products/{made['id']}/prices", json=price))["id"]
    checkout_id = await bought(shop, visitor, Sold(made["id"], "mug", price_id, "default", 100, "USD"))
    await play(shop, checkout_id, "pay")
    assert "your purchase is complete" in (await see(visitor, f"/thanks/{checkout_id}")).text


async def test_only_the_buyers_own_cookie_shows_anything(
    shop: Shop, visitor: httpx.AsyncClient, other_visitor: httpx.AsyncClient
) -> None:
    sold = await shop.tier()
    mine = await bought(shop, visitor, sold)
    theirs = await bought(shop, other_visitor, sold)
    await play(shop, mine, "pay")
    own_claim = visitor.cookies[f"cf_claim_{mine[4:]}"]
    their_claim = other_visitor.cookies[f"cf_claim_{theirs[4:]}"]
    plain = await see(other_visitor, "/thanks/chk_01aryz6s41tsv4rrffq69g5fav")
    forged = {
        "another's": their_claim,
        "changed": own_claim[:-1] + ("a" if own_claim[-1] != "a" else "b"),
        "cut": own_claim[:-1],
        "no checksum": own_claim[:30],
        "the id": mine,
        "of another kind": own_claim.replace("pur_", "chk_"),
        "nothing": "",
        "not ascii": '"\\303\\251"',
    }
    for kind, claim in forged.items():
        headers = {"Cookie": f"cf_claim_{mine[4:]}={claim}"}
        page = check(await other_visitor.get(f"/thanks/{mine}", headers=headers))
        assert page.html == plain.html, kind
    # The right claim under another purchase's name shows neither.
    headers = {"Cookie": f"cf_claim_{theirs[4:]}={own_claim}"}
    for checkout_id in (mine, theirs):
        assert check(await other_visitor.get(f"/thanks/{checkout_id}", headers=headers)).html == plain.html
    assert (await see(visitor, f"/thanks/{mine}")).keys


async def test_a_hostile_checkout_name_reveals_and_breaks_nothing(shop: Shop, visitor: httpx.AsyncClient) -> None:
    plain = await see(visitor, "/thanks/chk_01aryz6s41tsv4rrffq69g5fav")
    for name in ("x", "chk_", "chk_" + "z" * 26, "<script>", "chk_%E2%82%AC", "..%2e", "a" * 5000):
        assert (await see(visitor, f"/thanks/{name}")).html == plain.html
    await see(visitor, "/thanks/%00", 422)


# -- tenants, addresses, files ------------------------------------------------------------------------


async def second_shop(shop: Shop, base_url: str = "http://127.0.0.1:8787/t/acme") -> str:
    """Another tenant, ``acme``, with a sandbox and a free product ``anvil``; its tenant id."""
    tenant = "ten_" + "0" * 25 + "1"
    scope = shop.house.scope(tenant)
    await scope.run(tenants.create, "acme", "Acme & Sons")
    await scope.run(signing_keys.create_first, shop.house.master, PrivateKey(bytes(32)))
    settings = SandboxSettings(base_url=base_url, secret="acme's own")
    await scope.run(rail_settings.save, shop.house.master, "sandbox", settings, {"base_url": base_url})
    await scope.run(_anvil)
    shop.house.forget_tenants()
    return tenant


def _anvil(tx: Any) -> None:
    from counterfoil.catalog import benefits, prices, products

    product = products.create(tx, products.NewProduct(slug="anvil", name="Anvil"))
    benefits.put(tx, product.id, benefits.BenefitTerms(license=benefits.LicenseSpec()))
    prices.create(tx, product.id, prices.NewPrice(asset="USD", unit_amount=500))


async def test_a_second_shop_lives_under_its_own_path(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await second_shop(shop)
    await shop.tier("editor")
    page = await see(visitor, "/t/acme/")
    assert page.one("a", class_="shop").text == "Acme & Sons"
    assert {link for link in page.links if link.startswith("/")} == {"/t/acme/", "/t/acme/account", "/t/acme/p/anvil"}
    await see(visitor, "/p/anvil", 404)
    await see(visitor, "/t/acme/p/editor", 404)
    product = await see(visitor, "/t/acme/p/anvil")
    assert product.form.action.endswith("/t/acme/p/anvil/buy")
    for element in [*product.all("link", rel="stylesheet"), *product.all("script")]:
        address = element.attributes.get("href") or element.attributes["src"]
        assert address.startswith("/t/acme/")
        assert (await visitor.get(address)).status_code == 200
    response = await send(visitor, product)
    location = response.headers["location"]
    assert location.startswith("http://127.0.0.1:8787/t/acme/sandbox/pay/")
    sandbox = await see(visitor, location.removeprefix("http://127.0.0.1:8787"))
    assert sandbox.form.action == "http://127.0.0.1:8787/t/acme/sandbox/pay"
    back = sandbox.links[-1]
    assert back.startswith("http://127.0.0.1:8787/t/acme/thanks/chk_")
    path = back.removeprefix("http://127.0.0.1:8787")
    waiting_page = await see(visitor, path)
    assert waiting_page.heading == "Waiting for your payment"
    assert {link.partition("?")[0] for link in waiting_page.links if link.startswith("/")} == {
        "/t/acme/",
        "/t/acme/account",
        "/t/acme/p/anvil",
        path,
    }
    # The same checkout's name in the first shop is nobody's.
    assert (await see(visitor, path.removeprefix("/t/acme"))).heading == "Thank you"
    # Nor does one shop's sandbox take the other's sessions.
    await see(visitor, location.removeprefix("http://127.0.0.1:8787/t/acme"), 404)


async def test_a_shop_that_is_not_there(shop: Shop, visitor: httpx.AsyncClient) -> None:
    for path in ("/t/nobody/", "/t/nobody/p/editor", '/t/"><script>/p/x', "/t/nobody/thanks/chk_1"):
        page = await see(visitor, path, 404)
        assert "There is no such shop here." in page.text
        assert set(page.links) == {"#main", "/", "/account"}


async def test_a_shop_behind_a_prefix_links_to_itself(database_url: str, clock: ManualClock, master: MasterKey) -> None:
    async with opening(database_url, clock, master, public_url="https://example.test/prefix/") as shop:
        await shop.tier()
        async with client_of(shop.app) as visitor:
            visitor.base_url = "https://example.test"  # type: ignore[assignment]
            page = await see(visitor, "/p/editor")
            assert set(page.links) == {"#main", "/prefix/", "/prefix/account"}
            assert page.form.action.endswith("/prefix/p/editor/buy")
            # The proxy takes the prefix off.
            response = await visitor.post("/p/editor/buy", data=page.form.fields)
            assert response.headers["location"].startswith("https://example.test/prefix/sandbox/pay/")


async def test_localhost_leads_to_the_name_that_rails_send_buyers_back_to(
    shop: Shop, visitor: httpx.AsyncClient
) -> None:
    for path, location in [
        ("/", "/"),
        ("/p/editor?x=1", "/p/editor?x=1"),
        ("/p/a%20%22%0d", "/p/a%20%22%0D"),
        ("/t/x/", "/t/x/"),
    ]:
        response = await visitor.get(path, headers={"Host": "localhost:8787"})
        assert (response.status_code, response.headers.get("location")) == (303, f"http://127.0.0.1:8787{location}")
        for other in ("localhost:1", "shop.test", "shop.test:8787", "127.0.0.1:8787", "localhost:8787@evil.test", ""):
            response = await visitor.get(path, headers={"Host": other})
            assert "location" not in response.headers


async def test_files_are_kept_for_ever_under_the_hash_of_their_content(shop: Shop, visitor: httpx.AsyncClient) -> None:
    page = await see(visitor, "/")
    sheet = page.one("link", rel="stylesheet").attributes["href"]
    script = page.one("script").attributes["src"]
    for address, kind in ((sheet, "text/css; charset=utf-8"), (script, "text/javascript; charset=utf-8")):
        path, _, digest = address.partition("?v=")
        response = await visitor.get(address)
        assert response.status_code == 200
        assert response.headers["content-type"] == kind
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert hashlib.sha256(response.content).hexdigest().startswith(digest)
        assert response.headers["etag"] == f'"{digest}"'
        for other in (path, f"{path}?v=0000"):
            assert (await visitor.get(other)).headers["cache-control"] == "no-cache"


async def test_pages_are_no_part_of_the_api(shop: Shop, visitor: httpx.AsyncClient) -> None:
    paths = good(await visitor.get("/v1/openapi.json"))["paths"]
    assert not [path for path in paths if not path.startswith(("/v1/", "/health"))]


async def test_a_defect_is_told_without_its_details(
    shop: Shop, visitor: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret detail")

    await shop.tier()
    monkeypatch.setattr("counterfoil.web.words.from_prices", broken)
    page = await see(visitor, "/", 500)
    assert page.heading == "Something went wrong"
    assert "secret" not in page.html


# -- the sandbox's own page, where nothing is sent ----------------------------------------------------


async def test_the_sandbox_page_says_what_it_is(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier(amount=2900, asset="USD")
    location = await buy(visitor, "editor")
    response = await visitor.get(location)
    page = check(response)
    assert "Sandbox: no real money" in page.text
    assert page.form.buttons == ["pay", "underpay", "overpay", "pay_late", "wrong_asset", "expire", "decline"]
    assert "Pay $29.00" in page.text
    assert page.form.fields["copies"] == "1"
    assert "form-action 'self';" in response.headers["content-security-policy"]
    assert "noindex" in response.headers["x-robots-tag"]
    assert response.headers["cache-control"] == "no-store"


async def test_without_sandbox_mode_there_is_no_sandbox(
    database_url: str, clock: ManualClock, master: MasterKey
) -> None:
    async with opening(database_url, clock, master) as shop:
        opened = await shop.checkout(await shop.tier())
    async with (
        opening(database_url, clock, master, sandbox=False) as shop,
        client_of(shop.app) as visitor,
    ):
        before = await shop.everything()
        await see(visitor, opened["url"], 404)
        token = opened["url"].rsplit("/", 1)[1]
        form = {"token": token, "attempt": "0" * 32, "action": "pay"}
        check(await visitor.post("/sandbox/pay", data=form), 404)
        assert await shop.everything() == before


async def test_a_session_that_was_tampered_with_is_not_there(shop: Shop, visitor: httpx.AsyncClient) -> None:
    opened = await shop.checkout(await shop.tier())
    token = opened["url"].rsplit("/", 1)[1]
    secret = (await shop.sandbox()).secret
    cheaper = msgspec.structs.replace(unseal(token, secret), amount=1)
    body, _, mac = token.partition(".")
    forged = {
        "another secret": seal(cheaper, "guessed"),
        "another body": f"{seal(cheaper, secret).partition('.')[0]}.{mac}",
        "no checksum": body,
        "empty checksum": f"{body}.",
        "another checksum": f"{body}.{'0' * 32}",
        "more": f"{token}0",
        "junk": "junk",
        "not ascii": "é.é",
        "a path": "../../etc/passwd",
    }
    before = await shop.everything()
    for kind, bad in forged.items():
        response = await visitor.get(f"/sandbox/pay/{bad}")
        assert response.status_code == 404, kind
        form = {"token": bad, "attempt": "0" * 32, "action": "pay"}
        check(await visitor.post("/sandbox/pay", data=form), 404)
    assert await shop.everything() == before


async def test_the_sandbox_does_only_what_its_form_offers(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier()
    page = await see(visitor, await buy(visitor, "editor"))
    for name, bad in [
        ("action", ["steal", "", "PAY"]),
        ("attempt", ["", "x" * 32, "0" * 31]),
        ("copies", ["0", "6", "many", "-1", "9" * 50]),
    ]:
        for value in bad:
            form = {**page.form.fields, "action": "pay", name: value}
            assert f"{name}: " in check(await visitor.post("/sandbox/pay", data=form), 422).text
    assert await shop.count("payments") == 0


async def test_nothing_is_paid_twice_in_the_sandbox(shop: Shop, visitor: httpx.AsyncClient) -> None:
    opened = await shop.checkout(await shop.tier())
    settings = await shop.sandbox()
    paid, _ = act(await shop.session(opened), "pay", "x", shop.clock.now())
    page = await see(visitor, f"/sandbox/pay/{seal(paid, settings.secret)}")
    assert page.form.buttons == ["expire", "decline"]
    form = {**page.form.fields, "action": "pay"}
    check(await visitor.post("/sandbox/pay", data=form), 409)


async def test_when_the_server_cannot_reach_itself_the_tester_is_told(shop: Shop, visitor: httpx.AsyncClient) -> None:
    # In this test nothing listens at the address the server has.
    settings = SandboxSettings(base_url="http://127.0.0.1:9", secret=(await shop.sandbox()).secret)
    shop.house.settings.public_url = "http://127.0.0.1:9"
    await shop.scope.run(rail_settings.save, shop.house.master, "sandbox", settings, {})
    shop.house.rails.forget(DEFAULT_TENANT, "sandbox")
    await shop.tier()
    page = await see(visitor, (await buy(visitor, "editor")).removeprefix("http://127.0.0.1:9"))
    page = check(await visitor.post("/sandbox/pay", data={**page.form.fields, "action": "pay"}))
    assert "Not every webhook was taken in" in page.text
    assert "no answer" in page.text
    assert page.forms[-1].fields["token"]


# -- words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1, "1 second"),
        (90, "90 seconds"),
        (120, "2 minutes"),
        (3600, "1 hour"),
        (86_400, "1 day"),
        (30 * 86_400, "30 days"),
        (365 * 86_400, "1 year"),
        (730 * 86_400, "2 years"),
        (366 * 86_400, "366 days"),
    ],
)
def test_durations_are_said_exactly(seconds: int, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("\n\n \n", []),
        ("one", ["one"]),
        ("one\ntwo", ["one\ntwo"]),
        ("one\n\ntwo", ["one", "two"]),
        ("one\r\n\r\n\r\ntwo\r\n", ["one", "two"]),
        ("one\n \t\ntwo", ["one", "two"]),
    ],
)
def test_blank_lines_separate_paragraphs(text: str, parts: list[str]) -> None:
    assert words.paragraphs(text) == parts


# -- goods --------------------------------------------------------------------------------------------

SHIP_TO = {
    "ship_name": "Ada Example",
    "ship_line1": "1 Main Street",
    "ship_postal_code": "12345",
    "ship_city": "Springfield",
    "ship_country": "US",
}


async def mug(shop: Shop) -> Sold:
    """Something that is shipped, and nothing else."""
    sold = await shop.tier("mug")
    (license_,) = good(await shop.staff.get("/v1/products/mug/benefits"))
    good(await shop.staff.delete(f"/v1/benefits/{license_['id']}"))
    good(await shop.staff.put("/v1/products/mug/benefits", json={"goods": {"sku": "MUG-1"}}))
    return sold


async def test_the_form_asks_where_to_ship_goods(shop: Shop, visitor: httpx.AsyncClient) -> None:
    sold = await mug(shop)
    page = await see(visitor, "/p/mug")
    assert "Shipped to you" in page.text
    assert "license" not in page.text
    assert page.one("input", name="ship_name").attributes.get("required") == ""
    assert page.one("input", name="ship_line2").attributes.get("required") is None
    assert page.one("option", value="AT").text == "Austria"
    location = await buy(visitor, "mug", price_id=sold.price_id, **SHIP_TO)
    checkout = await latest(shop)
    assert checkout["url"] == location
    assert checkout["shipping"] == {
        "name": "Ada Example",
        "line1": "1 Main Street",
        "line2": "",
        "city": "Springfield",
        "region": "",
        "postal_code": "12345",
        "country": "US",
        "phone": "",
    }
    shown = await see(visitor, f"/thanks/{checkout['id']}")
    assert "12345 Springfield" in shown.text
    assert "license" not in shown.text


async def test_what_is_wrong_with_an_address_is_said_beside_it(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await mug(shop)
    page = await see(visitor, "/p/mug")
    before = await shop.everything()
    again = check(await send(visitor, page, **{**SHIP_TO, "ship_country": "XX"}), 422)
    assert again.one("p", id="ship_country-error").text == "Choose a country."
    assert again.one("input", name="ship_city").attributes["value"] == "Springfield"
    again = check(await send(visitor, page, ship_country="US"), 422)
    assert again.one("p", id="ship_name-error").text == "Say where to send it."
    again = check(await send(visitor, page, **{**SHIP_TO, "ship_city": ""}), 422)
    assert again.one("input", name="ship_city").attributes["aria-invalid"] == "true"
    assert await shop.everything() == before


async def test_what_is_not_shipped_asks_for_no_address(shop: Shop, visitor: httpx.AsyncClient) -> None:
    sold = await shop.tier("book", tier="ebook")
    paper = await shop.tier("book", tier="paper", amount=30_000)
    assert "Ship to" not in (await see(visitor, "/p/book")).text
    good(await shop.staff.put("/v1/products/book/benefits", json={"tier": "paper", "goods": {}}))
    page = await see(visitor, "/p/book")
    assert "Ship to (only if what you chose is shipped)" in page.text
    assert page.one("input", name="ship_name").attributes.get("required") is None
    await buy(visitor, "book", price_id=sold.price_id, **SHIP_TO)  # nobody keeps what is not needed
    assert (await latest(shop))["shipping"] is None
    check(await send(visitor, page, price_id=paper.price_id), 422)


async def test_what_is_sold_out_says_so(shop: Shop, visitor: httpx.AsyncClient) -> None:
    await shop.tier("mug", quantity_max=1)
    good(await shop.staff.put("/v1/products/mug/stock", json={"on_hand": 0}))
    before = await shop.everything()
    again = check(await send(visitor, await see(visitor, "/p/mug")), 422)
    assert again.one("p", id="quantity-error").text == "None left."
    assert await shop.everything() == before


async def test_a_checkout_that_was_called_off(shop: Shop, visitor: httpx.AsyncClient) -> None:
    sold = await shop.tier()
    checkout_id = await bought(shop, visitor, sold)
    good(await shop.staff.post(f"/v1/checkouts/{checkout_id}/cancel"))
    page = await see(visitor, f"/thanks/{checkout_id}")
    assert page.heading == "This checkout was canceled"
    assert "Nothing was charged." in page.text
    assert page.one("a", href="/p/editor", class_="button").text == "Start again"
