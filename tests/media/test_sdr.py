import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deepsteg_jax import media
from deepsteg_jax.media import images, sdr
from deepsteg_jax.media.codecs import Colour
from tests.media.clips import write
from tests.synthetic import smooth

# Columns: red, green and blue of BT.709 in RGB of BT.2020 (ITU-R BT.2087).
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
TO_P3 = np.array([[0.8225, 0.1774, 0.0], [0.0332, 0.9669, 0.0], [0.0171, 0.0724, 0.9108]])


def pq(nits):
    power = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(nits):
    scene = (nits / 1000) ** (1 / 1.2)
    upper = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper)


def signal(frame, transfer):
    """A frame of SDR as a signal of HDR or of a wider gamut, whose white is SDR's; float [h, w, 3]."""
    light = (frame / 255) ** 2.4
    if transfer == "p3":
        return (light @ TO_P3.T).clip(0) ** (1 / 2.4)
    return {"pq": pq, "hlg": hlg}[transfer](203 * (light @ TO_BT2020.T).clip(0))


COLOURS = {"pq": Colour(1, 9, 9, 16), "hlg": Colour(1, 9, 9, 18), "p3": Colour(1, 1, 12, 1)}
LUMA = {"pq": (0.2627, 0.0593), "hlg": (0.2627, 0.0593), "p3": (0.2126, 0.0722)}


def in_planes(rgb, kind):
    """A signal as planes of 10 bits, limited range, 4:4:4."""
    red, blue = LUMA[kind]
    y = rgb @ (red, 1 - red - blue, blue)
    cb, cr = (rgb[..., 2] - y) / (2 - 2 * blue), (rgb[..., 0] - y) / (2 - 2 * red)
    levels = (64 + 876 * y, 512 + 896 * cb, 512 + 896 * cr)
    return media.Planes(*(np.round(plane).astype(np.uint16) for plane in levels))


def decibels(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.fixture
def frame():
    return smooth(1, 40, 56)[0] * 0.75  # below the part that is compressed


@pytest.mark.parametrize("kind", COLOURS)
def test_videos_are_shown_as_sdr(tmp_path, frame, kind):
    planes = [in_planes(signal(frame, kind), kind)] * 2
    path = write(tmp_path / "a.mkv", planes, pixel_format="yuv444p10le", colour=COLOURS[kind])
    info = media.probe(path)
    assert info.colour == COLOURS[kind]
    assert media.is_hdr(info.colour) == (kind != "p3")
    found = list(media.read_frames(path))
    assert len(found) == 2 and decibels(found[1], frame) > 40
    for a, b in zip(next(media.read_planes(path)).frame, planes[0], strict=True):  # not mapped
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["pq", "hlg"])
def test_highlights_are_compressed(kind):
    nits = np.array([0, 1, 50, 203, 400, 1000, 4000])
    grey = {"pq": pq, "hlg": lambda x: hlg(x).clip(0, 1)}[kind](nits)
    rgb = np.repeat(np.round(65535 * grey).astype(np.uint16)[None, :, None], 3, axis=-1)
    found = sdr.map_to_sdr(rgb, COLOURS[kind])[0, :, 1].astype(int)
    np.testing.assert_allclose(found[1:3], 255 * (nits[1:3] / 203) ** (1 / 2.4), atol=1)
    assert found[0] == 0 and (np.diff(found)[:5] > 5).all() and found[-1] == found[-2] == 255
    assert 225 < found[3] < 240  # white has room above


def in_png(frame, numbers):
    """A PNG with the chunk cICP: primaries and transfer."""
    data = b"cICP" + bytes([*numbers, 0, 1])
    file = images.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    whole = file.getvalue()
    return whole[:33] + struct.pack(">I", 4) + data + struct.pack(">I", zlib.crc32(data)) + whole[33:]


def test_stills_are_shown_as_sdr(tmp_path, frame):
    levels = np.round(255 * signal(frame, "pq")).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(in_png(levels, (9, 16)))
    Image.fromarray(levels).save(
        tmp_path / "a.heic", quality=-1, chroma=444, color_primaries=9, transfer_characteristics=16
    )
    Image.fromarray(levels).save(tmp_path / "a.avif", quality=100, subsampling="4:4:4")
    data = (tmp_path / "a.avif").read_bytes()
    place = data.index(b"colrnclx") + 8
    (tmp_path / "a.avif").write_bytes(data[:place] + struct.pack(">HH", 9, 16) + data[place + 4 :])
    for suffix in (".png", ".heic", ".avif"):
        path = tmp_path / f"a{suffix}"
        assert decibels(images.load(path), frame) > 30
        assert media.is_hdr(media.probe(path).colour)
    (tmp_path / "b.png").write_bytes(in_png(levels, (1, 13)))
    np.testing.assert_array_equal(images.load(tmp_path / "b.png"), levels)


def test_display_p3_of_stills(tmp_path):
    levels = smooth(1, 40, 56)[0]
    (tmp_path / "a.png").write_bytes(in_png(levels, (12, 13)))
    value = levels / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    light = (light @ np.linalg.inv(TO_P3).T).clip(0, 1)
    wanted = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(images.load(tmp_path / "a.png"), 255 * wanted, atol=2)
