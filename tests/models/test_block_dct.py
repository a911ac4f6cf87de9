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
from deepsteg_jax.models import block_dct, cells, lanes, quantiser, rans

quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles fast
MODULI = (2, 3, 8)  # a power of two or not; 4 is the model's below
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


def test_cells_take_the_class_they_were_drawn_from():
    q = quantiser_of(4)
    scales = jnp.tile(jnp.asarray([-20, 0, 20, 40])[:, None], (2, 1, 96))
    truth = np.random.default_rng(0).integers(0, 4, (2, 50))
    widths = 2.0 ** (np.asarray([-20, 0, 20, 40])[truth] / 8)
    pairs = np.random.default_rng(1).laplace(size=(2, 50, 96, 2)) * widths[..., None, None]
    classes, bits = cells.choose_classes(jnp.asarray(pairs, jnp.float32), scales, -192, q)
    assert np.mean(np.asarray(classes) == truth) > 0.97
    # The bits of an index are about the entropy of a Laplace density in steps of 2^-3.
    entropy = 192 * np.log2(2 * np.e * widths / 2**-3)
    assert np.mean(np.asarray(bits) / entropy) == pytest.approx(1, rel=0.02)


def test_a_cell_with_a_coefficient_far_in_the_tail_chooses_again():
    q = quantiser_of(3)
    scales = jnp.tile(jnp.asarray([8, 24])[:, None], (1, 1, 96))
    pairs = np.random.default_rng(0).laplace(size=(1, 100, 96, 2)) * 2
    choose = quick(lambda pairs: cells.choose_classes(pairs, scales, 0, q))
    before, bits = choose(jnp.asarray(pairs, jnp.float32))
    assert not np.any(before)
    pairs[0, 7, 5, 1] = 200  # takes fewer bits in the narrow class, but is coded to within 16
    after, more = choose(jnp.asarray(pairs, jnp.float32))
    np.testing.assert_array_equal(np.flatnonzero(after), [7])
    bits_of = cells.class_bits(jnp.asarray(pairs, jnp.float32), scales, 0, q)[1]
    assert bits_of[0, 7, 0] < bits_of[0, 7, 1] == more[0, 7]
    np.testing.assert_array_equal(np.delete(more, 7), np.delete(bits, 7))


@pytest.mark.parametrize("finest", [-96, -95, 0, 47, 926, 927])
def test_finest_level(finest):
    assert int(cells.finest_level(lambda level: level >= finest)) == finest


@pytest.mark.parametrize("modulus", [2, 5])
def test_a_level_that_cannot_be_is_noise(modulus):
    """Random digits, which a wrong key reads, reveal loud noise, not a flat grey."""
    digits = np.random.default_rng(modulus).integers(0, modulus, 3 * 13 * 21 * 3)
    assert np.std(block_dct.synthesise(decoder_of(modulus)(digits).coefficients)) > 0.3


# --- digits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("modulus", [2, 3])
def test_base_digits(modulus):
    values = jnp.arange(modulus**4)
    digits = block_dct._to_digits(values, 4, modulus)
    assert (int(digits.min()), int(digits.max())) == (0, modulus - 1)
    np.testing.assert_array_equal(digits[1], [1, 0, 0, 0])  # least first
    np.testing.assert_array_equal(block_dct._from_digits(digits, modulus), values)


@pytest.mark.parametrize("modulus", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("classes", [1, 2, 8, 9, 64])
def test_digits_for_suffice(modulus, classes):
    digits = block_dct._digits_for(classes, modulus)
    assert digits >= 1
    assert modulus**digits >= classes
    assert digits == 1 or modulus ** (digits - 1) < classes


@pytest.mark.parametrize("modulus", MODULI)
def test_quantised_coefficients_come_back(modulus):
    """Of classes of all widths, those with plain digits too; far outliers roughly."""
    q = quantiser_of(modulus)
    count = len(q.rows)
    scales = jnp.tile(jnp.arange(count)[:, None] + quantiser.LOWEST + 8, (1, 96))[None]
    kinds = lanes.kinds_at(scales, 64, q)  # a step of 2 grey levels
    widths = 2.0 ** ((np.arange(count) - 32) / 8)
    coefficients = np.random.default_rng(0).laplace(size=(count, 192)) * widths[:, None] * 3
    found = block_dct.quantise(jnp.asarray(coefficients, jnp.float32), jnp.arange(count), kinds, 64)
    back = np.asarray(block_dct.dequantise(found, jnp.arange(count), kinds, 64))
    reach = ((q.reach - 1) * q.scales * 2.0)[:, None]
    error = np.abs(back - coefficients)
    assert np.all(error[np.abs(coefficients) < reach] < 2)
    assert np.all(error < np.abs(coefficients) / 2 + 4)
    assert int(found.plain.min()) >= 0
    assert np.all(np.asarray(found.plain) < q.scales[:, None])


def test_stripes_give_the_same_picture(monkeypatch):
    secret, q = unit(clip(5, (3, 40, 24), noise=4)), quantiser_of(3)
    codebook = model_of()[1]["hide"]["codebook"]

    def both_ways():
        digits = quick(lambda x: block_dct.encode(codebook, x, q))(secret)
        read = quick(lambda x: block_dct.reveal_group(codebook, x, secret.shape, q).pictures)
        return np.asarray(digits), np.asarray(read(digits))

    whole = both_ways()
    monkeypatch.setattr(block_dct, "STRIPE_CELLS", 48)
    striped = both_ways()
    assert metrics.mean_psnr(rounded(whole[1].clip(0, 1)), rounded(striped[1].clip(0, 1))) > 40
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

    # The header, read by hand: copies of a level, lanes one after the other, a class for each cell.
    sizes = block_dct.sizes_of((*SHORT, 3), 8, quantiser_of(modulus))
    level, starts, classes, pool = np.split(digits.reshape(3, -1).T.ravel(), sizes.ends)
    assert min(level.min(), starts.min(), classes.min()) >= 0
    level, starts, classes = (
        x.reshape(-1, n) @ modulus ** np.arange(n)
        for x, n in ((level, sizes.level_digits), (starts, sizes.start_digits), (classes, sizes.class_digits))
    )
    assert len(set(level)) == 1
    assert 0 <= level[0] < 2**cells.LEVEL_BITS
    assert (len(starts), len(classes)) == (2, 18)
    assert starts[0] == 0 < rans.STATE_WORDS <= starts[1]
    assert classes.max() < 8
    used = np.flatnonzero(pool >= 0)[-1] + 1
    assert np.all(pool[:used] >= 0)
    assert used <= sizes.words * quantiser_of(modulus).coder.digits
    assert used > 0.7 * len(pool) or level[0] == 0  # filled, or all told

    assert np.all(np.isfinite(decoded.coefficients))
    assert np.all(np.asarray(decoded.errors) > 0)
    coefficients = np.asarray(block_dct.analyse(pad_to_blocks(secret, 8)))
    error = np.mean((np.asarray(decoded.coefficients) - coefficients) ** 2)
    assert error < (0.85 if modulus == 2 else 0.5) * np.mean(coefficients**2) or name == "grey"
    back = np.clip(block_dct.synthesise(decoded.coefficients), 0, 1)[:, :13, :21]
    floors = {"texture": 28 if modulus == 2 else 38, "grey": 45}
    assert metrics.mean_psnr(rounded(secret), rounded(back)) > floors.get(name, 0)


def test_a_wrong_sample_spoils_its_lane_alone():
    """Wherever it is: of a copy of the level nothing."""
    secret, q = unit(clip(7, (2, 40, 32), noise=3)), quantiser_of(3)
    codebook = model_of()[1]["hide"]["codebook"]
    digits = np.asarray(quick(lambda x: block_dct.encode(codebook, x, q))(secret))
    read = quick(lambda x: block_dct.decode(codebook, x, secret.shape, q))
    whole = read(digits)
    assert not np.any(whole.spoilt)
    sizes = block_dct.sizes_of(secret.shape, 8, q)
    lane_of = np.arange(40) // -(-40 // sizes.lanes)
    places = np.arange(digits.size).reshape(2, -1).T.ravel()  # of the digits in order
    spoilt, noticed = set(), 0
    for at in [
        0,
        *range(*sizes.ends[:2], 3),
        *range(*sizes.ends[1:], 7),
        *range(sizes.ends[2], digits.size, 97),
    ]:
        wrong = digits.copy()
        wrong[places[at]] = (max(wrong[places[at]], 0) + 1) % 3
        found = read(wrong)
        changed = np.any((found.coefficients != whole.coefficients).reshape(40, 192), axis=1)
        if np.any(found.spoilt):
            (lane,) = set(lane_of[found.spoilt.ravel()])
            assert set(lane_of[changed]) <= {lane}
            noticed += 1
        assert len(set(lane_of[changed])) <= 1
        assert at or not np.any(changed)
        spoilt |= set(lane_of[changed])
    assert spoilt == set(range(sizes.lanes))
    assert noticed > 10


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
    for level in (4000, 0, 200, 500, 1023):  # the first 18 samples, dealt to the frames, are its copies
        stego = rng.integers(0, 256, (2, 4, 16, 24, 3))
        copies = np.tile([level // 4**i % 4 for i in range(6)], 3)
        for place, digit in enumerate(copies):
            stego.reshape(2, 4, -1)[:, place % 4, place // 4] = digit
        revealed = np.asarray(reveal(params["reveal"], unit(stego)))
        assert np.all(np.isfinite(revealed))
        assert revealed.min() >= 0
        assert revealed.max() <= 1
        assert revealed.std() > 0.1


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

    codebook = np.float64(params["hide"]["codebook"])
    log_rms, expected, total = codebook * np.log(2), np.zeros(codebook.shape), 0.0
    for example in secret:
        pairs = np.float64(block_dct.analyse(jnp.asarray(example))).reshape(4, -1, 96, 2)
        power = np.mean(pairs**2, axis=-1) + block_dct.FLOOR**2
        for f in range(4):
            for cell in power[f]:
                ratio = cell / np.exp(2 * log_rms[f])
                costs = np.sum(log_rms[f] + ratio / 2, axis=-1)
                chosen = np.argmin(costs)
                total += costs[chosen]
                expected[f, chosen] += np.log(2) * (1 - ratio[chosen])
    count = 2 * 4 * 4 * 96
    assert float(value) == pytest.approx(total / count, rel=1e-4)
    np.testing.assert_allclose(gradient["hide"]["codebook"], expected / count, rtol=1e-3, atol=1e-6)

    # The same by differences: moves this small change no class.
    entry = np.unravel_index(np.argmax(np.abs(expected)), expected.shape)

    def moved(by):
        hide = {"codebook": params["hide"]["codebook"].at[entry].add(by)}
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
