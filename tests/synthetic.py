"""Synthetic clips and how they are saved, for several tests."""

from fractions import Fraction

import av
import numpy as np

from deepsteg_jax.video import io


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


def save(path, frames, rate=25):
    """Writes a clip, or an image if the suffix is that of one; returns the path."""
    io.write_frames(path, frames, rate)
    return path


def tone(path, codec, frames=6, seconds=0.24):
    """A clip at 25 frames/s with noise for sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25, width=48, height=32, pix_fmt="bgr0")
        audio = container.add_stream(codec, rate=48000, layout="mono")
        for picture in noise(frames, seed=3):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        rng = np.random.default_rng(4)
        kind = audio.codec_context.codec.audio_formats[0].name
        for start in range(0, int(48000 * seconds), 960):
            sound = rng.uniform(-9000, 9000, (1, 960)).astype(np.int16)
            if kind.startswith("flt"):
                sound = sound.astype(np.float32) / 32768
            frame = av.AudioFrame.from_ndarray(sound, format=kind, layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path
