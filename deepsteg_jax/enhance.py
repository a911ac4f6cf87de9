"""Denoising and sharpening of revealed frames with OpenCV, as the original system had it.

"Deep Video Steganography: Hiding Videos in Plain Sight" enhanced what it revealed by non-local means over
neighbouring frames and by an unsharp mask. What each does to the quality is measured in docs/ENHANCE.md.

Non-local means (Buades, Coll and Morel 2005) works on RGB here: OpenCV's variant for colour goes through
8-bit CIELAB, whose loss alone exceeds the error of a good secret. OpenCV is imported when it is first used.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import media
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.media.background import read_ahead, write_behind

SOUND_BIT_RATE = 128_000  # bits per second, of sound that goes beside a folder of images


def check(settings: ConfigDict) -> list[str]:
    """Return the steps in `settings.steps`, in order.

    Args:
        settings: see `commands.settings.ENHANCE`.

    Raises:
        UserError: a value is out of range, or OpenCV is missing.
    """
    names, rules = settings.steps.replace(",", " ").split(), []
    if not names or not set(names) <= {"denoise", "sharpen"}:
        raise UserError(f"--enhance.steps must be denoise, sharpen or both, not {settings.steps!r}")
    rules.append((settings.strength > 0, "strength", "more than 0 grey levels"))
    rules.append((settings.frames in range(1, 16, 2), "frames", "an odd number of frames from 1 to 15"))
    rules.append((settings.patch in range(3, 22, 2), "patch", "an odd number of pixels from 3 to 21"))
    rules.append((settings.search in range(3, 36, 2), "search", "an odd number of pixels from 3 to 35"))
    rules.append((0 < settings.radius <= 50, "radius", "more than 0 and at most 50 pixels"))
    rules.append((settings.amount >= 0, "amount", "a factor, at least 0"))
    for good, name, wanted in rules:
        if not good:
            raise UserError(f"--enhance.{name} must be {wanted}, not {settings[name]}")
    try:
        import cv2  # noqa: F401
    except ImportError:
        raise UserError('enhancing needs OpenCV: run pip install ".[live]"') from None
    return names


def enhance(frames: Iterable[np.ndarray], settings: ConfigDict) -> Iterator[np.ndarray]:
    """Enhance a stream of frames, one out for each one in; at most `settings.frames` are in memory.

    Args:
        frames: uint8 RGB [h, w, 3], of one size.
        settings: section `enhance` of the config: steps, and what `denoise` and `sharpen` take.

    Raises:
        UserError: as `check`, at once.
    """
    steps = {
        "denoise": partial(
            denoise,
            strength=settings.strength,
            window=settings.frames,
            patch=settings.patch,
            search=settings.search,
        ),
        "sharpen": partial(map, partial(sharpen, radius=settings.radius, amount=settings.amount)),
    }
    for name in check(settings):
        frames = steps[name](frames)
    return iter(frames)


def denoise(
    frames: Iterable[np.ndarray], strength: float, window: int = 3, patch: int = 5, search: int = 11
) -> Iterator[np.ndarray]:
    """Denoise by non-local means: average the pixels around each, weighted by how alike their patches are.

    Args:
        frames: uint8 RGB [h, w, 3], of one size.
        strength: about the noise to be removed, grey levels; patches count as alike up to it.
        window: frames that are searched, odd, the frame itself in the middle; beyond the clip's ends they
            are mirrored.
        patch: side of the patches in pixels, odd.
        search: side of the area that is searched in each frame, pixels, odd.

    Yields:
        As many frames as came, `window` // 2 frames later.
    """
    import cv2

    for group in neighbours(frames, window // 2):
        if len(group) == 1:
            yield cv2.fastNlMeansDenoising(group[0], None, strength, patch, search)
        else:
            middle = len(group) // 2
            yield cv2.fastNlMeansDenoisingMulti(group, middle, len(group), None, strength, patch, search)


def neighbours(items: Iterable[Any], reach: int) -> Iterator[list]:
    """Yield each item with `reach` items before and after it, 2 * reach + 1 in all, mirrored at the ends.

    Of a stream that is no longer than `reach` each item comes alone.
    """
    items, window = iter(items), deque(maxlen=2 * reach + 1)
    for item in items:
        window.append(item)
        if len(window) == reach + 1:
            break
    else:
        yield from ([item] for item in window)
        return
    window.extendleft(list(window)[1:])  # each lands before the last one: mirrored
    yield list(window)
    for item in items:
        window.append(item)
        yield list(window)
    whole = list(window)
    for i in range(reach):  # the mirror stands in the last item
        window.append(whole[-2 - i])
        yield list(window)


def sharpen(frame: np.ndarray, radius: float, amount: float) -> np.ndarray:
    """Sharpen with an unsharp mask: add `amount` times what a Gaussian blur takes away.

    Args:
        frame: uint8 [h, w, 3].
        radius: sigma of the blur, pixels.
        amount: 0 leaves the frame as it is.

    Returns:
        uint8, same shape.
    """
    import cv2

    blurred = cv2.GaussianBlur(frame, (0, 0), radius)
    return cv2.addWeighted(frame, 1 + amount, blurred, -amount, 0)


# --- files ----------------------------------------------------------------------------------------


def enhance_file(
    path: str | Path, output: str | Path, settings: ConfigDict, progress: Callable[[int], Any]
) -> int:
    """Enhance a video or image, file to file; its times, sound and subtitles are kept.

    Args:
        path: of the clip.
        output: a lossless video or image, a folder or pattern for images (with sound beside them), .mp4 or
            .jpg.
        settings: see `commands.settings.ENHANCE`.
        progress: called with the number of frames just enhanced.

    Returns:
        The number of frames.

    Raises:
        UserError: bad input; nothing is left under the output's name.
    """
    info, steps = media.probe(path), partial(enhance, settings=settings)
    check(settings)
    media.check_output(output, (path,), info.is_image, True, (info.width, info.height))
    sequence = media.is_sequence(output) and not info.is_image
    times, count = deque(), 0

    def frames():
        for frame, at in media.read_timed(path):
            times.append(at)
            yield frame

    with (
        media.Writer(
            output,
            info.rate,
            time_base=info.time_base,
            aspect=info.aspect,
            tracks_from=path if info.tracks and not sequence else None,
            image=info.is_image,
            lossy=media.Lossy(),
        ) as writer,
        closing(read_ahead(steps(frames()))) as enhanced,
    ):
        with write_behind(lambda frame: writer.write(*frame)) as put:
            for frame in enhanced:
                put((frame, times.popleft()))
                progress(1)
                count += 1
        if sequence and (sound := media.encode_sound(path, SOUND_BIT_RATE) if info.tracks else None):
            with sound.file:
                writer.add_sound(sound)
    return count


def _check_picture(path: Path) -> None:
    try:
        media.probe(path)
    except UserError:
        raise UserError(
            "the secret is a file that cannot be enhanced: reveal it without --enhance_revealed"
        ) from None


def after(reveal: Callable, settings: ConfigDict) -> Callable:
    """Return `reveal`, enhancing the frames that it writes.

    Args:
        reveal: (credential, stego, output, progress, announce) -> Report, of a pipeline.
        settings: see `commands.settings.ENHANCE`.

    Returns:
        The same. The plain secret lies in a temporary folder beside the output meanwhile.

    Raises:
        UserError: as `check`, at once.
    """
    names = check(settings)

    def reveal_and_enhance(credential, stego, output, progress, announce=lambda line: None):
        image = media.probe(stego, []).is_image
        media.check_output(output, (stego,), image=image, lossy=True)
        with _folder_beside(output) as folder:
            plain, partial_error = Path(folder) / ("plain.png" if image else "plain.mkv"), None
            try:
                told = lambda line: announce(line.replace(str(plain), str(output)))  # noqa: E731
                report = reveal(credential, stego, plain, progress, told)
            except PartialError as error:  # the readable part is written
                partial_error = PartialError(str(error).replace(str(plain), str(output)))
            _check_picture(plain)
            start = time.monotonic()
            enhance_file(plain, output, settings, lambda frames: None)
            if partial_error:
                raise partial_error
            seconds = report.seconds + time.monotonic() - start
            notes = (*report.notes, f"enhanced: {', '.join(names)}")
            return report._replace(seconds=seconds, notes=notes, size_bytes=media.size_of(output))

    return reveal_and_enhance


def _folder_beside(output: str | Path) -> TemporaryDirectory:
    try:
        return TemporaryDirectory(dir=Path(output).resolve().parent, prefix=".deepsteg-")
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from error
