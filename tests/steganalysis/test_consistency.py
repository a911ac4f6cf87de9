"""Tests that need no training, on pictures that came out of a codec and on changed ones."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from deepsteg_jax import media
from deepsteg_jax.steganalysis import consistency
from tests.synthetic import smooth


@pytest.fixture
def changed():
    rng = np.random.default_rng(0)

    def change(x: np.ndarray, share: float = 0.05) -> np.ndarray:
        return np.where(rng.random(x.shape) < share, x ^ 1, x).astype(np.uint8)

    return change


def test_a_picture_that_was_420_lies_on_the_lattice_until_it_is_changed(changed):
    frames = np.stack(smooth(2, 64, 96))
    data = media.compress(frames, "ffv1", "yuv420p", {"threads": "1"}, media.FOLDER_RATE)
    decoded = media.decompress(data)[0]
    assert consistency.off_lattice(decoded) <= consistency.LATTICE_BOUND
    assert consistency.off_lattice(changed(decoded)) > consistency.LATTICE_BOUND


def test_a_decoded_jpeg_lies_on_its_lattice_until_it_is_changed(changed):
    file = BytesIO()
    noise = np.random.default_rng(1).integers(60, 190, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((256, 256)).save(file, "JPEG", quality=90, subsampling=0)
    picture = Image.open(file)
    decoded, quantisers = np.asarray(picture), np.array(picture.quantization[0]).reshape(8, 8)
    assert consistency.quantisation_error(decoded, quantisers) <= consistency.ERROR_BOUND
    assert consistency.quantisation_error(changed(decoded, 0.2), quantisers) > consistency.ERROR_BOUND
