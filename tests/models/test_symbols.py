"""`robust`: symbols are exact without a codec, the network learns from records, calibration finds factors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import logistic

from configs.robust import get_config
from deepsteg_jax import media, models
from deepsteg_jax.errors import UserError
from deepsteg_jax.models import symbols as symbol_model
from tests.synthetic import in_planes, noise, smooth

VIDEO, IMAGE = (get_config(variant).model for variant in ("", "image"))
CARRIERS = {"planes": symbol_model.carriers_of(VIDEO), "rgb": symbol_model.make_carriers((1.0,) * 4, ())}
KINDS = pytest.mark.parametrize("kind", CARRIERS)


def _tiny(config):
    config = config.copy_and_resolve_references()
    config.update(features=8, depth=1)
    return config


def _cover(kind, *shape, **options):
    frames = smooth(*shape, **options)
    return in_planes(frames) if kind == "planes" else frames


def _symbols(frames, height, width, carriers=CARRIERS["planes"], seed=0):
    shape = (frames, height // 16, width // 16, len(carriers.blocks))
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


@functools.cache
def _function(name, kind, **fixed):
    """A function of the module for the carriers of a kind, compiled as a whole."""
    return jax.jit(functools.partial(getattr(symbol_model, name), carriers=CARRIERS[kind], **fixed))


def _errors(kind, stego, symbols, spacing):
    phases = np.asarray(_function("read_phases", kind)(stego, spacing))
    return np.abs((phases - symbols + 0.5) % 1 - 0.5)


def _init(model, seed=0):
    return jax.jit(model.init)(jax.random.key(seed))


def _equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        jax.tree.leaves(jax.tree.map(np.array_equal, a, b))
    )


# --- macroblocks and carriers ---------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("size", [(32, 48), (45, 61), (17, 16)])
def test_macroblocks_come_back(kind, size):
    cover = _cover(kind, 2, *size)
    samples = symbol_model.to_macroblocks(cover)
    blocks, channels = (6, 1) if kind == "planes" else (4, 3)
    assert samples.shape == (2, size[0] // 16, size[1] // 16, blocks, 64, channels)
    assert _equal(symbol_model.from_macroblocks(samples, cover), jax.tree.map(np.float32, cover))


def test_a_macroblock_is_one_place_in_all_planes():
    """Four blocks of Y row by row, then that of Cb and that of Cr."""
    four, block = np.arange(4).reshape(2, 2), np.ones((8, 8))
    y, cb, cr = (np.kron(x, block)[None] for x in (np.arange(16).reshape(4, 4), four + 20, four + 30))
    planes = media.Planes(y, cb, cr)
    samples = np.asarray(symbol_model.to_macroblocks(planes))[..., 0]
    assert np.ptp(samples, axis=-1).max() == 0
    assert samples[0, 0, 1, :, 0].tolist() == [2, 3, 6, 7, 21, 31]
    assert samples[0, 1, 0, :, 0].tolist() == [8, 9, 12, 13, 22, 32]


@pytest.mark.parametrize(("luma", "chroma"), [((), ()), ((0.0,), ()), ((1.0,) * 64, ()), ((), (1.0,) * 64)])
def test_carriers_that_a_block_does_not_have(luma, chroma):
    with pytest.raises(UserError, match=r"config\.model\.luma and chroma"):
        symbol_model.make_carriers(luma, chroma)


def test_carriers_rise_in_frequency_and_have_spacings_of_their_own():
    assert symbol_model.make_carriers((1.0,), (0.0, 1.0, 2.0)).blocks.tolist() == [0, 1, 2, 3, 4, 5, 4, 5]
    carriers = symbol_model.make_carriers((1.0,), (1.0, 2.0), skip=1)
    assert carriers.blocks.tolist() == [0, 1, 2, 3, 4, 5, 4, 5]
    assert carriers.coefficients.tolist() == [8, 8, 8, 8, 8, 8, 2, 2]  # (0, 1) is skipped
    cover, symbols = _cover("planes", 1, 32, 48), _symbols(1, 32, 48, carriers)
    moved = [
        np.abs(np.asarray(symbol_model.read_values(x, carriers)) * carriers.spacings)
        for x in (cover, symbol_model.write_symbols(cover, symbols, 40.0, carriers))
    ]
    largest = np.abs(moved[1] - moved[0]).max((0, 1, 2))
    assert (largest[:6] < 21).all() and (largest[6:] > 25).all() and (largest[6:] < 41).all()


def test_planes_are_those_of_planes_and_the_luma_of_rgb():
    frames = smooth(2, 16, 16)
    planes = in_planes(frames)
    assert symbol_model.planes_of(planes) is planes
    (luma,) = symbol_model.planes_of(frames)
    np.testing.assert_allclose(luma, frames @ np.array([0.299, 0.587, 0.114]), atol=1e-3)


# --- symbols --------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("spacing", [16.0, 50.0, 90.0])
def test_symbols_are_read_as_they_were_written(kind, spacing):
    """Within 8-bit rounding."""
    cover, symbols = _cover(kind, 3, 48, 64), _symbols(3, 48, 64, CARRIERS[kind])
    stego = _function("write_symbols", kind)(cover, symbols, spacing)
    assert _equal(stego, jax.tree.map(np.round, stego))
    assert jax.tree.map(np.shape, stego) == jax.tree.map(np.shape, cover)
    assert np.quantile(_errors(kind, stego, symbols, spacing) * spacing, 0.95) < 1


def test_stego_is_as_near_as_it_says():
    spacing, coefficients = 40.0, 3
    wanted = coefficients * spacing**2 / 768
    cover, carriers = noise(2, 128, 128, low=60, high=196), symbol_model.make_carriers((1.0,) * 3, ())
    stego = symbol_model.write_symbols(cover, _symbols(2, 128, 128, carriers), spacing, carriers)
    assert np.mean((np.asarray(stego) - cover) ** 2) == pytest.approx(wanted, rel=0.05)
    cover, carriers = in_planes(cover), CARRIERS["planes"]
    stego = symbol_model.write_symbols(cover, _symbols(2, 128, 128), spacing, carriers)
    assert np.array_equal(stego.y, cover.y)
    for plane, before in zip(stego[1:], cover[1:], strict=True):
        assert np.mean((np.asarray(plane) - before) ** 2) == pytest.approx(wanted, rel=0.1)


@KINDS
@pytest.mark.parametrize("level", [0, 255])
def test_saturated_covers_carry_symbols_too(kind, level):
    frames = np.full((1, 64, 64, 3), level, np.uint8)
    cover = media.Planes(*(np.full((1, n, n), level, np.uint8) for n in (64, 32, 32)))
    cover, symbols = cover if kind == "planes" else frames, _symbols(1, 64, 64, CARRIERS[kind])
    stego = _function("write_symbols", kind)(cover, symbols, 40.0)
    assert all(x.min() >= 0 and x.max() <= 255 for x in jax.tree.leaves(stego))
    assert np.quantile(_errors(kind, stego, symbols, 40.0), 0.9) < 0.1


@KINDS
@pytest.mark.parametrize(("frames", "repeat"), [(8, 4), (7, 2), (5, 8)])
def test_repeated_symbols_are_those_of_the_mean(kind, frames, repeat):
    cover, symbols = _cover(kind, frames, 48, 64), _symbols(-(-frames // repeat), 48, 64, CARRIERS[kind])
    stego = _function("write_repeated", kind, repeat=repeat)(cover, symbols, 40.0)
    means = symbol_model.group_means(stego, repeat)
    assert np.quantile(_errors(kind, means, symbols, 40.0) * 40, 0.95) < 1
    for after, before in zip(jax.tree.leaves(stego), jax.tree.leaves(cover), strict=True):
        moves = np.asarray(after) - before
        assert np.abs(np.diff(moves[:repeat], axis=0)).max() <= 1  # all frames of a group move alike


def test_means_are_those_of_groups_of_which_the_last_may_be_shorter():
    planes = in_planes(smooth(5, 16, 16))
    found = symbol_model.group_means(jax.tree.map(np.float32, planes), 2)
    for mean, plane in zip(found, planes, strict=True):
        wanted = [plane[:2].mean(0), plane[2:4].mean(0), plane[4]]
        np.testing.assert_allclose(mean, wanted, rtol=1e-6)


@KINDS
def test_some_symbols_alone_are_written(kind):
    cover, symbols = _cover(kind, 2, 48, 64), _symbols(2, 48, 64, CARRIERS[kind])
    these = np.random.default_rng(0).random(symbols.shape) < 0.1
    before = _function("read_phases", kind)(cover, 40.0)
    stego = _function("write_some", kind)(cover, symbols, these, 40.0)
    assert np.quantile(_errors(kind, stego, symbols, 40.0)[these], 0.95) < 0.1  # 8-bit rounding
    assert np.quantile(_errors(kind, stego, before, 40.0)[~these], 0.95) < 0.1


@KINDS
def test_what_lies_outside_whole_macroblocks_stays(kind):
    cover = _cover(kind, 1, 45, 61)
    stego = _function("write_symbols", kind)(cover, _symbols(1, 32, 48, CARRIERS[kind]), 50.0)
    for after, before in zip(jax.tree.leaves(stego), jax.tree.leaves(cover), strict=True):
        height, width = (32, 48) if before.shape[1] == 45 else (16, 24)
        assert np.array_equal(after[:, height:], before[:, height:])
        assert np.array_equal(after[:, :, width:], before[:, :, width:])


# --- reliability ----------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [0.0, 4.0])
def test_the_density_is_one(top):
    error = np.linspace(-0.5, 0.5, 2001)[:-1]
    for scale, lost in ((0.01, 0.0), (0.1, 0.3), (0.2, 0.9)):
        given = jnp.asarray(error), jnp.full(2000, scale), jnp.full(2000, lost)
        density = symbol_model.error_density(*given, top)
        assert float(jnp.mean(density)) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("factor", "loss"), [(0.25, 0.0), (1.0, 0.3), (4.0, 0.0)])
def test_calibration_finds_the_factor(factor, loss):
    rng = np.random.default_rng(0)
    scale = np.exp(rng.normal(np.log(0.02), 0.5, 4000))
    error = logistic.rvs(scale=factor * scale, random_state=rng)
    error = np.where(rng.random(4000) < loss, rng.uniform(-0.5, 0.5, 4000), error)
    found = symbol_model.calibrate(error - np.round(error), scale, np.full(4000, 0.01))
    assert float(found[0]) == pytest.approx(factor)
    assert max(0.0, float(found[1])) == pytest.approx(loss, abs=0.11)


@pytest.mark.parametrize("config", [VIDEO, IMAGE], ids=["video", "image"])
def test_hide_and_reveal_take_symbols_for_the_secret(config):
    config = _tiny(config)
    model, carriers = models.build(config), symbol_model.carriers_of(config)
    params = _init(model)
    cover = jax.tree.map(lambda x: x[None], _cover("planes" if config.chroma else "rgb", 2, 32, 48))
    symbols = _symbols(2, 32, 48, carriers)[None]
    stego = jax.jit(model.hide)(params["hide"], cover, symbols)
    phase, scale, lost = jax.jit(model.reveal)(params["reveal"], stego)
    assert phase.shape == scale.shape == lost.shape == symbols.shape
    assert np.quantile(np.abs(symbol_model.wrap(phase - symbols)), 0.9) < 0.05
    assert (scale > 0).all() and (lost > 0).all() and (lost < 1).all()


def _batch(config, spacing=50.0, seed=0, busy=12, quiet=0):
    """Symbols behind noise, of which the right half of the picture has another amount."""
    rng, carriers = np.random.default_rng(seed), symbol_model.carriers_of(config)
    cover = _cover("planes" if config.chroma else "rgb", 2, 32, 64)
    symbols = _symbols(2, 32, 64, carriers, seed)
    planes = symbol_model.planes_of(symbol_model.write_symbols(cover, symbols, spacing, carriers))
    batch = {"symbols": symbols[None], "step": np.full(1, spacing, np.float32)}
    for name, plane in zip(("luma", "cb", "cr"), planes, strict=False):
        deviation = np.repeat([quiet, busy], plane.shape[2] // 2)
        received = plane + deviation * rng.normal(size=plane.shape)
        batch[name] = np.asarray(received, np.float16)[None]
    return batch


@pytest.mark.slow
@pytest.mark.parametrize("config", [VIDEO, IMAGE], ids=["videos", "images"])
def test_learns_from_records(config):
    """Also where it errs: what it says of half the picture is wrong at first."""
    config = _tiny(config)
    model = models.build(config)
    params, batches = _init(model), [_batch(config, seed=seed) for seed in range(4)]
    gradient = jax.jit(jax.value_and_grad(lambda p, b: model.loss(model.tie(p), b, None), has_aux=True))
    (_, first), _ = gradient(params, batches[0])
    for step in range(40):
        _, slopes = gradient(params, batches[step % 4])
        params = jax.tree.map(lambda p, g: p - 0.01 * g / (1e-8 + jnp.sqrt(jnp.mean(g**2))), params, slopes)
    (_, last), _ = gradient(params, batches[0])
    assert last["bits_per_symbol"] > first["bits_per_symbol"] + 0.05
    assert set(first) == {"loss", "bits_per_symbol"} and first["loss"] == -first["bits_per_symbol"]


def test_both_sides_have_the_same_network():
    model = models.build(_tiny(VIDEO))
    params = _init(model, 1)
    params["hide"] = jax.tree.map(jnp.zeros_like, params["hide"])
    tied = model.tie(params)
    assert _equal(tied["hide"], params["reveal"]) and _equal(tied["reveal"], params["reveal"])


def test_bits_that_a_symbol_carries_grow_with_the_step():
    """Against a noise of fixed size, log2 of the spacing."""
    config = _tiny(VIDEO)
    model = models.build(config)
    loss, params = jax.jit(model.loss), _init(model)
    batches = [_batch(config, spacing, busy=3, quiet=3) for spacing in (20.0, 40.0, 80.0)]
    found = [float(loss(params, batch, None)[1]["bits_per_symbol"]) for batch in batches]
    assert found[0] < found[1] < found[2]


SIZES = [((64, 96), 1), ((539, 960), 1), ((540, 960), 2), ((1920, 1080), 3)]


@pytest.mark.parametrize(("size", "scale"), SIZES)
def test_blocks_are_larger_in_larger_frames(size, scale):
    assert symbol_model.block_scale(360, *size) == scale and symbol_model.block_scale(0, *size) == 1
    reduced = (side // scale for side in size)
    assert symbol_model.block_scale(360, *reduced) == 1


def test_symbols_in_larger_blocks_are_read_in_the_reduced_frame():
    carriers, spacing = symbol_model.make_carriers((), (1.0,) * 3), 42.0
    cover = tuple(in_planes(smooth(2, 131, 194) // 2 + 60))
    before = symbol_model.reduce_planes(cover, 2)
    phases = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 4, 6, len(carriers.blocks))).astype(np.float32)
    goals = symbol_model.write_symbols(before, phases, spacing, carriers)
    moved = [
        symbol_model.enlarge_change(old, goal, 2) for old, goal in zip(cover[1:], goals[1:], strict=True)
    ]
    assert all(new.shape == old.shape for new, old in zip(moved, cover[1:], strict=True))
    read = symbol_model.read_phases(symbol_model.reduce_planes((cover[0], *moved), 2), spacing, carriers)
    assert np.abs(symbol_model.wrap(read - phases)).max() < 0.1
