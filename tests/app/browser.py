"""A headless Chromium and the page in it, for several tests."""

import contextlib
import json
import shutil
import tempfile

import pytest

from tests.app.serving import need, wait_for

need("gradio", "app")
need("selenium", "dev")

from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.chrome.options import Options  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
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
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
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
        driver = webdriver.Chrome(options, Service(DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


class Page:
    """What a user does on the page."""

    def __init__(self, driver, address):
        self.driver, self.address = driver, address
        driver.get(address)
        self.wait(lambda: driver.find_elements(By.CSS_SELECTOR, "#drop_cover input[type=file]"))

    def wait(self, condition):
        """Waits until something is true and returns it; what moves meanwhile is looked up again."""

        def holds():
            with contextlib.suppress(WebDriverException):
                return condition()

        return wait_for(holds)

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.find(selector).text

    def tab(self, name):
        tabs = self.driver.find_elements(By.CSS_SELECTOR, "#tabs [role=tab]")
        next(tab for tab in tabs if tab.text == name and tab.is_displayed()).click()

    def click(self, selector):
        """Clicks, without minding what lies over it on a small screen."""
        element = self.wait(lambda: self.find(selector))
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        self.wait(lambda: element.is_enabled())
        element.click()

    def choose(self, label):
        """A radio button or check box by the beginning of its label."""
        for element in self.driver.find_elements(By.CSS_SELECTOR, "label"):
            if element.text.startswith(label) and element.is_displayed():
                self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
                return element.click()
        raise AssertionError(f"there is no {label!r}")

    def drop(self, slot, path):
        """Gives a file to a drop zone and waits for what the page says of it."""
        before = self.text(f"#card_{slot}") if self.find(f"#card_{slot}").is_displayed() else ""
        self.wait(lambda: self.find(f"#drop_{slot} input[type=file]")).send_keys(str(path))
        self.wait(lambda: self.text(f"#card_{slot}") not in ("", before))
        return self.text(f"#card_{slot}")

    def run(self, tab):
        """Clicks the button of a tab and waits for what it says at the end, after a moment of silence."""
        self.driver.execute_script(
            f"window.said = []; new MutationObserver((_, observer) => said.push(document.getElementById("
            f"'{tab}_message').innerText.trim())).observe(document.getElementById('{tab}_message'),"
            "{childList: true, subtree: true, characterData: true})"
        )
        self.click(f"#{tab}_go")

        def ended():
            said = self.driver.execute_script("return window.said")
            said = said[said.index("") :] if "" in said else [""]
            return said[-1] and "…" not in said[-1] and "Waiting" not in said[-1]

        self.wait(ended)
        self.wait(lambda: self.find(f"#{tab}_go").is_enabled())
        return self.text(f"#{tab}_message")

    def passphrases(self, text):
        """Types it into every passphrase field that is to be seen."""
        for field in self.driver.find_elements(By.CSS_SELECTOR, "input[type=password]"):
            if field.is_displayed():
                field.send_keys(Keys.CONTROL, "a")
                field.send_keys(text)

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
