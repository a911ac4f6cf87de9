"""The web server of the page, which answers the requests that the page needs and no others."""

import os
import signal
import socket
import sys
import webbrowser
from collections.abc import Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from fastapi import FastAPI, HTTPException, WebSocket
from fastapi.responses import FileResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from deepsteg_jax.app import live
from deepsteg_jax.app.files import Store
from deepsteg_jax.app.jobs import Worker
from deepsteg_jax.app.work import Schemes
from deepsteg_jax.errors import UserError

LOCAL = ("127.0.0.1", "localhost", "::1")
# The routes of gradio that the page needs. All others is closed, above all `file=` and `proxy=`, which hand
# out files of this computer and fetch from others.
OPEN = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/pwa_icon")
OPEN_BELOW = ("/assets/", "/static/", "/files/", "/live/", "/gradio_api/heartbeat/")
OPEN_GRADIO = (
    "app_id",
    "cancel",
    "info",
    "queue/data",
    "queue/join",
    "reset",
    "startup-events",
    "upload",
    "upload_progress",
)
_OVERHEAD = 2**20  # bytes of an upload besides the file
_LARGEST_FRAME = 2**21  # bytes of a camera's frame as JPEG
_GRACE_S = 2  # for connections that are open when the server ends


class Options(NamedTuple):
    """The address of the page and the limits on its users."""

    host: str = "127.0.0.1"
    port: int = 7860  # 0: any free one
    open: bool = False  # the page in the browser
    upload_limit: int = 2048  # MiB of a file


def serve(schemes: Schemes, options: Options) -> None:
    """Serve the page until a signal ends it.

    Raises:
        UserError: the address is taken or is not of this computer, or there is no temporary folder.
    """
    worker = Worker()
    try:
        with bound(options.host, options.port) as listener, Store() as store, worker:
            address = address_of(listener)
            app = build(schemes, store, worker, options, lambda: _tell(address, options))
            config = uvicorn.Config(
                app,
                log_level="critical",  # no log of requests: they name files
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
                ws_max_size=_LARGEST_FRAME,
            )
            uvicorn.Server(config).run(sockets=[listener])
    except (KeyboardInterrupt, SystemExit) as end:
        if worker.runs:
            _end_now(end)
        raise


def _end_now(end: BaseException) -> None:
    """End the process as `main.py` would, though a thread computes: Python would abort over it."""
    if isinstance(end, KeyboardInterrupt):
        print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(128 + signal.SIGINT if isinstance(end, KeyboardInterrupt) else end.code)


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens there.

    Raises:
        UserError: it cannot.
    """
    try:
        kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(kind, socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(f"--host {host} is not an address of this computer: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        reason = f"cannot serve on {host}, port {port}: {error.strerror}"
        raise UserError(f"{reason}; --port 0 takes any free one, --port N another") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address to type into a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _tell(address: str, options: Options) -> None:
    print(f"the page is at {address} (Ctrl+C ends it)", flush=True)
    if not is_local(options.host):
        print("everybody who reaches this address can use it, unencrypted: see docs/APP.md", flush=True)
    if options.open:
        webbrowser.open(address)


def is_local(host: str) -> bool:
    """Return whether only this computer reaches it."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def build(
    schemes: Schemes, store: Store, worker: Worker, options: Options, ready: Callable[[], Any] = lambda: None
) -> FastAPI:
    """Make the whole application; `ready` is called once it serves."""
    os.environ["GRADIO_TEMP_DIR"] = str(store.uploads)  # gradio looks when it is imported, and later
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from deepsteg_jax.app import page

    @asynccontextmanager
    async def lifespan(_):
        ready()
        yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    visitors = page.Visitors(store)
    camera = live.Camera(lambda: schemes.scheme("video"), visitors.live_secret)

    @app.get("/files/{token}/{name}")
    def file(token: str, name: str, download: bool = False):
        path = store.find(token, name)
        if path is None:
            raise HTTPException(404)
        kind = "attachment" if download else "inline"
        return FileResponse(path, filename=name, content_disposition_type=kind)

    @app.websocket("/live/{token}")
    async def live_socket(connection: WebSocket, token: str, width: int = 320, height: int = 240):
        await camera.serve(connection, token, width, height)

    limit = options.upload_limit * 2**20
    page.mount(app, page.build(schemes, visitors, worker), limit)
    app.add_middleware(Guard, limit=limit)
    if is_local(options.host):  # refuse other host names, against DNS rebinding
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL, "[::1]"], www_redirect=False)
    return app


class Guard:
    """Let through what the page needs, refuse uploads that are too large, limit what pages may load."""

    def __init__(self, app: Callable, limit: int):
        self._app, self._limit = app, limit

    async def __call__(self, scope, receive, send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                _protect(MutableHeaders(scope=message), headers.get("host", ""), scope["path"])
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, path: str, headers: Headers) -> PlainTextResponse | None:
        known = (
            path in OPEN or path.startswith(OPEN_BELOW) or path.removeprefix("/gradio_api/") in OPEN_GRADIO
        )
        if not known or ".." in path:
            return PlainTextResponse("not found", 404)
        size = headers.get("content-length", "0")
        if path.endswith("/upload") and size.isdecimal() and int(size) > self._limit + _OVERHEAD:
            return PlainTextResponse(f"a file may have {self._limit // 2**20} MiB at most", 413)
        return None


def _protect(headers: MutableHeaders, host: str, path: str) -> None:
    """Set headers by which a browser fetches nothing from elsewhere and tells nobody where it is."""
    here = f"'self' ws://{host} wss://{host}"
    headers["Content-Security-Policy"] = (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
        f"font-src 'self' data:; connect-src {here} data: blob:; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    )
    headers["Referrer-Policy"] = "no-referrer"
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    if path.startswith("/files/"):
        headers["Cache-Control"] = "no-store"
