"""The page: its routes, and the work that each click starts."""

import asyncio
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from deepsteg_jax import sample_clips
from deepsteg_jax.app import choices, messages, render, work
from deepsteg_jax.app.choices import Choice, Clip, Schemes, Wish
from deepsteg_jax.app.files import TooLarge, type_of
from deepsteg_jax.app.jobs import CANCELLED, FAILED, Job, Worker
from deepsteg_jax.app.live import Camera
from deepsteg_jax.app.sessions import PARTS, SLOTS, Gone, Session, Sessions
from deepsteg_jax.errors import PartialError, UserError

POLL_S, BEAT_S = 0.3, 5.0  # between looks at a running job, and between signs of life
SAMPLES = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")
_ASSETS = {path.name: path for path in (Path(__file__).parent / "static").iterdir()}
_BUSY = "Something of yours is still running: wait for it, or stop it."

Token = Annotated[str, Header(alias="X-Session")]
Slot = Literal[SLOTS]


class Form(BaseModel):
    """What a form sends; anything else is refused."""

    model_config = ConfigDict(extra="forbid")


class Given(Form):
    """A file that is here already: an example, or the page's own stego."""

    sample: Literal[SAMPLES] | None = None


class ToHide(Form):
    """The choices of the Hide tab."""

    wish: Wish
    quality: str
    longest: Literal[tuple(choices.SIZES)]
    loop: bool = False
    sound: bool = True

    def choice(self) -> Choice:
        """Return them; raise UserError for a quality that does not exist."""
        if self.quality not in choices.QUALITIES[self.wish]:
            raise UserError("there is no such quality: reload the page")
        return Choice(self.wish, self.quality, self.longest, self.loop, self.sound)


class Passphrase(Form):
    """The passphrase to reveal with."""

    passphrase: str = Field(max_length=1000)


class HideNow(ToHide, Passphrase):
    """Everything that hiding needs besides the files."""

    again: str = Field(max_length=1000)


class Page:
    """The routes."""

    def __init__(self, schemes: Schemes, sessions: Sessions, worker: Worker):
        """Take what hides, the open pages, and what runs their jobs."""
        self._schemes, self._sessions, self._worker = schemes, sessions, worker
        self._camera = Camera(lambda: schemes.scheme("video"))

    def join(self, app: FastAPI) -> None:
        """Add the routes to an application."""
        for method, path, endpoint in (
            ("GET", "/", self.index),
            ("GET", "/static/{name}", self.asset),
            ("GET", "/files/{token}/{name}", self.file),
            ("POST", "/session", self.open),
            ("DELETE", "/session", self.close),
            ("PUT", "/slots/{slot}", self.upload),
            ("POST", "/slots/{slot}", self.give),
            ("DELETE", "/slots/{slot}", self.take_back),
            ("GET", "/parts", self.parts),
            ("POST", "/estimate", self.estimate),
            ("POST", "/hide", self.hide),
            ("POST", "/reveal", self.reveal),
            ("POST", "/compare", self.compare),
            ("POST", "/stop", self.stop),
        ):
            app.add_api_route(path, endpoint, methods=[method], response_model=None)
        app.add_api_websocket_route("/events", self.events)
        app.add_api_websocket_route("/live", self.live)
        app.add_exception_handler(UserError, self._refuse)
        app.add_exception_handler(RequestValidationError, self._refuse_form)
        app.add_exception_handler(Exception, self._fail)

    async def _refuse(self, request: Request, error: UserError) -> JSONResponse:
        code = 410 if isinstance(error, Gone) else 413 if isinstance(error, TooLarge) else 400
        return JSONResponse({"problem": self._plain(error)}, code)

    async def _fail(self, request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"problem": self._plain(error)}, 500)

    async def _refuse_form(self, request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"problem": "This is not what the page asks: reload it."}, 400)

    def _plain(self, error: Exception) -> str:
        if not isinstance(error, UserError | PartialError):
            traceback.print_exception(error)
        return messages.plain(error, self._sessions.store.root)

    # --- the page and its files

    async def index(self) -> HTMLResponse:
        """Return the page, the same for everybody."""
        return HTMLResponse(render.page(self._sessions.store.limit))

    async def asset(self, name: str) -> FileResponse:
        """Return a script or a style sheet."""
        if name not in _ASSETS:
            raise HTTPException(404)
        return FileResponse(_ASSETS[name])

    async def file(self, token: str, name: str, download: bool = False) -> FileResponse:
        """Return a file of some page as what it is; to be kept unless it is a video or picture."""
        path = self._sessions.store.find(token, name)
        if path is None:
            raise HTTPException(404)
        kind = type_of(path)
        shown = not download and kind.startswith(("video/", "image/"))
        how = "inline" if shown else "attachment"
        return FileResponse(path, media_type=kind, filename=name, content_disposition_type=how)

    async def open(self) -> dict:
        """Begin a page."""
        return {"session": self._sessions.open().token}

    async def close(self, token: Token) -> dict:
        """End a page: its job is stopped, its files are removed."""
        await asyncio.to_thread(self._sessions.close, token)
        return {}

    # --- drop zones

    async def upload(self, request: Request, slot: Slot, name: str, token: Token) -> dict:
        """Receive a file, whose bytes are the body."""
        session, stream = self._sessions.of(token), request.stream()
        session.clips.pop(slot, None)  # also where this file is refused: the page shows none then
        with session.arrival(name) as upload:
            try:
                with upload:
                    async for block in stream:
                        upload.write(block)
            except ClientDisconnect:  # nobody waits for an answer
                return {}
            except UserError:
                async for _ in stream:  # or the browser sees a broken connection in place of the reason
                    pass
                raise
            return await self._place(session, slot, upload.path)

    async def give(self, slot: Slot, given: Given, token: Token) -> dict:
        """Put an example, or the stego that was hidden here, into a drop zone."""
        session = self._sessions.of(token)
        if given.sample is None:
            if session.hidden is None:
                raise UserError("nothing was hidden here yet")
            return await self._place(session, slot, session.hidden.stego)
        path = Path(sample_clips.resolve(f"{sample_clips.PREFIX}{given.sample}"))
        with session.arrival(path.name) as upload:
            with upload:
                upload.write(path.read_bytes())
            return await self._place(session, slot, upload.path)

    async def _place(self, session: Session, slot: str, path: Path) -> dict:
        session.clips.pop(slot, None)
        try:
            clip = session.clips[slot] = await asyncio.to_thread(choices.look, path, slot == "secret")
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001, whatever a file can do
            raise UserError(self._plain(error)) from None
        return {"card": render.part("card", clip)}

    async def take_back(self, slot: Slot, token: Token) -> dict:
        """Empty a drop zone."""
        session = self._sessions.of(token)
        session.clips.pop(slot, None)
        session.tidy()
        return {}

    async def parts(self, token: Token) -> dict:
        """Return the cards of what would be compared, and whether each was dropped for that."""
        session = self._sessions.of(token)
        return {part: await self._part(session, part) for part in PARTS}

    async def _part(self, session: Session, part: str) -> dict:
        path, dropped = session.part(part), f"compare_{part}" in session.clips
        clip = await asyncio.to_thread(choices.look, path, True) if path else None
        return {"card": render.part("card", clip) if clip else "", "dropped": dropped}

    # --- jobs

    def estimate(self, form: ToHide, token: Token) -> dict:
        """Say what hiding would take and give; nothing while a file is missing."""
        clips = self._sessions.of(token).clips
        cover, secret = clips.get("cover"), clips.get("secret")
        if cover is None or secret is None:
            return {"html": "", "short": False}
        found = choices.estimate(self._schemes, cover, secret, form.choice())
        wrong = self._plain(UserError(found.wrong)) if found.wrong else ""
        return {"html": render.part("estimate", found._replace(wrong=wrong)), "short": found.is_short}

    async def hide(self, form: HideNow, token: Token) -> dict:
        """Begin to hide."""
        session, choice = self._sessions.of(token), form.choice()
        cover, secret = self._dropped(session, "cover"), self._dropped(session, "secret")
        if not form.passphrase:
            raise UserError("choose a passphrase: whoever is to see the secret needs the same one")
        if form.passphrase != form.again:
            raise UserError("the two passphrases are not the same: type them once more")
        found = await asyncio.to_thread(choices.estimate, self._schemes, cover, secret, choice)
        if found.wrong:
            raise UserError(found.wrong)
        session.hidden, session.is_pair = None, False
        given = session.folder, self._schemes, cover, secret, form.passphrase, choice
        return self._start(session, "hide", lambda job: work.hide(job, *given))

    async def reveal(self, form: Passphrase, token: Token) -> dict:
        """Begin to reveal."""
        session = self._sessions.of(token)
        stego = self._dropped(session, "stego")
        if not form.passphrase:
            raise UserError("type the passphrase that it was hidden with")
        session.revealed = None
        given = session.folder, self._schemes, stego, form.passphrase
        return self._start(session, "reveal", lambda job: work.reveal(job, *given))

    async def compare(self, token: Token) -> dict:
        """Begin to compare."""
        session = self._sessions.of(token)
        paths = {name: session.part(name) for name in PARTS}
        if missing := [name for name in PARTS if paths[name] is None]:
            names = " and ".join(missing)
            raise UserError(f"not there yet: {names}. Hide and reveal something first, or drop files")
        numbers = session.hidden.numbers if session.compares_own_work else None
        return self._start(session, "compare", lambda job: work.compare(job, session.folder, paths, numbers))

    def _dropped(self, session: Session, slot: str) -> Clip:
        if session.busy:
            raise UserError(_BUSY)
        if slot not in session.clips:
            raise UserError(f"drop a {slot} first")
        return session.clips[slot]

    def _start(self, session: Session, tab: str, do: Callable[[Job], Any]) -> dict:
        def do_and_show(job: Job) -> tuple[Any, dict]:
            done = do(job)
            return done, self._shown(tab, done)

        if session.busy:
            raise UserError(_BUSY)
        with session.lock:
            session.job, session.tab = self._worker.submit(do_and_show, session.token), tab
            session.told = None
        session.news.set()
        return {}

    def _shown(self, tab: str, done: Any) -> dict:
        """Return what the page shows of a result."""
        if tab == "compare":
            return render.comparison(done)
        notes = messages.notes(getattr(done.report, "notes", ()), self._sessions.store.root)
        return {"result": render.part("hidden" if tab == "hide" else "revealed", done, notes)}

    async def stop(self, token: Token) -> dict:
        """Stop the job."""
        session = self._sessions.of(token)
        if session.job is not None:
            session.job.cancel()
        session.news.set()
        return {}

    # --- sockets

    async def events(self, connection: WebSocket, session: str) -> None:
        """Tell a page of its job, and now and then that the program is alive."""
        await connection.accept()
        try:
            page = self._sessions.of(session)
        except Gone as error:
            await connection.send_json({"gone": self._plain(error)})
            await connection.close()
            return
        with page.connected(), suppress(WebSocketDisconnect, RuntimeError):  # it has left
            await self._tell(connection, page)

    async def _tell(self, connection: WebSocket, session: Session) -> None:
        while True:
            session.news.clear()
            await connection.send_json(await asyncio.to_thread(self._status, session))
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S if session.busy else BEAT_S):
                    await session.news.wait()

    def _status(self, session: Session) -> dict:
        """Return the state of a page's job, for the page; {} if there is none."""
        with session.lock:
            job, tab = session.job, session.tab
            if job is None:
                return {}
            if session.told is None and job.finished:
                session.told = {"tab": tab, "running": False, **self._end(session)}
                session.tidy()
            if session.told is not None:
                return session.told
        status = self._worker.status(job)
        told = {"tab": tab, "running": True, "said": messages.stage(status), "share": None}
        if status.share:  # it may compile first, or take long for the first part
            told |= {"share": status.share, "left": messages.left(status)}
        return told

    def _end(self, session: Session) -> dict:
        """Keep what a job made, and say how it ended."""
        job = session.job
        if job.state == CANCELLED:
            return {"kind": "note", "said": "Stopped. Nothing was kept."}
        if job.state == FAILED:
            return {"kind": "problem", "said": self._plain(job.error)}
        done, shown = job.result
        session.keep(done)
        took = f"took {messages.precise(job.seconds)}"
        if session.tab == "compare":
            return {"kind": "done", "said": render.figures(done), **shown}
        if isinstance(done.report, PartialError):
            return {"kind": "problem", "said": self._plain(done.report), **shown}
        said = f"Done: the secret is inside ({took})." if session.tab == "hide" else f"Done ({took})."
        return {"kind": "done", "said": said, **shown}

    async def live(self, connection: WebSocket, session: str, width: int, height: int) -> None:
        """Hide in what the browser's camera sees."""
        try:
            clip = self._sessions.of(session).clips.get("live")
        except Gone:
            clip = None
        await self._camera.serve(connection, clip and clip.path, width, height)
