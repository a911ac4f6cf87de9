import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from deepsteg_jax.media import images
from tests.synthetic import noise, smooth

DISPLAY_P3 = ((0.515102, 0.241182, -0.001050), (0.291965, 0.692236, 0.041882), (0.157153, 0.066582, 0.784378))
D50 = (0.9642, 1.0, 0.8249)


def fixed(numbers):
    return struct.pack(f">{len(numbers)}i", *(round(65536 * x) for x in numbers))


def profile(kind, space, tags, connection=b"XYZ "):
    """A minimal profile: header, table and data of tags."""
    place, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", place + len(data), len(content))
        data += content
    body = struct.pack(">I", len(tags)) + table + data
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), bytes(4), 0x02400000, kind, space, connection)
    head += bytes(12) + b"acsp" + bytes(28) + fixed(D50)
    return head + bytes(128 - len(head)) + body


def curve(gamma):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * gamma))


def wide_gamut(gamma=2.2):
    columns = {
        name: b"XYZ " + bytes(4) + fixed(xyz)
        for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), DISPLAY_P3, strict=True)
    }
    curves = {name: curve(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return profile(b"mntr", b"RGB ", {b"wtpt": b"XYZ " + bytes(4) + fixed(D50), **columns, **curves})


def grey_gamma(gamma=1.4):
    tags = {b"wtpt": b"XYZ " + bytes(4) + fixed(D50), b"kTRC": curve(gamma)}
    return profile(b"mntr", b"GRAY", tags)


def ink():
    """CMYK to L*a*b* by a table of the 16 corners: ink darkens, black more than the others."""
    corners = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(-1, 4)
    light = 255 * (1 - 0.25 * corners[:, :3].sum(1)) * (1 - 0.8 * corners[:, 3])
    shift = 40 * (corners[:, 1] - corners[:, 0]), 40 * (corners[:, 2] - corners[:, 1])
    lab = np.stack([light, 128 + shift[0], 128 + shift[1]], -1).clip(0, 255).astype(np.uint8)
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + fixed((1, 0, 0, 0, 1, 0, 0, 0, 1))
    table += 4 * ramp + lab.tobytes() + 3 * ramp
    return profile(b"prtr", b"CMYK", {b"A2B0": table}, b"Lab ")


def expected(image, icc):
    """Pillow's own answer."""
    source = ImageCms.ImageCmsProfile(BytesIO(icc))
    return np.asarray(
        ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    )


CASES = {
    "wide.png": ("RGB", wide_gamut),
    "wide.jpg": ("RGB", wide_gamut),
    "wide.webp": ("RGB", wide_gamut),
    "wide.tif": ("RGB", wide_gamut),
    "wide.avif": ("RGB", wide_gamut),
    "wide.heic": ("RGB", wide_gamut),
    "grey.png": ("L", grey_gamma),
    "grey.tif": ("L", grey_gamma),
    "ink.tif": ("CMYK", ink),
    "ink.jpg": ("CMYK", ink),
}


@pytest.mark.parametrize("name", CASES)
def test_profiles_are_applied(tmp_path, name):
    mode, make = CASES[name]
    image, icc = Image.fromarray(smooth(1, 40, 56)[0]).convert(mode), make()
    options = {"lossless": True} if name.endswith(".webp") else {}
    image.save(tmp_path / name, icc_profile=icc, **options)
    with Image.open(tmp_path / name) as stored:
        stored.load()
        wanted, plain = expected(stored, icc), np.asarray(stored.convert("RGB"))
    found = images.load(tmp_path / name)
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert np.abs(found.astype(int) - plain).max() > 10  # it makes a difference


def test_the_profile_of_jpeg_2000(tmp_path):
    image, icc = Image.fromarray(smooth(1, 40, 56)[0]), wide_gamut()
    image.save(tmp_path / "a.jp2")
    data = bytearray((tmp_path / "a.jp2").read_bytes())
    header, old = data.index(b"jp2h") - 4, data.index(b"colr") - 4
    size, of_old = (struct.unpack_from(">I", data, at)[0] for at in (header, old))
    new = struct.pack(">I", 11 + len(icc)) + b"colr\2\0\0" + icc
    data[old : old + of_old] = new
    struct.pack_into(">I", data, header, size - of_old + len(new))
    (tmp_path / "a.jp2").write_bytes(data)
    assert np.abs(images.load(tmp_path / "a.jp2").astype(int) - expected(image, icc)).max() <= 1


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3 = (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)


@pytest.mark.parametrize(
    "gamma, chromaticities, same_as",
    [
        (1 / 2.2, SRGB, None),
        (1 / 2.2, P3, wide_gamut),
        (1.0, P3, lambda: wide_gamut(1.0)),
        (1 / 1.4, (), None),
        (0, P3, None),
    ],
)
def test_numbers_for_colours_in_a_png(tmp_path, gamma, chromaticities, same_as):
    frame, file = smooth(1, 40, 56)[0], BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    data = file.getvalue()
    numbers = chunk(b"gAMA", struct.pack(">I", round(100_000 * gamma))) if gamma else b""
    if chromaticities:
        numbers += chunk(b"cHRM", struct.pack(">8I", *(round(100_000 * x) for x in chromaticities)))
    (tmp_path / "a.png").write_bytes(data[:33] + numbers + data[33:])
    found = images.load(tmp_path / "a.png")
    if same_as:
        assert np.abs(found.astype(int) - expected(Image.fromarray(frame), same_as())).max() <= 2
    elif gamma == 1 / 1.4:
        light = (frame / 255) ** 1.4
        wanted = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        np.testing.assert_allclose(found, 255 * wanted, atol=2)
    else:
        np.testing.assert_array_equal(found, frame)


def test_a_profile_and_transparency(tmp_path):
    rgba = np.dstack([smooth(1, 40, 56)[0], np.full((40, 56), 255, np.uint8)])
    rgba[:, 30:, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png", icc_profile=wide_gamut())
    found = images.load(tmp_path / "a.png")
    assert (found[:, 30:] == 255).all()
    wanted = expected(Image.fromarray(rgba[..., :3]), wide_gamut())
    assert np.abs(found.astype(int) - wanted)[:, :30].max() <= 1


def test_a_profile_of_srgb_changes_no_sample(tmp_path):
    frame = noise(1, 40, 56)[0]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(frame).save(tmp_path / "a.png", icc_profile=srgb)
    np.testing.assert_array_equal(images.load(tmp_path / "a.png"), frame)


@pytest.mark.parametrize("icc", [b"no profile", grey_gamma(), ink()])
def test_profiles_that_do_not_suit_are_left_out(tmp_path, icc):
    frame = noise(1, 9, 7)[0]
    Image.fromarray(frame).save(tmp_path / "a.png", icc_profile=icc)
    np.testing.assert_array_equal(images.load(tmp_path / "a.png"), frame)


def test_grey_with_the_profile_of_a_colour_picture(tmp_path):
    grey = Image.fromarray(smooth(1, 40, 56)[0]).convert("L")
    grey.save(tmp_path / "a.png", icc_profile=wide_gamut(1.4))
    wanted = expected(grey.convert("RGB"), wide_gamut(1.4))
    assert np.abs(images.load(tmp_path / "a.png").astype(int) - wanted).max() <= 1


def test_lab_becomes_rgb(tmp_path):
    rgb = Image.fromarray(smooth(1, 40, 56)[0])
    srgb = ImageCms.createProfile("sRGB")
    lab = ImageCms.profileToProfile(rgb, srgb, ImageCms.createProfile("LAB"), outputMode="LAB")
    lab.save(tmp_path / "a.tif")
    assert np.abs(images.load(tmp_path / "a.tif").astype(int) - np.asarray(rgb)).mean() < 3
