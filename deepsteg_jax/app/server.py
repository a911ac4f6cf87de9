"""The web server of the page: its address, what it refuses, and its end."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from deepsteg_jax.app.choices import Schemes
from deepsteg_jax.app.files import MIB, Store
from deepsteg_jax.app.jobs import Worker
from deepsteg_jax.app.page import Page
from deepsteg_jax.app.sessions import Sessions
from deepsteg_jax.errors import UserError

SWEEP_S = 10.0
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
        with (
            bound(options.host, options.port) as listener,
            Store(limit=options.upload_limit * MIB) as store,
            worker,
        ):
            tempfile.tempdir = str(store.root)  # whatever else is written is removed with the rest
            address = address_of(listener)
            app = build(schemes, store, worker, lambda: _tell(address, options), is_local(options.host))
            server(app).run(sockets=[listener])
    except (KeyboardInterrupt, SystemExit) as end:
        if worker.runs:
            _end_now(end)
        raise


def server(app: FastAPI) -> uvicorn.Server:
    """Return what serves the application on a socket."""
    config = uvicorn.Config(
        app,
        log_level="critical",  # no log of requests: they name files
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        ws_max_size=_LARGEST_FRAME,
    )
    return uvicorn.Server(config)


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
    except (OSError, UnicodeError):
        raise UserError(f"--host {host} is not an address of this computer") from None
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
        # A browser in a terminal keeps this thread until it is closed.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def is_local(host: str) -> bool:
    """Return whether only this computer reaches it."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def build(
    schemes: Schemes,
    store: Store,
    worker: Worker,
    ready: Callable[[], Any] = lambda: None,
    local: bool = True,
) -> FastAPI:
    """Make the whole application; `ready` is called once it serves, `local`: for this computer only."""
    sessions = Sessions(store)

    @asynccontextmanager
    async def lifespan(_: FastAPI):
        sweeping = asyncio.create_task(_sweep(sessions))
        ready()
        yield
        sweeping.cancel()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.sessions, app.state.page = sessions, Page(schemes, sessions, worker)
    app.state.page.join(app)
    app.add_middleware(Guard, local=local)
    return app


async def _sweep(sessions: Sessions) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        sessions.sweep()


# --- who may ask, and what browsers may do --------------------------------------------------------


class Guard:
    """Refuse what other sites ask for, on every route and socket; limit what the page may load."""

    def __init__(self, app: Callable, local: bool):
        """Take the application, and whether it serves this computer only."""
        self._app, self._local = app, local

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), scope["path"]

        async def send_protected(message: dict) -> None:
            if message["type"] == "http.response.start":
                _protect(MutableHeaders(scope=message), headers.get("host", ""), path)
            await send(message)

        reason = refusal(headers, path, self._local)
        if not reason:
            await self._app(scope, receive, send_protected)
        elif scope["type"] == "http":
            await JSONResponse({"problem": reason}, 403)(scope, receive, send_protected)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": reason})


def refusal(headers: Headers, path: str, local: bool) -> str:
    """Say why a request is refused; empty: it is not.

    Browsers say in Sec-Fetch-Site whose page asks, older ones in Origin, and no page can change either. Other
    host names than this computer's are refused against DNS rebinding.
    """
    host = headers.get("host", "")
    if not _is_known(host, local):
        return "this page goes by another name"
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if site is not None:
        allowed = site in ("same-origin", "none") or (path == "/" and followed)  # a link to the page
    else:
        allowed = origin is None or urlsplit(origin).netloc in (host, headers.get("x-forwarded-host"))
    return "" if allowed else "other sites may not use this page"


def _is_known(host: str, local: bool) -> bool:
    """Return whether a Host header names this computer, in a way that nobody else's DNS can."""
    with suppress(ValueError):
        name = urlsplit(f"//{host}").hostname or ""
        if local or name == "localhost":
            return is_local(name)
        if name == socket.gethostname().lower() or name.endswith(".local"):
            return True
        return bool(ip_address(name))
    return False


def _protect(headers: MutableHeaders, host: str, path: str) -> None:
    """Set headers by which a browser runs and fetches nothing from elsewhere, and takes files as they are."""
    if path.startswith("/files/"):
        policy = "default-src 'none'; media-src 'self'; img-src 'self'; style-src 'unsafe-inline'; sandbox"
    else:
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; "
            f"img-src 'self' data: blob:; media-src 'self'; connect-src 'self' ws://{host} wss://{host}"
        )
    headers["Content-Security-Policy"] = (
        f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers["Referrer-Policy"] = "no-referrer"
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Permissions-Policy"] = "camera=(self), microphone=(), geolocation=()"
    headers["Cache-Control"] = "no-store"
