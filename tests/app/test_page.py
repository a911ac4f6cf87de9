"""The page as a visitor sees it, in a real browser."""

import os
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest

from tests.app.browser import By, Page, chromium
from tests.synthetic import noise, save, smooth

pytestmark = pytest.mark.slow

PASSPHRASE = "hunter2 is Not a good one"
FIRST = {"Hide": "cover", "Reveal": "stego", "Compare": "compare_cover", "Live": "live"}  # slots
SIZE = {"height": 64, "width": 96}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    save(folder / "holiday film.mkv", smooth(8, **SIZE))
    save(folder / "short.mkv", smooth(4, **SIZE))
    save(folder / "secret.mkv", smooth(8, **SIZE, seed=1))
    save(folder / "cover.png", smooth(1, 96, 128)[0][None])
    save(folder / "secret.png", smooth(1, 96, 128, seed=1)[0][None])
    (folder / "text.mkv").write_text("this is no video")
    save(folder / "large.mkv", noise(100, 128, 128))
    save(folder / "long.mkv", np.broadcast_to(np.uint8(99), (600, 192, 256, 3)))
    return folder


@pytest.fixture(scope="module")
def driver():
    with chromium("--window-size=1280,1000") as driver:
        yield driver


@pytest.fixture
def page(driver, served):
    return Page(driver, served[0])


def files_of(folder):
    # Unlike a glob, a walk does not mind folders that the server removes meanwhile.
    found = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return {path for path in found if path.match("deepsteg_app_*/*/*/*")}


def fetched(page, selector):
    """The bytes behind a link."""
    return urlopen(page.find(selector).get_attribute("href")).read()  # noqa: S310


def test_hide_reveal_and_compare(page, clips, served):
    address, _, said, folder = served
    before = files_of(folder)  # other tests share the server
    page.requests()  # forget what was before
    assert "96 × 64" in page.drop("cover", clips / "holiday film.mkv")
    page.drop("secret", clips / "secret.mkv")
    page.passphrases(PASSPHRASE)
    assert page.run("hide") == "Done: the secret is inside."
    stego = fetched(page, "#hide_result a.get")
    assert stego[:4] == b"\x1aE\xdf\xa3"  # matroska
    page.wait(lambda: page.driver.execute_script("return document.querySelector('video').videoWidth") == 96)

    (clips / "from a stick.mkv").write_bytes(stego)
    page.click("#to_reveal")
    page.wait(lambda: page.find("#reveal_go").is_displayed())
    page.drop("stego", clips / "from a stick.mkv")
    page.passphrases("wrong")
    assert page.run("reveal").startswith("Nothing could be revealed. Either the passphrase")
    page.passphrases(PASSPHRASE)
    assert page.run("reveal") == "Done."
    assert fetched(page, "#reveal_result a.get")[4:8] == b"ftyp"  # MP4, for watching
    playing = "return [...document.querySelectorAll('#reveal_result video')].map(v => v.videoWidth)"
    page.wait(lambda: page.driver.execute_script(playing) == [96])

    page.tab("Compare")
    page.wait(lambda: "revealed.mkv" in page.text("#card_compare_revealed"))
    means = page.run("compare")
    stego_db, secret_db = (
        float(word) for word in means.split() if word.replace(".", "").isdigit() and "." in word
    )
    assert stego_db > 45 and secret_db > 40 and "8 frames" in means
    shown = page.wait(lambda: page.driver.find_elements(By.CSS_SELECTOR, "#comparison figure img"))
    assert len(shown) == 5
    page.wait(lambda: page.find("#comparison svg, #comparison canvas").is_displayed())
    slider = page.find("#frame input[type=range]")
    slider.send_keys("\ue014\ue014")  # right, right
    page.wait(lambda: "Frame 3 of 8" in page.text("#comparison"))

    hosts = {
        urlsplit(url).netloc for url in page.requests() if urlsplit(url).scheme in ("http", "https", "ws")
    }
    assert hosts == {urlsplit(address).netloc}
    logged = " ".join(line["message"] for line in page.driver.get_log("browser"))
    assert "Content Security Policy" not in logged and "Uncaught" not in logged
    told = page.driver.page_source + said.read_text() + urlopen(f"{address}/config").read().decode()  # noqa: S310
    stored = page.driver.execute_async_script(
        "indexedDB.databases().then(found =>"
        " arguments[0](JSON.stringify([found, localStorage, sessionStorage, document.cookie])))"
    )
    assert PASSPHRASE not in told + stored and str(folder) not in page.driver.page_source
    for path in folder.rglob("*"):
        assert path.is_dir() or PASSPHRASE.encode() not in path.read_bytes()

    # Who goes leaves nothing.
    assert files_of(folder) - before
    page.driver.get("about:blank")
    page.wait(lambda: not files_of(folder) - before)
    assert next(folder.glob("deepsteg_app_*")).stat().st_mode & 0o777 == 0o700


def test_mistakes_and_a_cover_that_is_too_short(page, clips):
    assert page.run("hide") == "Drop a cover first."
    assert page.drop("cover", clips / "text.mkv").startswith("text.mkv is not a video or image")
    page.drop("cover", clips / "cover.png")
    page.drop("secret", clips / "secret.mkv")
    assert "A video needs a video as its cover" in page.run("hide")
    page.drop("cover", clips / "short.mkv")
    assert page.run("hide").startswith("Choose a passphrase")
    page.passphrases("a")
    page.driver.find_elements(By.CSS_SELECTOR, "input[type=password]")[1].send_keys("b")
    assert page.run("hide").startswith("The two passphrases are not the same")
    page.passphrases(PASSPHRASE)
    assert page.run("hide").startswith("The cover lasts 0.2 s and the secret 0.3 s. Tick “Repeat the cover”")
    page.choose("Repeat the cover")
    assert page.run("hide") == "Done: the secret is inside."
    assert "8 frames" in page.text("#hide_result")
    page.tab("Compare")
    page.wait(lambda: page.find("#compare_go").is_displayed())
    assert page.run("compare").startswith("Not there yet: revealed.")


def test_pictures_that_survive_jpeg(page, clips):
    page.drop("cover", clips / "cover.png")
    page.drop("secret", clips / "secret.png")
    page.choose("Be sent or posted")
    page.passphrases("short")
    said = page.run("hide")
    assert said.startswith("Done") and "The passphrase is short" in said
    assert fetched(page, "#hide_result a.get")[:3] == b"\xff\xd8\xff"
    page.click("#to_reveal")
    page.wait(lambda: "stego.jpg" in page.text("#card_stego"))
    page.passphrases("short")
    assert page.run("reveal") == "Done."
    assert fetched(page, "#reveal_result a.get")[1:4] == b"PNG"


def test_stopping(page, clips, served):
    page.drop("cover", clips / "long.mkv")
    page.drop("secret", clips / "long.mkv")
    page.passphrases(PASSPHRASE)
    page.click("#hide_go")
    page.wait(lambda: "%" in page.text("#hide_bar"))
    page.click("#hide_stop")
    page.wait(lambda: page.text("#hide_message") == "Stopped. Nothing was kept.")
    page.wait(lambda: not any(path.name.startswith("stego") for path in files_of(served[3])))
    assert page.find("#hide_go").is_enabled()
    assert not page.driver.find_elements(By.CSS_SELECTOR, "#hide_stop")


def test_a_file_that_is_too_large(page, clips):
    size = (clips / "large.mkv").stat().st_size
    assert size > 2**22
    page.find("#drop_cover input[type=file]").send_keys(str(clips / "large.mkv"))
    page.wait(lambda: "maximum allowed size of 4.0 Mb" in page.text(".toast-body"))


def test_phone_dark_and_labels(page):
    driver = page.driver
    for scheme, background in (("light", 200), ("dark", 60)):
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 375, "height": 700, "deviceScaleFactor": 2, "mobile": True},
        )
        driver.refresh()
        page.wait(lambda: page.find("#drop_cover input[type=file]"))
        for tab in ("Hide", "Reveal", "Compare", "Live"):
            page.tab(tab)
            page.wait(lambda tab=tab: page.find(f"[id^='drop_{FIRST[tab]}']").is_displayed())
            assert driver.execute_script("return document.documentElement.scrollWidth") <= 375, tab
        colour = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        levels = [float(part) for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
        assert (max(levels) < background) if scheme == "dark" else (min(levels) > background)
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    unnamed = driver.execute_script(
        "return [...document.querySelectorAll('input, button, [role=tab], textarea')]"
        ".filter(e => e.offsetParent)"
        ".filter(e => !(e.labels?.length || e.ariaLabel || e.textContent.trim() || e.title))"
        ".map(e => e.outerHTML.slice(0, 200))"
    )
    assert not unnamed
    assert driver.execute_script("return document.documentElement.lang") == "en"


def test_the_keyboard_reaches_everything_in_order(page):
    reached = []
    for _ in range(30):
        page.driver.switch_to.active_element.send_keys("\ue004")
        element = page.driver.switch_to.active_element
        reached.append(element.text.split("\n")[0] or element.get_attribute("type"))
        if element.get_attribute("id") == "hide_go":
            break
    assert element.get_attribute("id") == "hide_go", reached
    assert reached.count("password") == 2 and "Hide" in reached[0]


def test_the_camera(page, clips):
    page.tab("Live")
    page.wait(lambda: page.find("#live_start").is_displayed())
    page.click("#live_start")
    page.wait(lambda: page.text("#live_message") == "Drop a secret first.")
    page.drop("live", clips / "secret.png")
    page.click("#live_start")
    page.wait(lambda: "frames/s" in page.text("#live_figures"))
    time.sleep(0.5)
    seen = page.driver.execute_script(
        "return ['cover', 'stego', 'secret', 'revealed'].map(part => {"
        "  const canvas = document.getElementById('live_' + part);"
        "  return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data];})"
    )
    cover, stego, secret, revealed = (np.array(part, float) for part in seen)
    assert np.abs(cover - stego).mean() < 4 and np.abs(secret - revealed).mean() < 6
    assert np.abs(cover - secret).mean() > 10
    page.click("#live_stop")
    page.wait(lambda: page.text("#live_message") == "")
