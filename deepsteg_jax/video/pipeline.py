"""Hiding and revealing whole files as streams: memory is bounded by the frame size, not by the length."""

import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepsteg_jax import keys
from deepsteg_jax.errors import UserError
from deepsteg_jax.steganography import Codec
from deepsteg_jax.video import io, sideinfo
from deepsteg_jax.video.background import read_ahead, write_behind

CHUNK_FRAMES = 4  # frames in one call of the compiled graph, or one group where groups are longer


class Report(NamedTuple):
    """What a job did."""

    frames: int
    width: int  # of the frames written
    height: int
    rate: Fraction
    seconds: float  # from the first frame read to the last one written, without compilation

    @property
    def fps(self) -> float:
        """Frames per second, file to file."""
        return self.frames / self.seconds

    def summary(self) -> str:
        """One line for the user."""
        return f"{self.frames} frames of {self.width}x{self.height}, {self.fps:.1f} frames/s"


class Side(NamedTuple):
    """One side of a model, ready to work."""

    codec: Codec
    params: Any  # of this side only
    step: int  # the model's `step`
    fingerprint: bytes  # of the reveal parameters


def fitted_size(info: io.Info, width: int, height: int) -> tuple[int, int]:
    """The size (width, height) at which a secret fits into a cover: its own, or scaled down to fit."""
    scale = min(Fraction(1), Fraction(width, info.width), Fraction(height, info.height))
    return max(1, round(info.width * scale)), max(1, round(info.height * scale))


def read_fitted(path: str | Path, info: io.Info, width: int, height: int) -> Iterator[np.ndarray]:
    """The frames of a secret, scaled down if they are larger than the cover; uint8 [h', w', 3]."""
    inner_width, inner_height = fitted_size(info, width, height)
    return io.read_frames(path, width=inner_width, height=inner_height)


def _pad(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Repeats the last row and column up to the cover's size."""
    return np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)), mode="edge")


def chunks(frames: Iterable[Any], group: int) -> Iterator[list]:
    """Splits a stream into lists that a `Codec` takes: whole groups, then one shorter group."""
    frames = iter(frames)
    size = group * max(1, CHUNK_FRAMES // group)
    while chunk := list(islice(frames, size)):
        whole = len(chunk) // group * group
        if whole:
            yield chunk[:whole]
        if chunk[whole:]:
            yield chunk[whole:]


def _pairs(cover: Iterator[np.ndarray], secret: Iterable[np.ndarray], name: str) -> Iterator[tuple]:
    for number, frame in enumerate(secret):
        under = next(cover, None)
        if under is None:
            raise UserError(
                f"the cover has {number} frames and the secret {name} has more: "
                "give a longer cover or a shorter secret"
            )
        yield under, _pad(frame, under.shape[1], under.shape[0])


def _stacked(pieces: Iterable[list]) -> Iterator[np.ndarray]:
    """Lists of frames, or of tuples of frames, as arrays [..., n, h, w, 3]."""
    for piece in pieces:
        yield np.stack(piece, axis=-4)


def _computed(run: Callable, words: np.ndarray, inputs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields run(words, number of the first frame, *input), one late: the next computes meanwhile."""
    number, pending = 0, None
    for stack in inputs:
        frames = stack if stack.ndim == 5 else stack[None]
        dispatched = run(words, number, *frames)
        if pending is not None:
            yield np.array(pending)
        number, pending = number + frames.shape[1], dispatched
    if pending is not None:
        yield np.array(pending)


def _write_all(writer: io.Writer, frames: np.ndarray) -> None:
    for frame in frames:
        writer.write(frame)


def _warm_up(run: Callable, frames: int, group: int, height: int, width: int, inputs: int) -> None:
    """Compiles for every length of chunk before the clock starts; `run` takes `inputs` stacks of frames."""
    for count in {len(chunk) for chunk in chunks(range(frames), group)}:
        blank = np.zeros((count, height, width, 3), np.uint8)
        np.asarray(run(np.zeros(8, np.uint32), 0, *[blank] * inputs))


def hide(
    side: Side, passphrase: str, cover: str, secret: str, output: str, progress: Callable[[int], Any]
) -> Report:
    """Hides a video in a video or an image in an image, file to file.

    The cover's frames after the end of the secret, and its sound, are kept as they are.

    Args:
        side: the hide side.
        passphrase: what the receiver must know.
        cover: path.
        secret: path; scaled down if it is larger than the cover.
        output: path of the stego.
        progress: called with the number of frames just hidden.

    Raises:
        UserError: bad input; nothing is left under the output's name.
    """
    cover_info, secret_info = io.probe(cover), io.probe(secret)
    width, height = cover_info.width, cover_info.height
    io.check_output(output, (cover, secret), image=cover_info.is_image)
    info = sideinfo.SideInfo(
        *fitted_size(secret_info, width, height), io.count_frames(secret), secret_info.rate, side.fingerprint
    )
    salt = keys.random_key()[: keys.SALT_BYTES]
    key = keys.derive_key(passphrase, salt)
    words = keys.key_words(keys.subkey(key, "shuffle"))
    first = min(info.frames, side.codec.frames)
    _warm_up(partial(side.codec.hide, side.params), info.frames, first, height, width, 2)

    start = time.monotonic()
    covers = io.read_frames(cover)
    secrets = read_fitted(secret, secret_info, width, height)
    pairs = read_ahead(_stacked(chunks(_pairs(covers, secrets, secret), first)))
    writer = io.Writer(output, cover_info.rate, audio_from=cover, image=cover_info.is_image)
    number = 0
    with writer, write_behind(partial(_write_all, writer)) as put:
        for stego in _computed(partial(side.codec.hide, side.params), words, pairs):
            if number == 0:
                stego[0] = sideinfo.embed(stego[0], salt, key, info, side.step)
            put(stego)
            number += len(stego)
            progress(len(stego))
        for frame in covers:  # what is left of the cover goes out as it is
            put(frame[None])
    return Report(number, width, height, cover_info.rate, time.monotonic() - start)


def reveal(side: Side, passphrase: str, stego: str, output: str, progress: Callable[[int], Any]) -> Report:
    """Reveals a hidden video or image, file to file; arguments as for `hide`.

    Raises:
        UserError: bad input, wrong passphrase or another checkpoint; nothing is left of the output.
    """
    stego_info = io.probe(stego)
    io.check_output(output, (stego,), image=stego_info.is_image)
    head = next(io.read_frames(stego))
    key = keys.derive_key(passphrase, sideinfo.read_salt(head, side.step))
    info = sideinfo.extract(head, key, side.step)
    if info.fingerprint != side.fingerprint:
        raise UserError("the video was hidden with another checkpoint: set config.checkpoint to the sender's")
    words = keys.key_words(keys.subkey(key, "shuffle"))
    first = min(info.frames, side.codec.frames)
    _warm_up(partial(side.codec.reveal, side.params), info.frames, first, *head.shape[:2], 1)

    start = time.monotonic()
    frames = read_ahead(_stacked(chunks(io.read_frames(stego, stop=info.frames), first)))
    writer = io.Writer(output, info.rate, image=stego_info.is_image)
    number = 0
    with writer, write_behind(partial(_write_all, writer)) as put:
        for revealed in _computed(partial(side.codec.reveal, side.params), words, frames):
            put(np.ascontiguousarray(revealed[:, : info.height, : info.width]))
            number += len(revealed)
            progress(len(revealed))
        if number < info.frames:
            raise UserError(f"{stego} ends after frame {number} of {info.frames}: get a complete copy of it")
    return Report(number, info.width, info.height, info.rate, time.monotonic() - start)
