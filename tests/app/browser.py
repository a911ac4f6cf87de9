"""A headless Chromium, for several tests."""

import contextlib
import json
import shutil
import tempfile

import pytest

from tests.app.serving import PATIENCE_S, need, wait_for

need("selenium", "dev")

from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.chrome.options import Options  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def chromium(*flags):
    """A browser with nothing in it."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = Options()
        options.binary_location = CHROMIUM
        for flag in (*_FLAGS, f"--user-data-dir={profile}", *flags):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        options.unhandled_prompt_behavior = "ignore"
        driver = webdriver.Chrome(options, Service(DRIVER))
        driver.set_script_timeout(PATIENCE_S)
        try:
            yield driver
        finally:
            driver.quit()


class Person:
    """Somebody at the page who has a keyboard and no mouse."""

    def __init__(self, driver, address):
        self.driver = driver
        driver.get(address)
        self.wait(lambda: driver.execute_script("return session"))

    def wait(self, condition):
        """Wait until something is true; what moves meanwhile is looked up again."""

        def holds():
            with contextlib.suppress(WebDriverException):
                return condition()

        return wait_for(holds)

    def text(self, name):
        return self.driver.execute_script(f"return document.getElementById('{name}').innerText.trim()")

    def says(self, name, text):
        """Wait until an element says something, and return all of it."""
        return self.wait(lambda: self.text(name) if text in self.text(name) else None)

    def press(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()

    def to(self, selector):
        """Move the focus by the Tab key to a visible element."""
        for _ in range(80):
            self.press(Keys.TAB)
            focused = self.driver.switch_to.active_element
            if self.driver.execute_script("return arguments[0].matches(arguments[1])", focused, selector):
                return focused
        raise AssertionError(f"no way to {selector}")

    def drop(self, slot, path):
        self.to(f"#drop_{slot} input").send_keys(str(path))
        return self.says(f"card_{slot}", path.name)

    def tab(self, name):
        """Move to a tab by the arrow keys."""
        self.to("[role=tab]")
        for _ in range(4):
            if self.driver.switch_to.active_element.get_attribute("id") == f"tab_{name}":
                return
            self.press(Keys.ARROW_RIGHT)
        raise AssertionError(f"no tab {name}")

    def logged(self):
        return " ".join(line["message"] for line in self.driver.get_log("browser"))

    def requests(self):
        """Addresses of all requests so far, WebSockets included."""
        urls = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                urls.append(message["params"]["request"]["url"])
            if message["method"] == "Network.webSocketCreated":
                urls.append(message["params"]["url"])
        return urls
