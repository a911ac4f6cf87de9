"""Costs from a network are the sender's own choice."""

import jax
import numpy as np
import pytest

from configs.adaptive_learned import get_config
from deepsteg_jax import media, models
from deepsteg_jax.schemes.adaptive.scheme import AdaptiveScheme
from tests.schemes.adaptive.conftest import SECRET, hide, read_planes, reveal


@pytest.fixture(scope="module")
def learned():
    config = get_config("tiny")
    config.payload.rate, config.model.height = 0.2, 4
    params = models.build(config.model).init(jax.random.key(0))
    kernel = params["hide"]["Conv_3"]["kernel"]
    params["hide"]["Conv_3"]["kernel"] = 200 * jax.random.normal(jax.random.key(1), kernel.shape)
    return AdaptiveScheme(config, params.__getitem__)


def test_it_hides_elsewhere_and_every_receiver_reads_it(hidden, learned, tmp_path):
    hide(hidden.cover_path, hidden.secret, tmp_path / "stego.mkv", learned)
    reveal(tmp_path / "stego.mkv", tmp_path / "found.bin")
    assert (tmp_path / "found.bin").read_bytes() == SECRET
    moved = [changed(read_planes(path), hidden.cover) for path in (tmp_path / "stego.mkv", hidden.path)]
    np.testing.assert_allclose(*(x.mean() for x in moved), rtol=0.2)
    assert (moved[0] & moved[1]).mean() < 0.5 * moved[1].mean()


def changed(stego: list[media.Planes], cover: list[media.Planes]) -> np.ndarray:
    """Which samples of luma differ."""
    return np.stack([a[0] != b[0] for a, b in zip(stego, cover, strict=True)])
