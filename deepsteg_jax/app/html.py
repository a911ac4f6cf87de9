"""Pieces of HTML for the page; all text that comes from files is escaped."""

from base64 import b64encode
from html import escape

import numpy as np

from deepsteg_jax import media
from deepsteg_jax.app import messages, work
from deepsteg_jax.app.files import url
from deepsteg_jax.app.jobs import WAITING, Status
from deepsteg_jax.schemes.base import Purpose

HEAD = "<h1>Hide a video in a video</h1>"
FOOT = (
    "<p class='quiet'>Everything happens on the computer that serves this page. Files are removed when you "
    "close it; passphrases are not kept.</p>"
)
_FIGURE = (
    "<figure><canvas id='live_{0}' role='img' aria-label='{0}'></canvas><figcaption>{0}</figcaption></figure>"
)
LIVE = (
    "<div id='live_message' role='status' aria-live='polite'></div>"
    "<div id='live_view' hidden><p id='live_figures' class='quiet'></p><div class='pictures live'>"
    + "".join(_FIGURE.format(part) for part in ("cover", "stego", "secret", "revealed"))
    + "</div></div>"
)


def intro(text: str) -> str:
    """Introduce a tab."""
    return f"<p class='intro'>{escape(text)}</p>"


def note(text: str) -> str:
    """Return a message of no importance."""
    return f"<p class='said'>{escape(text)}</p>"


def problem(text: str) -> str:
    """Return a message about what to mend."""
    return f"<p class='said problem'>{escape(text)}</p>"


def done(text: str, warning: str = "") -> str:
    """Return a message of success, with a warning if there is one."""
    return f"<p class='said done'>{escape(text)}</p>" + (problem(warning) if warning else "")


def card(clip: work.Clip) -> str:
    """Show a dropped file: its first frame, name, size and rate."""
    info = clip.info
    facts = [f"{info.width} × {info.height}"]
    if not info.is_image:
        facts += [messages.precise(clip.seconds)] if clip.seconds else []
        facts += [f"{float(info.rate):.3g} frames/s"]
    facts.append(messages.size(clip.path.stat().st_size))
    return (
        f"<div class='card'><img alt='' src='{_data(clip.first)}'>"
        f"<div><strong>{escape(clip.path.name)}</strong><br>{escape(', '.join(facts))}</div></div>"
    )


def _data(frame: np.ndarray) -> str:
    return f"data:image/jpeg;base64,{b64encode(media.encode_jpeg(frame, quality=80)).decode()}"


def stage(status: Status) -> str:
    """Say what a job does, for the message that is read aloud."""
    if status.state != WAITING:
        return note(f"{status.stage or 'Starting'} …")
    if not status.ahead:
        return note("Starting …")
    others = "one job" if status.ahead == 1 else f"{status.ahead} jobs"
    return note(f"Waiting: {others} of other people first. It starts by itself.")


def bar(status: Status) -> str:
    """Show the progress of a job."""
    if status.state == WAITING or not status.share:  # it may compile first, or take long for the first part
        return "<div class='unknown' role='progressbar' aria-label='progress'></div>"
    left = "" if status.left_s is None else f", about {messages.duration(status.left_s)} left"
    return (
        f"<progress class='bar' aria-label='progress' max='1' value='{status.share:.3f}'></progress>"
        f"<p class='quiet' aria-hidden='true'>{100 * status.share:.0f} %{left}</p>"
    )


def _show(path, label: str) -> str:
    if path.suffix in (".png", ".jpg"):
        return f"<img class='shown' src='{url(path)}' alt='{label}'>"
    return f"<video class='shown' controls playsinline src='{url(path)}' aria-label='{label}'></video>"


def _get(path, text: str) -> str:
    name, size = escape(path.name), messages.size(path.stat().st_size)
    return f"<a class='get' href='{url(path)}?download=1' download='{name}'>{escape(text)} ({size})</a>"


def stego(hidden: work.Hidden, purpose: Purpose) -> str:
    """Show the result of hiding."""
    name = hidden.stego.name
    if purpose == "post":
        advice = "It may be sent and posted. Do not crop, turn or scale it: then the secret is gone."
    else:
        advice = (
            "Send or store this very file, for example on a stick or as an attachment. Apps and sites that "
            "code it again destroy the secret."
        )
    played = "" if hidden.watched == hidden.stego else " What plays here is a copy for watching only."
    notes = "".join(note(messages.advised(f"{text}.")) for text in hidden.report.notes)
    return (
        f"<section aria-label='Stego'>{_show(hidden.watched, 'stego')}"
        f"<p>{_get(hidden.stego, f'Download {name}')}</p>{notes}"
        f"<p class='quiet'>{advice}{played} {_facts(hidden.report)}</p></section>"
    )


def revealed(result: work.Revealed) -> str:
    """Show the result of revealing."""
    links = [_get(result.watched, f"Download {result.watched.name}")]
    if result.watched != result.revealed:
        links.append(_get(result.revealed, f"Without any loss: {result.revealed.name}"))
    facts = _facts(result.report) if hasattr(result.report, "fps") else ""
    return (
        f"<section aria-label='Revealed'>{_show(result.watched, 'revealed')}<p>{' '.join(links)}</p>"
        f"<p class='quiet'>{facts}</p></section>"
    )


def _facts(report) -> str:
    return (
        f"{report.frames} frame{'s' * (report.frames != 1)} of {report.width} × {report.height}, "
        f"{report.fps:.1f} frames/s."
    )


def figures(done: work.Compared) -> str:
    """Return the mean figures in a sentence."""
    means = [float(np.mean(values)) for values in (done.stego_db, done.secret_db)]
    frames = len(done.stego_db)
    of = "one frame" if frames == 1 else f"the mean of {frames} frames"
    if frames < done.frames:
        of += f", where the cover ends, of {done.frames}"
    return f"Stego {means[0]:.2f} dB, secret {means[1]:.2f} dB PSNR ({of})."


def pictures(done: work.Compared, position: int) -> str:
    """Show the pictures of one frame side by side."""
    position = min(max(position, 0), len(done.numbers) - 1)
    number, columns = done.numbers[position], done.pictures[position]
    stego, secret = done.stego_db[number], done.secret_db[number]
    captions = {"stego": f"stego, {stego:.2f} dB", "revealed": f"revealed, {secret:.2f} dB"}
    shown = "".join(
        f"<figure><img src='{url(path)}' alt='{column} of frame {number + 1}'>"
        f"<figcaption>{captions.get(column, column)}</figcaption></figure>"
        for column, path in columns.items()
    )
    total = len(done.stego_db)
    return f"<p class='quiet'>Frame {number + 1} of {total}</p><div class='pictures'>{shown}</div>"
