"""The page in a real browser: a person without a mouse, other sites, and the end of the program."""

import functools
import http.server
import threading
from urllib.parse import urlsplit

import pytest

from tests.app.browser import CAMERA, Keys, Person, chromium
from tests.app.serving import KEY, need, served, stand_ins
from tests.synthetic import save, smooth

need("fastapi", "app")

pytestmark = pytest.mark.slow

SIZE = {"height": 64, "width": 96}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    save(folder / "beach.mkv", smooth(8, **SIZE))
    save(folder / "secret.mkv", smooth(8, **SIZE, seed=1))
    return folder


@pytest.fixture(scope="module")
def driver():
    with chromium("--window-size=1280,1000", *CAMERA) as driver:
        yield driver


@pytest.fixture
def person(driver, page):
    person = Person(driver, page.address)
    yield person
    driver.get("about:blank")
    person.wait(lambda: not page.sessions._all and not list(page.store.root.iterdir()))  # nothing is left


def leave_with_everything_saved(person):
    person.driver.execute_script("unsaved.clear()")


def test_hide_reveal_and_compare_by_keyboard_on_a_phone(page, person, clips):
    """With the scheme for pictures, whose stego needs a copy for watching."""
    driver = person.driver
    driver.set_window_size(390, 800)
    person.requests()  # forget what was before
    person.drop("cover", clips / "beach.mkv")
    person.drop("secret", clips / "secret.mkv")
    person.to("summary")
    person.press(Keys.ENTER)
    person.to("[name=quality_file]")
    person.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    person.says("estimate", "beach.mkv, 96 × 64")
    person.to("[name=passphrase]")
    person.press(KEY[:5])
    person.says("weak", "The passphrase is weak")
    person.press(KEY[5:])
    person.wait(lambda: person.text("weak") == "")
    person.to("[name=again]")
    person.press(KEY, Keys.ENTER)
    person.says("hide_message", "Done: the secret is inside (took")
    video = "return [...document.querySelectorAll('#{}_result video')].map(v => v.videoWidth)"
    person.wait(lambda: driver.execute_script(video.format("hide")) == [96])
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    person.to("[data-own]")
    person.press(Keys.ENTER)
    person.says("card_stego", "beach.mkv")
    person.wait(lambda: driver.switch_to.active_element.get_attribute("name") == "passphrase")
    person.press(KEY, Keys.ENTER)
    person.says("reveal_message", "Done (took")
    person.wait(lambda: driver.execute_script(video.format("reveal")) == [96])

    person.tab("compare")
    person.says("card_compare_revealed", "beach revealed.mkv")
    person.to("#compare [data-go]")
    person.press(Keys.ENTER)
    assert "the mean of 8 frames" in person.says("compare_message", "PSNR")
    person.to("#frame")
    person.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    person.says("caption", "Frame 3 of 8: left cover, right stego")
    wide = "return [...document.querySelectorAll('.stage img')].map(i => i.naturalWidth)"
    person.wait(lambda: driver.execute_script(wide) == [96, 96])
    person.to("#flicker")
    person.press(Keys.ENTER)
    person.wait(lambda: driver.execute_script("return over.style.visibility") == "hidden")
    person.press(Keys.ENTER)
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")

    hosts = {urlsplit(url).netloc for url in person.requests() if not url.startswith("data:")}
    assert hosts == {urlsplit(page.address).netloc}
    logged = person.logged()
    assert "Content Security Policy" not in logged and "Uncaught" not in logged
    stored = driver.execute_async_script(
        "indexedDB.databases().then(found => arguments[0](JSON.stringify("
        "[found, localStorage, sessionStorage, document.cookie, location.href])))"
    )
    assert KEY not in driver.page_source + stored
    leave_with_everything_saved(person)
    driver.set_window_size(1280, 1000)


def test_every_control_has_a_name(person):
    nameless = person.driver.execute_script("""
        for (const panel of document.querySelectorAll('[hidden]')) panel.hidden = false;
        return [...document.querySelectorAll('button, input, a, summary, [role=group], [role=tab]')].filter(
            (e) => !(e.ariaLabel || e.getAttribute('aria-labelledby') || e.labels?.length || e.innerText)
        ).map((e) => e.outerHTML);""")
    assert nameless == []
    names = [e.accessible_name for e in person.driver.find_elements("css selector", ".drop input")]
    assert len(names) == 8 and "Cover: choose a file" in names


def test_wrong_files_are_told_at_once_and_taken_back(person, clips, tmp_path):
    for name, size, said in (("none.mkv", 0, "is empty"), ("huge.mkv", 2**20 + 1, "a file may have 1 MiB")):
        (tmp_path / name).write_bytes(bytes(size))
        person.drop("cover", tmp_path / name)
        person.says("card_cover", said)
    person.drop("cover", clips / "beach.mkv")
    person.to("#drop_cover [data-remove]")
    person.press(Keys.ENTER)
    person.wait(lambda: person.text("card_cover") == "")
    assert person.driver.switch_to.active_element.accessible_name == "Cover: choose a file"
    person.to("#drop_secret [data-sample]")
    person.press(Keys.ENTER)
    person.says("card_secret", "bigbuckbunny.mp4")


def test_leaving_is_asked_about_while_something_would_be_lost(person, clips):
    asks = "return !dispatchEvent(new Event('beforeunload', {cancelable: true}))"
    person.drop("cover", clips / "beach.mkv")
    person.drop("secret", clips / "secret.mkv")
    person.driver.execute_script("document.querySelector('[value=quick]').click()")
    assert not person.driver.execute_script(asks)
    person.to("[name=passphrase]")
    person.press(KEY)
    person.to("[name=again]")
    person.press(KEY, Keys.ENTER)
    person.says("hide_message", "Done")
    assert person.driver.execute_script(asks)
    person.driver.execute_script("document.querySelector('[data-get]').click()")
    assert not person.driver.execute_script(asks)


def test_the_camera_goes_off_with_the_tab(person, clips):
    person.tab("live")
    person.to("#live_start")
    person.press(Keys.ENTER)
    person.says("live_message", "Drop a secret first.")
    person.drop("live", clips / "secret.mkv")
    person.driver.execute_script("""
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (what) => (window.stream = await ask(what));""")
    person.to("#live_start")
    person.press(Keys.ENTER)
    person.says("live_figures", "ms late")
    state = "return stream.getTracks().map((track) => track.readyState)"
    assert person.driver.execute_script(state) == ["live"]
    person.tab("hide")
    assert person.driver.execute_script(state) == ["ended"]
    person.tab("live")
    person.driver.execute_script(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotFoundError'))"
    )
    person.to("#live_start")
    person.press(Keys.ENTER)
    person.says("live_message", "No camera was found")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_other_sites_write_and_read_nothing(page, driver, tmp_path):
    """From another origin of this computer, with all that a page can send without asking first."""
    (tmp_path / "evil.html").write_text("<!doctype html><title>evil</title>")
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        tried = """
            const [page, done] = arguments, body = new Uint8Array(3e5), slot = '/slots/cover?name=a';
            const tell = async (what) => {
                try { const answer = await what(); return answer.type ?? answer; } catch { return 'failed'; }
            };
            const form = new FormData();
            form.append('files', new Blob([body]), 'evil.mkv');
            const socket = (path) => new Promise((resolve) => {
                const made = new WebSocket(page.replace('http', 'ws') + path);
                made.onopen = () => resolve('open');
                made.onerror = () => resolve('failed');
            });
            const picture = (path) => new Promise((resolve) => {
                const made = new Image();
                [made.onload, made.onerror] = [() => resolve('shown'), () => resolve('failed')];
                made.src = page + path;
            });
            (async () => done([
                await tell(() => fetch(page + '/session', {method: 'POST', mode: 'no-cors'})),
                await tell(() => fetch(page + slot, {method: 'POST', mode: 'no-cors', body: form})),
                await tell(() => fetch(page + slot, {method: 'PUT', body})),
                await tell(() => fetch(page + '/')),
                await tell(() => fetch(page + '/static/page.js', {mode: 'no-cors'})),
                await socket('/events?session=x'), await socket('/live?session=x&width=320&height=240'),
                await picture('/static/page.css'),
            ]))();"""
        for host in ("127.0.0.1", "localhost"):
            driver.get(f"http://{host}:{other.server_port}/evil.html")
            answers = driver.execute_async_script(tried, page.address)
            assert answers == ["failed"] * 8
            frame = (
                "const f = document.createElement('iframe'); f.src = arguments[0]; document.body.append(f);"
            )
            driver.execute_script(frame, page.address)
        other.shutdown()
    assert not page.sessions._all and not [path for path in page.store.root.rglob("*") if path.is_file()]
    assert page.store._left == 4 * 2**20


def test_a_program_that_ends_is_noticed(driver, tmp_path):
    with pytest.MonkeyPatch.context() as patch, served(stand_ins(patch), tmp_path) as page:
        person = Person(driver, page.address)
        assert person.text("gone") == ""
    person.says("gone", "The program behind this page does not answer.")
