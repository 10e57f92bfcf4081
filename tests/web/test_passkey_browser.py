"""Staff with a real browser and the security keys that it simulates."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.virtual_authenticator import VirtualAuthenticatorOptions
from tests.support.app import good, problem
from tests.support.databases import Databases
from tests.support.server import Server, serving
from tests.web import test_browser
from tests.web.browsers import CHROMIUM, DRIVER, FLAGS, PATIENCE, PHONE, Browser

from counterfoil.accounts import passwords, users
from counterfoil.accounts.types import DEFAULT_TENANT
from counterfoil.db.engines import connect
from counterfoil.db.tx import Tx
from counterfoil.kernel.clock import SystemClock

pytestmark = test_browser.pytestmark

EMAIL = "ada@example.com"
PASSWORD = "fourteen umbrellas in a row"


class Place(NamedTuple):
    """A server, and what a command needs that works beside it."""

    server: Server
    database_url: str

    @property
    def home(self) -> str:
        """Where passkeys work: at a name."""
        return f"http://localhost:{self.server.port}"


@pytest.fixture(scope="module")
def place(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with databases.fresh("sqlite") as url, serving(url, tmp_path_factory.mktemp("staff")) as server:
        yield Place(server, url)


def enrollment_link(place: Place, *arguments: str) -> str:
    """What whoever runs the server types into a shell, and is told."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERFOIL_")}
    folder = place.server.log.parent
    ours = {
        "COUNTERFOIL_DATABASE_URL": place.database_url,
        "COUNTERFOIL_MASTER_KEY_FILE": str(folder / "master.key"),
        "COUNTERFOIL_PORT": str(place.server.port),
    }
    done = subprocess.run(
        [sys.executable, "-m", "counterfoil.cli.main", "enroll", *arguments],
        cwd=folder, env={**env, **ours}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    match = re.search(r"^link    (\S+)$", done.stdout, re.MULTILINE)
    assert match is not None, done.stdout
    return match[1]


def give_password(place: Place, email: str, password: str) -> None:
    """As if its owner had followed the link of a letter."""

    def give(tx: Tx) -> None:
        user = users.by_email(tx, email)
        assert user is not None
        users.set_password(tx, user.id, passwords.hash_(password))

    async def work() -> None:
        database = connect(place.database_url, SystemClock())
        try:
            await database.scope(DEFAULT_TENANT).run(give)
        finally:
            await database.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(work())


class StaffBrowser(Browser):
    """A browser with security keys."""

    def plug_in(self) -> str:
        """A security key of its own: FIDO2, keeps passkeys, knows its owner. Its id."""
        options = VirtualAuthenticatorOptions(
            protocol=VirtualAuthenticatorOptions.Protocol.CTAP2,
            transport=VirtualAuthenticatorOptions.Transport.USB,
            has_resident_key=True,
            has_user_verification=True,
            is_user_verified=True,
        )
        self.driver.add_virtual_authenticator(options)
        return str(self.driver.virtual_authenticator_id)

    def unplug(self) -> None:
        self.driver.remove_virtual_authenticator()

    def session(self) -> dict[str, str]:
        """The cookie, as a program would send it."""
        return {cookie["name"]: cookie["value"] for cookie in self.driver.get_cookies()}

    def sign_out(self, place: Place) -> None:
        self.open(f"{place.home}/account")
        self.click("#sign-out")


@contextmanager
def staff_browsing(folder: Path, *, javascript: bool = True) -> Iterator[StaffBrowser]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    flags = [flag for flag in FLAGS if not flag.startswith("--host-resolver-rules")]
    named = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
    size = f"--window-size={PHONE[0]},{PHONE[1]}"
    for flag in [*flags, named, f"--user-data-dir={folder / 'profile'}", size]:
        options.add_argument(flag)
    if not javascript:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_page_load_timeout(PATIENCE)
        metrics = {"width": PHONE[0], "height": PHONE[1], "deviceScaleFactor": 1, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        yield StaffBrowser(driver)
    finally:
        driver.quit()


def ask(place: Place, method: str, path: str, cookies: dict[str, str], **more: Any) -> httpx.Response:
    """Ask the API with the browser's cookies."""
    header = "; ".join(f"{name}={value}" for name, value in cookies.items())
    with httpx.Client(base_url=place.home, trust_env=False, timeout=30) as client:
        return client.request(method, path, headers={"Cookie": header}, **more)


def enroll(browser: StaffBrowser, link: str) -> list[str]:
    """Follow the link to its end; the recovery codes."""
    browser.open(link)
    browser.assert_fits()
    browser.wait_for("#first_name").send_keys("Ada")
    browser.wait_for("#last_name").send_keys("Lovelace")
    name = browser.wait_for("#name")
    name.clear()
    name.send_keys("YubiKey")
    browser.click("button.main")
    browser.assert_fits()
    browser.click("form[data-passkey] button")
    assert browser.read("h1") == "Your recovery codes"
    browser.assert_fits()
    return browser.read("#codes").split()


def test_staff_enrolls_and_signs_in_with_a_passkey(place: Place, tmp_path: Path) -> None:
    link = enrollment_link(place, EMAIL)
    assert link.startswith(f"{place.home}/enroll/")
    with staff_browsing(tmp_path) as browser:
        browser.plug_in()
        codes = enroll(browser, link)
        assert len(codes) == 10
        assert good(ask(place, "GET", "/v1/orders", browser.session())) == {"data": [], "next": None}

        # The link is used up.
        browser.open(link)
        assert browser.read("h1") == "We cannot find that page"

        # The passkey is enough to sign in again: no address, no password.
        browser.sign_out(place)
        problem(ask(place, "GET", "/v1/orders", browser.session()), 401, "unauthorized")
        browser.open(f"{place.home}/sign-in/passkey?next=/account/passkeys")
        browser.assert_fits()
        browser.click("form[data-passkey] button")
        assert browser.read("h1") == "Passkeys"
        browser.assert_fits()
        assert browser.read("section h2") == "YubiKey"
        signed_in = browser.session()
        good(ask(place, "GET", "/v1/orders", signed_in))

        # The same key does not become two passkeys.
        browser.wait_for("form.ticket [name=name]").send_keys("The same")
        browser.click("#add")
        browser.wait_for("form[data-passkey] button").click()
        browser.wait_for("p.complaint:not([hidden])")
        assert "holds a passkey of yours already" in browser.read("p.complaint")

        # Another key does.
        browser.unplug()
        browser.plug_in()
        browser.open(f"{place.home}/account/passkeys")
        browser.wait_for("form.ticket [name=name]").send_keys("Spare")
        browser.click("#add")
        browser.click("form[data-passkey] button")
        names = [one.text for one in browser.driver.find_elements("css selector", "section h2")]
        assert sorted(names) == ["Spare", "YubiKey"]
        assert browser.session() != signed_in
        problem(ask(place, "GET", "/v1/orders", signed_in), 401, "unauthorized")

        # The spare key signs in as well.
        browser.sign_out(place)
        browser.open(f"{place.home}/sign-in/passkey?next=/account/passkeys")
        browser.click("form[data-passkey] button")
        good(ask(place, "GET", "/v1/orders", browser.session()))

        # Both keys are lost: a recovery code leads to a new one, and to nothing else.
        browser.unplug()
        browser.sign_out(place)
        browser.open(f"{place.home}/sign-in/passkey")
        browser.click("a[href*='/sign-in/recovery']")
        browser.wait_for("#email").send_keys(EMAIL)
        browser.wait_for("#code").send_keys(codes[0])
        browser.assert_fits()
        browser.click("button.main")
        assert browser.read("h1") == "Passkeys"
        problem(ask(place, "GET", "/v1/orders", browser.session()), 403, "passkey_required")
        browser.plug_in()
        browser.wait_for("form.ticket [name=name]").send_keys("New")
        browser.click("#add")
        browser.click("form[data-passkey] button")
        assert "9 of your recovery codes are left" in browser.read("main")
        good(ask(place, "GET", "/v1/orders", browser.session()))

        # A password alone opens nothing of staff's, until the passkey is shown.
        give_password(place, EMAIL, PASSWORD)
        browser.sign_out(place)
        browser.open(f"{place.home}/sign-in")
        browser.wait_for("#email").send_keys(EMAIL)
        browser.wait_for("#password").send_keys(PASSWORD)
        browser.click("button.main")
        weak = browser.session()
        problem(ask(place, "GET", "/v1/orders", weak), 403, "passkey_required")
        browser.click("a[href*='/sign-in/passkey']")
        assert browser.read("h1") == "Show your passkey"
        assert "signed in as Ada Lovelace" in browser.read("p.lead")
        browser.click("form[data-passkey] button")
        problem(ask(place, "GET", "/v1/orders", weak), 401, "unauthorized")
        good(ask(place, "GET", "/v1/orders", browser.session()))
        assert [one for one in browser.complaints() if "404" not in one] == []


def test_a_canceled_passkey_says_so(place: Place, tmp_path: Path) -> None:
    link = enrollment_link(place, "bob@example.com", "--role", "ReadOnly")
    with staff_browsing(tmp_path) as browser:
        browser.plug_in()
        browser.driver.set_user_verified(False)
        browser.open(link)
        assert "ReadOnly" in browser.read("p.lead")
        browser.click("button.main")
        browser.wait_for("form[data-passkey] button").click()
        browser.wait_for("p.complaint:not([hidden])")
        assert "Try again" in browser.read("p.complaint")
        assert browser.wait_for("form[data-passkey] button").is_enabled()
        browser.driver.set_user_verified(True)
        browser.click("form[data-passkey] button")
        assert len(browser.read("#codes").split()) == 10


def test_at_the_loopback_address_the_page_leads_to_the_name(place: Place, tmp_path: Path) -> None:
    with staff_browsing(tmp_path) as browser:
        browser.open(f"{place.server.url}/sign-in/passkey?next=/account/passkeys")
        assert browser.read("h1") == "Passkeys belong to a name"
        browser.assert_fits()
        browser.click("a.button")
        assert browser.driver.current_url == f"{place.home}/sign-in/passkey?next=/account/passkeys"
        assert browser.read("h1") == "Sign in with a passkey"


def test_without_javascript_the_pages_say_that_a_passkey_needs_it(place: Place, tmp_path: Path) -> None:
    with staff_browsing(tmp_path, javascript=False) as browser:
        browser.open(f"{place.home}/sign-in/passkey")
        assert "needs JavaScript" in browser.read("p.alarm")
        assert not browser.driver.find_element("css selector", "form[data-passkey] button").is_displayed()
        browser.click("a[href*='/sign-in/recovery']")
        assert browser.read("h1") == "Use a recovery code"
