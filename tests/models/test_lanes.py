import jax.numpy as jnp
import numpy as np
import pytest

from deepsteg_jax.models import lanes
from deepsteg_jax.models.quantiser import make_quantiser


@pytest.mark.parametrize("modulus", [2, 3])
def test_plain_digits_come_back(monkeypatch, modulus):
    monkeypatch.setattr(lanes, "PLAIN_AT_ONCE", 100)
    q, rng = make_quantiser(modulus), np.random.default_rng(modulus)
    scales = jnp.asarray(rng.integers(-60, 60, (2, 3, 96)))
    kinds = lanes.kinds_at(scales, 0, q)
    layout = lanes.lay_out(kinds, jnp.asarray(rng.integers(0, 3, (2, 5))), 4, q)
    counts = np.asarray(kinds.counts).reshape(-1, 96)[layout.kinds]
    assert 0 < np.mean(counts == 0) < 1
    values = np.array([rng.integers(0, modulus**n) for n in counts.ravel().tolist()]).reshape(counts.shape)
    by_hand = [
        [v // modulus**i % modulus for v, n in zip(*cell, strict=True) for i in range(n)]
        for cell in zip(values.tolist(), counts.tolist(), strict=True)
    ]
    assert [len(x) for x in by_hand] == kinds.sizes[layout.kinds].tolist()
    places = np.cumsum([0, *(len(x) + 3 for x in by_hand)])  # some free ones behind each cell's
    empty = jnp.full(places[-1] + 50, -1, jnp.int8)
    digits = lanes.write_plain(empty, jnp.asarray(values), layout, kinds, jnp.asarray(places[:-1]), q)
    expected = sum((x + [-1] * 3 for x in by_hand), []) + [-1] * 50
    np.testing.assert_array_equal(digits, expected)
    back = lanes.read_plain(digits, layout, kinds, jnp.asarray(places[:-1]), q)
    np.testing.assert_array_equal(back, values)

    # Cells of a lane lie one behind the other, and lanes begin with whole words.
    in_lanes = np.pad([len(x) for x in by_hand], (0, 2)).reshape(4, 3)
    np.testing.assert_array_equal(layout.before, (np.cumsum(in_lanes, 1) - in_lanes).ravel()[:10])
    np.testing.assert_array_equal(layout.plain_words, -(-in_lanes.sum(1) // q.coder.digits))


@pytest.mark.parametrize("cells", [1, 7, 16, 33])
def test_lanes_hold_neighbours(cells):
    values = jnp.arange(1, 3 * cells + 1).reshape(cells, 3)
    count = -(-cells // 16)
    dealt = lanes.to_lanes(values, count)
    each = -(-cells // count)
    assert dealt.shape == (count, 3 * each)
    np.testing.assert_array_equal(dealt[0], np.arange(1, 3 * each + 1))
    np.testing.assert_array_equal(lanes.from_lanes(dealt, cells, 3), values)
