"""The scheme `adaptive_jpeg`, file to file: nothing here looks at steganalysis."""

from types import SimpleNamespace

import numpy as np
import pytest

from configs.adaptive_jpeg import get_config
from deepsteg_jax import api, loading, media, pipeline
from deepsteg_jax.errors import UserError
from deepsteg_jax.media import jpeg
from deepsteg_jax.schemes.adaptive import coefficients
from deepsteg_jax.schemes.adaptive.jpeg import JpegScheme
from deepsteg_jax.schemes.base import NOTHING
from tests.helpers import names
from tests.media.test_jpeg import CAMERA, coded
from tests.schemes.adaptive.conftest import KEY, hide, quiet

SECRET = np.random.default_rng(1).bytes(100)


def make_scheme(rate=0.3):
    """The scheme with a low trellis, which compiles and runs soon."""
    config = get_config()
    config.payload.rate, config.model.height = rate, 4
    return JpegScheme(config, None)


def reveal(stego, output, key=KEY):
    """Reveals file to file."""
    return pipeline.reveal([make_scheme()], key, stego, output, quiet)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    """SECRET in a picture of 120x136 as a camera codes it."""
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "cover.jpg").write_bytes(coded(120, 136, **CAMERA, comment=b"mine"))
    (folder / "secret.bin").write_bytes(SECRET)
    report = hide(folder / "cover.jpg", folder / "secret.bin", folder / "stego.jpg", make_scheme())
    return SimpleNamespace(
        cover=folder / "cover.jpg", secret=folder / "secret.bin", stego=folder / "stego.jpg", report=report
    )


def test_a_file_comes_back_bit_for_bit(tmp_path, hidden):
    assert "bit per coefficient" in hidden.report.summary()
    cover, stego = (jpeg.decode(path.read_bytes()) for path in (hidden.cover, hidden.stego))
    moves = coefficients.flat(stego).astype(int) - coefficients.flat(cover)
    assert set(np.abs(moves)) == {0, 1} and np.count_nonzero(moves) < 8 * len(SECRET)
    sizes = [path.stat().st_size for path in (hidden.cover, hidden.stego)]
    assert abs(sizes[1] / sizes[0] - 1) < 0.02 and b"mine" in hidden.stego.read_bytes()
    reveal(hidden.stego, tmp_path / "out.bin")
    assert (tmp_path / "out.bin").read_bytes() == SECRET
    reveal(hidden.stego, f"{tmp_path}/folder/")
    assert (tmp_path / "folder/secret.bin").read_bytes() == SECRET


def test_all_that_fits(tmp_path, hidden):
    scheme, info = make_scheme(), media.probe(hidden.cover)
    room = scheme.holds(info, 1)
    (tmp_path / "s").write_bytes(data := np.random.default_rng(2).bytes(room - len("s")))
    report = hide(hidden.cover, tmp_path / "s", tmp_path / "stego.jpg", scheme)
    assert f"{room / 1000:.1f} kB" in scheme.capacity(info, 1) and "; 0.3" in report.summary()
    reveal(tmp_path / "stego.jpg", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    (tmp_path / "s").write_bytes(data + b"1")
    with pytest.raises(UserError, match=r"has .* kB and .* kB fit"):
        hide(hidden.cover, tmp_path / "s", tmp_path / "more.jpg", scheme)
    assert "more.jpg" not in names(tmp_path)


def test_another_key_and_an_innocent_picture_say_the_same(tmp_path, hidden):
    for path, key in ((hidden.stego, bytes(32)), (hidden.cover, KEY)):
        with pytest.raises(UserError) as caught:
            reveal(path, tmp_path / "out", key)
        assert str(caught.value) == NOTHING
    assert names(tmp_path) == []


def test_a_changed_stego_gives_nothing(tmp_path, hidden):
    data = hidden.stego.read_bytes()
    frame = jpeg.decode(data)
    public = coefficients.places(sum(p.size for p in frame.planes) // 64, 16, 32)
    samples = coefficients.flat(frame)
    free = np.setdiff1d(np.flatnonzero(samples), np.concatenate(public))
    samples[free] += 1
    (tmp_path / "a.jpg").write_bytes(jpeg.replace_coefficients(data, coefficients.frame_of(samples, frame)))
    with pytest.raises(UserError, match="was changed after hiding"):
        reveal(tmp_path / "a.jpg", tmp_path / "out")
    assert names(tmp_path) == ["a.jpg"]


def test_two_stegos_share_no_salt(tmp_path, hidden):
    hide(hidden.cover, hidden.secret, tmp_path / "again.jpg", make_scheme())
    assert (tmp_path / "again.jpg").read_bytes() != hidden.stego.read_bytes()


@pytest.mark.parametrize(
    ("cover", "output", "words"),
    [
        (coded(), "a.png", "the cover stays a JPEG; use .jpg"),
        (coded(120, 136, mode="CMYK"), "a.jpg", "neither grey nor .*; or use .png"),
        (coded(16, 16), "a.jpg", "has only .* larger or busier"),
        (coded(120, 136), "no/a.jpg", "does not exist"),
    ],
)
def test_covers_and_outputs_that_do_not_do(tmp_path, hidden, cover, output, words):
    (tmp_path / "cover.jpg").write_bytes(cover)
    with pytest.raises(UserError, match=words):
        hide(tmp_path / "cover.jpg", hidden.secret, tmp_path / output, make_scheme())
    assert names(tmp_path) == ["cover.jpg"]


@pytest.mark.parametrize("change", [{"payload.rate": 0.6}, {"model.height": 3}, {"model.chroma": 0.0}])
def test_settings_that_make_no_sense(change):
    with pytest.raises(UserError, match=next(iter(change)).split(".")[1]):
        JpegScheme(loading.changed(get_config(), change), None)


def test_a_jpeg_for_file_stays_one(tmp_path, hidden):
    shipped = loading.Shipped()
    info = media.probe(hidden.cover)
    assert shipped.for_cover(info, "file", "a.JPG") == "adaptive_jpeg"
    assert shipped.for_cover(info, "file", "a.png") == shipped.for_cover(info, "file") == "adaptive"
    assert shipped.for_cover(info, "post", "a.jpg") == "robust_image"
    assert shipped.for_stego(info, False) == ["adaptive_jpeg", "robust_image", "robust"]
    changes = {"payload.rate": 0.3, "model.height": 4}
    files = hidden.cover, hidden.secret, tmp_path / "a.jpg"
    api.hide_file(*files, KEY, purpose="file", changes=changes)
    api.reveal_file(tmp_path / "a.jpg", tmp_path / "out", KEY)
    assert (tmp_path / "out").read_bytes() == SECRET
    assert "(adaptive_jpeg)" in api.describe(hidden.cover, "file")
