import numpy as np
import pytest

from deepsteg_jax import media
from deepsteg_jax.schemes.adaptive import embedding
from deepsteg_jax.schemes.adaptive.embedding import Pricing
from tests.schemes.adaptive.conftest import KEY, frames

DATA = np.random.default_rng(0).bytes(90)
NOTHING = np.zeros(0, int)


def embed(planes, taken=NOTHING, highest=255, neighbours=(), **pricing):
    order = embedding.keyed_order(KEY, 0, sum(plane.size for plane in planes))
    free = np.ones((len(order), 2), bool)
    free[taken] = False
    pricing = Pricing(highest, **pricing)
    return embedding.embed(planes, neighbours, order[None], free, [DATA], 3, pricing), order


def changes(stego, cover):
    return np.concatenate([(a.astype(int) - b).ravel() for a, b in zip(stego, cover, strict=True)])


def in_planes(highest=255):
    planes = media.from_rgb(frames(1)[0], "yuv420p")
    return tuple(planes) if highest == 255 else tuple(plane.astype(np.uint16) * 4 for plane in planes)


@pytest.mark.parametrize(("value", "highest"), [(0, 255), (255, 255), (0, 1023), (1023, 1023)])
def test_saturated_samples_never_wrap(value, highest):
    cover = tuple(np.full_like(plane, value) for plane in in_planes(highest))
    stego, order = embed(cover, highest=highest)
    assert set(changes(stego, cover)) == {0, 1 if value == 0 else -1}
    assert embedding.extract(stego, order, len(DATA), 3) == DATA


def test_taken_samples_stay():
    cover = in_planes()
    taken = np.random.default_rng(1).choice(sum(plane.size for plane in cover), 1500, replace=False)
    stego, order = embed(cover, taken)
    assert not changes(stego, cover)[taken].any()
    assert embedding.extract(stego, order, len(DATA), 3) == DATA


def test_too_few_samples_that_can_be_changed():
    cover = in_planes()
    assert embed(cover, np.arange(sum(plane.size for plane in cover)))[0] is None


def test_dear_planes_and_still_samples_change_less():
    cover = in_planes()
    luma = cover[0].size
    chroma = [np.abs(changes(embed(cover, chroma=factor)[0], cover)[luma:]).sum() for factor in (1.0, 1e-4)]
    assert chroma[1] > chroma[0] + 20
    beside = tuple(plane.copy() for plane in cover)
    beside[0][:32] ^= 64  # the upper half moves
    stego, _ = embed(cover, neighbours=(beside, beside), still=100.0)
    upper, lower = np.split(np.abs(changes(stego, cover)[:luma]), 2)
    assert lower.sum() < upper.sum() / 4


def test_orders_differ_by_key_and_frame():
    orders = [embedding.keyed_order(*args, 100).tolist() for args in ((KEY, 0), (KEY, 1), (bytes(32), 0))]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len(set(map(tuple, orders))) == 3


def test_channels_of_rgb_move_together():
    cover = frames(1)[0].copy()
    cover[:4, :, 0], cover[4:8, :, 2] = 255, 0  # red and blue are at their ends
    planes, free = embedding.planes_of(cover), embedding.free_of(cover)
    order = embedding.keyed_order(KEY, 0, len(free))
    found = embedding.embed(planes, (), order[None], free, [DATA], 3, embedding.Pricing())
    stego = embedding.frame_of(found, cover)
    moves = stego.astype(int) - cover
    assert (moves == moves[..., :1]).all() and set(np.unique(moves)) == {-1, 0, 1}
    assert embedding.extract(embedding.planes_of(stego), order, len(DATA), 3) == DATA


def test_samples_of_grey_pictures_are_pixels():
    colour = frames(1)[0]
    assert embedding.sample_count(colour) == colour.size
    assert embedding.sample_count(np.repeat(colour[..., :1], 3, axis=2)) == colour[..., 0].size


def test_what_fits():
    assert embedding.fits(1000, 90, 3) and not embedding.fits(1000, 100, 3)
