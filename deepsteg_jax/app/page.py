"""The page: the layout of its four tabs, and the work that each click starts."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from deepsteg_jax.app import html, messages, work
from deepsteg_jax.app.files import Desk, Store
from deepsteg_jax.app.jobs import CANCELLED, DONE, FAILED, Job, Worker
from deepsteg_jax.errors import PartialError, UserError

TITLE = "deepsteg"
POLL_S, HUSH_S = 0.3, 0.1
LEAST_PASSPHRASE = 8  # characters, below which the page warns
FILE, POST = "live", "post"
PURPOSES = [
    ("Stay as it is: best pictures, a large file that no app or site may change", FILE),
    ("Be sent or posted: survives being coded again; coarser pictures, no sound, slower", POST),
]
QUALITIES = {
    FILE: [
        ("The cover looks best", 2),
        ("Balanced", 3),
        ("More for the secret", 4),
        ("The secret looks best", 5),
    ],
    POST: [("The cover looks best", 32), ("Balanced", 42), ("The secret looks best", 60)],
}
BALANCED = {FILE: 3, POST: 42}
SIZES = [("Small (640 pixels)", 640), ("Medium (1280 pixels)", 1280), ("As it is", 0)]
PARTS = ("cover", "stego", "secret", "revealed")
_HERE = Path(__file__).parent
_PRIVATE = {"show_progress": "hidden", "api_visibility": "private"}


# --- who is here ----------------------------------------------------------------------------------


class Visitor:
    """One open page: its files and its job."""

    def __init__(self, desk: Desk):
        self.desk = desk
        self.arriving: set[Path] = set()
        self.dropped: dict[str, work.Clip] = {}  # by slot
        self.hidden: work.Hidden | None = None
        self.revealed: work.Revealed | None = None
        self.revealed_from: Path | None = None
        self.compared: work.Compared | None = None
        self.job: Job | None = None

    @property
    def busy(self) -> bool:
        """Whether a job of this visitor is waiting or running."""
        return self.job is not None and not self.job.finished

    def tidy(self) -> None:
        """Remove the files that nothing on the page shows any more."""
        kept = [*self.arriving, *(clip.path for clip in self.dropped.values())]
        if self.hidden:
            kept += [self.hidden.cover, self.hidden.secret, self.hidden.stego, self.hidden.watched]
        if self.revealed:
            kept += [self.revealed.revealed, self.revealed.watched]
        if self.revealed_from:
            kept.append(self.revealed_from)
        if self.compared:
            kept.append(self.compared.pictures[0]["cover"])
        if not self.busy:
            self.desk.keep_only(kept)

    def part(self, name: str) -> Path | None:
        """Return a file for the Compare tab: dropped there, else hidden or revealed here."""
        if dropped := self.dropped.get(f"compare_{name}"):
            return dropped.path
        if self.hidden is None:
            return None
        if name != "revealed":
            return getattr(self.hidden, name)
        return self.revealed.revealed if self.revealed and self._same_stego() else None

    def _same_stego(self) -> bool:
        """Return whether the revealed stego was hidden here, even if it was downloaded and dropped again."""
        sizes = [path.stat().st_size for path in (self.hidden.stego, self.revealed_from) if path.is_file()]
        return len(sizes) == 2 and sizes[0] == sizes[1]

    @property
    def compares_own_work(self) -> bool:
        """Whether nothing was dropped on the Compare tab."""
        return not any(slot.startswith("compare_") for slot in self.dropped)


class Visitors:
    """Everybody whose page is open, by the name that gradio gives the session."""

    def __init__(self, store: Store):
        self.store = store
        self._all: dict[str, Visitor] = {}

    def of(self, request: gr.Request) -> Visitor:
        """Return the visitor that sent a request."""
        name = request.session_hash
        if name not in self._all:
            self._all[name] = Visitor(self.store.desk(name))
        return self._all[name]

    def leave(self, request: gr.Request) -> None:
        """Stop a visitor's job and remove the visitor's files."""
        visitor = self._all.pop(request.session_hash, None)
        if visitor is not None and visitor.job is not None:
            visitor.job.cancel()
        self.store.leave(request.session_hash)

    def live_secret(self, token: str) -> Path | None:
        """Return the secret that was dropped on the Live tab, by its token."""
        for visitor in list(self._all.values()):
            clip = visitor.dropped.get("live")
            if clip is not None and clip.path.parent.name == token:
                return clip.path
        return None


# --- the page -------------------------------------------------------------------------------------


class Page:
    """Lays the tabs out and ties them to the work."""

    def __init__(self, schemes: work.Schemes, visitors: Visitors, worker: Worker):
        self._schemes, self._visitors, self._worker = schemes, visitors, worker

    def lay_out(self) -> None:
        """Lay out everything, within `gr.Blocks`."""
        gr.HTML(html.HEAD)
        with gr.Tabs(elem_id="tabs") as self.tabs:
            with gr.Tab("Hide", id="hide"):
                self._hide_tab()
            with gr.Tab("Reveal", id="reveal"):
                self._reveal_tab()
            with gr.Tab("Compare", id="compare") as compare_tab:
                self._compare_tab()
            with gr.Tab("Live", id="live"):
                self._live_tab()
        gr.HTML(html.FOOT)
        compare_tab.select(self._show_parts, None, list(self.cards.values()), **_PRIVATE)
        self.to_reveal.click(
            self._give_to_reveal, None, [self.tabs, self.stego_card, self.reveal_result], **_PRIVATE
        )

    def _slot(self, slot: str, label: str) -> gr.HTML:
        """Lay out a drop zone; return the card that describes the dropped file."""
        drop = gr.File(label=label, file_count="single", height=150, elem_id=f"drop_{slot}")
        _never_fetch(drop, self._visitors.store)
        card = gr.HTML(elem_classes="announce", elem_id=f"card_{slot}")

        async def take(upload: str, request: gr.Request):
            return await self._take(slot, upload, request)

        drop.upload(take, drop, [drop, card], **_PRIVATE)
        return card

    async def _take(self, slot: str, upload: str, request: gr.Request) -> tuple[None, str]:
        visitor, path = self._visitors.of(request), None
        visitor.dropped.pop(slot, None)
        try:
            path = visitor.desk.take(upload)
            visitor.arriving.add(path)
            clip = visitor.dropped[slot] = await asyncio.to_thread(work.look, path)
            said = html.card(clip)
        except Exception as error:  # noqa: BLE001, whatever a file can do
            said = html.problem(self._plain(error))
        visitor.arriving.discard(path)
        visitor.tidy()
        return None, said

    def _plain(self, error: Exception) -> str:
        if not isinstance(error, UserError | PartialError):
            traceback.print_exception(error)
        return messages.plain(error, self._visitors.store.root)

    async def _follow(self, visitor: Visitor, do: Callable, shown: "Shown") -> AsyncIterator[dict]:
        """Queue work and yield its status until it ends; the result is left to the caller."""
        job = visitor.job = self._worker.submit(do)
        stage = None
        while not job.finished:
            status = self._worker.status(job)
            said = html.stage(status)
            news = {shown.bar: html.bar(status), shown.go: gr.update(interactive=False)}
            news |= {shown.stop: gr.update(visible=True), shown.result: ""} if stage is None else {}
            yield news | ({shown.message: said} if said != stage else {})
            stage = said
            await asyncio.sleep(POLL_S)
        rest = {shown.bar: "", shown.go: gr.update(interactive=True), shown.stop: gr.update(visible=False)}
        if job.state == CANCELLED:
            rest[shown.message] = html.note("Stopped. Nothing was kept.")
        if job.state == FAILED:
            rest[shown.message] = html.problem(self._plain(job.error))
        yield rest

    def _stop(self, request: gr.Request) -> None:
        visitor = self._visitors.of(request)
        if visitor.job is not None:
            visitor.job.cancel()

    # Hide

    def _hide_tab(self) -> None:
        gr.HTML(html.intro("Nobody who sees the cover sees the secret. Both may be videos or pictures."))
        with gr.Row():
            with gr.Column():
                cover_card = self._slot("cover", "Cover: what everybody may see")
            with gr.Column():
                secret_card = self._slot("secret", "Secret: what is hidden in it")
        purpose = gr.Radio(PURPOSES, value=FILE, label="The result will")
        with gr.Row():
            passphrase = _passphrase("Passphrase", "new-password")
            again = _passphrase("Passphrase again", "new-password")
        self.loop = loop = gr.Checkbox(
            label="Repeat the cover until the secret fits", visible=False, elem_id="loop"
        )
        with gr.Accordion("Quality and size", open=False):
            # One for each purpose: choices that change would arrive late for a quick click.
            qualities = [
                gr.Radio(QUALITIES[each], value=BALANCED[each], label="Quality", visible=each == FILE)
                for each in (FILE, POST)
            ]
            longest = gr.Radio(SIZES, value=SIZES[0][1], label="Longest side of the result")
            sound = gr.Checkbox(value=True, label="Hide its sound too", info="The secret's, if it has any")
        self.hide = shown = Shown("Hide", "hide")
        self.to_reveal = gr.Button("Reveal it to see that it works", visible=False, elem_id="to_reveal")

        purpose.change(_options_of, purpose, [*qualities, sound], **_PRIVATE)
        for card in (cover_card, secret_card):
            card.change(self._needs_loop, None, loop, **_PRIVATE)
        inputs = [passphrase, again, purpose, *qualities, longest, loop, sound]
        outputs = [*shown, loop, self.to_reveal]
        gr.on([shown.go.click, again.submit], self._hide, inputs, outputs, **_PRIVATE)
        shown.stop.click(self._stop, **_PRIVATE)

    def _needs_loop(self, request: gr.Request) -> dict:
        dropped = self._visitors.of(request).dropped
        return gr.update(visible=_is_longer(dropped.get("secret"), dropped.get("cover")))

    async def _hide(
        self, passphrase, again, purpose, for_file, for_post, longest, loop, sound, request: gr.Request
    ):
        visitor, shown = self._visitors.of(request), self.hide
        async for news in _hush(shown):
            yield news
        wrong = _wrong_to_hide(visitor, passphrase, again, loop)
        if wrong:
            yield {shown.message: html.problem(wrong)}
            return
        visitor.hidden = visitor.compared = None
        yield {self.to_reveal: gr.update(visible=False)}
        quality = {FILE: for_file, POST: for_post}[purpose]
        choice = work.Choice(purpose, quality, longest, loop, sound)
        files = visitor.dropped["cover"].path, visitor.dropped["secret"].path
        do = partial(_hide, visitor.desk, self._schemes, *files, passphrase, choice)
        async for news in self._follow(visitor, do, shown):
            yield news
        job = visitor.job
        if job.state == FAILED and "--loop_cover" in str(job.error):  # the headers did not say so
            yield {self.loop: gr.update(visible=True)}
        if job.state != DONE:
            return
        visitor.hidden = job.result
        visitor.tidy()
        yield {
            shown.message: html.done("Done: the secret is inside.", _weak(passphrase)),
            shown.result: html.stego(job.result, purpose),
            self.to_reveal: gr.update(visible=True),
        }

    # Reveal

    def _reveal_tab(self) -> None:
        gr.HTML(html.intro("Drop the file as you got it. How it was hidden is found out by itself."))
        self.stego_card = self._slot("stego", "Stego: the video or picture with the secret inside")
        passphrase = _passphrase("Passphrase", "current-password")
        self.reveal = shown = Shown("Reveal", "reveal")
        self.reveal_result = shown.result
        gr.on([shown.go.click, passphrase.submit], self._reveal, passphrase, [*shown], **_PRIVATE)
        shown.stop.click(self._stop, **_PRIVATE)

    def _give_to_reveal(self, request: gr.Request) -> tuple:
        visitor = self._visitors.of(request)
        if visitor.hidden is None:
            return gr.update(), gr.update(), gr.update()
        visitor.dropped["stego"] = work.look(visitor.hidden.stego)
        return gr.Tabs(selected="reveal"), html.card(visitor.dropped["stego"]), ""

    async def _reveal(self, passphrase: str, request: gr.Request):
        visitor, shown = self._visitors.of(request), self.reveal
        async for news in _hush(shown):
            yield news
        wrong = _wrong_to_reveal(visitor, passphrase)
        if wrong:
            yield {shown.message: html.problem(wrong)}
            return
        stego = visitor.dropped["stego"].path
        visitor.revealed = visitor.compared = None
        do = partial(_reveal, visitor.desk, self._schemes, stego, passphrase)
        async for news in self._follow(visitor, do, shown):
            yield news
        job = visitor.job
        if job.state != DONE:
            return
        visitor.revealed, visitor.revealed_from = job.result, stego
        visitor.tidy()
        report = job.result.report
        damaged = isinstance(report, PartialError)
        message = html.problem(self._plain(report)) if damaged else html.done("Done.")
        yield {shown.message: message, shown.result: html.revealed(job.result)}

    # Compare

    def _compare_tab(self) -> None:
        gr.HTML(
            html.intro(
                "What you hid and revealed here is taken by itself. Other files that you drop come first."
            )
        )
        self.cards = {}
        with gr.Row(elem_classes="parts"):
            for name in PARTS:
                with gr.Column(min_width=150):
                    self.cards[name] = self._slot(f"compare_{name}", name.capitalize())
        self.compare = shown = Shown("Compare", "compare")
        with gr.Column(visible=False, elem_id="comparison") as self.comparison:
            self.frame = gr.Slider(1, 2, step=1, label="Frame", elem_id="frame", buttons=[])
            self.pictures = gr.HTML()
            self.curve = gr.LinePlot(
                x="frame",
                y="PSNR (dB)",
                color="of",
                color_map={"stego": "#2563eb", "secret": "#ea580c"},
                height=300,
                colors_in_legend=[],
                label="PSNR of every frame: stego blue, secret orange (RGB, 8-bit; identical: 100 dB)",
                buttons=[],
            )
        outputs = [*shown, self.comparison, self.frame, self.pictures, self.curve]
        shown.go.click(self._compare, None, outputs, **_PRIVATE)
        shown.stop.click(self._stop, **_PRIVATE)
        self.frame.change(self._show_frame, self.frame, self.pictures, trigger_mode="always_last", **_PRIVATE)

    async def _show_parts(self, request: gr.Request) -> list:
        visitor, cards = self._visitors.of(request), []
        for name in PARTS:
            path = visitor.part(name)
            cards.append(html.card(await asyncio.to_thread(work.look, path)) if path else "")
        return cards

    async def _compare(self, request: gr.Request):
        visitor, shown = self._visitors.of(request), self.compare
        async for news in _hush(shown):
            yield news
        paths = {name: visitor.part(name) for name in PARTS}
        missing = [name for name in PARTS if paths[name] is None]
        if missing or visitor.busy:
            wrong = f"Not there yet: {' and '.join(missing)}. Hide and reveal something first, or drop files."
            yield {shown.message: html.problem(_BUSY if visitor.busy else wrong)}
            return
        visitor.compared = None
        yield {self.comparison: gr.update(visible=False)}
        numbers = visitor.hidden.numbers if visitor.compares_own_work else None
        async for news in self._follow(visitor, partial(_compare, visitor.desk, paths, numbers), shown):
            yield news
        if visitor.job.state != DONE:
            return
        visitor.compared = done = visitor.job.result
        visitor.tidy()
        yield {
            shown.message: html.done(html.figures(done)),
            self.comparison: gr.update(visible=True),
            self.frame: gr.update(minimum=1, maximum=max(2, len(done.numbers)), value=1),
            self.pictures: html.pictures(done, 0),
            self.curve: gr.LinePlot(_curve(done), x_lim=[1, max(2, len(done.stego_db))]),
        }

    def _show_frame(self, position: float, request: gr.Request) -> str:
        done = self._visitors.of(request).compared
        return html.pictures(done, int(position) - 1) if done else ""

    # Live

    def _live_tab(self) -> None:
        gr.HTML(
            html.intro(
                "Your camera is the cover. The picture of it goes to this program and nowhere else, and is "
                "not kept."
            )
        )
        self.live_card = self._slot("live", "Secret: a video or picture")
        size = gr.Radio(
            [f"{width}x{height}" for width, height in _live_sizes()], value="320x240", label="Size"
        )
        with gr.Row():
            start = gr.Button("Start the camera", variant="primary", elem_id="live_start")
            stop = gr.Button("Stop", elem_id="live_stop")
        token = gr.Textbox(visible=False)
        gr.HTML(html.LIVE)
        start.click(self._live_token, None, token, **_PRIVATE).then(
            None, [token, size], None, js="(token, size) => deepstegLive.start(token, size)", **_PRIVATE
        )
        stop.click(None, js="() => deepstegLive.stop()", **_PRIVATE)

    def _live_token(self, request: gr.Request) -> str:
        clip = self._visitors.of(request).dropped.get("live")
        return clip.path.parent.name if clip else ""


class Shown:
    """The parts of every tab with a job: its button, a stop button, a message, a bar and a result."""

    def __init__(self, verb: str, name: str):
        with gr.Row():
            self.go = gr.Button(verb, variant="primary", elem_id=f"{name}_go", scale=3)
            self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id=f"{name}_stop", scale=1)
        self.message = gr.HTML(elem_classes="announce", elem_id=f"{name}_message")
        self.bar = gr.HTML(elem_id=f"{name}_bar")
        self.result = gr.HTML(elem_id=f"{name}_result")

    def __iter__(self):
        """Iterate over the components, for an event's outputs."""
        return iter((self.go, self.stop, self.message, self.bar, self.result))


# --- helpers ---------------------------------------------------------------------------------

_BUSY = "Something of yours is still running: wait for it, or stop it."


async def _hush(shown: Shown) -> AsyncIterator[dict]:
    """Empty the message for a moment, so that a repeated one is read out again."""
    yield {shown.message: "", shown.bar: ""}
    await asyncio.sleep(HUSH_S)


def _hide(desk, schemes, cover, secret, passphrase, choice, job):
    return work.hide(job, desk, schemes, cover, secret, passphrase, choice)


def _reveal(desk, schemes, stego, passphrase, job):
    return work.reveal(job, desk, schemes, stego, passphrase)


def _compare(desk, paths, numbers, job):
    from deepsteg_jax.evaluation import Files

    return work.compare(job, desk, Files(**paths), numbers)


def _live_sizes():
    from deepsteg_jax.app.live import SIZES

    return SIZES


def _passphrase(label: str, kind: str) -> gr.Textbox:
    attributes = gr.InputHTMLAttributes(autocapitalize="off", spellcheck=False, autocomplete=kind)
    return gr.Textbox(label=label, type="password", max_lines=1, max_length=1000, html_attributes=attributes)


def _options_of(purpose: str) -> tuple:
    """Show what can be chosen for a purpose: its qualities, and the sound where it is hidden."""
    return tuple(gr.update(visible=purpose == each) for each in (FILE, POST, FILE))


def _is_longer(secret: work.Clip | None, cover: work.Clip | None) -> bool:
    """Return whether a secret needs a repeated cover, by the headers."""
    if not (secret and cover) or cover.info.is_image or not (secret.seconds and cover.seconds):
        return False
    return secret.seconds > cover.seconds or secret.info.frames > cover.info.frames


def _wrong_to_hide(visitor: Visitor, passphrase: str, again: str, loop: bool) -> str:
    """Return a line on what must be mended before hiding, or an empty text."""
    cover, secret = (visitor.dropped.get(slot) for slot in ("cover", "secret"))
    if visitor.busy:
        return _BUSY
    if not cover or not secret:
        return f"Drop a {'cover' if not cover else 'secret'} first."
    if cover.info.is_image and not secret.info.is_image:
        return "The cover is a picture and the secret is a video. A video needs a video as its cover."
    if not passphrase:
        return "Choose a passphrase. Whoever is to see the secret needs the same one."
    if passphrase != again:
        return "The two passphrases are not the same. Type them once more."
    if _is_longer(secret, cover) and secret.seconds > cover.seconds and not loop:
        return (
            f"The cover lasts {cover.seconds:.1f} s and the secret {secret.seconds:.1f} s. Tick “Repeat the "
            "cover”, or drop a longer cover."
        )
    return ""


def _wrong_to_reveal(visitor: Visitor, passphrase: str) -> str:
    if visitor.busy:
        return _BUSY
    if "stego" not in visitor.dropped:
        return "Drop the file with the secret inside first."
    return "" if passphrase else "Type the passphrase that it was hidden with."


def _weak(passphrase: str) -> str:
    if len(passphrase) >= LEAST_PASSPHRASE:
        return ""
    return "The passphrase is short: somebody who has the file could guess it."


def _curve(done: work.Compared) -> pd.DataFrame:
    frames = range(1, len(done.stego_db) + 1)
    rows = [(n, value, "stego") for n, value in zip(frames, done.stego_db, strict=True)]
    rows += [(n, value, "secret") for n, value in zip(frames, done.secret_db, strict=True)]
    return pd.DataFrame(rows, columns=["frame", "PSNR (dB)", "of"])


def _never_fetch(drop: gr.File, store: Store) -> None:
    """Have a drop zone take uploaded files as they are, and nothing else.

    Left alone it would fetch addresses that a browser names, and copy files.
    """

    async def check(path: str) -> str:
        if not store.is_upload(path):
            raise gr.Error("the file did not arrive: drop it once more", print_exception=False)
        return str(path)

    drop.async_move_resource_to_block_cache = check
    drop.preprocess = lambda payload: payload and payload.path


def build(schemes: work.Schemes, visitors: Visitors, worker: Worker) -> gr.Blocks:
    """Build the page."""
    with gr.Blocks(analytics_enabled=False, title=TITLE) as blocks:
        Page(schemes, visitors, worker).lay_out()
        blocks.unload(visitors.leave)
    blocks.queue(default_concurrency_limit=None, api_open=False)
    return blocks


def mount(app: Any, blocks: gr.Blocks, limit: int) -> None:
    """Put the page at the root of a FastAPI application; a file may have `limit` bytes."""
    script = (_HERE / "page.js").read_text()
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,  # it would keep typed texts, passphrases too, in the browser
        show_error=True,
        max_file_size=limit,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=gr.themes.Soft(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css_paths=_HERE / "page.css",
        head=f"<script>{script}</script>",
    )
