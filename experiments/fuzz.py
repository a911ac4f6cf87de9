"""Feeds thousands of damaged and odd files to hide and reveal.

    python -m experiments.fuzz [--count 2000] [--seed 0] [--workers 2] [--output runs/fuzz]

Each case takes files of a small corpus, spoils one of them and hides with it (as cover or as secret) or
reveals it. It must end within a time and within a share of memory, with a result or with an error for the
user, and must leave nothing but its result; what was hidden must be revealed again. Everything else is a
finding: it is kept with its input in OUTPUT/findings/NUMBER, and the exit code is 1. Most cases run stand-ins
for what `pixels` and `robust` compute, since they are about files; `--real` is the share of those with a
compiled model of `pixels`, or with `adaptive`. Writes fuzz.json.
"""

import faulthandler
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from deepsteg_jax import media, pipeline
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.models.base import Revealed
from deepsteg_jax.schemes.adaptive.scheme import AdaptiveScheme
from deepsteg_jax.schemes.base import Metadata, Scheme
from deepsteg_jax.schemes.pixels import PixelScheme
from deepsteg_jax.schemes.robust.layout import SEGMENT
from deepsteg_jax.schemes.robust.receiver import Part
from deepsteg_jax.schemes.robust.scheme import RobustScheme
from experiments import common

KEY, STEP, FINGERPRINT = bytes(range(32)), 3, b"fuzzing."
WIDTH, HEIGHT, FRAMES = 72, 64, 6
STAND_INS, REAL = ("pixels-plain", "robust-plain"), ("pixels", "adaptive")
OUTCOMES = ("done", "refused", "partial", "finding")
SIGNIFICANT = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**63 - 1,
    2**64 - 1,
)


# --- corpus ---------------------------------------------------------------------------------------


class Recipe(NamedTuple):
    """How to make a video of the corpus."""

    name: str
    codec: str
    pixels: str = "yuv420p"
    sound: str | None = None
    subtitles: bool = False
    times: tuple[int, ...] = tuple(range(FRAMES))  # of its frames, 1/25 s


VIDEOS = (
    Recipe("ffv1.mkv", "ffv1", "bgr0", "pcm_s16le", True),
    Recipe("ffv1.nut", "ffv1", "bgr0", "pcm_s16le"),
    Recipe("ffv1.avi", "ffv1", "yuv444p"),
    Recipe("h264.mkv", "libx264", sound="libopus", subtitles=True),
    Recipe("h264.mp4", "libx264", sound="aac"),
    Recipe("h264.ts", "libx264", sound="aac"),
    Recipe("h264.flv", "libx264", sound="aac"),
    Recipe("mpeg4.mp4", "mpeg4", sound="libmp3lame"),
    Recipe("mpeg4.avi", "mpeg4", sound="libmp3lame"),
    Recipe("mpeg2.mpg", "mpeg2video"),
    Recipe("vp9.webm", "libvpx-vp9", sound="libopus"),
    Recipe("png.mov", "png", "rgba"),
    Recipe("gif.gif", "gif", "rgb8"),
    Recipe("varied.mkv", "ffv1", "bgr0", times=(0, 1, 2, 9, 10, 30)),
    Recipe("long.mkv", "ffv1", "bgr0", times=tuple(range(3 * FRAMES))),
)
IMAGES = ("image.png", "image.jpg", "image.bmp", "image.tiff", "image.webp", "image.ppm", "image.avif")
IMAGES += ("image.heic",)
ANIMATIONS = ("moving.png", "moving.webp", "moving.gif")


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Noise on a grey ground, uint8 [count, HEIGHT, WIDTH, 3]."""
    return np.random.default_rng(seed).integers(60, 180, (count, HEIGHT, WIDTH, 3), np.uint8)


def encode(folder: Path, recipe: Recipe) -> None:
    """Writes one video with its tracks."""
    with av.open(str(folder / recipe.name), "w") as container:
        video = container.add_stream(recipe.codec, rate=25, width=WIDTH, height=HEIGHT, pix_fmt=recipe.pixels)
        sound = container.add_stream(recipe.sound, rate=48000, layout="mono") if recipe.sound else None
        subtitles = av.open(subtitle_file(folder)) if recipe.subtitles else None
        text = container.add_stream_from_template(subtitles.streams[0]) if subtitles else None
        for picture, at in zip(pictures(len(recipe.times), 1), recipe.times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=recipe.pixels)
            frame.pts, frame.time_base = at, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound:
            for frame in noise(0.24):
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        for packet in subtitles.demux() if subtitles else ():
            if packet.dts is not None:
                packet.stream = text
                container.mux(packet)


def subtitle_file(folder: Path) -> str:
    """A file of subtitles beside the corpus."""
    path = folder.with_name("subtitles.srt")
    path.write_text("1\n00:00:00,040 --> 00:00:00,120\na subtitle\n")
    return str(path)


def noise(seconds: float) -> Iterator[av.AudioFrame]:
    """Sound of one channel."""
    rng = np.random.default_rng(4)
    for start in range(0, int(48000 * seconds), 960):
        frame = av.AudioFrame.from_ndarray(
            rng.integers(-9000, 9000, (1, 960), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        yield frame


def make_corpus(folder: Path, real: bool) -> None:
    """Writes the files that cases start from, as far as this FFmpeg can."""
    folder.mkdir(parents=True)
    for recipe in VIDEOS:
        try:
            encode(folder, recipe)
        except (av.error.FFmpegError, ValueError) as error:
            print(f"fuzz.py: the corpus lacks {recipe.name}: {error}", file=sys.stderr)
            (folder / recipe.name).unlink(missing_ok=True)
    for name in IMAGES:
        Image.fromarray(pictures(1)[0]).save(folder / name)
    Image.fromarray(pictures(1)[0].astype(np.uint16)[..., 0] * 256).save(folder / "grey16.png")
    Image.fromarray(pictures(1)[0]).convert("P").save(folder / "palette.png", transparency=3)
    first, *others = map(Image.fromarray, pictures(FRAMES))
    for name in ANIMATIONS:
        first.save(folder / name, save_all=True, append_images=others, duration=[40] * 5 + [500])
    if (folder / "h264.ts").exists():
        (folder / "joined.ts").write_bytes(2 * (folder / "h264.ts").read_bytes())
    (folder / "notes.txt").write_bytes(np.random.default_rng(5).bytes(700))
    media.write_frames(f"{folder}/images/", pictures(FRAMES))
    for name in STAND_INS + REAL * real:
        side = scheme_of(name)
        if side.accepts == "bytes":
            for cover, output in ("long.mkv", "sound.mkv"), ("h264.mp4", "planes.mp4"):
                target = f"{folder}/stego-{name}-{output}"
                pipeline.hide(side, KEY, folder / cover, folder / "notes.txt", target, lambda _: None)
            continue
        for cover, secret, output in (
            ("long.mkv", "ffv1.mkv", "sound.mkv"),
            ("ffv1.nut", "varied.mkv", "times.nut"),
            ("image.png", "image.jpg", "image.png"),
            ("images", "ffv1.nut", "images/"),
        ):
            settings = pipeline.Settings(loop_cover=True, align="frames")
            target = f"{folder}/stego-{name}-{output}"
            pipeline.hide(side, KEY, folder / cover, folder / secret, target, lambda _: None, settings)


# --- mutations of bytes ---------------------------------------------------------------------------


def _span(rng, data: bytes) -> slice:
    """A random stretch, mostly short."""
    start = int(rng.integers(len(data)))
    return slice(start, start + 1 + int(len(data) ** rng.random()))


def flip_bytes(rng, data: bytes, other: bytes) -> bytes:
    """Some bytes anywhere."""
    changed = np.frombuffer(data, np.uint8).copy()
    places = rng.integers(len(data), size=1 + int(20 * rng.random() ** 3))
    changed[places] ^= rng.integers(1, 256, len(places), np.uint8)
    return changed.tobytes()


def flip_header(rng, data: bytes, other: bytes) -> bytes:
    """Some bytes near the beginning."""
    size = min(len(data), int(rng.choice([16, 64, 256, 1024])))
    return flip_bytes(rng, data[:size], other) + data[size:]


def truncate(rng, data: bytes, other: bytes) -> bytes:
    """The end is missing."""
    return data[: int(rng.integers(len(data)))]


def zero_run(rng, data: bytes, other: bytes) -> bytes:
    """A stretch of zeros."""
    span = _span(rng, data)
    return data[: span.start] + bytes(len(data[span])) + data[span.stop :]


def delete_chunk(rng, data: bytes, other: bytes) -> bytes:
    """A stretch is missing."""
    span = _span(rng, data)
    return data[: span.start] + data[span.stop :]


def double_chunk(rng, data: bytes, other: bytes) -> bytes:
    """A stretch comes twice."""
    span = _span(rng, data)
    return data[: span.stop] + data[span] + data[span.stop :]


def swap_chunk(rng, data: bytes, other: bytes) -> bytes:
    """A stretch of another file."""
    span = _span(rng, data)
    return data[: span.start] + other[span] + data[span.stop :]


def join_files(rng, data: bytes, other: bytes) -> bytes:
    """The beginning of one file and the end of another."""
    return truncate(rng, data, other) + other[int(rng.integers(len(other))) :]


def huge_size(rng, data: bytes, other: bytes) -> bytes:
    """Fields of 1 to 8 bytes, mostly in the header, become very large, negative or zero."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        reach = min(len(data), int(rng.choice([32, 128, 600, len(data)])))
        start, width = int(rng.integers(reach)), int(rng.choice([1, 2, 4, 8]))
        value = SIGNIFICANT[rng.integers(len(SIGNIFICANT))] & (1 << 8 * width) - 1
        changed[start : start + width] = value.to_bytes(width, str(rng.choice(["little", "big"])))
    return bytes(changed)


def frame_size(rng, data: bytes, other: bytes) -> bytes:
    """Wherever the frame's width or height may stand, another number stands."""
    changed, width = bytearray(data), int(rng.choice([1, 2, 4]))
    value = int(rng.choice([0, 1, 2, 3, 15, 16, 200, 5000, 8191, 8193, 30000, 65535])) & (1 << 8 * width) - 1
    order = str(rng.choice(["little", "big"]))
    for old in (WIDTH, HEIGHT):
        if (at := data.find(old.to_bytes(width, order))) >= 0:
            changed[at : at + width] = value.to_bytes(width, order)
    return bytes(changed)


BYTES = {
    function.__name__: function
    for function in (
        flip_bytes,
        flip_header,
        truncate,
        zero_run,
        delete_chunk,
        double_chunk,
        swap_chunk,
        join_files,
        huge_size,
        frame_size,
    )
}


# --- mutations of other kinds ---------------------------------------------------------------------


def odd_times(rng, source: Path, other: Path, target: Path) -> None:
    """The same packets, with wrong times: gaps, repeats, jumps back, some dropped."""
    with av.open(str(source)) as read, av.open(str(target), "w", format="matroska") as written:
        streams = {s.index: written.add_stream_from_template(s) for s in read.streams if s.codec_context}
        jump = int(rng.choice([0, 1, 3, 1000, 10**6, 10**9, 10**12]))
        for packet in read.demux(*(read.streams[i] for i in streams)):
            if packet.dts is None or rng.random() < 0.1:
                continue
            if rng.random() < 0.3:
                packet.pts = packet.dts = packet.dts + int(rng.integers(-jump, jump + 1))
            packet.stream = streams[packet.stream.index]
            with suppress(av.error.FFmpegError):  # some times are too odd to be written
                written.mux(packet)


def swap_streams(rng, source: Path, other: Path, target: Path) -> None:
    """The packets of one video under the headers of another."""
    with (
        av.open(str(source)) as read,
        av.open(str(other)) as head,
        av.open(str(target), "w", format=str(rng.choice(["matroska", "nut", "avi"]))) as written,
    ):
        stream = written.add_stream_from_template(head.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                written.mux(packet)


MAGIC = (
    b"\x1a\x45\xdf\xa3\x93\x42\x82\x88matroska",
    b"\0\0\0\x20ftypisom\0\0\2\0",
    b"\0\0\0\1mdat\0\0\0\0\0\0\0\0",
    b"RIFF\xff\xff\xff\x7fAVI LIST",
    b"RIFF\x40\0\0\0WEBPVP8 ",
    b"nut/multimedia container\0NM\xe4\xadk",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x20\0\0\0\x20\0\x08\x02\0\0\0",
    b"\xff\xd8\xff\xe0\0\x10JFIF\0\1",
    b"GIF89a\x30\0\x20\0\xf7\0\0",
    b"BM\xff\xff\xff\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"P6 8000 8000 255\n",
    b"OggS\0\2",
    b"FLV\1\5\0\0\0\x09",
    b"\0\0\1\xba\x44\0\4\0\4\1",
    b"G@\0\x10\0\0\xb0\r",
    b"fLaC\0\0\0\x22",
    b"ID3\4\0\0\0\0\0\x0a",
    b"YUV4MPEG2 W48 H32 F25:1 Ip A1:1 C444\nFRAME\n",
    b"\0\0\0\1\x67\x64\0\x0a\xac",
    b"",
)


def random_bytes(rng, source: Path, other: Path, target: Path) -> None:
    """Random bytes after a known beginning."""
    target.write_bytes(MAGIC[rng.integers(len(MAGIC))] + rng.bytes(int(10 ** (5 * rng.random()))))


def text(rng, source: Path, other: Path, target: Path) -> None:
    """Playlists and other text, some of which name files that are there, or places elsewhere."""
    named = (source, other, target, source.name, "/dev/zero", "http://127.0.0.1:9/a.ts", "none.mkv")
    name = named[rng.integers(len(named))]
    playlists = (
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n" + f"#EXTINF:1,\n{name}\n" * 3 + "#EXT-X-ENDLIST\n",
        f"#EXTM3U\n#EXTINF:1,\n{name}\n",
        "ffconcat version 1.0\n" + f"file '{name}'\n" * 3,
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nm=video {rng.integers(65536)} RTP/AVP 96\n",
        f'<?xml version="1.0"?><MPD><Period><BaseURL>{name}</BaseURL></Period></MPD>',
        "1\n00:00:00,000 --> 00:00:01,000\na subtitle\n",
        "[Script Info]\nScriptType: v4.00+\n\n[Events]\n",
        "no video\n" * int(rng.integers(1, 1000)),
        "\0" * int(rng.integers(1, 5000)),
    )
    target.write_text(playlists[rng.integers(len(playlists))])


def empty(rng, source: Path, other: Path, target: Path) -> None:
    """No bytes."""
    target.touch()


def intact(rng, source: Path, other: Path, target: Path) -> None:
    """Nothing is wrong, except perhaps the suffix."""
    shutil.copyfile(source, target)


WHOLE = {f.__name__: f for f in (odd_times, swap_streams, random_bytes, text, empty, intact)}
SUFFIXES = (".mkv", ".mp4", ".avi", ".png", ".jpg", ".m3u8", ".txt", ".nut", ".gif", "")


def spoil_folder(rng, source: Path, other: Path, folder: Path) -> None:
    """A folder of images of which one is spoilt, another size, missing or of another name."""
    shutil.copytree(source, folder)
    victim = sorted(folder.iterdir())[rng.integers(len(list(folder.iterdir())))]
    change = rng.integers(4)
    if change == 0:
        victim.unlink()
    elif change == 1:
        victim.rename(victim.with_name("frame_99999999999999999999.png"))
    elif change == 2:
        Image.fromarray(pictures(1)[0][: int(rng.integers(1, HEIGHT))]).save(victim)
    else:
        kind = list(BYTES.values())[rng.integers(len(BYTES))]
        victim.write_bytes(kind(rng, victim.read_bytes(), other.read_bytes()))


def spoil(rng, source: Path, other: Path, folder: Path) -> tuple[Path, str]:
    """Makes the input of a case in `folder`: (its path, the kind of mutation)."""
    if source.is_dir():
        spoil_folder(rng, source, other, folder / "input")
        return folder / "input" / rng.choice(["", "frame_%05d.png"]), "spoil_folder"
    names = [*BYTES, *WHOLE]
    name = names[rng.integers(len(names))]
    suffix = source.suffix if rng.random() < 0.85 else SUFFIXES[rng.integers(len(SUFFIXES))]
    target = folder / f"input{suffix}"
    try:
        if name in WHOLE:
            WHOLE[name](rng, source, other, target)
            return target, name
    except (av.error.FFmpegError, ValueError, IndexError, OverflowError):  # an image, or headers do not fit
        name = "flip_bytes"
    target.write_bytes(BYTES[name](rng, source.read_bytes(), other.read_bytes()))
    return target, name


# --- one case -------------------------------------------------------------------------------------


class PlainCodec:
    """Stands in for compiled programs: the stego is the cover, and revealed is the stego."""

    frames = 4

    def hide(self, params, key, first_frame, cover, secret):
        """Return the cover."""
        return cover

    def reveal(self, params, key, first_frame, stego):
        """Return the stego."""
        return stego

    def inspect(self, params, key, first_frame, stego):
        """Return the stego, of which nothing is wrong."""
        return Revealed(stego, np.zeros(len(stego)))


class PlainPixels(PixelScheme):
    """`pixels` with `PlainCodec` for a model."""

    def codec(self, modulus=None, group=None, **shuffle):
        """Return the stand-in."""
        return PlainCodec()


class PlainSegments:
    """Stands in for the sender and the receiver of segments: the stego is the cover, each with a part."""

    def __init__(self):
        """Begin with no frames."""
        self._taken, self._sent, self.survives = 0, {}, True

    def send(self, number, cover, secrets, progress):
        """Return the cover."""
        self._sent[number] = secrets[0][:2]
        return SimpleNamespace(stego=cover)

    def take(self, frame):
        """Return a part after every SEGMENT frames."""
        self._taken += 1
        return [] if self._taken % SEGMENT else [self._part(self._taken // SEGMENT - 1)]

    def finish(self):
        """Return the part at the end."""
        return [self._part(self._taken // SEGMENT)] if self._taken % SEGMENT else []

    def _part(self, number):
        shown = (
            pictures(SEGMENT, number),
            Metadata(WIDTH, HEIGHT, FRAMES, FRAMES, Fraction(25), False, False, Fraction(1)),
        )
        frames, metadata = self._sent.get(number, shown)
        return Part(number, metadata, frames, 1, 1, 0)


class PlainRobust(RobustScheme):
    """`robust` with `PlainSegments`, the same ones for a stego and its receiver, in frames of any size."""

    def check(self, info):
        """Take any size."""

    def segment_sender(self, *given):
        """Return the stand-in."""
        self._segments = PlainSegments()
        return self._segments

    def segment_receiver(self, *given):
        """Return the stand-in."""
        segments, self._segments = getattr(self, "_segments", None), None
        return segments or PlainSegments()


@cache
def scheme_of(name: str) -> Scheme:
    """Make a scheme; `pixels` of an untrained model, compiled for the corpus's frame size."""
    import jax
    from ml_collections import ConfigDict

    from configs import adaptive, robust
    from deepsteg_jax import models

    if name == "robust-plain":
        return PlainRobust(robust.get_config("tiny"), lambda side: {})
    if name == "adaptive":
        config = adaptive.get_config()
        config.model.height, config.payload.rate = 4, 0.4
        return AdaptiveScheme(config, lambda side: {})
    model = {"name": "block_dct", "modulus": STEP, "frames": 4, "classes": 8, "features": 8, "depth": 0}
    shuffle = {"moves": "cover", "cipher": "coefficients", "block_size": 8}
    config = ConfigDict({"model": model, "shuffle": shuffle})
    params = models.build(config.model).init(jax.random.key(0))
    scheme = (PixelScheme if name == "pixels" else PlainPixels)(config, params.__getitem__)
    codec, blank = scheme.codec(), np.zeros(8, np.uint32)
    for count in range(1, 5):
        codec.hide(scheme.hide_params, blank, 0, pictures(count), pictures(count))
        codec.reveal(scheme.reveal_params, blank, 0, pictures(count))
    return scheme


class Case(NamedTuple):
    """What to do with the spoilt input."""

    rng: np.random.Generator
    folder: Path
    corpus: Path
    path: Path
    role: str  # cover, secret or stego
    scheme: str


def _choose(rng, corpus: Path, stegos: bool) -> Path:
    found = sorted(p for p in corpus.iterdir() if p.name.startswith("stego-") == stegos)
    return found[rng.integers(len(found))]


def _output(case: Case, image: bool) -> str:
    names = ("out.png", "out.bmp", "out.tiff") if image else ("out.mkv", "out.nut", "out.mp4", "out/")
    if not image and case.scheme.startswith("pixels"):
        names = ("out.mkv", "out.nut", "out/", "o/out_%03d.bmp")
    return f"{case.folder}/output/{names[case.rng.integers(len(names))]}"


def _scheme(case: Case, info: media.Info) -> Scheme:
    usual = (info.width, info.height) == (WIDTH, HEIGHT)  # others would be compiled anew
    return scheme_of(case.scheme if usual or case.scheme in STAND_INS else STAND_INS[0])


def run_reveal(case: Case, path: Path, output: str | None = None) -> None:
    """As --mode reveal does."""
    info = media.probe(path, [])
    scheme = _scheme(case, info)
    output = output or _output(case, info.is_image)
    if scheme.accepts == "pictures":
        pipeline.check_revealed(output, info, (path,))
    else:
        media.check_place(output, (path,))
    pipeline.reveal([scheme], KEY, path, output, lambda _: None)
    if scheme.accepts == "pictures":
        assert len(media.frame_times(output.removesuffix("/"))), "the output has no frames"


def run_hide(case: Case) -> None:
    """As --mode hide does, and reveals again."""
    partner = _choose(case.rng, case.corpus, False)
    if case.scheme == "adaptive" and case.role == "cover":
        partner = case.corpus / "notes.txt"
    elif media.probe(case.path).is_image and case.role == "cover":
        partner = case.corpus / "image.png"
    cover, secret = (case.path, partner) if case.role == "cover" else (partner, case.path)
    info = media.probe(cover)
    scheme, output, short = _scheme(case, info), _output(case, info.is_image), True
    pipeline.check_output(scheme, output, info, (cover, secret))
    if scheme.accepts == "pictures":  # a long secret in a repeated cover takes long, rightly
        times, base = media.frame_times(secret), media.probe(secret).time_base
        short = (times[-1] - times[0]) * base < 10
    settings = pipeline.Settings(
        str(case.rng.choice(["time", "frames"])),
        bool(short and case.rng.random() < 0.5),
        int(case.rng.choice([0, 6000])),
    )
    pipeline.hide(scheme, KEY, cover, secret, output, lambda _: None, settings)
    # A folder takes frames that are too small for a video.
    again = case.folder / "revealed" / ("out.png" if info.is_image else "images")
    again.parent.mkdir()
    try:
        run_reveal(case, Path(output), f"{again}" if info.is_image else f"{again}/")
    except (UserError, PartialError) as error:
        raise AssertionError(f"hidden, but not revealed: {error}") from error
    shutil.rmtree(again.parent)


def run_case(number: int, seed: int, real: float, root: Path) -> dict:
    """Makes case `number`, runs it and says what came of it."""
    rng = np.random.default_rng([seed, number])
    folder, corpus = root / "cases" / str(number), root / "corpus"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "output").mkdir(parents=True)
    role = str(rng.choice(["cover", "secret", "stego"]))
    scheme = str(rng.choice(REAL if rng.random() < real else STAND_INS))
    source = _choose(rng, corpus, role == "stego" and rng.random() < 0.8)
    if scheme == "adaptive" and rng.random() < 0.7:  # most else does not fit, or has nothing of its own
        source = (
            corpus / {"cover": "long.mkv", "secret": "notes.txt", "stego": "stego-adaptive-sound.mkv"}[role]
        )
    other = next(p for p in iter(lambda: _choose(rng, corpus, False), None) if p.is_file())
    path, kind = spoil(rng, source, other, folder)
    case = Case(rng, folder, corpus, path, role, scheme)
    result = {
        "number": number,
        "scheme": scheme,
        "role": role,
        "source": source.name,
        "mutation": kind,
        "outcome": "done",
    }
    (folder / "case.json").write_text(json.dumps(result | {"input": path.name}))
    with (folder / "trace.txt").open("w") as trace:
        faulthandler.enable(trace)
        try:
            run_reveal(case, path) if role == "stego" else run_hide(case)
        except (UserError, PartialError) as error:
            result["outcome"] = "refused" if isinstance(error, UserError) else "partial"
            result["message"] = str(error).replace(str(folder), "").replace(str(corpus), "")
        except BaseException as error:  # noqa: BLE001, to be found is its purpose
            result |= {"outcome": "finding", "message": repr(error), "trace": traceback.format_exc()}
        faulthandler.disable()
    wrong = leftovers(folder / "output", result["outcome"])
    if wrong and result["outcome"] != "finding":
        result |= {"outcome": "finding", "message": f"{wrong} after: {result.get('message', 'done')}"}
    if result["outcome"] != "finding":
        shutil.rmtree(folder)
    return result


def leftovers(folder: Path, outcome: str) -> str:
    """What is wrong with the folder of the output: nothing, or what should not be there, or is missing."""
    found = sorted(path.name for path in folder.iterdir())
    if outcome == "refused":
        return f"left over: {found}" if found else ""
    return (
        "" if found in (["out"], ["o"]) or len(found) == 1 and found[0].startswith("out.") else f"has {found}"
    )


# --- workers --------------------------------------------------------------------------------------


def work(connection, seed: int, real: float, root: Path, memory: int) -> None:
    """Runs cases in a process of its own, one for each number that it is sent."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for name in STAND_INS + REAL * (real > 0):
        scheme_of(name)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    connection.send("ready")
    while (number := connection.recv()) is not None:
        connection.send(run_case(number, seed, real, root))


class Worker:
    """A process that runs cases; started again after it died."""

    def __init__(self, arguments, seconds: float):
        self._arguments, self._seconds, self._process = arguments, seconds, None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._connection.recv()

    def run(self, number: int) -> dict:
        """The result of one case, whatever becomes of the process."""
        if self._process is None:
            self._start()
        start = time.monotonic()
        return self._run(number) | {"seconds": time.monotonic() - start}

    def _run(self, number: int) -> dict:
        self._connection.send(number)
        try:
            if self._connection.poll(self._seconds):
                return self._connection.recv()
            message = f"no end after {self._seconds:.0f} s"
            os.kill(self._process.pid, signal.SIGABRT)  # writes the trace of all threads
        except EOFError:
            message = "the process died"
        self._process.join(5)
        self._process.kill()
        self._process.join()
        message += f", exit code {self._process.exitcode}"
        self._process = None
        return {"number": number, "outcome": "finding", "message": message}

    def stop(self) -> None:
        """Lets the process end."""
        if self._process is not None:
            self._connection.send(None)
            self._process.join()


def keep(result: dict, root: Path) -> dict:
    """Moves the input of a finding where it stays."""
    folder, kept = root / "cases" / str(result["number"]), root / "findings" / str(result["number"])
    kept.parent.mkdir(exist_ok=True)
    if folder.exists():
        result = json.loads((folder / "case.json").read_text()) | result
        shutil.rmtree(kept, ignore_errors=True)
        folder.rename(kept)
        (kept / "case.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def run_all(worker: Worker, numbers: range, root: Path) -> list[dict]:
    """Runs the cases of one worker."""
    results = []
    for number in numbers:
        result = worker.run(number)
        if result["outcome"] == "finding":
            result = keep(result, root)
            print(f"finding {number}: {result['message']}", flush=True)
        results.append(result)
        if number % 100 == 99:
            print(f"case {number + 1}", file=sys.stderr, flush=True)
    worker.stop()
    return results


def report_of(results: list[dict], seed: int) -> dict:
    """What fuzz.json holds."""

    def outcomes(chosen):
        found = Counter(result["outcome"] for result in chosen)
        return {name: found[name] for name in OUTCOMES}

    def table(field):
        values = sorted({result[field] for result in results if field in result})
        return {value: outcomes(r for r in results if r.get(field) == value) for value in values}

    findings = [result for result in results if result["outcome"] == "finding"]
    return {
        "count": len(results),
        "seed": seed,
        "outcomes": outcomes(results),
        **{f"by_{field}": table(field) for field in ("mutation", "role", "scheme", "source")},
        "slowest_seconds": round(max(result["seconds"] for result in results), 2),
        "findings": sorted(findings, key=lambda result: result["number"]),
    }


def summary(report: dict) -> str:
    """The counts as a table."""
    lines = [f"{'':<16}" + "".join(f"{name:>9}" for name in OUTCOMES)]
    for field in ("by_scheme", "by_role", "by_mutation"):
        for name, counts in report[field].items():
            lines.append(f"{name:<16}" + "".join(f"{counts[outcome]:>9}" for outcome in OUTCOMES))
    lines.append(f"{'all':<16}" + "".join(f"{report['outcomes'][outcome]:>9}" for outcome in OUTCOMES))
    return "\n".join([*lines, f"{report['count']} cases, the slowest took {report['slowest_seconds']} s"])


def main() -> int:
    """Runs the cases and prints what came of them."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--real", type=float, default=0.1, help="share of cases with a compiled model")
    parser.add_argument("--seconds", type=float, default=30, help="that a case may take")
    parser.add_argument("--memory", type=float, default=4, help="GiB of addresses beyond those of the start")
    parser.add_argument("--output", type=Path, default=Path("runs/fuzz"))
    arguments = parser.parse_args()
    root = arguments.output.resolve()
    for name in ("corpus", "cases", "findings"):
        shutil.rmtree(root / name, ignore_errors=True)
    make_corpus(root / "corpus", arguments.real > 0)
    settings = (arguments.seed, arguments.real, root, int(arguments.memory * 2**30))
    with ThreadPoolExecutor(arguments.workers) as pool:
        workers = [Worker(settings, arguments.seconds) for _ in range(arguments.workers)]
        last = arguments.first + arguments.count
        shares = [range(arguments.first + i, last, arguments.workers) for i in range(arguments.workers)]
        results = sum(pool.map(partial(run_all, root=root), workers, shares), [])
    report = report_of(results, arguments.seed)
    common.write_json(root / "fuzz.json", report)
    shutil.rmtree(root / "cases", ignore_errors=True)
    print(summary(report))
    return 1 if report["findings"] else 0


if __name__ == "__main__":
    common.run(main)
