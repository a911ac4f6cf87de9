"""`robust`: symbols are exact without a codec, networks learn from records, calibration finds factors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import logistic

from configs.robust import get_config
from deepsteg_jax import models
from deepsteg_jax.models import symbols as symbol_model
from tests.synthetic import noise, smooth

CONFIG = get_config("tiny").model


@functools.cache
def _fresh():
    """(model, its parameters)."""
    model = models.build(CONFIG)
    return model, jax.jit(model.init)(jax.random.key(0))


def _symbols(frames, height, width, count=4, seed=0):
    shape = (frames, height // 8, width // 8, count)
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def _errors(stego, symbols, spacing):
    phases = symbol_model.read_phases(symbol_model.luma_of(jnp.asarray(stego)), spacing, symbols.shape[-1])
    return np.abs(symbol_model.wrap(phases - symbols))


@pytest.mark.parametrize("spacing", [16.0, 50.0, 90.0])
def test_symbols_are_read_as_they_were_written(spacing):
    cover, symbols = smooth(3, 40, 56), _symbols(3, 40, 56)
    stego = symbol_model.write_symbols(cover, symbols, spacing)
    assert stego.shape == cover.shape and np.array_equal(stego, np.round(stego))
    assert np.quantile(_errors(stego, symbols, spacing) * spacing, 0.99) < 1  # 8-bit rounding


def test_stego_is_as_near_as_it_says():
    cover, spacing = noise(2, 128, 128, low=60, high=196), 40.0
    stego = symbol_model.write_symbols(cover, _symbols(2, 128, 128), spacing)
    error = np.mean((np.asarray(stego) - cover) ** 2)
    assert error == pytest.approx(4 * spacing**2 / 768, rel=0.05)


@pytest.mark.parametrize("level", [0, 255])
def test_saturated_covers_carry_symbols_too(level):
    cover, symbols = np.full((1, 64, 64, 3), level, np.uint8), _symbols(1, 64, 64)
    stego = symbol_model.write_symbols(cover, symbols, 40.0)
    assert stego.min() >= 0 and stego.max() <= 255
    assert np.quantile(_errors(stego, symbols, 40.0), 0.9) < 0.1


@pytest.mark.parametrize(("frames", "repeat"), [(8, 4), (7, 2), (5, 8)])
def test_repeated_symbols_are_those_of_the_mean(frames, repeat):
    cover, groups = smooth(frames, 40, 56), -(-frames // repeat)
    symbols = _symbols(groups, 40, 56)
    stego = np.asarray(symbol_model.write_repeated(cover, symbols, 40.0, repeat))
    means = np.stack([stego[i : i + repeat].mean(0) for i in range(0, frames, repeat)])
    assert np.quantile(_errors(means, symbols, 40.0) * 40, 0.95) < 1
    moves = stego - cover
    assert np.abs(np.diff(moves[:repeat], axis=0)).max() <= 1  # all frames of a group move alike


def test_some_symbols_alone_are_written():
    cover, symbols = smooth(2, 40, 56) // 2 + 60, _symbols(2, 40, 56)
    these = np.random.default_rng(0).random(symbols.shape) < 0.1
    before = symbol_model.read_phases(symbol_model.luma_of(jnp.asarray(cover)), 40.0, 4)
    stego = symbol_model.write_some(cover, symbols, these, 40.0)
    assert np.quantile(_errors(stego, symbols, 40.0)[these], 0.95) < 0.1  # 8-bit rounding
    assert np.quantile(_errors(stego, before, 40.0)[~these], 0.95) < 0.1


def test_fewer_sent_symbols_are_all_that_counts():
    (model, params), batch = _fresh(), _batch()
    loss = jax.jit(model.loss)
    batch["count"] = np.full(1, 4, np.int32)
    whole = loss(params, batch)[1]["bits_per_symbol"]
    batch["symbols"] = batch["symbols"].copy()
    batch["symbols"][..., 4:] = 0
    assert loss(params, batch)[1]["bits_per_symbol"] == whole


def test_what_lies_outside_whole_blocks_stays():
    cover = smooth(1, 45, 61)
    stego = np.asarray(symbol_model.write_symbols(cover, _symbols(1, 40, 56), 50.0))
    assert np.array_equal(stego[:, 40:], cover[:, 40:])
    assert np.array_equal(stego[:, :, 56:], cover[:, :, 56:])


def test_the_density_is_one():
    error = np.linspace(-0.5, 0.5, 2001)[:-1]
    for scale, lost in ((0.01, 0.0), (0.1, 0.3), (0.2, 0.9)):
        density = symbol_model.error_density(jnp.asarray(error), jnp.full(2000, scale), jnp.full(2000, lost))
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


def test_restoration_starts_as_the_identity_for_any_size():
    params = _fresh()[1]["reveal"]["restoration"]
    for height, width in ((16, 24), (17, 23)):
        coded = jnp.asarray(smooth(3, height, width)[None] / 255, jnp.float32)
        assert np.array_equal(symbol_model.restore(CONFIG, params, coded), coded)


def test_hide_and_reveal_take_symbols_for_the_secret():
    model, params = _fresh()
    cover = smooth(2, 32, 48)[None] / 255
    symbols = _symbols(2, 32, 48, CONFIG.coefficients)[None]
    stego = jax.jit(model.hide)(params["hide"], cover, symbols)
    phase, scale, lost = jax.jit(model.reveal)(params["reveal"], stego)
    assert phase.shape == scale.shape == lost.shape == symbols.shape
    assert np.quantile(np.abs(symbol_model.wrap(phase - symbols)), 0.9) < 0.05
    assert (scale > 0).all() and (lost > 0).all() and (lost < 1).all()


def _batch(seed=0):
    """Noise that only the busy half of the picture has, and secrets that came back too dark."""
    rng = np.random.default_rng(seed)
    symbols = _symbols(2, 32, 64, CONFIG.coefficients, seed)
    stego = np.asarray(symbol_model.write_symbols(smooth(2, 32, 64), symbols, 50.0)).copy()
    stego[:, :, 32:] += rng.normal(0, 12, (2, 32, 32, 1))
    secret = smooth(2, 32, 32, seed=seed)
    return {
        "frames": np.asarray(symbol_model.luma_of(jnp.asarray(stego)))[None].astype(np.float16),
        "symbols": symbols[None],
        "step": np.full(1, 50.0, np.float32),
        "count": np.full(1, symbols.shape[-1], np.int32),
        "secret": secret[None],
        "coded": (0.8 * secret[None]).astype(np.uint8),
    }


@pytest.mark.slow
def test_learns_from_records():
    model, params = _fresh()

    @jax.jit
    def update(params, batch):
        loss = jax.value_and_grad(lambda p: model.loss(model.tie(p), batch), has_aux=True)
        (_, figures), slopes = loss(params)
        move = lambda p, g: p - 0.01 * g / (1e-8 + jnp.sqrt(jnp.mean(g**2)))  # noqa: E731
        return jax.tree.map(move, params, slopes), figures

    first = update(params, _batch())[1]
    for number in range(60):
        params, _ = update(params, _batch(number % 4))
    last = update(params, _batch())[1]
    assert last["bits_per_symbol"] > first["bits_per_symbol"]
    assert last["secret_psnr_db"] > first["secret_psnr_db"] + 1
    assert set(first) == {"loss", "bits_per_symbol", "secret_psnr_db", "gain_db"}


def test_both_sides_have_the_same_reliability_network():
    model, params = _fresh()
    params = model.tie(params)
    equal = jax.tree.map(np.array_equal, params["hide"]["reliability"], params["reveal"]["reliability"])
    assert all(jax.tree.leaves(equal))


@pytest.mark.slow
def test_bits_that_a_symbol_carries_grow_with_the_step():
    """Against a noise of fixed size, log2 of the spacing."""
    (model, params), found = _fresh(), []
    loss = jax.jit(model.loss)
    for spacing in (20.0, 40.0, 80.0):
        symbols = _symbols(2, 64, 64, CONFIG.coefficients)
        stego = np.asarray(symbol_model.write_symbols(smooth(2, 64, 64), symbols, spacing))
        stego = stego + np.random.default_rng(0).normal(0, 3, (2, 64, 64, 1))
        luma = np.asarray(symbol_model.luma_of(jnp.asarray(stego)))[None]
        batch = {"frames": luma, "symbols": symbols[None], "step": np.full(1, spacing, np.float32)}
        batch["count"] = np.full(1, symbols.shape[-1], np.int32)
        found.append(float(loss(params, batch)[1]["bits_per_symbol"]))
    assert found[0] < found[1] < found[2]
