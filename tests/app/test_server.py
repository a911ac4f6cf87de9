"""Who may ask the server for what, and how it starts and ends."""

import http.client
import json
import signal
from urllib.parse import urlsplit

import pytest

from tests.app.serving import need

need("gradio", "app")

from configs import video  # noqa: E402
from deepsteg_jax import commands  # noqa: E402
from deepsteg_jax.app import server  # noqa: E402
from deepsteg_jax.commands import app  # noqa: E402
from deepsteg_jax.errors import UserError  # noqa: E402
from tests.app.serving import ROOT, serving  # noqa: E402
from tests.synthetic import save, smooth  # noqa: E402


def ask(address, path, method="GET", body=None, headers=None):
    """(status, headers, body) of a request, its path sent as it is."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def upload(address, name, content, field="files"):
    edge = "edge"
    body = (
        f'--{edge}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
        + content
        + f"\r\n--{edge}--\r\n".encode()
    )
    return ask(
        address, "/gradio_api/upload", "POST", body, {"Content-Type": f"multipart/form-data; boundary={edge}"}
    )


def drop(address, session, path, number=0):
    """Gives a path to the first drop zone as a browser would after an upload; what the page answers."""
    config = json.loads(ask(address, "/config")[2])
    takes = [d for d in config["dependencies"] if any(t[1] == "upload" for t in d["targets"])]
    body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}], "session_hash": session}
    body["fn_index"] = takes[number]["id"]
    json_type = {"Content-Type": "application/json"}
    status, _, told = ask(address, "/gradio_api/queue/join", "POST", json.dumps(body), json_type)
    assert status == 200, told
    return ask(address, f"/gradio_api/queue/data?session_hash={session}")[2].decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=main.py",
        "/gradio_api/file=http://example.com/",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/proxy=http://example.com/",
        "/gradio_api/runs",
        "/gradio_api/stream/a/b/1/playlist.m3u8",
        "/gradio_api/openapi.json",
        "/monitoring",
        "/docs",
        "/files/../main.py",
        "/files/a/b",
        "/files/..%2f..%2f..%2fetc/passwd",
        "/files/%2fetc/passwd",
        "/static/../../../../../../etc/passwd",
        "/assets/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/svelte/x",
    ],
)
def test_closed_addresses(served, path):
    status, _, body = ask(served[0], path)
    assert status in (403, 404) and b"root:" not in body and b"import" not in body


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", ["/etc/passwd", f"{ROOT}/main.py", "http://127.0.0.1:9/x.png", "https://example.com/x"]
)
def test_a_path_that_was_not_uploaded(served, path):
    answer = drop(served[0], f"s{abs(hash(path))}", path)
    assert '"success":false' in answer.replace(" ", "") and "card" not in answer
    assert not [p for p in served[3].rglob("*") if p.name in ("passwd", "main.py", "x.png", "x")]


@pytest.mark.slow
def test_visitors_do_not_get_each_others_files(served, tmp_path):
    """Not even the path of the other's upload helps: it has moved, to where only a token leads."""
    address, _, _, folder = served
    content = save(tmp_path / "private.png", smooth(1, 24, 24)).read_bytes()
    path = json.loads(upload(address, "private.png", content)[2])[0]
    assert "24 × 24" in drop(address, "firstvisitor", path)
    (kept,) = [p for p in folder.rglob("private.png") if p.is_file()]
    assert ask(address, f"/files/{kept.parent.name}/private.png")[2] == content
    for guess in (path, str(kept), str(kept.relative_to(folder))):
        assert "24 × 24" not in drop(address, "secondvisitor", guess)
        assert ask(address, f"/gradio_api/file={guess}")[0] == 404
        assert ask(address, f"/files/{guess}")[0] == 404
    for name in ("private.pn", "PRIVATE.png", "", "%2e%2e"):
        assert ask(address, f"/files/{kept.parent.name}/{name}")[0] == 404
    assert kept.exists()


@pytest.mark.slow
def test_the_limit_of_an_upload(served):
    status, _, _ = upload(served[0], "large.mkv", bytes(2**22 + 1))
    assert status == 413
    status, _, said = upload(served[0], "larger.mkv", bytes(2**22 + 2**21))
    assert status == 413 and b"4 MiB" in said
    assert upload(served[0], "small.mkv", bytes(1000))[0] == 200
    assert not list(served[3].rglob("*large*"))


@pytest.mark.slow
def test_headers(served):
    status, headers, _ = ask(served[0], "/")
    assert status == 200 and "default-src 'self'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer" and "server" not in headers


@pytest.mark.slow
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80"])
def test_other_names_do_not_lead_here(served, host):
    for path in ("/", "/config", "/gradio_api/info"):
        assert ask(served[0], path, headers={"Host": host})[0] == 400


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(tmp_path, number):
    if number == signal.SIGINT and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        pytest.skip("these tests run in the background of a shell, which ignores SIGINT")
    with serving(tmp_path) as (address, process, said):
        upload(address, "x.mkv", bytes(10))
        open_for_long = http.client.HTTPConnection(urlsplit(address).netloc)
        open_for_long.request("GET", "/gradio_api/heartbeat/abc")
        open_for_long.getresponse().read(1)
        assert list(tmp_path.glob("deepsteg_app_*/uploads/*"))
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert not [path.name for path in tmp_path.iterdir() if path.name not in ("said.txt", "cache")]
        lines = said.read_text().splitlines()
        assert lines[0] == f"the page is at {address} (Ctrl+C ends it)"
        assert lines[1:] == (["main.py: interrupted"] if number == signal.SIGINT else [])


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


def test_without_gradio(monkeypatch):
    monkeypatch.setattr(app.importlib.util, "find_spec", lambda name: None if name == "gradio" else name)
    with pytest.raises(UserError, match=r'^the page needs gradio: run pip install "\.\[app\]"$'):
        app.run(video.get_config(), commands.Options(""))
