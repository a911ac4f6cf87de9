"""The page's jobs: hide, reveal and compare files of one desk, with progress.

Everything is done by the pipeline that the command line uses. Added are defaults for people who choose
nothing: the scheme that suits a file, covers scaled down, copies that browsers play.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import loading, media, pipeline
from deepsteg_jax.app.files import Desk
from deepsteg_jax.app.jobs import Job
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.plan import make_plan
from deepsteg_jax.schemes.base import Purpose, Scheme

KEPT = 8  # schemes of another quality than that of their config
WATCHED = 1280  # pixels of the longest side of a copy for watching
PICTURES, PICTURE = 240, 640  # the most frames that a comparison shows, pixels of their longest side
_WATCHED_CRF = 20


# --- schemes --------------------------------------------------------------------------------------


class Schemes(loading.Shipped):
    """The shipped schemes, the user's in place of the one of its kind."""

    def __init__(self, config: ConfigDict):
        """Take the user's config, of any model.

        Raises:
            UserError: as `loading.load`.
        """
        super().__init__(loading.load(config))
        self._changed = lru_cache(KEPT)(self._change)

    def hiding(self, info: media.Info, purpose: Purpose, quality: float | None = None) -> Scheme:
        """Return the scheme that hides in such a cover for a purpose.

        `quality` is D, `modulus` or `spacing` of the config; models that have none are left as they are.
        """
        name = self.for_cover(info, purpose)
        model = self.scheme(name).config.model
        field = next((field for field in ("modulus", "spacing") if field in model), None)
        if field is None or quality in (None, model[field]):
            return self.scheme(name)
        return self._changed(name, f"model.{field}", type(model[field])(quality))

    def _change(self, name: str, field: str, value: float) -> Scheme:
        return loading.load(loading.changed(self.scheme(name).config, {field: value}))


# --- dropped files --------------------------------------------------------------------------------


class Clip(NamedTuple):
    """A dropped file."""

    path: Path
    info: media.Info
    first: np.ndarray  # its first frame, small; uint8 [h, w, 3]

    @property
    def seconds(self) -> float | None:
        """Its duration by its header; None: that does not say."""
        return self.info.frames / float(self.info.rate) if self.info.frames else None


def look(path: Path) -> Clip:
    """Read the properties and the first frame of a file.

    Raises:
        UserError: no video or image that can be hidden or hide something.
    """
    info = media.probe(path, [])
    width, height = within(info, 320, even=False)
    return Clip(path, info, next(media.read_frames(path, 0, 1, width, height)))


def within(info: media.Info, longest: int, even: bool) -> tuple[int, int]:
    """Return the size (width, height) of frames scaled down to a longest side; 0: as they are.

    `even`: both sides are made even, which H.264 needs.
    """
    scale = min(1.0, longest / max(info.width, info.height)) if longest else 1.0
    width, height = (max(1, round(scale * side)) for side in (info.width, info.height))
    return (max(2, width // 2 * 2), max(2, height // 2 * 2)) if even else (width, height)


# --- hide -----------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """The choices of the Hide tab."""

    purpose: Purpose = "live"
    quality: float = 3  # D
    longest: int = 0  # pixels that the cover's longest side is scaled down to; 0: none
    loop_cover: bool = False
    sound: bool = True  # the secret's


class Hidden(NamedTuple):
    """The files that hiding used and made, and its report."""

    cover: Path  # as it was used
    secret: Path
    stego: Path
    watched: Path  # a copy that browsers play; the stego itself if they do
    report: pipeline.Report
    numbers: np.ndarray | None  # of the secret's frames that the revealed ones show; None: in order


def hide(
    job: Job, desk: Desk, schemes: Schemes, cover: Path, secret: Path, passphrase: str, choice: Choice
) -> Hidden:
    """Hide on a desk.

    Raises:
        UserError: see `pipeline.hide`.
        Cancelled: the job was stopped; nothing of it is left.
    """
    with desk.in_use(), _Made(desk) as made:
        job.stage("Looking at the files")
        info = media.probe(cover)
        scheme = schemes.hiding(info, choice.purpose, choice.quality)
        cover = _fitted_cover(job, made, cover, info, choice.longest, scheme.lossy is not None)
        stego = made.new(f"stego{_stego_suffix(info.is_image, scheme.lossy is not None)}")
        settings = loading.settings_of(scheme.config, choice.loop_cover)
        if not choice.sound:
            settings = settings._replace(sound_bit_rate=0)
        job.stage("Hiding", _frames_to_hide(info, media.probe(secret), choice))
        files = str(cover), str(secret)
        report = pipeline.hide(scheme, passphrase, *files, str(stego), job.progress, settings)
        watched = _watched(job, made, stego)
        numbers = scheme.shown_numbers(make_plan(*files, settings.align, settings.loop_cover))
        made.keep()
        return Hidden(cover, secret, stego, watched, report, numbers)


def _stego_suffix(is_image: bool, lossy: bool) -> str:
    if is_image:
        return ".jpg" if lossy else ".png"
    return ".mp4" if lossy else ".mkv"


def _frames_to_hide(cover: media.Info, secret: media.Info, choice: Choice) -> int | None:
    """Predict the number of the stego's frames from the headers; None: not known."""
    if not choice.loop_cover or not cover.frames or not secret.frames:
        return cover.frames
    return max(cover.frames, round(secret.frames / secret.rate * cover.rate))


def _fitted_cover(job: Job, made: "_Made", cover: Path, info: media.Info, longest: int, lossy: bool) -> Path:
    """Return the cover, scaled down if that was chosen or H.264 needs even sides."""
    width, height = within(info, longest, even=lossy and not info.is_image)
    if (width, height) == (info.width, info.height):
        return cover
    job.stage("Making the cover smaller", info.frames)
    path = made.new(f"{cover.stem}{'.png' if info.is_image else '.mkv'}")
    with media.Writer(
        path,
        info.rate,
        time_base=info.time_base,
        aspect=info.aspect,
        tracks_from=None if info.is_image else cover,
        image=info.is_image,
    ) as writer:
        for frame, time in media.read_timed(cover):
            writer.write(media.resize(frame, width, height), None if info.is_image else time)
            job.progress(1)
    return path


# --- reveal ---------------------------------------------------------------------------------------


class Revealed(NamedTuple):
    """The files that revealing made, and its report."""

    revealed: Path
    watched: Path
    report: pipeline.Report | PartialError  # the error: the stego was damaged


def reveal(job: Job, desk: Desk, schemes: Schemes, stego: Path, passphrase: str) -> Revealed:
    """Reveal on a desk with the scheme that finds something.

    Raises:
        UserError: nothing is found, or see `pipeline.reveal`.
        Cancelled: the job was stopped; nothing of it is left.
    """
    with desk.in_use(), _Made(desk) as made:
        job.stage("Looking at the file")
        info = media.probe(stego, [])
        revealed = made.new(f"revealed{'.png' if info.is_image else '.mkv'}")
        tried = _tried(job, schemes, info, stego)
        try:
            report = pipeline.reveal(tried, passphrase, str(stego), str(revealed), job.progress)
        except PartialError as error:
            report = error
        _check_picture(revealed)
        watched = _watched(job, made, revealed)
        made.keep()
        return Revealed(revealed, watched, report)


def _check_picture(revealed: Path) -> None:
    try:
        media.probe(revealed, [])
    except UserError:
        raise UserError(
            "the secret is a file and no video or image, which this page cannot show: use deepsteg reveal"
        ) from None


def _tried(job: Job, schemes: Schemes, info: media.Info, stego: Path) -> Iterator[Scheme]:
    """Yield the schemes that may have made a stego, the likeliest first."""
    for number, name in enumerate(schemes.for_stego(info, media.is_exact(stego))):
        job.stage("Looking further" if number else "Revealing", info.frames)
        yield schemes.scheme(name)


# --- compare --------------------------------------------------------------------------------------


class Compared(NamedTuple):
    """Figures of all frames, pictures of some."""

    stego_db: list[float]  # PSNR of every frame
    secret_db: list[float]
    numbers: list[int]  # of the frames that there are pictures of
    pictures: list[dict[str, Path]]  # of these, by column of `plots.COLUMNS`
    frames: int  # of the revealed file by its header, more than were compared if the cover is shorter


def compare(job: Job, desk: Desk, files: Any, numbers: np.ndarray | None = None) -> Compared:
    """Measure `evaluation.Files` frame by frame, RGB and 8-bit, and draw what `plots.comparison` shows.

    Args:
        job: told of the progress.
        desk: where the pictures go.
        files: the four files.
        numbers: see `evaluation.read_together`.

    Raises:
        UserError: they cannot be read, or do not belong together.
        Cancelled: the job was stopped.
    """
    from deepsteg_jax import evaluation, metrics

    with desk.in_use(), _Made(desk) as made:
        total = media.probe(files.revealed).frames or 1
        job.stage("Comparing", total)
        every = -(-total // PICTURES)
        done, folder = Compared([], [], [], [], total), made.new("pictures").parent
        for number, frames in zip(count(), evaluation.read_together(files, numbers=numbers), strict=False):
            _check_sizes(frames)
            done.stego_db.append(metrics.psnr(frames["cover"], frames["stego"]))
            done.secret_db.append(metrics.psnr(frames["secret"], frames["revealed"]))
            if number % every == 0 and len(done.numbers) < PICTURES:
                done.numbers.append(number)
                done.pictures.append(_draw(folder, number, frames))
            job.progress(1)
        if not done.numbers:
            raise UserError("no frame is in all four files: drop four that belong together")
        made.keep()
        return done


def _check_sizes(frames: dict[str, np.ndarray]) -> None:
    for a, b in (("cover", "stego"), ("secret", "revealed")):
        if frames[a].shape != frames[b].shape:
            sizes = [f"{frames[name].shape[1]}x{frames[name].shape[0]}" for name in (a, b)]
            raise UserError(
                f"the {a} is {sizes[0]} and the {b} {sizes[1]}: drop four files that belong together"
            )


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

    def __init__(self, desk: Desk):
        self._desk, self._paths, self._kept = desk, [], False

    def new(self, name: str) -> Path:
        self._paths.append(self._desk.new(name))
        return self._paths[-1]

    def keep(self) -> None:
        self._kept = True

    def __enter__(self) -> "_Made":
        return self

    def __exit__(self, *exception) -> None:
        for path in () if self._kept else self._paths:
            self._desk.drop(path)


def _watched(job: Job, made: _Made, path: Path) -> Path:
    """Return a copy that browsers play, H.264 in MP4 with sound; the file itself if they play that."""
    info = media.probe(path, [])
    if info.is_image or media.is_playable(path):
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
