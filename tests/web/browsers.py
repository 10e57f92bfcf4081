"""Chromium, headless, driven as a person would."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))

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


_idle: dict[bool, list[webdriver.Chrome]] = {True: [], False: []}
"""Browsers that nobody uses, by whether they run JavaScript: starting one takes longer than most tests with it."""


@contextmanager
def browsing(folder: Path, size: tuple[int, int] = DESKTOP, *, javascript: bool = True) -> Iterator[Browser]:
    """A browser that has been nowhere yet. Whoever is at more than one at a time gives each a folder of its own."""
    driver = _idle[javascript].pop() if _idle[javascript] else _start(folder, javascript=javascript)
    try:
        # A window has a least width; a device has none.
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size != DESKTOP}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        yield Browser(driver)
        # One that failed is not used again.
        driver.get("about:blank")
        driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        driver.execute_cdp_cmd("Network.clearBrowserCache", {})
        driver.get_log("browser")
        assert len(driver.window_handles) == 1
    except BaseException:
        driver.quit()
        raise
    _idle[javascript].append(driver)


def _start(folder: Path, *, javascript: bool) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in [*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={DESKTOP[0]},{DESKTOP[1]}"]:
        options.add_argument(flag)
    if not javascript:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(PATIENCE)
    return driver


def quit_idle() -> None:
    """End the browsers that nobody uses."""
    for drivers in _idle.values():
        while drivers:
            drivers.pop().quit()
