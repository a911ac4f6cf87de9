"""Synthetic clips and how they are saved, for several tests."""

from fractions import Fraction
from io import BytesIO
from typing import NamedTuple

import av
import numpy as np

from deepsteg_jax import media


def smooth(count=6, height=32, width=48, seed=0):
    """Moving coloured waves, uint8 [count, height, width, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    phase, pitch = rng.uniform(0, 6, 3), rng.uniform(0.05, 0.2, (3, 2))
    frames = [
        [128 + 100 * np.sin(pitch[c, 0] * x + pitch[c, 1] * y + phase[c] + 0.2 * i) for c in range(3)]
        for i in range(count)
    ]
    return np.moveaxis(np.array(frames), 1, -1).round().astype(np.uint8)


def noise(count=6, height=32, width=48, seed=0, low=0, high=256):
    """White noise in [low, high), uint8 [count, height, width, 3]."""
    shape = (count, height, width, 3)
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)


def in_planes(frames):
    """RGB frames [n, h, w, 3] as planes in 4:2:0, [n, ...]."""
    return media.stack([media.from_rgb(frame, "yuv420p") for frame in frames])


def in_rgb(planes):
    """Planes in 4:2:0 as RGB, by BT.601."""
    return np.stack([media.to_rgb(frame, "yuv420p") for frame in media.unstack(planes)])


def save(path, frames, rate=25):
    """Writes a clip, or an image if the suffix is that of one; returns the path."""
    media.write_frames(path, frames, rate)
    return path


# --- films: clips that PyAV writes, with whatever a file can have ------------------------------------


class Sound(NamedTuple):
    """A mono track of a film at 48 kHz."""

    codec: str
    samples: np.ndarray  # float [n] in -1..1
    start: int = 0  # samples after the first frame
    tags: dict[str, str] = {}
    bit_rate: int = 0  # bits per second; 0: the codec's own


def hiss(seconds=0.24, seed=4):
    """Noise for a track of sound."""
    return np.random.default_rng(seed).uniform(-0.27, 0.27, round(48000 * seconds))


def film(
    path,
    frames,
    rate=25,
    *,
    times=None,
    time_base=None,
    codec="ffv1",
    pixel_format="bgr0",
    options=None,
    prepare=lambda stream: None,
    sounds=(),
    subtitles="",
    subtitle_tags=(),
    chapters=(),
    tags=(),
):
    """Writes frames and tracks without any code of this project; returns the path.

    Args:
        path: of the file.
        frames: uint8 RGB.
        rate: frames per second.
        times: of the frames, in ticks of `time_base`; at a constant rate if not given.
        time_base: seconds of a tick; 1 / rate if not given.
        codec: of the video.
        pixel_format: that the codec takes.
        options: the codec's own.
        prepare: called with the video's stream before anything is written.
        sounds: `Sound`s.
        subtitles: the content of an srt or WebVTT file.
        subtitle_tags: their language and the like.
        chapters: (start, end, title), milliseconds.
        tags: of the file.
    """
    time_base = time_base or 1 / Fraction(rate)
    times = range(len(frames)) if times is None else times
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        video = container.add_stream(codec, rate=Fraction(rate), options=options)
        video.height, video.width, video.pix_fmt = *frames[0].shape[:2], pixel_format
        video.time_base = video.codec_context.time_base = time_base
        prepare(video)
        tracks = [
            container.add_stream(sound.codec, rate=48000, layout="mono", bit_rate=sound.bit_rate)
            for sound in sounds
        ]
        for track, sound in zip(tracks, sounds, strict=True):
            track.metadata.update(sound.tags)
        if subtitles:
            kind = "webvtt" if subtitles.startswith("WEBVTT") else "srt"
            lines = av.open(BytesIO(subtitles.encode()), format=kind)
            texts = container.add_stream_from_template(lines.streams.subtitles[0])
            texts.metadata.update(subtitle_tags)
        container.metadata.update(tags)
        container.set_chapters(
            [
                {"id": i, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                for i, (a, b, title) in enumerate(chapters, 1)
            ]
        )
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pixel_format)
            frame.pts, frame.time_base = int(time), time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for track, sound in zip(tracks, sounds, strict=True):
            _add_sound(container, track, sound)
        for packet in lines.demux() if subtitles else ():
            if packet.dts is not None:
                packet.stream = texts
                container.mux(packet)
    return path


def _add_sound(container, track, sound):
    kind = track.codec_context.codec.audio_formats[0].name
    kind = kind if kind[:3] in ("s16", "flt") else "s16"
    for begin in range(0, len(sound.samples), 960):
        samples = sound.samples[None, begin : begin + 960]
        if kind.startswith("s16"):
            samples = (32767 * samples).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples, None if kind.startswith("s16") else np.float32),
            format=kind,
            layout="mono",
        )
        frame.sample_rate, frame.pts, frame.time_base = 48000, sound.start + begin, Fraction(1, 48000)
        container.mux(track.encode(frame))
    container.mux(track.encode(None))


def tone(path, codec, frames=6, seconds=0.24):
    """A clip at 25 frames/s with noise for sound."""
    return film(path, noise(frames, seed=3), sounds=[Sound(codec, hiss(seconds))])


def packets(path, kind="audio", track=0):
    """(content, seconds) of every packet of a track."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind if kind == "audio" or kind == "video" else "subtitles")[
            track
        ]
        return [(bytes(p), p.pts * p.time_base) for p in container.demux(stream) if p.dts is not None]


def heard(path, track=0):
    """What a player plays: samples at 48 kHz, mono, from the video's first frame on (float [n])."""
    played = np.zeros(4 * 48000)
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        origin = (video.start_time or 0) * video.time_base
        for frame in container.decode(audio=track):
            samples = frame.to_ndarray().astype(float).mean(axis=0)
            if frame.format.name.startswith("s16"):
                samples = samples / 32768
            begin = round((frame.pts * frame.time_base - origin) * 48000)
            samples = samples[max(0, -begin) :]
            played[max(0, begin) : max(0, begin) + len(samples)] = samples
    return played
