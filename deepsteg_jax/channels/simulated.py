"""Differentiable channels between hide and reveal, composed from the config.

`config.channel` is a tuple of (name, parameter) pairs, applied in order; each maps (key, stego, parameter)
to what the receiver gets, float32 of the same shape, [h, w, 3] or [t, h, w, 3]. Codecs, resizing and
rounding return 8-bit values in [0, 1]; noise and gamma neither round nor clip, ("round", 8) after them does.
Most numbers may be (low, high) instead: then each example draws its own. CHANNELS has the names.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from deepsteg_jax.channels import simulated_codecs
from deepsteg_jax.channels.simulated_codecs import Range, draw, to_byte
from deepsteg_jax.colour import MATRICES
from deepsteg_jax.dct import einsum
from deepsteg_jax.errors import UserError
from deepsteg_jax.shapes import Array, Video

Channel = Callable[[jax.Array, Array], Array]  # (key, stego) -> received

_TOE = 1 / 255  # gamma is linear below, where the slope of the power has no bound


def round_to_bits(key: jax.Array, stego: Video, bits: int) -> Video:
    """Clip to [0, 1] and round to 2^bits levels; the gradient goes straight through (Bengio 2013)."""
    del key
    steps = 2**bits - 1
    rounded = jnp.round(jnp.clip(stego, 0, 1) * steps) / steps
    return stego + jax.lax.stop_gradient(rounded - stego)


def gaussian_noise(key: jax.Array, stego: Video, deviation: Range) -> Video:
    """Add white Gaussian noise; `deviation` is in units of the [0, 1] range."""
    key, drawn = _split(key, deviation)
    return stego + drawn * jax.random.normal(key, stego.shape)


def shot_noise(key: jax.Array, stego: Video, photons: Range) -> Video:
    """Add the noise of counting `photons` at white (1 or more): Gaussian with a Poisson count's variance.

    The variance is at least that of one photon, where its slope would have no bound.
    """
    key, drawn = _split(key, photons)
    deviation = jnp.sqrt(jnp.maximum(stego, 1 / drawn) / drawn)
    return stego + deviation * jax.random.normal(key, stego.shape)


def gamma(key: jax.Array, stego: Video, exponent: Range) -> Video:
    """Return stego ** exponent, exponent 0.1 to 10; below 1/255 a straight line through black."""
    exponent = draw(key, exponent)
    power = jnp.maximum(stego, _TOE) ** exponent
    return jnp.where(stego < _TOE, stego * _TOE ** (exponent - 1), power)


def _split(key: jax.Array, parameter: Range) -> tuple[Array, Array | float]:
    """Return a key for the noise, and the parameter; a fixed one leaves the key as it is."""
    if not isinstance(parameter, tuple):
        return key, parameter
    return jax.random.fold_in(key, 0), draw(jax.random.fold_in(key, 1), parameter)


# Geometry


def _cubic(x: Array) -> Array:
    """Evaluate Keys' kernel with a = -0.6, as swscale has it (Pillow has -0.5)."""
    a, x = -0.6, jnp.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    return jnp.where(x < 1, near, jnp.where(x < 2, a * (((x - 5) * x + 8) * x - 4), 0))


def resize_matrix(rows: int, columns: int, size: Array | float, source: Array | float, reach: int) -> Array:
    """Return bicubic weights [rows, columns]: `size` samples of `source` ones; rows past `size` are spare.

    The kernel is as wide as a sample of the coarser grid (antialiased) and at most `reach` samples to each
    side; edges repeat.
    """
    ratio = source / size
    centre = (jnp.minimum(jnp.arange(rows), size - 1)[:, None] + 0.5) * ratio - 0.5
    taps = jnp.arange(-reach, columns + reach)
    weights = _cubic((taps - centre) / jnp.maximum(ratio, 1))
    sample = jax.nn.one_hot(jnp.clip(taps, 0, source - 1), columns)
    return einsum("rt,tc->rc", weights / jnp.sum(weights, axis=1, keepdims=True), sample)


def resize(key: jax.Array, stego: Video, scale: Range) -> Video:
    """Scale both sides by `scale` and back, bicubic as swscale does, from 8 bits to 8 bits each time."""
    low, high = scale if isinstance(scale, tuple) else (scale, scale)
    drawn, there, back = draw(key, scale), [], []
    for side in stego.shape[-3:-1]:
        small, most = jnp.maximum(jnp.round(side * drawn), 1), max(round(side * high), 1)
        reach = int(2 * side / max(side * low - 0.5, 1)) + 2
        there.append(resize_matrix(most, side, small, side, reach))
        back.append(resize_matrix(side, most, side, small, 3))
    small = to_byte(einsum("...yxc,ry,sx->...rsc", to_byte(255 * stego), *there))
    return to_byte(einsum("...rsc,yr,xs->...yxc", small, *back)) / 255


def _window(key: jax.Array, side: int, share: Array | float) -> tuple[Array, Array]:
    """Return where a random window that leaves out `share` of a side begins and, one further on, ends."""
    kept = jnp.maximum(jnp.round(side * (1 - share)), 1).astype(jnp.int32)
    start = jax.random.randint(key, (), 0, side - kept + 1)
    return start, start + kept


def crop_pad(key: jax.Array, stego: Video, share: Range, edge: bool = False) -> Video:
    """Keep a window of 1 - share of both sides in place; black around it, or its edge repeated.

    `share` is from 0 to below 1. The window is drawn from the key, the same for all frames of a group.
    """
    keys, received = jax.random.split(key, 3), stego
    share = draw(keys[2], share)
    for number, axis in enumerate((stego.ndim - 3, stego.ndim - 2)):
        index = jnp.arange(stego.shape[axis])
        first, end = _window(keys[number], len(index), share)
        if edge:
            received = jnp.take(received, jnp.clip(index, first, end - 1), axis=axis)
        else:
            inside = jnp.expand_dims((index >= first) & (index < end), range(1, stego.ndim - axis))
            received = jnp.where(inside, received, 0)
    return received


# Composition


class Kind(NamedTuple):
    """A channel and the numbers it takes: `lowest` to `highest`, or one of `names`."""

    apply: Callable[[jax.Array, Array, Any], Array]  # (key, stego, parameter) -> received
    lowest: float = 0
    highest: float = 0
    ranges: bool = True  # whether (low, high) may stand for a number
    gop: bool = False  # whether (low, high, frames) may
    names: tuple[str, ...] = ()

    def takes(self) -> str:
        """Say in words, for messages, which parameters it takes."""
        if self.names:
            return "one of " + ", ".join(self.names)
        numbers = f"a number from {self.lowest:g} to {self.highest:g}" + ", or (low, high)" * self.ranges
        return numbers + " or (low, high, frames of a GOP)" * self.gop


CHANNELS = {
    "round": Kind(round_to_bits, 1, 16, ranges=False),
    "gaussian_noise": Kind(gaussian_noise, 0, 10),
    "shot_noise": Kind(shot_noise, 1, 1e9),
    "gamma": Kind(gamma, 0.1, 10),
    "resize": Kind(resize, 0.1, 1),
    "crop_pad": Kind(crop_pad, 0, 0.95),
    "crop_edge": Kind(partial(crop_pad, edge=True), 0, 0.95),
    "yuv420": Kind(simulated_codecs.yuv420, names=MATRICES),
    "yuv444": Kind(simulated_codecs.yuv444, names=MATRICES),
    "jpeg": Kind(simulated_codecs.jpeg, 1, 100),
    "jpeg444": Kind(simulated_codecs.jpeg444, 1, 100),
    "video_codec": Kind(simulated_codecs.video_codec, 0, 51, gop=True),
    "video_crf": Kind(simulated_codecs.video_crf, 0, 51, gop=True),
}


def _is_valid(kind: Kind, parameter: Any) -> bool:
    """Return whether a channel takes the parameter."""
    if kind.names:
        return parameter in kind.names
    numbers = parameter if isinstance(parameter, tuple) else (parameter,)
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers):
        return False
    if isinstance(parameter, tuple):
        if not kind.ranges or len(parameter) not in ((2, 3) if kind.gop else (2,)):
            return False
        if len(parameter) == 3 and not (isinstance(parameter[2], int) and parameter[2] >= 1):
            return False
        numbers = parameter[:2]
    whole = kind.ranges or isinstance(parameter, int)
    return whole and kind.lowest <= numbers[0] <= numbers[-1] <= kind.highest


def _one_of(stages: tuple) -> Channel:
    """Choose one of the stages for each example; under vmap all are computed."""
    options = [_stage(stage) for stage in stages]
    if not options:
        raise UserError("config.channel: one_of takes a tuple of (name, parameter) pairs, at least one")

    def channel(key, stego):
        number = jax.random.randint(jax.random.fold_in(key, 0), (), 0, len(options))
        return jax.lax.switch(number, options, jax.random.fold_in(key, 1), stego)

    return channel


def _stage(stage: Any) -> Channel:
    """Return a stage of the config as channel(key, stego)."""
    if not (isinstance(stage, tuple | list) and len(stage) == 2 and isinstance(stage[0], str)):
        raise UserError(f"config.channel: {stage!r} is not a stage: give (name, parameter)")
    name, parameter = stage
    parameter = tuple(parameter) if isinstance(parameter, list) else parameter  # of a config saved as JSON
    if name in _COMPOSITIONS:
        if not isinstance(parameter, tuple):
            raise UserError(f"config.channel: {name} takes a tuple of (name, parameter) pairs")
        return _COMPOSITIONS[name](parameter)
    if name not in CHANNELS:
        names = ", ".join((*CHANNELS, *_COMPOSITIONS))
        raise UserError(f"unknown channel {name!r}: config.channel takes {names}")
    kind = CHANNELS[name]
    if not _is_valid(kind, parameter):
        raise UserError(f"config.channel: {name} takes {kind.takes()}, not {parameter!r}")
    return lambda key, stego: kind.apply(key, stego, parameter)


def build(stages: Sequence[Any]) -> Channel:
    """Compose the channel channel(key, stego) -> received.

    Besides CHANNELS there are ("one_of", stages), which draws one of its stages for each example, and
    ("chain", stages), which applies all of them and so can be one of the stages; none is allowed there.

    Raises:
        UserError: a stage has an unknown name, or a parameter that its channel does not take.
    """
    applied = [_stage(stage) for stage in stages]

    def channel(key, stego):
        for i, apply in enumerate(applied):
            stego = apply(jax.random.fold_in(key, i), stego)
        return stego

    return channel


_COMPOSITIONS = {"one_of": _one_of, "chain": build}
