"""A real browser signs up by the letter in the mailbox folder, and out and in again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from tests.support.accounts import OTHER_PASSWORD, PASSWORD
from tests.support.databases import Databases
from tests.support.server import Server, serving
from tests.web.browsers import CHROMIUM, DESKTOP, DRIVER, NARROW, PATIENCE, PHONE, Browser, browsing

pytestmark = [
    pytest.mark.xdist_group("web-browser"),
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
    ),
]


class Mailbox:
    """The folder the server's letters go to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def link_to(self, recipient: str, subject: str) -> str:
        """The first link in the letter with this in its subject, as soon as it is there."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for file in self._folder.glob("*.eml"):
                letter = message_from_bytes(file.read_bytes(), policy=policy.default)
                if letter["To"] == recipient and subject in letter["Subject"]:
                    text = letter.get_body(("plain",))
                    assert text is not None
                    return re.findall(r"http://\S+", text.get_content())[0]
            time.sleep(0.05)
        raise AssertionError([file.name for file in self._folder.iterdir()])


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Mailbox:
    return Mailbox(tmp_path_factory.mktemp("mail"))


@pytest.fixture(scope="module")
def server(databases: Databases, tmp_path_factory: pytest.TempPathFactory, mail: Mailbox) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with (
        databases.fresh("sqlite") as url,
        serving(url, folder, mail_folder=str(mail._folder), sign_ins_per_minute="0") as opened,
    ):
        yield opened


def fill(browser: Browser, **fields: str) -> None:
    for name, value in fields.items():
        field = browser.wait_for(f"#{name}")
        field.clear()
        field.send_keys(value)


@pytest.mark.parametrize(
    ("size", "javascript"),
    [(DESKTOP, True), (NARROW, False)],
    ids=["desktop, with JavaScript", "narrow, without JavaScript"],
)
def test_signing_up_by_the_letter_and_out_and_in_again(
    server: Server, mail: Mailbox, tmp_path: Path, size: tuple[int, int], javascript: bool
) -> None:
    email = f"ada-{size[0]}-{javascript}@example.com".lower()
    with browsing(tmp_path, size, javascript=javascript) as browser:
        browser.open(f"{server.url}/")
        browser.click("a.aside")
        assert browser.read("h1") == "Sign in"
        browser.assert_fits()
        browser.click("a[href='/sign-up']")
        browser.assert_fits()
        fill(browser, email=email, first_name="Ada", last_name="Lovelace")
        browser.click("button.main")
        assert browser.read("h1") == "Look into your mailbox"
        browser.assert_fits()

        browser.open(mail.link_to(email, "Confirm"))
        assert browser.read("h1") == "Welcome, Ada"
        browser.assert_fits()
        fill(browser, password="password12")
        browser.click("button.main")
        assert "others would guess" in browser.read("#password-error")
        assert browser.driver.switch_to.active_element.get_attribute("id") == "password"
        fill(browser, password=PASSWORD)
        browser.click("button.main")
        assert browser.read("p.notice") == "Welcome. Your account is ready."
        browser.assert_fits()
        if javascript:  # the browser's own check of the session's cookie: no script may read it
            assert "cf_session" not in browser.driver.execute_script("return document.cookie")

        browser.click("#sign-out")
        browser.open(f"{server.url}/account")
        assert browser.read("h1") == "Sign in"
        fill(browser, email=email, password="not the password")
        browser.click("button.main")
        assert browser.read("div.alarm") == "The e-mail address or the password is wrong."
        browser.assert_fits()
        fill(browser, password=PASSWORD)
        browser.click("button.main")
        assert browser.read("h1") == "Your account"

        browser.click("#sign-out")
        browser.open(f"{server.url}/forgot")
        browser.assert_fits()
        fill(browser, email=email)
        browser.click("button.main")
        browser.open(mail.link_to(email, "password"))
        browser.assert_fits()
        fill(browser, password=OTHER_PASSWORD)
        browser.click("button.main")
        assert "Your new password counts" in browser.read("p.notice")
        browser.click("a[href='/account/delete']")
        browser.assert_fits()
        browser.click("button.danger")
        browser.open(f"{server.url}/account")
        assert browser.read("h1") == "Sign in"
        assert [one for one in browser.complaints() if "401" not in one and "422" not in one] == []


def test_inviting_a_colleague_who_accepts(server: Server, mail: Mailbox, tmp_path: Path) -> None:
    """Two people, two browsers, an organization: one of them on a telephone and without JavaScript."""
    with browsing(tmp_path / "owner") as owner, browsing(tmp_path / "phone", PHONE, javascript=False) as colleague:
        owner.open(f"{server.url}/sign-up")
        fill(owner, email="grace@example.com", first_name="Grace", last_name="Hopper", organization="Compilers")
        owner.click("button.main")
        owner.open(mail.link_to("grace@example.com", "Confirm"))
        fill(owner, password=PASSWORD)
        owner.click("button.main")
        owner.click("a[href='/account/organizations']")
        owner.click("td a")
        assert owner.read("h1") == "Compilers"
        fill(owner, email="linus@example.com")
        owner.click("form[aria-label='Invite somebody'] button.main")
        assert "linus@example.com" in owner.read("section[aria-label='linus@example.com']")
        owner.assert_fits()

        link = mail.link_to("linus@example.com", "Compilers")
        colleague.open(link)
        assert colleague.read("h1") == "Join Compilers"
        assert colleague.read("p.lead") == "You are invited with the role Member."
        colleague.assert_fits()
        fill(colleague, first_name="Linus", password=OTHER_PASSWORD)
        colleague.click("button.main")
        assert colleague.read("h1") == "Compilers"
        assert colleague.read("section[aria-label='Linus']").startswith("Linus (you) linus@example.com")
        assert colleague.driver.find_elements(By.CSS_SELECTOR, "form[aria-label='Invite somebody']") == []
        colleague.assert_fits()
        colleague.open(link)
        assert colleague.read("h1") == "We cannot find that page"

        owner.driver.refresh()
        assert "Member" in owner.read("section[aria-label='Linus']")
        assert owner.driver.find_elements(By.CSS_SELECTOR, "section[aria-label='linus@example.com']") == []
