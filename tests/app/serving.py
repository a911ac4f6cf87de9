"""The page, served in this process with schemes that stand in for real ones, or by a process of its own."""

import contextlib
import http.client
import importlib.util
import json
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote, urlsplit

import pytest
from ml_collections import ConfigDict

from deepsteg_jax import media
from tests.children import Main
from tests.helpers import PlainScheme, PlaneScheme

ROOT = Path(__file__).parents[2]
PATIENCE_S = float(os.environ.get("PATIENCE_S", 120))  # before a test gives up
SHIPPED = ("video", "image", "adaptive", "adaptive_jpeg", "adaptive_learned", "robust", "robust_image")
SHIPPED += ("prep_hide_reveal", "prep_hide_reveal_small", "invertible")
KEY = "hunter2 is Not a good one"


def need(package, extra):
    """Skip what follows where `package` is not installed; pytest.importorskip takes seconds to import it."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the extra {extra}", allow_module_level=True)


def wait_for(condition, seconds=PATIENCE_S):
    """Wait until something is true and return it."""
    end = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


# --- schemes --------------------------------------------------------------------------------------


class Pictures(PlainScheme):
    """A plain scheme of the kind of a shipped one, with a fingerprint and a list of probes."""

    def __init__(self, name, probed):
        super().__init__(group=1 if "image" in name else 4, fingerprint=name[:8].ljust(8).encode())
        self.kind, self._probed = name, probed
        if name.startswith("robust"):
            self.purpose, self.lossy = "post", media.Lossy()

    def probe(self, stego, deriver):
        self._probed.append(self.kind)
        return super().probe(stego, deriver)

    def shown_numbers(self, plan):
        return plan.schedule.numbers if self.lossy else None


class Files(PlaneScheme):
    """Hides files, in 4:2:0."""

    purpose, pixel_format = "file", "yuv420p"

    def __init__(self, probed):
        self.config = ConfigDict({"payload": {"rate": 0.1}, "video": {"align": "time"}})
        self._probed = probed

    def holds(self, info, frames, slots=1, measured=None):
        return info.width * info.height // 16 * frames - 8

    def probe(self, stego, deriver):
        self._probed.append("adaptive")
        return super().probe(stego, deriver)


def stand_ins(patch, probed=None):
    """Schemes in place of the shipped ones; `probed` gets the names of those that looked into a stego."""
    from deepsteg_jax import loading
    from deepsteg_jax.app.choices import Schemes

    probed = [] if probed is None else probed
    made = {
        name: Files(probed) if name.startswith("adaptive") else Pictures(name, probed) for name in SHIPPED
    }
    patch.setattr(loading, "load", lambda config: made[config.get("checkpoint", "adaptive")])
    patch.setattr(loading, "config_of", lambda name: ConfigDict({"checkpoint": name}))
    return Schemes(ConfigDict({"checkpoint": "video"}))


# --- in this process ------------------------------------------------------------------------------


@contextlib.contextmanager
def served(schemes, folder, limit=2**22):
    """Serve the page on a thread; yield its address, store, sessions and application."""
    from deepsteg_jax.app import server
    from deepsteg_jax.app.files import Store
    from deepsteg_jax.app.jobs import Worker

    with Store(folder, limit) as store, Worker() as worker, server.bound("127.0.0.1", 0) as listener:
        app = server.build(schemes, store, worker)
        running = server.server(app)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_for(lambda: running.started)
        try:
            yield SimpleNamespace(
                address=server.address_of(listener), store=store, sessions=app.state.sessions, app=app
            )
        finally:
            running.should_exit = True
            thread.join(30)


def ask(address, method, path, body=None, headers=None):
    """Status, headers and body of an answer; the path goes as it is."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {}, encode_chunked=hasattr(body, "__next__"))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


class Visitor:
    """One open page, without a browser."""

    def __init__(self, page):
        self.page, self.answers = page, []
        self.token = ""
        self.token = self.post("session")["session"]

    def send(self, method, path, body=None, **headers):
        headers = {"X-Session": self.token, **headers}
        status, _, told = ask(self.page.address, method, f"/{path}", body, headers)
        told = told.replace(rb"\n", b" ")  # of templates
        self.answers.append(told.decode())
        return status, json.loads(told)

    def post(self, path, **form):
        status, told = self.send("POST", path, json.dumps(form), **{"Content-Type": "application/json"})
        assert status == 200, told
        return told

    def refused(self, path, **form):
        status, told = self.send("POST", path, json.dumps(form), **{"Content-Type": "application/json"})
        assert status == 400, told
        return told["problem"]

    def put(self, slot, path, content=None):
        content = path.read_bytes() if content is None else content
        return self.send("PUT", f"slots/{slot}?name={quote(Path(path).name)}", content)

    def drop(self, slot, path):
        status, told = self.put(slot, path)
        assert status == 200, told
        return " ".join(told["card"].split())

    def ended(self):
        """What the page is told at the end of its job."""
        from websockets.sync.client import connect

        with connect(f"{self.page.address.replace('http', 'ws')}/events?session={self.token}") as socket:
            while True:
                self.answers.append(socket.recv(PATIENCE_S).replace(r"\n", " "))
                told = json.loads(self.answers[-1])
                if told.get("running") is False:
                    return told

    def run(self, tab, **form):
        self.post(tab, **form)
        return self.ended()

    def fetch(self, html, number=0):
        """The file behind a link."""
        link = html.split("data-get href=&#34;".replace("&#34;", '"'))[number + 1].split('"')[0]
        return ask(self.page.address, "GET", f"/{link}")


def hide_form(**changes):
    """The Hide tab as it is at first, with a passphrase."""
    form = {"wish": "file", "quality": "hidden", "longest": 640, "passphrase": KEY, "again": KEY}
    return form | changes


# --- a process of its own -------------------------------------------------------------------------


@contextlib.contextmanager
def serving(folder):
    """Serve the page as a user does, with this folder for all it keeps; yield its address and process."""
    environment = {"TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    flags = f"--config={ROOT / 'configs/video.py'}", "--mode=app", "--port=0"
    child = Main(folder / "said", *flags, environment=environment)
    try:
        wait_for(lambda: "http://" in child.printed or child.code is not None)
        assert child.code is None, child.errors
        yield child.printed.split("page is at ")[1].split()[0], child
    finally:
        if child.code is None:
            child.send(signal.SIGTERM)
            child.finish()
