"""Synthetic clips and how they are saved, for several tests."""

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
