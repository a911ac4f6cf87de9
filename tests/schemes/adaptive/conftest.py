"""Covers of 64x64 pixels, and one stego that many tests read."""

from types import SimpleNamespace

import numpy as np
import pytest

from configs.adaptive import get_config
from deepsteg_jax import media, pipeline
from deepsteg_jax.schemes.adaptive.scheme import AdaptiveScheme
from tests.synthetic import noise, smooth

KEY = bytes(range(32))  # quicker than a passphrase
FRAMES, SIDE = 6, 64
SECRET = np.random.default_rng(1).bytes(700)


def make_scheme(rate=0.2, height=4):
    """The scheme with a low trellis, which compiles and runs soon."""
    config = get_config()
    config.payload.rate, config.model.height = rate, height
    return AdaptiveScheme(config, None)


def frames(count=FRAMES, seed=0):
    """Moving noisy waves, uint8 [count, 64, 64, 3]."""
    return smooth(count, SIDE, SIDE, seed) // 2 + noise(count, SIDE, SIDE, seed, high=100)


def quiet(told):
    """Progress that nobody watches."""


def hide(cover, secret, stego, scheme=None, key=KEY, announce=quiet, **settings):
    """Hides file to file; returns the report."""
    settings = pipeline.DEFAULTS._replace(**settings)
    return pipeline.hide(scheme or make_scheme(), key, cover, secret, stego, quiet, settings, announce)


def reveal(stego, output, key=KEY):
    """Reveals file to file; returns the report."""
    return pipeline.reveal([make_scheme()], key, stego, output, quiet)


def write_planes(path, planes, pixel_format="yuv420p"):
    """Writes frames in planes; returns the path."""
    with media.Writer(path, 25, pixel_format=pixel_format) as writer:
        for frame in planes:
            writer.write(frame)
    return path


def read_planes(path):
    """All frames in planes."""
    return [timed.frame for timed in media.read_planes(path)]


@pytest.fixture(scope="session")
def hidden(tmp_path_factory):
    """SECRET in a cover in 4:2:0: paths, frames and the report; read-only."""
    folder = tmp_path_factory.mktemp("adaptive")
    (folder / "report.bin").write_bytes(SECRET)
    planes = [media.from_rgb(frame, "yuv420p") for frame in frames()]
    cover = write_planes(folder / "cover.mkv", planes)
    report = hide(cover, folder / "report.bin", folder / "stego.mkv")
    return SimpleNamespace(
        folder=folder,
        cover=planes,
        cover_path=cover,
        secret=folder / "report.bin",
        path=folder / "stego.mkv",
        stego=read_planes(folder / "stego.mkv"),
        report=report,
    )
