import jax.numpy as jnp
import numpy as np
import pytest

from deepsteg_jax.models import lanes, rans
from deepsteg_jax.models.quantiser import make_quantiser


@pytest.mark.parametrize("modulus", [2, 3])
def test_plain_digits_come_back(modulus):
    q, rng = make_quantiser(modulus), np.random.default_rng(modulus)
    scales = jnp.asarray(rng.integers(-60, 60, (2, 3, 96)))
    kinds = lanes.kinds_at(scales, 0, q)
    layout = lanes.lay_out(kinds, jnp.asarray(rng.integers(0, 3, (2, 5))), 4, q)
    counts = np.asarray(kinds.plain)[layout.kinds]
    assert 0 < np.mean(counts == 0) < 1
    values = np.array([rng.integers(0, modulus**n) for n in counts.ravel().tolist()]).reshape(counts.shape)
    order = np.arange(192) ^ 1  # the second of a pair comes first, and so do low digits
    by_hand = [
        [v // modulus**i % modulus for v, n in zip(value[order], count[order], strict=True) for i in range(n)]
        for value, count in zip(values, counts, strict=True)
    ]
    assert [len(x) for x in by_hand] == kinds.sizes[layout.kinds].tolist()

    # Cells of a lane lie one behind the other, and lanes begin with whole words.
    in_lanes = np.pad([len(x) for x in by_hand], (0, 2)).reshape(4, 3)
    np.testing.assert_array_equal(layout.before, (np.cumsum(in_lanes, 1) - in_lanes).ravel()[:10])
    np.testing.assert_array_equal(layout.plain_words, -(-in_lanes.sum(1) // q.coder.digits))

    words = np.asarray(layout.plain_words) + rans.STATE_WORDS
    starts = np.cumsum(words) - words
    expected = np.zeros(q.coder.digits * words.sum(), int)
    expected[-3:] = -1  # not used
    for lane, start in enumerate(starts * q.coder.digits):
        digits = sum(by_hand[3 * lane :][:3], [])
        expected[start:][: len(digits)] = digits
    places = lanes.plain_places(layout, kinds, jnp.asarray(starts), q.coder.digits)
    empty = jnp.zeros(len(expected), jnp.int32)
    marks = lanes.mark(empty, places, jnp.asarray(values), jnp.asarray(counts))
    digits = lanes.write_marked(marks, len(expected) - 3, q)
    np.testing.assert_array_equal(digits, expected)
    back = lanes.read_plain(digits, kinds.scales[layout.kinds], places, q)
    np.testing.assert_array_equal(back, values)


@pytest.mark.parametrize("cells", [1, 7, 16, 33])
def test_lanes_hold_neighbours(cells):
    values = jnp.arange(1, 3 * cells + 1).reshape(cells, 3)
    count = -(-cells // 16)
    dealt = lanes.to_lanes(values, count)
    each = -(-cells // count)
    assert dealt.shape == (3 * each, count)
    np.testing.assert_array_equal(dealt[:, 0], np.arange(1, 3 * each + 1))
    np.testing.assert_array_equal(lanes.from_lanes(dealt, cells, 3), values)
