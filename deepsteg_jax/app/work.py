"""What the page has to run: hiding, revealing and comparing files of one user's desk, with progress.

Everything is done by the pipelines that the command line uses; here is what lies around them for people who
choose nothing: which config suits a file, covers scaled down, copies that browsers play.
"""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import media
from deepsteg_jax.app.files import Desk
from deepsteg_jax.app.jobs import Job
from deepsteg_jax.commands import is_robust
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.schemes.metadata import NOTHING

STEPS = (2, 3, 4, 5)  # D of block_dct that the page offers and tries
KEPT = 8  # hiders and revealers
WATCHED = 1280  # pixels of the longest side of a copy for watching
PICTURES, PICTURE = 240, 640  # the most frames that a comparison shows, pixels of their longest side
_WATCHED_CRF = 20


# --- models ---------------------------------------------------------------------------------------


class Models:
    """The configs of the page and their hiders and revealers, the last few kept ready. For one thread."""

    def __init__(self, config: ConfigDict):
        """The configs of the repository, one of them replaced by the one that the user gave.

        Raises:
            UserError: its model is neither `block_dct` nor `robust`.
        """
        from configs import image, robust, video

        if config.model.name not in ("block_dct", "robust"):
            raise UserError(
                f"the page hides with block_dct and robust, not with {config.model.name}: "
                "use configs/video.py, configs/image.py or configs/robust.py"
            )
        self._configs = {  # by (survives codecs, is for images)
            (False, False): video.get_config(),
            (False, True): image.get_config(),
            (True, False): robust.get_config(),
            (True, True): robust.get_config("image"),
        }
        survives = is_robust(config)
        single = (config.data if survives else config.model).frames == 1
        self._configs[survives, single] = config
        self._ready: dict[tuple, Callable] = {}

    def config(self, survives: bool, is_image: bool, step: float | None = None) -> ConfigDict:
        """A copy of the config that suits, with D = `step` if that is given."""
        config = self._configs[survives, is_image].copy_and_resolve_references()
        if step is not None:
            config.model.update({"spacing": float(step)} if survives else {"modulus": int(step)})
        return config

    def side(self, side: str, survives: bool, is_image: bool, step: float | None = None) -> Callable:
        """`modes.common.hider` or `revealer`, for "hide" or "reveal"; raises UserError as they do."""
        from deepsteg_jax.commands import common

        config = self.config(survives, is_image, step)
        key = side, survives, is_image, config.model.to_json()
        if key not in self._ready:
            while len(self._ready) >= KEPT:
                self._ready.pop(next(iter(self._ready)))
            self._ready[key] = {"hide": common.hider, "reveal": common.revealer}[side](config)
        self._ready[key] = self._ready.pop(key)  # the last one used goes last
        return self._ready[key]


# --- what the user dropped -------------------------------------------------------------------------


class Clip(NamedTuple):
    """A dropped file."""

    path: Path
    info: media.Info
    first: np.ndarray  # its first frame, small; uint8 [h, w, 3]

    @property
    def seconds(self) -> float | None:
        """How long it lasts by its header; None: that does not say."""
        return self.info.frames / float(self.info.rate) if self.info.frames else None


def look(path: Path) -> Clip:
    """Reads what a file is.

    Raises:
        UserError: no video or image that can be hidden or hide something.
    """
    info = media.probe(path, [])
    width, height = within(info, 320, even=False)
    return Clip(path, info, next(media.read_frames(path, 0, 1, width, height)))


def within(info: media.Info, longest: int, even: bool) -> tuple[int, int]:
    """The size (width, height) of frames scaled down to a longest side; 0: as they are.

    `even`: both sides are made even, which H.264 needs.
    """
    scale = min(1.0, longest / max(info.width, info.height)) if longest else 1.0
    width, height = (max(1, round(scale * side)) for side in (info.width, info.height))
    return (max(2, width // 2 * 2), max(2, height // 2 * 2)) if even else (width, height)


# --- hide -----------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """What the user chose on the Hide tab."""

    survives: bool = False  # codecs
    step: float = 3  # D
    longest: int = 0  # pixels that the cover's longest side is scaled down to; 0: none
    loop_cover: bool = False
    sound: bool = True  # the secret's


class Hidden(NamedTuple):
    """What hiding made."""

    cover: Path  # as it was used
    secret: Path
    stego: Path
    watched: Path  # a copy that browsers play; the stego itself if they do
    report: Any  # a `pipeline.Report`
    numbers: np.ndarray | None  # of the secret's frames that the revealed ones show; None: in order


def hide(
    job: Job, desk: Desk, models: Models, cover: Path, secret: Path, passphrase: str, choice: Choice
) -> Hidden:
    """Hides on a desk.

    Raises:
        UserError: see `pipeline.hide` and `robust_pipeline.hide`.
        Cancelled: the job was stopped; nothing of it is left.
    """
    with desk.in_use(), _Made(desk) as made:
        job.stage("Looking at the files")
        info = media.probe(cover)
        cover = _fitted_cover(job, made, cover, info, choice)
        stego = made.new(f"stego{_stego_suffix(info.is_image, choice.survives)}")
        job.stage("Getting ready")
        run = models.side("hide", choice.survives, info.is_image, choice.step)
        settings = _settings(models.config(choice.survives, info.is_image), choice)
        job.stage("Hiding", _frames_to_hide(info, media.probe(secret), choice))
        report = run(passphrase, str(cover), str(secret), str(stego), job.progress, settings)
        watched = _watched(job, made, stego)
        numbers = _numbers(cover, secret, settings) if choice.survives else None
        made.keep()
        return Hidden(cover, secret, stego, watched, report, numbers)


def _settings(config: ConfigDict, choice: Choice) -> Any:
    from deepsteg_jax.commands.common import settings_of

    return settings_of(config, choice.loop_cover)._replace(**{} if choice.sound else {"sound_bit_rate": 0})


def _numbers(cover: Path, secret: Path, settings: Any) -> np.ndarray:
    """Which frames of the secret the model `robust` reveals."""
    from deepsteg_jax import pipeline

    return pipeline.make_plan(str(cover), str(secret), settings).schedule.numbers


def _stego_suffix(is_image: bool, survives: bool) -> str:
    if is_image:
        return ".jpg" if survives else ".png"
    return ".mp4" if survives else ".mkv"


def _frames_to_hide(cover: media.Info, secret: media.Info, choice: Choice) -> int | None:
    """How many frames the stego will have by the headers; None: not known."""
    if not choice.loop_cover or not cover.frames or not secret.frames:
        return cover.frames
    return max(cover.frames, round(secret.frames / secret.rate * cover.rate))


def _fitted_cover(job: Job, made: "_Made", cover: Path, info: media.Info, choice: Choice) -> Path:
    """The cover, scaled down if that was chosen or H.264 needs even sides."""
    width, height = within(info, choice.longest, even=choice.survives and not info.is_image)
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
    """What revealing made."""

    revealed: Path
    watched: Path
    report: Any  # a `pipeline.Report`, or the PartialError that says what could not be read


def reveal(job: Job, desk: Desk, models: Models, stego: Path, passphrase: str) -> Revealed:
    """Reveals on a desk, finding out how the secret was hidden.

    Raises:
        UserError: nothing is found, or see `pipeline.reveal` and `robust_pipeline.reveal`.
        Cancelled: the job was stopped; nothing of it is left.
    """
    with desk.in_use(), _Made(desk) as made:
        job.stage("Looking at the file")
        info = media.probe(stego, [])
        revealed = made.new(f"revealed{'.png' if info.is_image else '.mkv'}")
        report = _first_that_opens(job, models, info, stego, revealed, passphrase)
        watched = _watched(job, made, revealed)
        made.keep()
        return Revealed(revealed, watched, report)


def _first_that_opens(job, models: Models, info: media.Info, stego: Path, revealed: Path, passphrase: str):
    for number, (survives, step) in enumerate(ways_to_reveal(models, stego, info.is_image)):
        job.stage("Looking further" if number else "Revealing", info.frames)
        run = models.side("reveal", survives, info.is_image, step)
        try:
            return run(passphrase, str(stego), str(revealed), job.progress)
        except PartialError as error:
            return error
        except UserError as error:
            if str(error) != NOTHING:
                raise
    raise UserError(NOTHING)


def ways_to_reveal(models: Models, stego: Path, is_image: bool) -> list[tuple[bool, float | None]]:
    """(survives codecs, D) to try, the likeliest first; the model `robust` finds D itself."""
    first = models.config(False, is_image).model.modulus
    plain = [(False, step) for step in sorted({first, *STEPS}, key=lambda step: (step != first, step))]
    survivor = [(True, None)]
    return plain + survivor if media.is_exact(stego) else survivor + plain


# --- compare --------------------------------------------------------------------------------------


class Compared(NamedTuple):
    """Figures of all frames, pictures of some."""

    stego_db: list[float]  # PSNR of every frame
    secret_db: list[float]
    numbers: list[int]  # of the frames that there are pictures of
    pictures: list[dict[str, Path]]  # of these, by column of `plots.COLUMNS`
    frames: int  # of the revealed file by its header, more than were compared if the cover is shorter


def compare(job: Job, desk: Desk, files: Any, numbers: np.ndarray | None = None) -> Compared:
    """Measures `evaluation.Files` frame by frame, RGB and 8-bit, and draws what `plots.comparison` shows.

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
            raise UserError("there is no frame that all four files have: drop four that belong together")
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
    """Files that a job makes: removed at the end unless it says `keep`."""

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
    """A copy that browsers play: H.264 in MP4, with the sound; the file itself if it is one, or a picture."""
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
