import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from ml_collections import ConfigDict

from deepsteg_jax import models, stripes


@pytest.mark.parametrize(("count", "most", "wanted"), [(12, 5, 4), (12, 12, 12), (13, 12, 1), (7, 0, 1)])
def test_divisor(count, most, wanted):
    assert stripes.divisor(count, most) == wanted


def test_cells_come_back():
    cells = np.arange(2 * 12 * 3).reshape(2, 12, 3)
    cut = stripes.to_stripes(cells, 4)
    np.testing.assert_array_equal(cut[1, 0], cells[0, 3:6])
    np.testing.assert_array_equal(stripes.from_stripes(cut), cells)


@pytest.mark.parametrize("size", [(20, 31), (8, 40), (13, 14), (40, 8)])
def test_tiles_are_the_whole(size):
    """Integer sums of 5x5 pixels, zeros beyond the border; fewer pixels of overlap show."""
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.integers(0, 100, (2, *size, 1)), jnp.float32) for _ in range(2))

    def blur(x, y):
        return lax.conv_general_dilated(
            x * y, jnp.ones((5, 5, 1, 1)), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    whole = blur(x, y)
    np.testing.assert_array_equal(stripes.map_tiles(blur, 6, 2, x, y), whole)
    assert np.any(stripes.map_tiles(blur, 6, 1, x, y) != whole)


MODELS = [
    {"name": "prep_hide_reveal", "features": 3, "hide_kernels": (5,), "reveal_kernels": (3, 7)},
    {"name": "invertible", "block": 2, "start": "identity", "couplings": 2, "features": 3, "depth": 1},
    {
        "name": "invertible",
        "block": 4,
        "start": "modulo",
        "modulus": 5,
        "couplings": 1,
        "features": 3,
        "depth": 1,
    },
]


@pytest.mark.parametrize(
    "settings", MODELS, ids=lambda settings: f"{settings['name']} {settings.get('block')}"
)
def test_networks_in_tiles_are_the_whole(settings, monkeypatch):
    """With random last layers, so that all that a pixel depends on counts."""
    model = models.build(ConfigDict(settings | {"frames": 1, "dtype": "float32", "remat": False}))
    params = jax.jit(model.init)(jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params)
    scale = 16 * settings.get("block", 2)
    cover, secret = rng.random((2, 1, 3 * scale, 2 * scale, 3), np.float32)
    module = getattr(models, settings["name"])

    def both():
        return jax.jit(model.hide)(params["hide"], cover, secret), jax.jit(model.reveal)(
            params["reveal"], cover
        )

    whole = both()
    monkeypatch.setattr(module, "TILE", 9)
    for at_once, tiled in zip(whole, both(), strict=True):
        np.testing.assert_allclose(tiled, at_once, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("count", "parts"), [(16, 8), (15, 5), (7, 7), (11, 1)])
def test_cells_are_worked_on_in_parts(count, parts):
    cells, factors = np.arange(2 * count).reshape(count, 2), np.arange(count)
    seen = []

    def work(cells, factors):
        seen.append(len(cells))
        return cells * factors[:, None], factors

    products, back = stripes.map_parts(work, cells, factors)
    np.testing.assert_array_equal(products, cells * factors[:, None])
    np.testing.assert_array_equal(back, factors)
    assert set(seen) == {count // parts}
