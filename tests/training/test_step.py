"""One step on one device: randomness, losses, gradients, ties, parts of a batch, averages, validation."""

from contextlib import closing
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsteg_jax import data, losses, models
from deepsteg_jax.errors import UserError
from deepsteg_jax.training.objective import choose_objective, hide_and_reveal, psnr
from deepsteg_jax.training.state import create_optimizer, create_state
from deepsteg_jax.training.step import example_keys, make_train_step, make_validation_step, mean_over_parts
from tests.recordings import build_listener, listen, means_of, write_videos


def _batch(size=4, seed=0, shape=(8, 8, 3)):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 256, (size, *shape), np.uint8) for name in ("cover", "secret")}


def _setup(config, key=0):
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    state = create_state(model, optimizer, jax.random.key(1), ema=config.optimizer.ema_decay > 0)
    return model, state, jax.jit(make_train_step(model, optimizer, config, jax.random.key(key)))


def _pictures(config, batch, params=None):
    model, state, _ = _setup(config)
    keys = example_keys(jax.random.key(0), len(batch["cover"]))
    draw = jax.jit(lambda params, batch, keys: hide_and_reveal(model, config, params, batch, keys))
    return draw(params or state.params, batch, keys)


def _identities(hide):
    """Parameters that add `hide` times the secret to the cover and reveal the stego as it is."""
    eye = jnp.eye(3)[None]
    return {"hide": {"mix": hide * eye}, "reveal": {"unmix": eye, "bias": jnp.zeros(3)}}


def test_every_example_has_a_key_of_its_own():
    few, many = (jax.random.key_data(example_keys(jax.random.key(5), size)) for size in (3, 8))
    assert np.array_equal(few, many[:3]) and len(np.unique(many, axis=0)) == 8


def test_randomness_belongs_to_the_example_not_to_the_batch(toy):
    toy.shuffle.moves = "secret"
    batch = _batch(6)
    whole = _pictures(toy, batch)
    part = _pictures(toy, {name: x[:2] for name, x in batch.items()})
    for a, b in zip(part, whole, strict=True):
        assert np.allclose(a, b[:2], atol=1e-6)


def test_equal_examples_get_different_shuffles_and_noise(toy):
    batch = {name: np.repeat(x, 2, axis=0) for name, x in _batch(1).items()}
    pictures = _pictures(toy, batch)
    assert np.array_equal(pictures.stego[0], pictures.stego[1])
    assert not np.allclose(pictures.revealed[0], pictures.revealed[1], atol=1e-4)  # noise of the channel
    toy.shuffle.moves = "secret"
    pictures = _pictures(toy, batch)
    assert not np.allclose(pictures.stego[0], pictures.stego[1], atol=1e-3)


def test_the_noise_has_the_deviation_of_the_config(toy):
    toy.channel = (("gaussian_noise", 0.5),)
    pictures = _pictures(toy, _batch(4, shape=(32, 32, 3)), _identities(hide=0))
    assert np.std(pictures.revealed - pictures.cover) == pytest.approx(0.5, rel=0.03)  # 6 sigma of 12288


@pytest.mark.parametrize("moves", ["cover", "secret"])
def test_the_secret_comes_back_unshuffled(toy, moves):
    """On a black cover the stego is the shuffled secret."""
    toy.shuffle.moves, toy.channel = moves, ()
    batch = _batch() | {"cover": np.zeros((4, 8, 8, 3), np.uint8)}
    pictures = _pictures(toy, batch, _identities(hide=1))
    assert np.allclose(pictures.revealed, pictures.secret, atol=1e-6)
    assert np.allclose(pictures.secret, batch["secret"] / 255, atol=1e-6)
    assert not np.allclose(pictures.stego, pictures.secret, atol=0.1)


def test_a_step_is_a_function_of_state_batch_and_key(toy):
    _, state, step = _setup(toy)
    (a, logs), (again, _) = step(state, _batch()), step(state, _batch())
    assert int(a.step) == 1
    assert jax.tree.all(jax.tree.map(np.array_equal, a, again))
    _, later = step(state.replace(step=jnp.int32(1)), _batch())
    _, other = _setup(toy, key=1)[2](state, _batch())
    assert len({float(x["loss_secret"]) for x in (logs, later, other)}) == 3


def test_logs_hold_the_terms_their_weights_and_the_psnr(toy):
    toy.channel = ()
    model, state, step = _setup(toy)
    batch = _batch()
    _, logs = step(state, batch)
    cover, secret = (batch[name].astype(np.float32) / 255 for name in ("cover", "secret"))
    stego = np.asarray(model.hide(state.params["hide"], cover, secret))
    revealed = np.asarray(model.reveal(state.params["reveal"], stego))
    for name, (a, b) in {"stego": (cover, stego), "secret": (secret, revealed)}.items():
        errors = np.mean((a - b) ** 2, axis=(1, 2, 3))
        assert float(logs[f"loss_{name}"]) == pytest.approx(errors.mean(), rel=1e-4)
        assert float(logs[f"{name}_psnr_db"]) == pytest.approx(np.mean(-10 * np.log10(errors)), abs=1e-3)
    assert float(logs["loss_secret_db"]) == -float(logs["secret_psnr_db"])
    assert float(logs["weighted_secret"]) == pytest.approx(2 * float(logs["loss_secret"]), rel=1e-6)
    total = sum(float(logs[f"weighted_{name}"]) for name in toy.losses)
    assert float(logs["loss"]) == pytest.approx(total, rel=1e-6)
    assert float(logs["learning_rate"]) == pytest.approx(0.01)
    assert float(logs["gradient_norm"]) > 0


def test_similarity_and_the_colours_of_errors_count_where_asked_for(toy):
    toy.channel, batch = (), _batch(2, shape=(12, 12, 3))
    toy.losses.update(secret_ssim=0.5, stego_ssim=0.0, colour="ycbcr")
    pictures = _pictures(toy, batch)
    _, state, step = _setup(toy)
    _, logs = step(state, batch)
    wanted = losses.dissimilarity(pictures.secret, pictures.revealed)
    assert float(logs["weighted_secret_ssim"]) == pytest.approx(0.5 * float(wanted), rel=1e-4)
    space = [losses.to_space(x, "ycbcr") for x in (pictures.cover, pictures.stego)]
    assert float(logs["loss_stego"]) == pytest.approx(np.mean(np.square(space[0] - space[1])), rel=1e-4)
    assert "loss_stego_ssim" not in logs


def test_frozen_parameters_stay_and_the_others_learn(toy):
    toy.optimizer.frozen = ("hide", "reveal/b")
    _, state, step = _setup(toy)
    after, _ = step(state, _batch())
    same = jax.tree.map(np.array_equal, state.params, after.params)
    assert same == {"hide": {"mix": True}, "reveal": {"unmix": False, "bias": True}}
    toy.optimizer.frozen = ("reveal/mix",)
    with pytest.raises(UserError, match="frozen fits no parameters: reveal/mix"):
        _setup(toy)[2](state, _batch())


def test_pruning_leaves_the_largest_weights_that_learn(toy):
    toy.optimizer.update(frozen=("hide",), sparsity=0.5)
    toy.optimizer.num_steps = 2
    _, state, step = _setup(toy)
    for _ in range(2):
        state, _ = step(state, _batch())
    zeros = jax.tree.map(lambda x: float(np.mean(x == 0)), state.params)
    assert zeros == {"hide": {"mix": 0.0}, "reveal": {"unmix": 0.5, "bias": 0.0}}


def test_the_parameter_norm_is_that_after_the_update(toy):
    _, state, step = _setup(toy)
    after, logs = step(state, _batch())
    norms = [np.linalg.norm(jax.flatten_util.ravel_pytree(x.params)[0]) for x in (state, after)]
    assert float(logs["parameter_norm"]) == pytest.approx(norms[1], rel=1e-6)
    assert abs(norms[1] - norms[0]) > 1e-4


def test_the_gradient_is_that_of_the_logged_loss(toy):
    """Against central differences, with the randomness held still."""
    _, state, step = _setup(toy)
    (_, logs), slopes = step(state, _batch()), []
    flat, rebuild = jax.flatten_util.ravel_pytree(state.params)
    for i in range(flat.size):
        nearby = [state.replace(params=rebuild(flat.at[i].add(move))) for move in (-0.01, 0.01)]
        low, high = (float(step(moved, _batch())[1]["loss"]) for moved in nearby)
        slopes.append((high - low) / 0.02)
    assert float(logs["gradient_norm"]) == pytest.approx(np.linalg.norm(slopes), rel=1e-2)


def test_the_loss_falls(toy):
    toy.optimizer.learning_rate = 0.1
    _, state, step = _setup(toy)
    values = []
    for i in range(20):
        state, logs = step(state, _batch(seed=i))
        values.append(float(logs["loss"]))
    assert np.mean(values[-5:]) < 0.7 * np.mean(values[:5])


def test_a_weight_of_zero_stops_that_term(toy):
    """Only the secret's losses reach the reveal side, so without them nothing there moves."""
    toy.losses.secret = toy.losses.secret_db = 0.0
    _, state, step = _setup(toy)
    after, logs = step(state, _batch())
    assert float(logs["weighted_secret"]) == 0 < float(logs["loss_secret"])
    assert jax.tree.all(jax.tree.map(np.array_equal, after.params["reveal"], state.params["reveal"]))
    assert not np.array_equal(after.params["hide"]["mix"], state.params["hide"]["mix"])


def test_what_both_sides_share_is_tied_after_every_step(toy, monkeypatch):
    build = models.MODELS["toy"]

    def tied(config):
        def tie(params):
            return {**params, "reveal": {**params["reveal"], "bias": params["hide"]["mix"][0, 0] + 1}}

        def penalty(params, cover, secret):
            return jnp.sum(params["hide"]["mix"]) * cover.mean()

        return build(config)._replace(tie=tie, penalty=penalty)

    monkeypatch.setitem(models.MODELS, "toy", tied)
    _, state, step = _setup(toy)
    after, logs = step(state, _batch())
    assert np.array_equal(after.params["reveal"]["bias"], after.params["hide"]["mix"][0, 0] + 1)
    expected = float(state.params["hide"]["mix"].sum()) * _batch()["cover"].mean() / 255
    assert float(logs["loss_penalty"]) == pytest.approx(expected, rel=1e-4)


def test_shared_parameters_collect_the_gradients_of_both_sides(toy, monkeypatch):
    """With hide and reveal tied, a loss that only the reveal side can lower moves the shared parameters.

    They and their averages stay tied.
    """
    toy.optimizer.ema_decay = 0.5
    toy.losses.stego, toy.losses.secret = 0.0, 1.0
    build = models.MODELS[toy.model.name]

    def tied(config):
        model = build(config)

        def hide(params, cover, secret):
            return cover

        def reveal(params, stego):
            return stego + params["shared"]

        def init(key):
            return {"hide": {"shared": jnp.zeros(3)}, "reveal": {"shared": jnp.zeros(3)}}

        def tie(params):
            return {**params, "reveal": {"shared": jnp.array(params["hide"]["shared"], copy=True)}}

        return model._replace(init=init, hide=hide, reveal=reveal, tie=tie)

    monkeypatch.setitem(models.MODELS, toy.model.name, tied)
    _, state, step = _setup(toy)
    state, logs = step(state, _batch())
    assert logs["gradient_norm"] > 0
    assert np.all(state.params["hide"]["shared"] != 0)
    state, _ = step(state, _batch(seed=1))
    for params in (state.params, state.ema):
        assert np.array_equal(params["hide"]["shared"], params["reveal"]["shared"])
    assert np.all(state.params["hide"]["shared"] != state.ema["hide"]["shared"]) and np.any(
        state.ema["hide"]["shared"]
    )


def test_psnr_is_a_mean_over_examples_of_at_most_100_db():
    a = jnp.zeros((3, 4, 4, 3))
    b = a + jnp.array([0.1, 0.01, 0.0])[:, None, None, None]
    assert float(psnr(a, b)) == pytest.approx((20 + 40 + 100) / 3, abs=1e-3)


# --- parts of a batch -----------------------------------------------------------------------------


def test_the_mean_over_parts_is_that_of_the_whole():
    """Equal but for the order of additions."""
    rng = np.random.default_rng(0)
    batch, noise = {"x": jnp.asarray(rng.normal(size=(12, 5)))}, jax.random.split(jax.random.key(0), 12)

    def function(batch, keys):
        draws = jax.vmap(lambda key: jax.random.normal(key, (5,)))(keys)
        return {"mean": jnp.mean(batch["x"] ** 2 * draws, axis=0), "scalar": jnp.mean(jnp.sin(batch["x"]))}

    whole = function(batch, noise)
    for parts in (1, 2, 3, 12):
        found = jax.jit(lambda *given, parts=parts: mean_over_parts(function, parts, *given))(batch, noise)
        for name, value in whole.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-6)


def test_parts_come_one_after_the_other_in_order():
    seen = []

    def function(x):
        jax.debug.callback(lambda part: seen.append(part.tolist()), x, ordered=True)
        return x.mean()

    found = jax.jit(lambda x: mean_over_parts(function, 3, x))(jnp.arange(6.0))
    assert float(found) == 2.5 and seen == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_make_the_same_step(toy, parts):
    """Each example keeps its noise; equal but for the order of additions."""
    toy.channel = (("gaussian_noise", 0.3),)
    _, state, step = _setup(toy)
    whole, logs = step(state, _batch())
    toy.train.accumulate_steps = parts
    _, state, step = _setup(toy)
    after, others = step(state, _batch())
    assert sorted(logs) == sorted(others)
    for name, value in logs.items():
        assert float(others[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-7), name
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * toy.optimizer.learning_rate)
    toy.train.accumulate_steps = 1
    _, other = _setup(toy, key=1)[2](state, _batch())
    assert abs(float(other["loss_secret"]) / float(logs["loss_secret"]) - 1) > 1e-4  # the noise shows


# --- the average of the parameters ----------------------------------------------------------------


def test_the_average_follows_the_parameters_after_each_update(toy):
    toy.optimizer.ema_decay = 0.25
    _, state, step = _setup(toy)
    average = jax.tree.map(np.array, state.params)
    assert jax.tree.all(jax.tree.map(np.array_equal, state.ema, average))
    plain, _ = _setup(toy)[2](state.replace(ema=None), _batch())
    for i in range(4):
        state, _ = step(state, _batch(seed=i))
        decay = (0.1, 2 / 11, 0.25, 0.25)[i]
        average = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * np.array(p), average, state.params)
        for a, b in zip(jax.tree.leaves(state.ema), jax.tree.leaves(average), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
        if i == 0:  # the average changes nothing of the training
            assert jax.tree.all(jax.tree.map(np.array_equal, plain.params, state.params))
            assert plain.ema is None


# --- validation -----------------------------------------------------------------------------------


def _validate(config, batch, weight, number=0, params=None):
    model, state, _ = _setup(config)
    step = jax.jit(make_validation_step(choose_objective(model, config), jax.random.key(7)))
    found = step((params or state.params, jnp.uint32(number)), batch | {"weight": np.float32(weight)})
    return {name: float(value) for name, value in found.items()}


def test_validation_adds_up_psnr_of_8_bits_and_losses_over_real_examples(toy):
    """By hand: hide adds 0.313 times the secret, reveal reads the stego as it is."""
    toy.channel, batch, weight = (), _batch(5), [1, 1, 0, 1, 0]
    found = _validate(toy, batch, weight, params=_identities(hide=0.313))
    cover, secret = (batch[name] / 255 for name in ("cover", "secret"))
    exact, wanted = cover + 0.313 * secret, {"loss": 0, "stego_psnr_db": 0, "secret_psnr_db": 0, "weight": 3}
    bits = np.round(np.clip(exact, 0, 1) * 255) / 255
    for i in (0, 1, 3):
        wanted["stego_psnr_db"] -= 10 * np.log10(np.mean((bits[i] - cover[i]) ** 2))
        wanted["secret_psnr_db"] -= 10 * np.log10(np.mean((bits[i] - secret[i]) ** 2))
        errors = [np.mean((exact[i] - x[i]) ** 2) for x in (cover, secret)]
        wanted["loss"] += errors[0] + 2 * errors[1] + 0.01 * 10 * np.log10(errors[1])
    assert found == pytest.approx(wanted, rel=1e-4)


def test_padding_may_be_anything(toy):
    batch = _batch(4)
    found = _validate(toy, batch, [1, 1, 0, 0])
    for name in batch:
        batch[name][2:] = batch[name][:2]
    assert _validate(toy, batch, [1, 1, 0, 0]) == found
    broken = _identities(hide=0.3)
    broken["hide"]["mix"] = broken["hide"]["mix"] * jnp.nan
    assert np.isnan(_validate(toy, batch, [1, 1, 0, 0], params=broken)["loss"])
    assert _validate(toy, batch, [0, 0, 0, 0], params=broken)["loss"] == 0


def test_each_batch_of_a_validation_has_its_own_noise_the_same_in_every_pass(toy):
    toy.channel = (("gaussian_noise", 0.3),)
    found = [_validate(toy, _batch(), np.ones(4), number) for number in (0, 1, 0)]
    assert found[0] == found[2] and found[0]["loss"] != found[1]["loss"]
    assert found[0]["stego_psnr_db"] == found[1]["stego_psnr_db"]  # before the channel


# --- recordings --------------------------------------------------------------------------------------


@pytest.fixture
def listener(toy, monkeypatch, tmp_path):
    """The config of a model that is trained from recordings."""
    monkeypatch.setitem(models.MODELS, "listener", build_listener)
    for number in range(5):
        write_videos(tmp_path, number)
    listen(toy, tmp_path)
    return toy


def _recordings(config):
    return next(data.create_pairs(data.section(config), seed=0, batch_size=4))


def test_the_loss_of_a_model_of_recordings_is_its_own(listener):
    """By hand; with tied parameters, whose bias is 0, and without the config's sections on pictures."""
    _, state, step = _setup(listener)
    batch, slope = _recordings(listener), np.array(state.params["reveal"]["slope"])
    after, logs = step(state, batch)
    wanted = {
        name: np.mean((slope[i] * means_of(batch[name], 1) - batch["symbols"][..., i]) ** 2)
        for i, name in enumerate(("luma", "cb"))
    }
    wanted |= {"loss": sum(wanted.values()), "mean_step": batch["step"].mean()}
    assert logs.keys() == {*wanted, "gradient_norm", "parameter_norm", "learning_rate"}
    assert {name: float(logs[name]) for name in wanted} == pytest.approx(wanted, rel=1e-5)
    assert np.all(after.params["hide"]["bias"] != 0)
    assert np.array_equal(after.params["hide"]["bias"], after.params["reveal"]["bias"])


def test_a_model_of_recordings_learns(listener):
    """The first symbol is the mean of luma, and the second that of Cb."""
    listener.optimizer.learning_rate = 0.05
    _, state, step = _setup(listener)
    with closing(data.create_pairs(data.section(listener), seed=0, batch_size=4)) as batches:
        for batch in islice(batches, 200):
            state, logs = step(state, batch)
    assert float(logs["loss"]) < 1e-4
    assert np.allclose(state.params["reveal"]["slope"], 1, atol=0.1)


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_of_recordings_make_the_same_step(listener, parts):
    """Equal but for the order of additions."""
    found = []
    for listener.train.accumulate_steps in (1, parts):
        _, state, step = _setup(listener)
        found.append(step(state, _recordings(listener)))
    (whole, logs), (after, others) = found
    assert sorted(logs) == sorted(others)
    for name, value in logs.items():
        assert float(others[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-7), name
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * listener.optimizer.learning_rate)


def test_validation_adds_up_what_the_loss_logs_of_real_recordings(listener):
    model, state, _ = _setup(listener)
    batch, params = _recordings(listener), state.params
    found = _validate(listener, batch, [1, 0, 1, 0], params=params)
    wanted = {"loss": 0, "luma": 0, "cb": 0, "mean_step": 0, "weight": 2}
    for i in (0, 2):
        one = {name: x[i : i + 1] for name, x in batch.items()}
        loss, logs = model.loss(model.tie(params), one, None)
        for name, value in (logs | {"loss": loss}).items():
            wanted[name] += float(value)
    assert found == pytest.approx(wanted, rel=1e-5)
