"""Measuring hidden and revealed files: the one place that computes reported figures.

Every figure is RGB and 8-bit, from files written and read back; the mean over frames of per-frame dB.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import cluster, keys, loading, media, metrics, pipeline, plan
from deepsteg_jax.errors import UserError
from deepsteg_jax.pipeline import DEFAULTS
from deepsteg_jax.schemes.base import GREY, Scheme, Settings

WORKERS = 2
_PLANES = "yuv420p"
PERCEPTUAL_EVERY = 5  # SSIMULACRA2 takes ten times as long as the rest: of one frame in five


class Files(NamedTuple):
    """The four clips or images of one round trip."""

    cover: Path
    stego: Path
    secret: Path
    revealed: Path


def read_together(
    files: Files, frames: int | None = None, numbers: Iterable[int] | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the hidden frames side by side; the secret is scaled as it was hidden.

    One that went as a file has its own size, to which the revealed one is scaled.

    `numbers`, which never fall, are those of the secret's frames that the revealed ones show; by default one
    after the other.
    """
    cover_info, secret_info = media.probe(files.cover), media.probe(files.secret)
    fitted = plan.fitted_size(secret_info, cover_info.width, cover_info.height)
    streams = {
        "revealed": media.read_frames(files.revealed),
        "cover": media.read_frames(files.cover),
        "stego": media.read_frames(files.stego),
        "secret": plan.read_fitted(files.secret, secret_info, cover_info.width, cover_info.height),
    }
    revealed = media.probe(files.revealed)
    if (revealed.width, revealed.height) != fitted:  # it went as a file, of any size
        own = secret_info.width, secret_info.height
        streams["revealed"] = media.read_frames(files.revealed, 0, None, *own)
        streams["secret"] = media.read_frames(files.secret)
    if numbers is not None:
        streams["secret"] = (frame for _, frame in plan.picked(streams["secret"], numbers))
    for together in islice(zip(*streams.values(), strict=False), frames):
        yield dict(zip(streams, together, strict=True))


def _measure_frame(frames: dict[str, np.ndarray], perceptual: bool) -> dict[str, float]:
    pairs = {"stego": ("cover", "stego"), "secret": ("secret", "revealed")}
    measured = {}
    for name, (a, b) in pairs.items():
        measured[f"{name}_psnr_db"] = metrics.psnr(frames[a], frames[b])
        measured[f"{name}_ssim"] = metrics.ssim(frames[a], frames[b])
        if perceptual:
            measured[f"{name}_ssimulacra2"] = metrics.ssimulacra2(frames[a], frames[b])
    return measured


def measure_frames(
    files: Files,
    progress=lambda frames: None,
    perceptual: bool = False,
    numbers: Iterable[int] | None = None,
) -> list[dict[str, float]]:
    """Measure PSNR (dB) and SSIM of stego and secret for each hidden frame.

    With `perceptual` also SSIMULACRA2, of the first of every five frames. `numbers`: see `read_together`.
    """
    values = []
    with ThreadPoolExecutor(WORKERS) as pool:
        stream = read_together(files, numbers=numbers)
        while batch := list(islice(stream, 2 * WORKERS)):
            counted = range(len(values), len(values) + len(batch))
            scored = [perceptual and number % PERCEPTUAL_EVERY == 0 for number in counted]
            values += pool.map(_measure_frame, batch, scored)
            progress(len(batch))
    return values


def mean_of_frames(files: Files, values: list[dict[str, float]]) -> dict[str, float]:
    """Average the figures of `measure_frames`; add the number of frames and the capacity used.

    `capacity_bpp` is the size of the secret, 24 bits a pixel, per pixel of cover that carries it.
    """
    means = {name: float(np.mean([v[name] for v in values if name in v])) for name in values[0]}
    cover = media.probe(files.cover)
    width, height = plan.fitted_size(media.probe(files.secret), cover.width, cover.height)
    capacity = 24 * width * height / (cover.width * cover.height)
    return {**means, "capacity_bpp": capacity, "frames": len(values)}


def measure(files: Files, progress=lambda frames: None, perceptual: bool = False) -> dict[str, float]:
    """Return the figures reported of one clip or image: `mean_of_frames` of `measure_frames`."""
    return mean_of_frames(files, measure_frames(files, progress, perceptual))


def picked_frames(
    files: Files, count: int, frames: int, numbers: Iterable[int] | None = None
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Return `count` rows for `plots.comparison`, evenly spread over the first `frames` frames.

    `numbers`: see `read_together`.
    """
    wanted = sorted({round((i + 0.5) * frames / count - 0.5) for i in range(count)})
    together = read_together(files, wanted[-1] + 1, numbers)
    return [(f"frame {n}", f) for n, f in enumerate(together) if n in wanted]


# --- a folder of clips or images -----------------------------------------------------------------


def list_items(folder: str | Path) -> list[Path]:
    """List the clips and images of a folder, by name; folders in it are clips made of images.

    Raises:
        UserError: there is no such folder, or it holds fewer than two.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: set config.evaluate.path to one of clips or of images")
    items = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if len(items) < 2:
        raise UserError(f"{folder} has fewer than two clips or images: add some, one is hidden in another")
    return items


def prepare(path: Path, settings: ConfigDict) -> list[np.ndarray]:
    """Prepare one item to be measured: an image's centre crop, or some frames of a clip, resized.

    Args:
        path: a clip or an image.
        settings: section `evaluate` of the config: height, width, first_frame, frames.

    Raises:
        UserError: it cannot be read, an image is smaller than the crop, or a clip ends before the frames.
    """
    info, first = media.probe(path), settings.first_frame
    if not info.is_image:
        frames = media.read_frames(path, first, first + settings.frames, settings.width, settings.height)
        if not (found := list(frames)):
            raise UserError(f"{path} ends before frame {first}: lower config.evaluate.first_frame")
        return found
    image = next(media.read_frames(path))
    top, left = (image.shape[0] - settings.height) // 2, (image.shape[1] - settings.width) // 2
    if min(top, left) < 0:
        raise UserError(f"{path} is smaller than the {settings.width}x{settings.height} crop: leave it out")
    return [np.ascontiguousarray(image[top : top + settings.height, left : left + settings.width])]


def wrong_key_psnr(scheme: Scheme, files: Files, numbers: Iterable[int] | None = None) -> float:
    """Return the PSNR in dB between the secret and the result of a key other than the sender's.

    Of a scheme that reveals with any key, of its first group of frames; where another key finds nothing, that
    counts as mid-grey.
    """
    together = list(read_together(files, scheme.group, numbers))
    stego = np.stack([frames["stego"] for frames in together])
    revealed = scheme.reveal_blindly(stego, keys.random_key())
    if revealed is None:
        revealed = (np.full_like(frames["secret"], GREY) for frames in together)
    return metrics.mean_psnr((frames["secret"] for frames in together), revealed)


def hide_and_reveal(scheme: Scheme, files: Files, settings: Settings = DEFAULTS) -> dict[str, float]:
    """Make `files.stego` and `files.revealed`; return frames per second and the figure of a wrong key."""
    key = keys.random_key()
    hidden = pipeline.hide(scheme, key, files.cover, files.secret, files.stego, _ignore, settings)
    shown = pipeline.reveal([scheme], key, files.stego, files.revealed, _ignore)
    return {
        "wrong_key_psnr_db": wrong_key_psnr(scheme, files),
        "hide_fps": hidden.fps,
        "reveal_fps": shown.fps,
    }


def hide_and_reveal_by(config: ConfigDict, files: Files) -> dict[str, float]:
    """Return `hide_and_reveal` by the scheme of a config, which is loaded once in each process."""
    return hide_and_reveal(loading.load_once(config), files, loading.settings_of(config))


def _ignore(frames: int) -> None:
    pass


def write_planes(path: Path, frames: list[np.ndarray]) -> None:
    """Write frames in 4:2:0, as videos come."""
    with media.Writer(path, media.FOLDER_RATE, pixel_format=_PLANES, colour=media.BT601) as writer:
        for frame in frames:
            writer.write(media.from_rgb(frame, _PLANES))


class Pair(NamedTuple):
    """Two items of a folder, one to be hidden in the other."""

    cover: Path
    secret: Path
    pictured: bool  # in the comparison


def evaluate_folder(
    run: Callable[[Files], dict[str, float]],
    settings: ConfigDict,
    workdir: Path,
    progress=iter,
    in_planes: bool = False,
    workers: int = 0,
    scheduler: str | None = None,
) -> tuple[list[dict], list]:
    """Hide item i + 1 in item i of a folder, all through files written and read back.

    Args:
        run: makes the stego and the revealed file from the other two and returns figures of its own, such
            as `hide_and_reveal` with its two sides bound; for other processes `hide_and_reveal_by` with a
            config bound.
        settings: section `evaluate` of the config: path, height, width, first_frame, frames, perceptual,
            pictures.
        workdir: where the files of a pair lie until it is measured.
        progress: wraps the list of pairs, for a progress bar.
        in_planes: clips that are covers are written in 4:2:0, as videos come, in place of RGB.
        workers: see `cluster.run`.
        scheduler: the same.

    Returns:
        (one dict per pair, rows for `plots.comparison`).
    """
    items = list_items(settings.path)
    following = [*items[1:], items[0]]
    pairs = [Pair(*both, i < settings.pictures) for i, both in enumerate(zip(items, following, strict=True))]
    evaluate = partial(_evaluate_pair, run, settings, Path(workdir).absolute(), in_planes)
    found: dict[int, tuple[dict, list]] = {}
    with closing(cluster.run(evaluate, pairs, workers, scheduler)) as outcomes:
        for _, outcome in zip(progress(pairs), outcomes, strict=False):
            if outcome.error is not None:
                raise outcome.error
            found[outcome.number] = outcome.result
    ordered = [found[number] for number in range(len(pairs))]
    return [figures for figures, _ in ordered], [row for _, rows in ordered for row in rows]


def _evaluate_pair(
    run: Callable[[Files], dict[str, float]],
    settings: ConfigDict,
    workdir: Path,
    in_planes: bool,
    pair: Pair,
) -> tuple[dict, list]:
    """Return the figures of a pair, and its row of the comparison."""
    cover, secret = prepare(pair.cover, settings), prepare(pair.secret, settings)
    count = min(len(cover), len(secret))
    still = media.probe(pair.cover).is_image
    suffix = ".png" if still else ".mkv"
    with tempfile.TemporaryDirectory(dir=workdir) as folder:
        files = Files(*(Path(folder) / f"{name}{suffix}" for name in Files._fields))
        (write_planes if in_planes and not still else media.write_frames)(files.cover, cover[:count])
        media.write_frames(files.secret, secret[:count])
        figures = {**run(files), **measure(files, perceptual=settings.perceptual)}
        figures["stego_bytes"] = files.stego.stat().st_size
        pictures = picked_frames(files, 1, count) if pair.pictured else []
    names = {"cover": pair.cover.name, "secret": pair.secret.name}
    return {**names, **figures}, [(pair.cover.stem, frames) for _, frames in pictures]


def mean_of(results: list[dict]) -> dict[str, float]:
    """Average every figure over pairs."""
    numbers = [name for name, value in results[0].items() if not isinstance(value, str)]
    return {name: float(np.mean([result[name] for result in results])) for name in numbers}
