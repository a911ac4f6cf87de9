"""What the server refuses, tried over HTTP as other sites, programs and visitors would."""

import http.client
import json
import signal
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from tests.app.serving import Visitor, ask, hide_form, need, served, serving, stand_ins, wait_for
from tests.synthetic import save, smooth

need("fastapi", "app")

from websockets.exceptions import InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from configs import video  # noqa: E402
from deepsteg_jax import commands  # noqa: E402
from deepsteg_jax.app import server, sessions  # noqa: E402
from deepsteg_jax.commands import app  # noqa: E402
from deepsteg_jax.errors import UserError  # noqa: E402

ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},  # another program of this computer
    {"Host": "evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "localhost.evil.example:80"},
]


def routes(page):
    """(method, path) of every route; whatever is variable is filled in."""
    found = [route for route in page.app.routes if hasattr(route, "methods")]
    assert len(found) == 14
    fill = {"{slot}": "cover", "{name}": "page.js", "{token}": "a"}
    for route in found:
        path = route.path
        for name, value in fill.items():
            path = path.replace(name, value)
        yield from ((method, path) for method in route.methods)


@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
def test_every_route_refuses_other_sites(page, visitor, headers):
    sessions_before, left = len(page.sessions._all), page.store._left
    for method, path in routes(page):
        body = b"x" * 1000 if method == "PUT" else b"{}"
        sent = {"X-Session": visitor.token, "Content-Type": "application/json", **headers}
        status, told, answer = ask(page.address, method, f"{path}?name=a.mkv", body, sent)
        assert status == 403 and "problem" in json.loads(answer), (method, path)
        assert "Access-Control-Allow-Origin" not in told
    assert len(page.sessions._all) == sessions_before and page.store._left == left


@pytest.mark.parametrize("path", ["events", "live"])
@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
def test_sockets_refuse_other_sites(page, visitor, path, headers):
    address = f"{page.address.replace('http', 'ws')}/{path}?session={visitor.token}&width=320&height=240"
    host = headers.get("Host")
    headers = {name: value for name, value in headers.items() if name != "Host"}
    if host:  # the client sends the host of the address
        name, _, port = host.partition(":")
        wanted = urlsplit(page.address)
        address = address.replace(wanted.netloc, f"{name}:{port or 80}")
    with (
        pytest.raises(InvalidStatus) as caught,
        connect(address, additional_headers=headers, sock=_socket(page)),
    ):
        pass
    assert caught.value.response.status_code == 403


def _socket(page):
    import socket

    return socket.create_connection((urlsplit(page.address).hostname, urlsplit(page.address).port))


def test_a_link_to_the_page_is_followed_and_one_s_own_page_is_served(page):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert ask(page.address, "GET", "/", headers=link)[0] == 200
    assert ask(page.address, "GET", "/static/page.js", headers=link)[0] == 403
    for headers in (
        {"Origin": page.address},
        {"Sec-Fetch-Site": "same-origin", "Origin": page.address},
        {"Host": "localhost", "Origin": "https://hide.example", "X-Forwarded-Host": "hide.example"},
    ):
        status, _, answer = ask(page.address, "POST", "/session", headers=headers)
        assert status == 200
        page.sessions.close(json.loads(answer)["session"])


def test_no_site_may_ask_whether_it_may(page):
    asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "PUT"}
    status, headers, _ = ask(page.address, "OPTIONS", "/slots/cover", headers=asked)
    assert status == 403 and not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("192.168.1.7:7860", True),
        ("[fe80::1]:7860", True),
        ("localhost", True),
        ("laptop.local:7860", True),
        ("evil.example", False),
        ("", False),
    ],
)
def test_names_on_a_network(host, known):
    assert server._is_known(host, local=False) == known
    assert server._is_known(host, local=True) == (host == "localhost")


@pytest.mark.parametrize(
    "path",
    [
        "/docs",
        "/openapi.json",
        "/static/../page.py",
        "/static/..%2fpage.py",
        "/static/%2e%2e/page.py",
        "/static//etc/passwd",
        "/files/../main.py",
        "/files/a/b",
        "/files/..%2f..%2f..%2fetc/passwd",
        "/files/%2fetc/passwd",
        "/slots/cover",
        "/session",
    ],
)
def test_closed_addresses(page, path):
    status, _, body = ask(page.address, "GET", path)
    assert status in (404, 405) and b"root:" not in body and b"import" not in body


def test_headers(page):
    status, headers, _ = ask(page.address, "GET", "/")
    policy = headers["Content-Security-Policy"]
    assert status == 200 and "default-src 'none'" in policy and "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy and "form-action 'none'" in policy
    assert headers["Referrer-Policy"] == "no-referrer" and headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin" and "server" not in headers


# --- uploads --------------------------------------------------------------------------------------


def test_a_file_that_is_too_large_however_it_comes(page, visitor):
    for content in (bytes(2**20 + 1), iter([bytes(2**18)] * 5)):  # the second one in chunks, of unknown size
        status, told = visitor.put("cover", "large.mkv", content)
        assert status == 413 and told["problem"] == "large.mkv is too large: a file may have 1 MiB."
    assert not list(page.store.root.rglob("large*")) and page.store._left == 4 * 2**20


def test_one_quota_for_all_files_of_all_visitors(page, visitor):
    others = [Visitor(page) for _ in range(4)]
    for other in others:
        other.put("secret", "part.bin", bytes(2**20))
    for content in (b"x", iter([b"x"])):
        status, told = visitor.put("cover", "one more.bin", content)
        assert status == 413 and "4 MiB together" in told["problem"]
    for other in others:
        page.sessions.close(other.token)
    assert visitor.put("secret", "one more.bin", b"x")[0] == 200


def test_several_files_in_one_request_are_one_file(page, visitor):
    """A form as browsers send it is taken for the bytes of one file, and counts whole."""
    part = b'--e\r\nContent-Disposition: form-data; name="f"; filename="a.mkv"\r\n\r\n' + bytes(2**19)
    form = {"Content-Type": "multipart/form-data; boundary=e"}
    assert visitor.send("PUT", "slots/secret?name=a.mkv", part * 3, **form)[0] == 413
    assert visitor.send("POST", "slots/secret", part, **form)[0] == 400
    assert page.store._left == 4 * 2**20


def begin_upload(page, visitor, path, size):
    """The connection of an upload of which nothing was sent yet."""
    connection = http.client.HTTPConnection(urlsplit(page.address).netloc)
    connection.putrequest("PUT", path)
    connection.putheader("X-Session", visitor.token)
    connection.putheader("Content-Length", str(size))
    return connection


def test_an_upload_that_breaks_off_leaves_nothing(page, visitor):
    connection = begin_upload(page, visitor, "/slots/cover?name=broken.mkv", 1_000_000)
    connection.endheaders(bytes(300_000))
    wait_for(lambda: page.store._left < 4 * 2**20)
    connection.close()
    wait_for(lambda: page.store._left == 4 * 2**20)
    assert not list(page.store.root.rglob("broken*"))


def test_two_files_may_arrive_at_once(page, visitor, tmp_path):
    content = save(tmp_path / "slow.png", smooth(1, 24, 24)).read_bytes()
    slow = begin_upload(page, visitor, "/slots/cover?name=slow.png", len(content))
    slow.endheaders(content[:50])
    wait_for(lambda: page.store._left < 4 * 2**20)
    visitor.drop("secret", tmp_path / "slow.png")
    visitor.send("DELETE", "slots/secret")
    slow.send(content[50:])
    assert slow.getresponse().status == 200
    slow.close()


@pytest.mark.parametrize(
    "name", ["../../../x.png", "/etc/x.png", "a\\..\\x.png", "..", "", "frame_%05d.png", "x" * 400, "con"]
)
def test_names_lead_nowhere(page, visitor, tmp_path, name):
    content = save(tmp_path / "x.png", smooth(1, 24, 24)).read_bytes()
    card = visitor.send("PUT", f"slots/cover?name={name.replace('%', '%25')}", content)[1]["card"]
    (path,) = [path for path in page.store.root.rglob("*") if path.is_file()]
    assert path.parent.parent.parent == page.store.root and "24 × 24" in card and "%" not in path.name


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat"])
@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.txt"])
def test_playlists_read_nothing(page, visitor, tmp_path, kind, name):
    """Neither as a cover nor as a secret, which travels as the text that it is."""
    clip = save(tmp_path / "private.mkv", smooth(3, 24, 24))
    text = {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{clip}'\n",
    }[kind]
    for slot in ("cover", "stego", "live", "compare_secret"):
        status, told = visitor.put(slot, name, text.encode())
        assert status == 400 and "card" not in told
    status, told = visitor.put("secret", name, text.encode())
    assert status == 200 and "<img" not in told["card"] and "24 × 24" not in told["card"]


def test_files_are_served_as_what_they_are(page, visitor, tmp_path):
    script = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    for name, kind, how in (
        ("a.html", "application/octet-stream", "attachment"),
        ("a.svg", "application/octet-stream", "attachment"),
        ("a.mp4", "video/mp4", "inline"),
    ):
        visitor.put("secret", name, script)
        (path,) = page.store.root.rglob(name)
        status, headers, body = ask(page.address, "GET", f"/files/{path.parent.name}/{name}")
        assert (status, body) == (200, script) and headers["Content-Type"] == kind
        assert headers["Content-Disposition"].startswith(how)
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        assert "sandbox" in headers["Content-Security-Policy"]
        assert "script-src" not in headers["Content-Security-Policy"]
    assert (
        "attachment" in ask(page.address, "GET", f"/files/{path.parent.name}/a.mp4?download=1")[1].as_string()
    )


# --- visitors -------------------------------------------------------------------------------------


def test_visitors_cannot_see_each_other(page, visitor, tmp_path):
    content = save(tmp_path / "private.png", smooth(1, 24, 24)).read_bytes()
    visitor.drop("cover", tmp_path / "private.png")
    (kept,) = page.store.root.rglob("private.png")
    assert ask(page.address, "GET", f"/files/{kept.parent.name}/private.png")[2] == content
    other = Visitor(page)
    assert other.send("GET", "parts")[1]["cover"]["card"] == ""
    assert other.refused("hide", **hide_form()) == "Drop a cover first."
    for guess in (kept, kept.relative_to(page.store.root), "private.png", "a/private.png"):
        assert ask(page.address, "GET", f"/files/{guess}")[0] == 404
    for name in ("private.pn", "PRIVATE.png", "", "%2e%2e"):
        assert ask(page.address, "GET", f"/files/{kept.parent.name}/{name}")[0] == 404
    page.sessions.close(other.token)
    assert kept.exists()


@pytest.mark.parametrize("token", ["", "guess", "../x"])
def test_without_a_page_nothing_is_done(page, token):
    stranger = {"X-Session": token, "Content-Type": "application/json"}
    for method, path in routes(page):
        if path in ("/", "/static/page.js", "/session", "/files/a/page.js"):
            continue
        body = json.dumps({"/hide": hide_form(), "/reveal": {"passphrase": "x"}}.get(path, {}))
        if path == "/estimate":
            body = json.dumps({"wish": "file", "quality": "hidden", "longest": 0})
        assert ask(page.address, method, f"{path}?name=a", body, stranger)[0] == 410, path
    with connect(f"{page.address.replace('http', 'ws')}/events?session={token}") as socket:
        assert "reload the page" in json.loads(socket.recv())["gone"]


def test_a_wrong_form_is_refused_without_repeating_it(visitor):
    form = hide_form(passphrase="secret-passphrase", wish="sell")
    status, told = visitor.send("POST", "hide", json.dumps(form), **{"Content-Type": "application/json"})
    assert status == 400 and "secret-passphrase" not in json.dumps(told)
    assert visitor.send("POST", "hide", json.dumps(form), **{"Content-Type": "text/plain"})[0] == 400
    assert "reload" in visitor.refused("hide", **hide_form(quality="best"))
    assert visitor.send("PUT", "slots/other?name=a", b"x")[0] == 400


def test_who_leaves_leaves_nothing(page, visitor):
    other = Visitor(page)
    other.put("secret", "a.bin", b"x")
    other.send("DELETE", "session")
    assert not list(page.store.root.rglob("a.bin"))


def test_pages_without_a_connection_are_swept(page, visitor, monkeypatch):
    other = Visitor(page)
    for each in (visitor, other):
        each.put("secret", f"{each.token}.bin", b"x")
    with connect(f"{page.address.replace('http', 'ws')}/events?session={visitor.token}") as socket:
        socket.recv()
        now = time.monotonic()
        later = SimpleNamespace(monotonic=lambda: now + sessions.GRACE_S + 1)
        monkeypatch.setattr(sessions, "time", later)  # not the server's own clock
        page.sessions.sweep()
        assert [path.stem for path in page.store.root.rglob("*.bin")] == [visitor.token]
    assert other.send("GET", "parts")[0] == 410


def test_pages_are_counted(page, monkeypatch):
    monkeypatch.setattr(sessions, "MOST", 0)
    status, _, told = ask(page.address, "POST", "/session")
    assert status == 400 and b"close some" in told


# --- the address, the beginning and the end ---------------------------------------------------------


def test_nothing_is_left_at_the_end(tmp_path):
    with pytest.MonkeyPatch.context() as patch, served(stand_ins(patch), tmp_path) as page:
        Visitor(page).put("secret", "a.bin", b"x")
        assert next(tmp_path.glob("deepsteg_app_*")).stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(tmp_path, number):
    if number == signal.SIGINT and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        pytest.skip("these tests run in the background of a shell, which ignores SIGINT")
    with serving(tmp_path) as (address, child):
        token = json.loads(ask(address, "POST", "/session")[2])["session"]
        with connect(f"{address.replace('http', 'ws')}/events?session={token}"):
            ask(address, "PUT", "/slots/secret?name=x", b"x", {"X-Session": token})
            assert list(tmp_path.glob("deepsteg_app_*/*/*/x"))
            child.send(number)
            assert child.finish().code == 128 + number
        left = [path.name for path in tmp_path.iterdir() if path.name != "cache"]
        assert all(name.startswith("said-") for name in left)
        assert child.printed == f"the page is at {address} (Ctrl+C ends it)\n"
        assert child.errors == ("main.py: interrupted\n" if number == signal.SIGINT else "")


def test_a_port_that_is_taken():
    with server.bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}: .*--port 0") as caught:
            server.bound("127.0.0.1", port)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "8.8.8.8"])
def test_a_host_that_is_not_ours(host):
    with pytest.raises(UserError, match=host):
        server.bound(host, 0)


def test_which_hosts_are_local():
    assert all(map(server.is_local, ("127.0.0.1", "localhost", "::1", "127.0.0.5")))
    assert not any(map(server.is_local, ("0.0.0.0", "::", "192.168.1.2", "example.com")))


def test_without_its_packages(monkeypatch):
    monkeypatch.setattr(app.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(UserError, match=r'^the page needs uvicorn: run pip install "\.\[app\]"$'):
        app.run(video.get_config(), commands.Options(""))
