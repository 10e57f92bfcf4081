"""A real browser buys on the sandbox rail, and reads the key off the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from keysat_licensing_client import LicensingError, PublicKey, Verifier
from tests.peers.btcpay_server import API_KEY
from tests.peers.fixtures import running_btcpay
from tests.support.app import good
from tests.support.databases import Databases
from tests.web.browsers import CHROMIUM, DESKTOP, DRIVER, NARROW, PHONE, browsing
from tests.web.html import Page
from tests.web.selling import Seller, selling

from counterfoil.kernel.ids import to_uuid

pytestmark = [
    pytest.mark.xdist_group("web-browser"),
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
    ),
]


@pytest.fixture(scope="module")
def seller(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seller]:
    with databases.fresh("sqlite") as url, selling(url, tmp_path_factory.mktemp("server")) as opened:
        yield opened


def verify(seller: Seller, key: str, slug: str) -> None:
    """The key is good offline, for this product, by a client that is not ours; a changed one is not."""
    verifier = Verifier(PublicKey.from_pem(good(seller.http.get("/v1/pubkey"))["public_key_pem"]))
    product = good(seller.http.get(f"/v1/products/{slug}"))
    assert verifier.verify(key).product_id == to_uuid(product["id"])
    head, _, signature = key.rpartition("-")
    with pytest.raises(LicensingError):
        verifier.verify(f"{head}-{'A' if signature[0] != 'A' else 'B'}{signature[1:]}")


@pytest.mark.parametrize(
    ("size", "javascript"),
    [(DESKTOP, False), (PHONE, True), (NARROW, False)],
    ids=["desktop, without JavaScript", "phone, with JavaScript", "narrow, without JavaScript"],
)
def test_buying_by_clicking(seller: Seller, tmp_path: Path, size: tuple[int, int], javascript: bool) -> None:
    slug = seller.product("Inkwell", max_machines=3)
    with browsing(tmp_path, size, javascript=javascript) as browser:
        browser.open(f"{seller.server.url}/")
        browser.assert_fits()
        browser.click(f"a[href='/p/{slug}']")
        assert browser.read("h1") == "Inkwell"
        assert "3 machines" in browser.read("#buy")
        browser.assert_fits()
        browser.wait_for("#email").send_keys("buyer@example.com")
        browser.click("button.main")
        assert browser.read(".tape") == "Sandbox: no real money"
        browser.assert_fits()
        browser.click("button[value=pay]")
        assert "taken in" in browser.read("table")
        browser.assert_fits()
        browser.click("#back")
        key = browser.read("code.key")
        browser.assert_fits()
        verify(seller, key, slug)
        assert "What to do with it" in browser.read("main")
        assert "buyer@example.com" in browser.read("dl")
        assert browser.wait_for("button.copy").is_displayed() is javascript
        if javascript:
            browser.wait_for("button.copy").click()
            assert re.match("Cop|Sel", browser.read("button.copy"))
        # The claim is in the cookie only.
        assert "pur_" not in browser.driver.current_url
        assert "pur_" not in browser.driver.page_source
        assert browser.complaints() == []


@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without JavaScript"])
def test_the_key_appears_by_itself_once_the_payment_settles(seller: Seller, tmp_path: Path, javascript: bool) -> None:
    slug = seller.product("Inkwell")
    with browsing(tmp_path, PHONE, javascript=javascript) as browser, httpx.Client(trust_env=False) as elsewhere:
        browser.open(f"{seller.server.url}/p/{slug}")
        browser.click("button.main")
        sandbox = Page(elsewhere.get(browser.driver.current_url))
        browser.open(next(link for link in sandbox.links if "/thanks/" in link))
        assert browser.read("h1") == "Waiting for your payment"
        browser.assert_fits()
        # The buyer has paid on another device.
        elsewhere.post(sandbox.form.action, data={**sandbox.form.fields, "action": "pay"}).raise_for_status()
        verify(seller, browser.read("code.key"), slug)
        assert browser.read("h1") == "Thank you"
        assert browser.complaints() == []


def test_buying_on_a_rail_at_another_address(
    databases: Databases, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """Our policy must let the browser follow the redirect after the form to the rail; and the rail sends it back."""
    with (
        running_btcpay() as peer,
        databases.fresh("sqlite") as url,
        selling(url, tmp_path_factory.mktemp("server")) as seller,
        browsing(tmp_path) as browser,
    ):
        good(seller.http.post("/v1/rails/btcpay", json={"base_url": peer.url, "api_key": API_KEY}))
        slug = seller.product("Inkwell")
        browser.open(f"{seller.server.url}/p/{slug}")
        browser.click("button.main")
        assert browser.driver.current_url.startswith(f"{peer.url}/i/"), browser.complaints()
        invoice = browser.driver.current_url.rpartition("/")[2]
        peer.invoice(invoice, "pay")
        browser.click("a")
        assert browser.read("h1") != "Waiting for your payment"
        peer.invoice(invoice, "confirm")
        verify(seller, browser.read("code.key"), slug)


def test_a_mistake_is_shown_and_can_be_mended(seller: Seller, tmp_path: Path) -> None:
    slug = seller.product("Inkwell")
    good(seller.http.post("/v1/discounts", json={"code": "HALF", "kind": "percentage", "amount": 5000}))
    with browsing(tmp_path, NARROW) as browser:
        browser.open(f"{seller.server.url}/p/{slug}")
        browser.wait_for("#code").send_keys("HALV")
        browser.click("button.main")
        assert browser.read("#code-error") == "We do not know this code."
        browser.assert_fits()
        browser.wait_for("#code").clear()
        browser.wait_for("#code").send_keys("half")
        browser.click("button.main")
        browser.wait_for("button[value=pay]")
        assert "$5.00" in browser.read("button[value=pay]")


def test_hostile_texts_do_not_run(seller: Seller, tmp_path: Path) -> None:
    hostile = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    slug = seller.product(hostile)
    with browsing(tmp_path) as browser:
        for path in ("/", f"/p/{slug}"):
            browser.open(f"{seller.server.url}{path}")
            assert hostile in browser.read("main")
            assert "taken" not in browser.driver.title.replace(hostile, "")
            assert browser.complaints() == []


def test_the_keyboard_is_enough(seller: Seller, tmp_path: Path) -> None:
    slug = seller.product("Inkwell")
    product = good(seller.http.get(f"/v1/products/{slug}"))["id"]
    seller.price(product, asset="USD", unit_amount=2500, name="Second", quantity_max=1)
    with browsing(tmp_path) as browser:
        browser.open(f"{seller.server.url}/p/{slug}")
        seen = []
        for _ in range(12):
            browser.driver.switch_to.active_element.send_keys("\ue004")  # Tab
            focused = browser.driver.switch_to.active_element
            seen.append(focused.get_attribute("name") or focused.text)
            outline = browser.driver.execute_script(
                "const at = document.activeElement;"
                "return getComputedStyle(at.closest('.choice') ?? at).outlineStyle", focused
            )  # fmt: skip
            assert outline == "solid", seen
            if focused.text == "Buy":
                break
        assert seen == ["Skip to the content", "Shop", "Account", "price_id", "quantity", "email", "code", "Buy"]
