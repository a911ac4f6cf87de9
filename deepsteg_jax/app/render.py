"""Pieces of HTML for the page, by Jinja2, which escapes every text that comes from files."""

from base64 import b64encode
from functools import cache
from typing import Any

import jinja2
import numpy as np

from deepsteg_jax import keys, media
from deepsteg_jax.app import choices, messages, sessions
from deepsteg_jax.app.files import MIB, type_of, url
from deepsteg_jax.app.live import SIZES
from deepsteg_jax.app.work import Compared


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deepsteg_jax.app"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": messages.size,
        "roughly": messages.roughly,
        "duration": messages.duration,
        "precise": messages.precise,
        "url": url,
        "type": type_of,
        "bytes": lambda path: path.stat().st_size,
        "jpeg": _jpeg,
    }
    return environment


def _jpeg(frame: np.ndarray) -> str:
    return f"data:image/jpeg;base64,{b64encode(media.encode_jpeg(frame, quality=80)).decode()}"


def part(macro: str, *given: Any) -> str:
    """Return a piece by a macro of `parts.html.jinja`."""
    return str(getattr(_environment().get_template("parts.html.jinja").module, macro)(*given))


def page(limit: int) -> str:
    """Return the whole page; `limit`: bytes of an upload."""
    template = _environment().get_template("page.html.jinja")
    qualities = choices.QUALITIES.items()
    return template.render(
        qualities={wish: [(name, each.label) for name, each in found.items()] for wish, found in qualities},
        sizes=choices.SIZES,
        parts=sessions.PARTS,
        live_sizes=[(f"{width}x{height}", f"{width} × {height}") for width, height in SIZES],
        limit=limit,
        limit_mib=limit // MIB,
        characters=keys.LEAST_CHARACTERS,
        different=keys.LEAST_DIFFERENT,
    )


def figures(done: Compared) -> str:
    """Return the mean figures of a comparison in a sentence."""
    means = [float(np.mean(values)) for values in (done.stego_db, done.secret_db)]
    frames = len(done.stego_db)
    of = "one frame" if frames == 1 else f"the mean of {frames} frames"
    if frames < done.frames:
        of += f", where the cover ends, of {done.frames}"
    return f"Stego {means[0]:.2f} dB, secret {means[1]:.2f} dB PSNR ({of})."


def comparison(done: Compared) -> dict:
    """Return the pictures and figures of all frames that are shown, and the curve of all."""
    from deepsteg_jax import plots

    curves = {"stego": done.stego_db, "secret": done.secret_db}
    frames = [
        {
            "number": number + 1,
            "stego_db": f"{done.stego_db[number]:.2f}",
            "secret_db": f"{done.secret_db[number]:.2f}",
            "pictures": [url(pictures[column]) for column in plots.COLUMNS],
        }
        for number, pictures in zip(done.numbers, done.pictures, strict=True)
    ]
    chart = plots.chart(curves, "frame", 1) if len(done.stego_db) > 1 else ""
    return {"frames": frames, "total": len(done.stego_db), "chart": chart}
