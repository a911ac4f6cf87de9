"""The page's jobs: hide, reveal and compare files of one page, with progress.

Everything is done by the pipeline that the command line uses. Added are covers scaled down and copies that
browsers play.
"""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepsteg_jax import loading, media, pipeline
from deepsteg_jax.app.choices import (
    Choice,
    Clip,
    Schemes,
    Wish,
    fitted,
    is_longer,
    stego_frames,
    stego_path,
    within,
)
from deepsteg_jax.app.files import Folder, type_of
from deepsteg_jax.app.jobs import Job
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.plan import make_plan
from deepsteg_jax.schemes.base import Scheme

WATCHED = 1280  # pixels of the longest side of a copy for watching
PICTURES, PICTURE = 120, 1280  # the most frames that a comparison shows, pixels of their longest side
_WATCHED_CRF = 20


# --- hide -----------------------------------------------------------------------------------------


class Hidden(NamedTuple):
    """The files that hiding used and made, and its report."""

    cover: Path  # as it was used
    secret: Path
    stego: Path
    watched: Path  # a copy that browsers play; the stego itself if they do
    report: pipeline.Report
    wish: Wish
    numbers: np.ndarray | None  # of the secret's frames that the revealed ones show; None: in order


def hide(
    job: Job, folder: Folder, schemes: Schemes, cover: Clip, secret: Clip, passphrase: str, choice: Choice
) -> Hidden:
    """Hide the files of a page.

    Raises:
        UserError: see `pipeline.hide`.
        Cancelled: the job was stopped; nothing of it is left.
    """
    with folder.in_use(), _Made(folder) as made:
        job.stage("Looking at the files")
        scheme = schemes.hiding(cover.info, choice.of_quality)
        pictures = scheme.accepts == "pictures"
        loop = choice.loop_cover and pictures and is_longer(secret, cover)
        info = fitted(cover.info, choice.longest, scheme)
        path = _fitted_cover(job, made, cover, info)
        stego = stego_path(made.new(cover.path.name), scheme, info)
        settings = loading.settings_of(scheme.config, loop, drop_tags=True)
        if not choice.sound:
            settings = settings._replace(sound_bit_rate=0)
        job.stage("Preparing the secret")
        frames = stego_frames(cover, secret, loop)
        files = str(path), str(secret.path)
        report = pipeline.hide(
            scheme,
            passphrase,
            *files,
            str(stego),
            job.progress,
            settings,
            lambda line: job.stage("Hiding", frames),
        )
        watched = _watched(job, made, stego)
        plan = make_plan(*files, settings.align, loop) if pictures else None
        made.keep()
        numbers = scheme.shown_numbers(plan) if pictures else None
        return Hidden(path, secret.path, stego, watched, report, choice.wish, numbers)


def _fitted_cover(job: Job, made: "_Made", cover: Clip, info: media.Info) -> Path:
    """Return the cover as `info` says: scaled down if that was chosen, or H.264 needs even sides."""
    if info == cover.info:
        return cover.path
    job.stage("Making the cover smaller", cover.frames)
    path = made.new(f"{cover.path.stem}{'.png' if info.is_image else '.mkv'}")
    planes = media.has_planes(info.pixel_format) and not info.is_image
    written = {"pixel_format": info.pixel_format, "colour": media.BT601} if planes else {}
    with media.Writer(
        path,
        info.rate,
        time_base=info.time_base,
        aspect=info.aspect,
        tracks_from=None if info.is_image else cover.path,
        image=info.is_image,
        **written,
    ) as writer:
        for frame, time in media.read_timed(cover.path):
            small = media.resize(frame, info.width, info.height)
            small = media.from_rgb(small, info.pixel_format) if planes else small
            writer.write(small, None if info.is_image else time)
            job.progress(1)
    return path


# --- reveal ---------------------------------------------------------------------------------------


class Revealed(NamedTuple):
    """The files that revealing made, and its report."""

    stego: Path
    revealed: Path
    watched: Path | None  # None: no browser shows it
    report: pipeline.Report | PartialError  # the error: the stego was damaged


def reveal(job: Job, folder: Folder, schemes: Schemes, stego: Clip, passphrase: str) -> Revealed:
    """Reveal a file of a page with the scheme that finds something.

    Raises:
        UserError: nothing is found, or see `pipeline.reveal`.
        Cancelled: the job was stopped; nothing of it is left.
    """
    with folder.in_use(), _Made(folder) as made:
        suffix = ".png" if stego.info.is_image else ".mkv"
        named = made.new(f"{stego.path.stem} revealed{suffix}")

        def output(scheme: Scheme) -> str:  # a file has its own name
            return str(named) if scheme.accepts == "pictures" else f"{named.parent}{os.sep}"

        tried = _tried(job, schemes, stego)
        try:
            report = pipeline.reveal(tried, passphrase, str(stego.path), output, job.progress)
        except PartialError as error:
            report = error
        (revealed,) = named.parent.iterdir()
        watched = _watched(job, made, revealed)
        made.keep()
        return Revealed(stego.path, revealed, watched, report)


def _tried(job: Job, schemes: Schemes, stego: Clip) -> Iterator[Scheme]:
    """Yield the schemes that may have made a stego, the likeliest first."""
    for number, name in enumerate(schemes.for_stego(stego.info, media.is_exact(stego.path))):
        job.stage("Looking further" if number else "Revealing", stego.frames)
        yield schemes.scheme(name)


# --- compare --------------------------------------------------------------------------------------


class Compared(NamedTuple):
    """Figures of all frames, pictures of some."""

    stego_db: list[float]  # PSNR of every frame
    secret_db: list[float]
    numbers: list[int]  # of the frames that there are pictures of
    pictures: list[dict[str, Path]]  # of these, by column of `plots.COLUMNS`
    frames: int  # of the revealed file by its header, more than were compared if the cover is shorter


def compare(job: Job, folder: Folder, paths: dict[str, Path], numbers: np.ndarray | None = None) -> Compared:
    """Measure four files frame by frame, RGB and 8-bit, and draw what `plots.comparison` shows.

    A stego or a revealed secret of another size is scaled to the cover or the secret.

    Args:
        job: told of the progress.
        folder: where the pictures go.
        paths: of the fields of `evaluation.Files`.
        numbers: see `evaluation.read_together`.

    Raises:
        UserError: they cannot be read, or do not belong together.
        Cancelled: the job was stopped.
    """
    from deepsteg_jax import metrics
    from deepsteg_jax.evaluation import Files, read_together

    files = Files(**paths)
    with folder.in_use(), _Made(folder) as made:
        total = media.probe(paths["revealed"]).frames or 1
        job.stage("Comparing", total)
        every = -(-total // PICTURES)
        done, pictures = Compared([], [], [], [], total), made.new("pictures").parent
        for number, frames in zip(count(), read_together(files, numbers=numbers), strict=False):
            height, width = frames["cover"].shape[:2]
            frames["stego"] = media.resize(frames["stego"], width, height)
            done.stego_db.append(metrics.psnr(frames["cover"], frames["stego"]))
            done.secret_db.append(metrics.psnr(frames["secret"], frames["revealed"]))
            if number % every == 0 and len(done.numbers) < PICTURES:
                done.numbers.append(number)
                done.pictures.append(_draw(pictures, number, frames))
            job.progress(1)
        if not done.numbers:
            raise UserError("no frame is in all four files: drop four that belong together")
        made.keep()
        return done


def _draw(folder: Path, number: int, frames: dict[str, np.ndarray]) -> dict[str, Path]:
    from deepsteg_jax import plots

    shown = {**frames, plots.COLUMNS[2]: plots.difference(frames["cover"], frames["stego"])}
    paths = {}
    for column in plots.COLUMNS:
        paths[column] = folder / f"{number:05d}-{column.replace(' ', '-')}.jpg"
        media.save_small(paths[column], shown[column], PICTURE, quality=92)
    return paths


# --- files on the way ------------------------------------------------------------------------------


class _Made:
    """Files that a job makes: removed at the end unless it calls `keep`."""

    def __init__(self, folder: Folder):
        self._folder, self._paths, self._kept = folder, [], False

    def new(self, name: str) -> Path:
        self._paths.append(self._folder.new(name))
        return self._paths[-1]

    def keep(self) -> None:
        self._kept = True

    def __enter__(self) -> "_Made":
        return self

    def __exit__(self, *exception) -> None:
        for path in () if self._kept else self._paths:
            self._folder.drop(path)


def _watched(job: Job, made: _Made, path: Path) -> Path | None:
    """Return a copy that browsers play, H.264 in MP4 with sound; the file itself if they play that.

    None: no browser shows it.
    """
    try:
        info = media.probe(path, [])
    except UserError:
        return None
    if info.is_image:
        return path if type_of(path).startswith("image/") else None
    if media.is_playable(path):
        return path
    watched = made.new(f"{path.stem}.mp4")
    try:
        _write_watched(job, watched, path, info, path if info.tracks else None)
    except UserError:  # a track that an MP4 cannot hold
        if not info.tracks:
            raise
        _write_watched(job, watched, path, info, None)
    return watched


def _write_watched(job: Job, watched: Path, path: Path, info: media.Info, tracks: Path | None) -> None:
    job.stage("Making a copy for watching", info.frames)
    width, height = within(info, WATCHED, even=True)
    lossy = media.Lossy(crf=_WATCHED_CRF)
    with media.Writer(
        watched, info.rate, time_base=info.time_base, aspect=info.aspect, tracks_from=tracks, lossy=lossy
    ) as writer:
        for frame, time in media.read_timed(path, []):
            writer.write(media.resize(frame, width, height), time)
            job.progress(1)
