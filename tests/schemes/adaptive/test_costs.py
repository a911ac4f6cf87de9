import numpy as np
import pytest
from scipy import ndimage

from deepsteg_jax.schemes.adaptive import costs

KB = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]])


def plane(h=40, w=56, highest=255, seed=0):
    return np.random.default_rng(seed).integers(0, highest + 1, (h, w)).astype(np.int32)


@pytest.mark.parametrize(("h", "w", "highest"), [(40, 56, 255), (8, 9, 255), (33, 20, 1023)])
def test_hill_is_the_paper_s(h, w, highest):
    x = plane(h, w, highest)
    residual = np.abs(ndimage.convolve(x.astype(float), KB, mode="reflect"))
    cost = ndimage.uniform_filter(1 / ndimage.uniform_filter(residual, 3, mode="reflect"), 15, mode="reflect")
    np.testing.assert_allclose(costs.hill(x), cost, rtol=1e-5)


def test_flat_regions_cost_most_and_stay_finite():
    x = plane(64, 128)
    x[:, :64] = 100
    cost = np.asarray(costs.hill(x))
    assert np.isfinite(cost).all()
    assert cost[:, :50].min() > 100 * cost[:, 80:].max() > 0


def test_changes_out_of_range_cost_infinity():
    x = plane()
    x[0, :3], x[1, :3] = 0, 255
    both = np.asarray(costs.changes(x))
    np.testing.assert_array_equal(np.isinf(both[..., 0]), x == 0)
    np.testing.assert_array_equal(np.isinf(both[..., 1]), x == 255)
    assert np.isfinite(costs.changes(x, highest=1023)[..., 1]).all()


def test_weight_scales_the_plane():
    x = plane()
    np.testing.assert_allclose(costs.changes(x, weight=3.0), 3 * costs.changes(x), rtol=1e-6)


def test_samples_that_stand_still_cost_more():
    x = plane()
    before, after = x.copy(), x.copy()
    before[:, :10] += 1
    after[:, 10:20] -= 2
    factor = np.asarray(costs.changes(x, (before, after), still=5.0) / costs.changes(x))
    factor = (
        factor[(x > 0) & (x < 255), 0],
        np.broadcast_to(np.arange(56) >= 20, x.shape)[(x > 0) & (x < 255)],
    )
    np.testing.assert_allclose(factor[0], np.where(factor[1], 5, 1), rtol=1e-6)


def test_nearly_still_counts_where_asked():
    x = plane()
    assert np.asarray(costs.standing_still(x, (x + 1,), near=1)).all()
    assert not np.asarray(costs.standing_still(x, (x + 1,), near=0)).any()
    assert not np.asarray(costs.standing_still(x, ())).any()
