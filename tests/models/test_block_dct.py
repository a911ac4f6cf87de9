import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from scipy.fft import dctn

from deepsteg_jax import metrics
from deepsteg_jax.dct import pad_to_blocks
from deepsteg_jax.losses import mean_squared_error
from deepsteg_jax.models import block_dct, quantiser

quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles fast
MODULI = (2, 3, 8)  # a power of two or not, levels of both parities; 4 is the model's below
SHORT = (3, 13, 21)  # frames fewer than the codebook's, no whole blocks


@functools.cache
def quantiser_of(modulus):
    return block_dct.make_quantiser(modulus)


@functools.cache
def model_of():
    """(model, params, compiled hide, compiled reveal), untrained."""
    settings = {"modulus": 4, "frames": 4, "classes": 8, "features": 8, "depth": 1}
    model = block_dct.build(ConfigDict(settings))
    return model, quick(model.init)(jax.random.key(0)), quick(model.hide), quick(model.reveal)


def clip(seed, shape=(4, 16, 24), noise=1.0):
    """A textured moving picture, uint8 [t, h, w, 3]."""
    rng = np.random.default_rng(seed)
    f, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    video = np.empty((*shape, 3))
    for c in range(3):
        phase, slope = rng.uniform(0, 6, 2), rng.uniform(-1, 1, 2)
        video[..., c] = 128 + slope[0] * (y - shape[1] / 2) + slope[1] * (x - shape[2] / 2)
        video[..., c] += 30 * np.sin(0.3 * x + 0.2 * y + 0.4 * f + phase[0])
        video[..., c] += 15 * np.sin(1.1 * x - 0.9 * y + phase[1])
    video += rng.normal(0, noise, video.shape)
    return np.clip(np.round(video), 0, 255).astype(np.uint8)


def unit(frames):
    return jnp.asarray(frames, jnp.float32) / 255


def grey(x):
    """Float frames to 8 bits, which they must be already but for float error."""
    levels = np.asarray(x, np.float64) * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    assert levels.min() > -0.01
    assert levels.max() < 255.01
    return np.round(levels).astype(np.uint8)


def rounded(x):
    return np.round(np.asarray(x) * 255).astype(np.uint8)


# --- transform -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 24)])
def test_transform_is_orthonormal(shape):
    video = np.random.default_rng(0).uniform(size=(*shape, 3)).astype(np.float32)
    coefficients = quick(block_dct.analyse)(video)
    assert coefficients.shape == (shape[0], shape[1] // 8, shape[2] // 8, 192)
    np.testing.assert_allclose(quick(block_dct.synthesise)(coefficients), video, atol=1e-5)
    energy = np.sum((np.float64(video) * 255 - 128) ** 2)
    assert np.sum(np.float64(coefficients) ** 2) == pytest.approx(energy, rel=1e-5)


def test_transform_is_that_of_scipy():
    video = np.random.default_rng(1).uniform(size=(3, 16, 24, 3))
    colours = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    cells = ((video * 255 - 128) @ colours.T).reshape(3, 2, 8, 3, 8, 3)
    expected = dctn(cells, axes=(0, 2, 4), norm="ortho").transpose(0, 1, 3, 5, 2, 4)  # f, y, x, colour, u, v
    low_first = sorted(np.ndindex(8, 8), key=lambda uv: (sum(uv), uv[0]))
    expected = np.stack([expected[..., u, v] for u, v in low_first], axis=-1).reshape(3, 2, 3, 192)
    coefficients = block_dct.analyse(jnp.asarray(video, jnp.float32))
    np.testing.assert_allclose(coefficients, expected, atol=2e-3)


def test_constant_grey_is_one_coefficient():
    coefficients = np.array(block_dct.analyse(jnp.full((4, 16, 8, 3), 200 / 255)))
    np.testing.assert_allclose(coefficients[0, ..., 0], 72 * np.sqrt(4 * 64 * 3), rtol=1e-5)
    coefficients[0, ..., 0] = 0
    np.testing.assert_allclose(coefficients, 0, atol=1e-2)


# --- quantisers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("modulus", MODULI)
def test_quantiser_tables(modulus):
    q = quantiser_of(modulus)
    assert q.modulus == modulus
    levels, powers = [[int(x) for x in table] for table in (q.levels, q.powers)]
    assert powers == [modulus**n for n in range(len(levels))]
    for count, power in zip(levels, powers, strict=True):
        assert count**2 <= power < (count + 1) ** 2
    assert levels[-1] >= quantiser.MAX_LEVELS > levels[-2]
    assert len(q.centroids) == sum(levels)
    assert len(q.thresholds) == len(levels) - 1
    assert np.all(np.diff(q.thresholds) >= 0)
    assert np.all(np.diff(q.rms) <= 0)
    assert np.all(np.diff(q.rms)[np.diff(levels) > 0] < 0)
    assert q.rms[0] == pytest.approx(np.sqrt(2))  # of a Laplace density of width 1
    for start, count, reach, edge in zip(q.offsets, levels, q.reach, q.edges, strict=True):
        centroids = q.centroids[start : start + count]
        assert np.all(np.diff(centroids) > 0)
        np.testing.assert_allclose(centroids, -centroids[::-1], atol=1e-6)
        assert reach == centroids[-1]
        assert edge <= reach
    for n in range(1, len(levels)):
        if levels[n] > 1:  # the outermost cell of the compander begins at u = 1 - 2 / L
            edge = -3 * np.log1p(-(1 - 2 / levels[n]))
            assert q.edges[n] == pytest.approx(max(edge, 0), abs=1e-5) or levels[n] < 4


def laplace_layout(quantiser, digits, size, width=1.0):
    counts = jnp.full(size, digits, jnp.int32)
    return block_dct.Layout(counts, jnp.arange(size) * digits, jnp.full(size, width))


@pytest.mark.parametrize("modulus", MODULI)
def test_quantisers_err_as_their_tables_say(modulus):
    q = quantiser_of(modulus)
    pairs = np.random.default_rng(0).laplace(scale=2.5, size=(60000, 2)).astype(np.float32)
    last = np.inf
    for digits in (0, 2, 4, 6):
        layout = laplace_layout(q, digits, len(pairs), width=2.5)
        values = np.asarray(block_dct.quantise(jnp.asarray(pairs), layout, q))
        assert values.min() >= 0
        assert values.max() < modulus**digits
        back = np.asarray(block_dct.dequantise(jnp.asarray(values), layout, q))
        error = np.sqrt(np.mean((back - pairs) ** 2))
        assert error == pytest.approx(2.5 * q.rms[digits], rel=0.03)
        assert error < last
        last = error


@pytest.mark.parametrize(("modulus", "digits"), [(2, 0), (2, 7), (3, 5), (4, 4)])
def test_every_centroid_lies_in_its_cell(modulus, digits):
    q = quantiser_of(modulus)
    values = jnp.arange(4096) % int(q.levels[digits]) ** 2
    layout = laplace_layout(q, digits, 4096, width=3.0)
    pairs = block_dct.dequantise(values, layout, q)
    np.testing.assert_array_equal(block_dct.quantise(pairs, layout, q), values)


def test_extreme_coefficients_take_the_outer_levels():
    q = quantiser_of(4)
    pairs = jnp.asarray([[1e6, 1e6], [-1e6, -1e6], [1e6, -1e6]])
    layout = laplace_layout(q, 5, 3)
    top = int(q.levels[5]) - 1
    values = block_dct.quantise(pairs, layout, q)
    np.testing.assert_array_equal(values, [top * (top + 2), 0, top * (top + 1)])
    assert np.all(np.isfinite(block_dct.dequantise(values, layout, q)))


@pytest.mark.parametrize("modulus", MODULI)
def test_digit_counts_are_the_cheapest(modulus):
    # lambda per digit is the square of the water level, and a pair errs twice.
    q = quantiser_of(modulus)
    excess = np.arange(-40, 90)
    counts = np.asarray(block_dct.digit_counts(jnp.asarray(excess - 13), -13, q))
    widths = 2.0 ** (excess / block_dct.SCALE_STEPS)
    cost = 2 * np.float64(q.rms) ** 2 * widths[:, None] ** 2 + np.arange(len(q.rms))
    chosen = cost[np.arange(len(excess)), counts]
    np.testing.assert_allclose(chosen, cost.min(axis=1), rtol=1e-5)
    assert counts[0] == 0
    assert counts[-1] > 5
    assert np.all(np.diff(counts) >= 0)


# --- codebook, classes and level -----------------------------------------------------------------


def test_codebook_starts_from_its_key():
    one = block_dct.init_codebook(jax.random.key(0), 4, 8)
    assert one.shape == (4, 8, 96)
    np.testing.assert_array_equal(one, block_dct.init_codebook(jax.random.key(0), 4, 8))
    assert np.all(one != block_dct.init_codebook(jax.random.key(1), 4, 8))
    assert block_dct.init_codebook(jax.random.key(0), 1, 2).shape == (1, 2, 96)


@pytest.mark.parametrize(("frames", "planes"), [(1, [0]), (2, [0, 2]), (3, [0, 1, 2]), (4, [0, 1, 2, 3])])
def test_shorter_groups_take_their_own_frequencies(frames, planes):
    codebook = jnp.arange(4.0)[:, None, None] + jnp.zeros((4, 2, 96))
    scales = np.asarray(block_dct.integer_scales(codebook, frames))
    assert scales.dtype == np.int32
    np.testing.assert_array_equal(scales[:, 0, 0], [8 * plane - 4 for plane in planes])  # rms / sqrt(2)


def test_width_is_the_power_of_two_of_scales():
    np.testing.assert_allclose(block_dct.width(jnp.asarray([-8, 0, 4, 16])), [0.5, 1, 2**0.5, 4], rtol=1e-6)


def test_cells_take_the_class_they_were_drawn_from():
    q = quantiser_of(4)
    scales = jnp.tile(jnp.asarray([-20, 0, 20, 40])[:, None], (2, 1, 96))
    truth = np.random.default_rng(0).integers(0, 4, (2, 50))
    widths = 2.0 ** (np.asarray([-20, 0, 20, 40])[truth] / 8)
    pairs = np.random.default_rng(1).laplace(size=(2, 50, 96, 2)) * widths[..., None, None]
    magnitudes = jnp.asarray(np.hypot(pairs[..., 0], pairs[..., 1]), jnp.float32)
    classes = np.asarray(block_dct.choose_classes(magnitudes, scales, -24, q))
    assert classes.shape == (2, 50)
    assert np.mean(classes == truth) > 0.97
    # Far under water nothing is coded, whatever the class, and the first class wins the tie.
    assert np.all(np.asarray(block_dct.choose_classes(magnitudes, scales, 150, q)) == 0)


@pytest.mark.parametrize("finest", [-16, -15, 0, 47, 100, 110, 111])
@pytest.mark.parametrize("guess", [-500, -16, 0, 47, 48, 500])
def test_finest_level_whatever_the_guess(finest, guess):
    assert int(block_dct._finest_level(lambda level: level >= finest, guess)) == finest


@pytest.mark.parametrize("modulus", [2, 5])
def test_a_level_that_cannot_be_is_noise(modulus):
    """Random digits, which a wrong key reads, reveal loud noise, not a flat grey."""
    digits = np.random.default_rng(modulus).integers(0, modulus, 3 * 13 * 21 * 3)
    assert np.std(block_dct.synthesise(decoder_of(modulus)(digits).coefficients)) > 0.3


# --- digits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("modulus", [2, 3])
def test_base_digits(modulus):
    q = quantiser_of(modulus)
    values = jnp.arange(modulus**4)
    digits = block_dct._to_digits(values, 4, q)
    assert (int(digits.min()), int(digits.max())) == (0, modulus - 1)
    np.testing.assert_array_equal(digits[1], [1, 0, 0, 0])  # least first
    np.testing.assert_array_equal(block_dct._from_digits(digits, q), values)


@pytest.mark.parametrize("modulus", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("classes", [1, 2, 8, 9, 64])
def test_digits_for_suffice(modulus, classes):
    digits = block_dct._digits_for(classes, modulus)
    assert digits >= 1
    assert modulus**digits >= classes
    assert digits == 1 or modulus ** (digits - 1) < classes


def empty_pool(size):
    return jnp.full(size, -1, jnp.int8)


@pytest.mark.parametrize("modulus", [2, 3])
def test_pool_round_trip(modulus):
    q = quantiser_of(modulus)
    rng = np.random.default_rng(modulus)
    counts = rng.integers(0, len(q.powers), 300)
    counts[rng.uniform(size=300) < 0.4] = 0
    counts[[0, 1, 100]] = 0, len(q.powers) - 1, len(q.powers) - 1
    counts[np.cumsum(counts) >= 700] = 0
    counts[-1 if modulus < 4 else -2] = 700 - counts.sum()
    assert counts.max() < len(q.powers)
    values = np.array([rng.integers(0, modulus ** int(n)) for n in counts])
    values[1] = modulus ** int(counts[1]) - 1
    layout = block_dct.Layout(jnp.asarray(counts), jnp.asarray(np.cumsum(counts) - counts), jnp.ones(300))
    by_hand = [v // modulus**i % modulus for v, n in zip(values, counts, strict=True) for i in range(n)]
    for spare in (0, 50):  # a full pool, and one with room
        pool = np.asarray(block_dct.write_pool(empty_pool(700 + spare), jnp.asarray(values), layout, q))
        np.testing.assert_array_equal(pool, by_hand + [-1] * spare)
        np.testing.assert_array_equal(block_dct.read_pool(jnp.asarray(pool), layout, q), values)
        junk = np.where(pool < 0, rng.integers(0, modulus, len(pool)), pool)  # the cover's own residues
        np.testing.assert_array_equal(block_dct.read_pool(jnp.asarray(junk), layout, q), values)


def test_empty_pool():
    q = quantiser_of(4)
    none = jnp.zeros(10, jnp.int32)
    layout = block_dct.Layout(none, none, jnp.ones(10))
    pool = block_dct.write_pool(empty_pool(30), none, layout, q)
    np.testing.assert_array_equal(pool, np.full(30, -1))
    np.testing.assert_array_equal(block_dct.read_pool(jnp.arange(30) % 4, layout, q), none)


def test_stripes_give_the_same_bits(monkeypatch):
    secret, q = unit(clip(5, (3, 40, 24), noise=4)), quantiser_of(3)
    codebook = model_of()[1]["hide"]["codebook"]

    def both_ways():
        digits = quick(lambda x: block_dct.encode(codebook, x, q))(secret)
        read = quick(lambda x: block_dct.reveal_group(codebook, x, secret.shape, q))
        return np.asarray(digits), np.asarray(read(digits))

    whole = both_ways()
    monkeypatch.setattr(block_dct, "STRIPE_CELLS", 3)
    for at_once, striped in zip(whole, both_ways(), strict=True):
        np.testing.assert_array_equal(at_once, striped)
    assert metrics.mean_psnr(rounded(secret), rounded(whole[1].clip(0, 1))) > 30


CHECKS = np.indices(SHORT)[..., None] * np.ones(3, int)
HARD = {
    "white noise": np.random.default_rng(0).integers(0, 256, (*SHORT, 3)),
    "black and white noise": np.random.default_rng(1).integers(0, 2, (*SHORT, 3)) * 255,
    "black": np.zeros((*SHORT, 3)),
    "grey": np.full((*SHORT, 3), 128),
    "white": np.full((*SHORT, 3), 255),
    "red": np.full((*SHORT, 3), (255, 0, 0)),
    "pixel checks": CHECKS.sum(0) % 2 * 255,
    "block checks": (CHECKS // 8).sum(0) % 2 * 255,
    "flicker": np.full((*SHORT, 3), 255) * (np.arange(3) % 2)[:, None, None, None],
    "texture": clip(0, SHORT),
}
HARD |= {f"noise {n}": clip(n, SHORT, noise=1.5**n) for n in range(12)}


@functools.cache
def encoder_of(modulus):
    """Compiled: a secret [*SHORT, 3] -> its digits."""
    codebook, quantiser = model_of()[1]["hide"]["codebook"], quantiser_of(modulus)
    return quick(lambda secret: block_dct.encode(codebook, secret, quantiser))


@functools.cache
def decoder_of(modulus):
    """Compiled: digits -> `Decoded`."""
    codebook, quantiser = model_of()[1]["hide"]["codebook"], quantiser_of(modulus)
    return quick(lambda digits: block_dct.decode(codebook, digits, (*SHORT, 3), quantiser))


@pytest.mark.parametrize("modulus", [2, 5])
@pytest.mark.parametrize("name", HARD)
def test_digits_never_exceed_the_budget(modulus, name):
    secret = unit(HARD[name])
    digits = np.asarray(encoder_of(modulus)(secret))
    decoded = decoder_of(modulus)(digits)
    assert digits.shape == (secret.size,)
    assert digits.min() >= -1
    assert digits.max() < modulus

    # The header, read by hand, says how many digits follow; they fit, and with one more share of the cells
    # on the finer level they would not.
    class_digits = block_dct._digits_for(8, modulus)
    in_order = digits.reshape(3, -1).T.ravel()
    head = [*block_dct.header_digits(modulus), 3 * 2 * 3 * class_digits]
    level, share, classes, pool = np.split(in_order, np.cumsum(head))
    assert min(level.min(), share.min(), classes.min()) >= 0
    level, share = (x @ modulus ** np.arange(len(x)) for x in (level, share))
    level -= block_dct.LEVEL_OFFSET
    classes = classes.reshape(3, 6, class_digits) @ modulus ** np.arange(class_digits)
    scales = np.asarray(block_dct.integer_scales(model_of()[1]["hide"]["codebook"], 3))
    chosen = np.take_along_axis(scales, classes[..., None], axis=1)

    def digits_at(share):
        levels = level - (np.arange(18) < 18 * share // 256).reshape(3, 6, 1)
        return np.sum((chosen - levels)[..., None] >= quantiser_of(modulus).thresholds)

    used = digits_at(share)
    assert used <= len(pool)
    assert share == 255 or (0 <= share < 255 and digits_at(share + 1) > len(pool))
    assert level == -block_dct.LEVEL_OFFSET or digits_at(256) > len(pool)
    assert np.all(pool[:used] >= 0)
    assert np.all(pool[used:] == -1)

    assert np.all(np.isfinite(decoded.coefficients))
    assert np.all(np.asarray(decoded.errors) > 0)
    coefficients = np.asarray(block_dct.analyse(pad_to_blocks(secret, 8)))
    error = np.mean((np.asarray(decoded.coefficients) - coefficients) ** 2)
    assert error < (0.85 if modulus == 2 else 0.5) * np.mean(coefficients**2) or name == "grey"
    back = np.clip(block_dct.synthesise(decoded.coefficients), 0, 1)[:, :13, :21]
    floors = {"texture": 28 if modulus == 2 else 38, "grey": 45}
    assert metrics.mean_psnr(rounded(secret), rounded(back)) > floors.get(name, 0)


# --- wrapping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("modulus", MODULI)
def test_wrapping(modulus):
    cover = np.repeat(np.arange(256.0), 24 * 3).reshape(1, 256, 24, 3)
    digits = np.arange(cover.size).reshape(cover.shape) // 3 % modulus
    stego = np.asarray(block_dct.wrap_into(jnp.asarray(cover), jnp.asarray(digits).ravel(), modulus))
    assert stego.shape == cover.shape
    assert stego.min() >= 0
    assert stego.max() <= 255
    np.testing.assert_array_equal(stego % modulus, digits)
    change = np.abs(stego - cover)
    inner = (cover >= modulus / 2) & (cover <= 255 - modulus / 2)
    assert change[inner].max() <= modulus / 2
    assert change.max() < modulus
    errors = [min(m, modulus - m) ** 2 for m in range(modulus)]  # every digit as often
    assert np.mean(change[inner] ** 2) == pytest.approx(np.mean(errors), rel=0.01)


@pytest.mark.parametrize("modulus", [2, 4, 8])
def test_ties_are_unbiased(modulus):
    cover = np.full((2, 6, 10, 3), 100.0)
    stego = np.asarray(
        block_dct.wrap_into(cover, jnp.full(cover.size, (100 + modulus // 2) % modulus), modulus)
    )
    assert sorted(np.unique(stego - cover)) == [-modulus / 2, modulus / 2]
    assert np.mean(stego - cover) == 0
    assert np.all(np.mean(stego - cover, axis=(1, 2)) == 0)


def test_no_digit_leaves_the_sample():
    cover = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype(np.float32)
    digits = np.random.default_rng(1).integers(0, 4, cover.size)
    digits[::3] = -1
    stego = np.asarray(block_dct.wrap_into(cover, jnp.asarray(digits), 4)).ravel()
    np.testing.assert_array_equal(stego[::3], cover.ravel()[::3])
    np.testing.assert_array_equal(stego[digits >= 0] % 4, digits[digits >= 0])


# --- hide and reveal -----------------------------------------------------------------------------


def stego_and_revealed(cover, secret):
    """8-bit stego and revealed of 8-bit frames [b, (t,) h, w, 3] at modulus 4."""
    _, params, hide, reveal = model_of()
    stego = grey(hide(params["hide"], unit(cover), unit(secret)))
    revealed = np.asarray(reveal(params["reveal"], unit(stego)))
    assert stego.shape == revealed.shape == cover.shape
    assert revealed.min() >= 0
    assert revealed.max() <= 1
    change = np.abs(np.int32(stego) - np.int32(cover))
    assert change.max() < 4
    assert np.all(change[(cover >= 2) & (cover <= 253)] <= 2)
    return stego, rounded(revealed)


@functools.cache
def example():
    """Two covers and two secrets [2, 4, 16, 24, 3], what became of them; made once."""
    cover, secret = np.stack([clip(1), clip(3)]), np.stack([clip(2, noise=0.5), clip(4, noise=4)])
    return cover, secret, *stego_and_revealed(cover, secret)


def test_untrained_quality():
    cover, secret, stego, revealed = example()
    assert metrics.mean_psnr(cover[0], stego[0]) > 45.6
    assert metrics.mean_psnr(secret[0], revealed[0]) > 40.7


def test_an_image_of_no_whole_blocks():
    """Shorter groups of such frames: `test_digits_never_exceed_the_budget`."""
    cover, secret = clip(1, (1, 13, 21)), clip(2, (1, 13, 21))
    stego, revealed = stego_and_revealed(cover, secret)
    assert metrics.mean_psnr(cover, stego) > 45.6
    assert metrics.mean_psnr(secret, revealed) > 30.5


def test_larger_modulus_hides_more():
    cover, secret = clip(1, SHORT), HARD["texture"]
    quality = []
    for modulus in (2, 5):
        digits = encoder_of(modulus)(unit(secret))
        stego = block_dct.wrap_into(jnp.asarray(cover, jnp.float32), digits, modulus)
        coefficients = decoder_of(modulus)(digits).coefficients
        revealed = np.clip(block_dct.synthesise(coefficients), 0, 1)[:, :13, :21]
        quality.append(
            (metrics.mean_psnr(cover, np.uint8(stego)), metrics.mean_psnr(secret, rounded(revealed)))
        )
    (fine_stego, coarse_revealed), (coarse_stego, fine_revealed) = quality
    assert coarse_stego < fine_stego - 1.5
    assert fine_revealed > coarse_revealed + 1.5


def test_cover_is_no_noise_to_the_receiver():
    cover, secret, _, plain = example()
    for other in (np.zeros_like(cover), np.full_like(cover, 255), cover[::-1]):
        np.testing.assert_array_equal(stego_and_revealed(other, secret)[1], plain)


def test_receiver_reads_residues_only():
    stego, plain = example()[2:]
    _, params, _, reveal = model_of()
    other = np.where(stego < 128, stego + 100, stego - 128)
    np.testing.assert_array_equal(rounded(reveal(params["reveal"], unit(other))), plain)
    np.testing.assert_array_less(1, np.abs(np.int32(other) - stego))


def test_examples_do_not_mix():
    cover, secret, stego, revealed = example()
    swapped = stego_and_revealed(cover[::-1], secret[::-1])
    np.testing.assert_array_equal(swapped[0], stego[::-1])
    np.testing.assert_array_equal(swapped[1], revealed[::-1])


def test_garbage_reveals_without_harm():
    _, params, _, reveal = model_of()  # 4 ** 2 classes can be written, 8 are there
    rng = np.random.default_rng(0)
    deviations = []
    for level in (300, 0, 25, 50, 75, 100, 127):  # the first 2 samples of each frame
        stego = rng.integers(0, 256, (2, 4, 16, 24, 3))
        digits = np.array([level // 4**i % 4 for i in range(8)])  # the last two are of the share
        stego.reshape(2, 4, -1)[:, :, :2] = digits.reshape(2, 4).T
        revealed = np.asarray(reveal(params["reveal"], unit(stego)))
        assert np.all(np.isfinite(revealed))
        assert revealed.min() >= 0
        assert revealed.max() <= 1
        deviations.append(revealed.std())
    assert min(deviations[:2]) > 0.1
    assert deviations[-1] == 0  # far under water nothing is read


def test_init_is_deterministic():
    init = quick(model_of()[0].init)
    one, again, other = init(jax.random.key(1)), init(jax.random.key(1)), init(jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    kernels = (params["reveal"]["refinement"]["enter"]["kernel"] for params in (one, other))
    assert np.any(np.not_equal(*kernels))
    assert np.any(one["hide"]["codebook"] != other["hide"]["codebook"])


# --- training ------------------------------------------------------------------------------------


@functools.cache
def penalty_and_gradient():
    model = model_of()[0]
    return quick(jax.value_and_grad(lambda params, secret: model.penalty(params, None, secret)))


@functools.cache
def two_secrets():
    return unit(np.stack([clip(2, (4, 16, 16)), clip(3, (4, 16, 16), noise=6)]))


@pytest.mark.slow
def test_penalty_gradient_is_its_formula():
    _, params, _, _ = model_of()
    secret = two_secrets()
    value, gradient = penalty_and_gradient()(params, secret)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["reveal"]))

    codebook = params["hide"]["codebook"]
    classify = quick(lambda s: block_dct.classify(codebook, s, quantiser_of(4)))
    expected, total = np.zeros(codebook.shape), 0.0
    for example in secret:
        cells = classify(example)
        for f in range(4):
            for cell, chosen in zip(np.float64(cells.pairs[0, f]), cells.classes[f], strict=True):
                log_rms = np.float64(codebook[f, int(chosen)]) * np.log(2)
                ratio = (np.mean(cell**2, axis=-1) + block_dct.FLOOR**2) / np.exp(2 * log_rms)
                total += np.sum(log_rms + ratio / 2)
                expected[f, int(chosen)] += np.log(2) * (1 - ratio)
    count = 2 * 4 * 4 * 96
    assert float(value) == pytest.approx(total / count, rel=1e-4)
    np.testing.assert_allclose(gradient["hide"]["codebook"], expected / count, rtol=1e-3, atol=1e-6)

    # The same by differences: moves this small stay inside one scale step, so no class changes.
    steps = block_dct.SCALE_STEPS * np.float64(codebook)
    safe = np.abs(steps - np.round(steps)) < 0.2
    entry = np.unravel_index(np.argmax(np.abs(expected) * safe), expected.shape)

    def moved(by):
        hide = {"codebook": codebook.at[entry].add(by)}
        return float(penalty_and_gradient()({**params, "hide": hide}, secret)[0])

    slope = (moved(0.02) - moved(-0.02)) / 0.04
    assert slope == pytest.approx(float(gradient["hide"]["codebook"][entry]), rel=0.03)


@pytest.mark.slow
def test_training_lowers_the_penalty():
    model, params, _, _ = model_of()
    optimiser = optax.adam(3e-2)
    state, values = optimiser.init(params), []
    for _ in range(30):
        value, gradient = penalty_and_gradient()(params, two_secrets())
        updates, state = optimiser.update(gradient, state)
        params = model.tie(optax.apply_updates(params, updates))
        values.append(float(value))
    assert values[-1] < values[0] - 0.3
    assert np.all(np.isfinite(values))
    np.testing.assert_array_equal(params["hide"]["codebook"], params["reveal"]["codebook"])


def test_tie_copies_the_codebook():
    model, params, _, _ = model_of()
    np.testing.assert_array_equal(params["hide"]["codebook"], params["reveal"]["codebook"])
    changed = {**params, "hide": {"codebook": params["hide"]["codebook"] + 1}}
    tied = model.tie(changed)
    np.testing.assert_array_equal(tied["reveal"]["codebook"], params["hide"]["codebook"] + 1)
    np.testing.assert_array_equal(changed["reveal"]["codebook"], params["hide"]["codebook"])
    assert tied["reveal"]["refinement"] is params["reveal"]["refinement"]
    buffers = [tied[side]["codebook"].unsafe_buffer_pointer() for side in ("hide", "reveal")]
    assert buffers[0] != buffers[1]


def test_refinement_is_bounded_and_starts_at_nothing():
    network = block_dct.Refinement(features=8, layers=1)
    rng = np.random.default_rng(0)
    coefficients = jnp.asarray(rng.normal(0, 50, (2, 2, 3, 192)), jnp.float32)
    errors = jnp.asarray(rng.uniform(0.1, 4, (2, 2, 3, 96)), jnp.float32)
    variables = {"params": model_of()[1]["reveal"]["refinement"]}
    assert not np.any(network.apply(variables, coefficients, errors))
    wild = jax.tree.map(lambda x: x + 3 * rng.normal(size=x.shape).astype(np.float32), variables)
    ratio = np.abs(network.apply(wild, coefficients, errors)) / np.repeat(errors, 2, axis=-1)
    assert 1.9 < ratio.max() <= 2.0001


@pytest.mark.slow
def test_secret_loss_trains_the_refinement():
    model, params, _, _ = model_of()
    _, secret, stego, _ = map(unit, example())

    def loss(reveal):
        return mean_squared_error(model.reveal(reveal, stego), secret)

    loss_and_gradient = quick(jax.value_and_grad(loss))
    start, gradient = loss_and_gradient(params["reveal"])
    leave = gradient["refinement"]["leave"]["kernel"]
    assert np.count_nonzero(leave) > 0.5 * leave.size
    assert not np.any(gradient["codebook"])  # digits have no gradient: the penalty trains the codebook

    entry = np.unravel_index(np.argmax(np.abs(leave)), leave.shape)

    def moved(by):
        layers = params["reveal"]["refinement"]
        kernel = layers["leave"]["kernel"].at[entry].add(by)
        layers = {**layers, "leave": {**layers["leave"], "kernel": kernel}}
        return float(loss_and_gradient({**params["reveal"], "refinement": layers})[0])

    slope = (moved(0.02) - moved(-0.02)) / 0.04
    assert slope == pytest.approx(float(leave[entry]), rel=0.03)

    optimiser, reveal = optax.adam(3e-3), params["reveal"]
    state = optimiser.init(reveal)
    for _ in range(30):
        value, gradient = loss_and_gradient(reveal)
        updates, state = optimiser.update(gradient, state)
        reveal = optax.apply_updates(reveal, updates)
    assert float(value) < 0.9 * float(start)
