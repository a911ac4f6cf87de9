import numpy as np
import pytest

from deepsteg_jax.schemes.adaptive import trellis


def whole_groups(samples, rate):
    """Message bits at `rate` bits per sample, whole groups only."""
    return int(samples * rate) // trellis.BITS * trellis.BITS


def make(samples, rate, seed, height=4):
    rng = np.random.default_rng(seed)
    layout = trellis.layout(samples, whole_groups(samples, rate), height)
    symbols = rng.integers(0, 256, samples, dtype=np.int32)
    costs = np.repeat(rng.exponential(1, (samples, 1)), 2, 1).astype(np.float32)
    return layout, symbols, costs, rng.integers(0, 2, layout.bits, dtype=np.uint8)


def forbid(symbols, costs, wet, seed):
    """Forbid leaving the range, and a share of all samples to change."""
    costs = np.where(np.stack([symbols == 0, symbols == 255], 1), np.inf, costs)
    costs[np.random.default_rng(seed).random(len(costs)) < wet] = np.inf
    return costs.astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "rate", "wet", "height"),
    [
        (2000, 0.4, 0.3, 4),
        (2001, 0.77, 0.0, 3),
        (5003, 0.1, 0.6, 4),
        (4000, 0.01, 0.9, 4),
    ],
)
def test_message_is_extracted_and_nothing_forbidden_is_changed(samples, rate, wet, height):
    layout, symbols, costs, message = make(samples, rate, samples, height)
    symbols[::3] = np.where(symbols[::3] < 128, 0, 255)  # many saturated samples
    costs = forbid(symbols, costs, wet, samples)
    changes, met = trellis.embed(layout, symbols, costs, message)
    changes = np.asarray(changes)
    assert met
    assert changes.dtype == np.int8
    assert changes.shape == (samples,)
    assert set(np.unique(changes)) <= {-1, 0, 1}
    assert np.isfinite(costs[changes == -1, 0]).all()
    assert np.isfinite(costs[changes == 1, 1]).all()
    np.testing.assert_array_equal(trellis.extract(layout, symbols + changes), message)


def test_message_needs_no_whole_group_of_bits():
    layout = trellis.layout(500, 33, 2)
    message = np.arange(33, dtype=np.uint8) % 2
    symbols = np.full(500, 1023, np.int32)
    changes, met = trellis.embed(layout, symbols, np.ones((500, 2), np.float32), message)
    assert met
    np.testing.assert_array_equal(trellis.extract(layout, symbols + changes), message)


def test_lanes_of_a_large_frame_are_searched_in_stripes(monkeypatch):
    monkeypatch.setattr(trellis, "LANES", 4)
    monkeypatch.setattr(trellis, "LONGEST", 300)
    layout, symbols, costs, message = make(3100, 0.4, 7)
    assert layout.lanes == 12
    changes, met = trellis.embed(layout, symbols, costs, message)
    assert met
    np.testing.assert_array_equal(trellis.extract(layout, symbols + changes), message)


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_distortion_is_near_the_bound(rate):
    layout, symbols, costs, message = make(20_000, rate, 1, trellis.HEIGHT)
    changes, _ = trellis.embed(layout, symbols, costs, message)
    distortion = np.mean(np.abs(changes) * costs[:, 0])
    least = trellis.bound(costs, layout.bits / layout.samples)
    assert least < distortion < 1.30 * least


def test_both_directions_are_taken_alike():
    layout, symbols, costs, message = make(20_000, 0.4, 2, trellis.HEIGHT)
    changes = np.asarray(trellis.embed(layout, symbols, np.ones_like(costs), message)[0])
    assert abs(changes.sum()) < 4 * np.sqrt(np.abs(changes).sum())


def test_first_samples_of_the_lanes_may_be_forbidden():
    layout, symbols, costs, message = make(2000, 0.4, 8)
    assert layout.width == 4
    costs[: 4 * layout.lanes] = np.inf
    assert trellis.embed(layout, symbols, costs, message)[1]


def test_too_many_forbidden_changes_are_told():
    layout, symbols, costs, message = make(2000, 0.4, 3)
    assert not trellis.embed(layout, symbols, forbid(symbols, costs, 0.95, 3), message)[1]
    assert not trellis.embed(layout, symbols, np.full_like(costs, np.inf), message)[1]


def test_embedding_twice_gives_the_same_changes():
    layout, symbols, costs, message = make(2000, 0.4, 4)
    once, again = (np.asarray(trellis.embed(layout, symbols, costs, message)[0]) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_scale_of_the_costs_does_not_matter():
    layout, symbols, costs, message = make(2000, 0.4, 5)
    once, again = (np.asarray(trellis.embed(layout, symbols, c, message)[0]) for c in (costs, costs * 2**20))
    np.testing.assert_array_equal(once, again)


def test_what_symbols_carry_stays_the_same_over_versions():
    bits = np.asarray(trellis.extract(trellis.layout(200, 38, 3), np.arange(200) ** 2))
    assert int("".join(map(str, bits)), 2) == 0x1F5F901BF2


def test_a_sample_matters_to_few_groups_of_bits():
    layout, symbols, _, _ = make(2000, 0.1, 6)
    message = np.asarray(trellis.extract(layout, symbols))
    symbols[1000] += 1
    changed = np.flatnonzero(message != np.asarray(trellis.extract(layout, symbols)))
    groups = np.unique(changed // trellis.BITS)
    assert 1 <= len(groups) <= layout.height


@pytest.mark.parametrize(("samples", "bits"), [(100, 100), (10, 19), (100, 0)])
def test_layout_refuses_what_does_not_fit(samples, bits):
    with pytest.raises(ValueError, match="cannot carry"):
        trellis.layout(samples, bits)


def test_capacity_fits_the_layout():
    for samples in (300, 1000, 172_032, 3_110_400):
        for rate in (0.02, 0.1, 0.4, 0.7):
            bits = whole_groups(samples, rate)
            if bits:
                layout = trellis.layout(samples, bits)
                assert rate * samples - trellis.BITS < bits <= rate * samples
                assert (layout.trits - layout.spare) * layout.lanes * trellis.BITS >= bits * trellis.TRITS
                assert 2 * layout.trits <= layout.length


def test_bound_of_equal_costs_is_the_entropy():
    ternary, binary = np.ones((1, 2)), np.array([[1.0, np.inf]])
    rate = 0.11
    for costs, kinds in ((ternary, 2), (binary, 1)):
        p = trellis.bound(costs, rate)
        entropy = -p * np.log2(p / kinds) - (1 - p) * np.log2(1 - p)
        assert entropy == pytest.approx(rate, rel=1e-6)
