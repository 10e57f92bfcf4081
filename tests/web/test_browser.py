"""A real browser buys on the sandbox rail, and reads the key off the page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from keysat_licensing_client import LicensingError, PublicKey, Verifier
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from tests.peers.btcpay_server import API_KEY
from tests.peers.fixtures import running_btcpay
from tests.support.app import good
from tests.support.databases import Databases
from tests.web.html import Page
from tests.web.selling import Seller, selling

from counterfoil.kernel.ids import to_uuid

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))

pytestmark = [
    pytest.mark.xdist_group("web-browser"),
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
    ),
]

PATIENCE = 30
"""Seconds a page may take, on a machine that is busy with other tests."""
FLAGS = [
    "--headless",
    "--no-sandbox",  # containers rarely allow it, and the only pages opened are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
DESKTOP, PHONE, NARROW = (1280, 900), (390, 844), (360, 640)


@pytest.fixture(scope="module")
def seller(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seller]:
    with databases.fresh("sqlite") as url, selling(url, tmp_path_factory.mktemp("server")) as opened:
        yield opened


class Browser:
    """Chromium, as far as these tests drive it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    def wait_for(self, selector: str) -> WebElement:
        """The one element the selector finds, as soon as it is there."""

        def only(driver: webdriver.Chrome) -> WebElement | None:
            found = driver.find_elements(By.CSS_SELECTOR, selector)
            return found[0] if len(found) == 1 else None

        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(only, f"one {selector}")

    def click(self, selector: str) -> None:
        """Click, and wait until another page has come."""
        old = self.driver.find_element(By.TAG_NAME, "html")
        self.wait_for(selector).click()
        WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(
            lambda driver: driver.find_element(By.TAG_NAME, "html").id != old.id
        )

    def read(self, selector: str) -> str:
        return self.wait_for(selector).text

    def assert_fits(self) -> None:
        """Nothing sticks out at the side, and everything to tap is large enough for a finger."""
        width, inner, low = self.driver.execute_script(
            "const page = document.documentElement;"
            "const controls = document.querySelectorAll('button, .button, label.choice, .field input');"
            "const low = [...controls].filter(one => one.checkVisibility() && one.offsetHeight < 44);"
            "return [page.scrollWidth, page.clientWidth, low.map(one => one.outerHTML)]"
        )
        assert width <= inner
        assert low == []

    def complaints(self) -> list[str]:
        """What the browser's console says, which is where breaches of our policy end up."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@contextmanager
def browsing(folder: Path, size: tuple[int, int] = DESKTOP, *, javascript: bool = True) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in [*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}"]:
        options.add_argument(flag)
    if not javascript:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_page_load_timeout(PATIENCE)
        # A window has a least width; a device has none.
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size != DESKTOP}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        yield Browser(driver)
    finally:
        driver.quit()


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
