"""`prep_hide_reveal`: prepare, hide and reveal networks after Baluja 2017.

"Hiding Images in Plain Sight: Deep Steganography" (NIPS 2017), as in the Keras system "Deep Video
Steganography: Hiding Videos in Plain Sight": each network is made of blocks of three parallel stacks of
3x3, 4x4 and 5x5 convolutions with 50 channels whose outputs are concatenated; hide and reveal end in a
1x1 convolution. Pixels are normalised by the ImageNet mean and deviation. Train it with noise or rounding
of the stego, the loss ||c - c'||^2 + beta ||s - s'||^2, and Adam (configs/prep_hide_reveal.py).

Random kernels start at grey. With `start = "delta"` every stack hands on its first three inputs (Dirac
initialisation: Zagoruyko and Komodakis 2017, "DiracNets"), so that training begins at stego = cover and
revealed = stego, more or less. With `start = "modulo"` the networks hide and reveal at once
(`modulo_start`), and training goes on from there. `:small` of the config has smaller kernels and few features
where the start needs no more; a CPU is twice as fast where those of convolutions are multiples of 8. With
`quantise = "int8"` weights and activations are rounded as integer arithmetic has them, straight through in
training (Jacob et al. 2018), which the start modulo survives whole.
"""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deepsteg_jax.errors import UserError
from deepsteg_jax.models.base import Integers, Model, compute_dtype, rematerialise, straight_through
from deepsteg_jax.models.modulo_start import DEPTH, RGB, UNIT, Start, apply_modulo_start
from deepsteg_jax.stripes import map_tiles

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
KERNELS = (3, 4, 5)
LARGEST_MODULUS = 32  # that metadata is written for
TILE = 512  # pixels of a side that are worked on at once
_LIFT = 3.0  # brings normalised pixels, down to -2.2, above zero, where ReLU lets them pass
_REST = 0.3  # of the usual weights of what comes to RGB besides

Initialisers = tuple[Callable, Callable]  # of the kernel and of the bias of a convolution

_random = nn.initializers.lecun_normal()


def hand_on(sources: int = 1, features: int = 0, lift: float = 0.0, rest: float = 0.0) -> Initialisers:
    """Make output i < 3 the mean of inputs i, i + features, ... (`sources` of them), plus `lift`.

    Returns:
        Initialisers of a convolution in whose other outputs kernels are random and biases 0. What else comes
        to the first three outputs is `rest` times as strong as usual.
    """

    def kernel(key, shape, dtype=jnp.float32):
        inputs = features * np.arange(sources)[:, None] + np.arange(RGB)
        middle = ((shape[0] - 1) // 2, (shape[1] - 1) // 2)
        found = _random(key, shape, dtype).at[..., :RGB].multiply(rest)
        found = found.at[:, :, inputs.ravel(), :RGB].set(0)
        return found.at[(*middle, inputs, np.arange(RGB))].set(1 / sources)

    def bias(key, shape, dtype=jnp.float32):
        del key
        return jnp.zeros(shape, dtype).at[:RGB].set(lift)

    return kernel, bias


def normalise(x: jax.Array) -> jax.Array:
    """Bring RGB in [0, 1], [..., 3], to zero mean and unit deviation over ImageNet."""
    return (x - MEAN) / DEVIATION


def denormalise(x: jax.Array) -> jax.Array:
    """Invert `normalise`, [..., 3] -> [..., 3]."""
    return x * DEVIATION + MEAN


class Block(nn.Module):
    """Stacks of convolutions side by side, [..., c] -> [..., stacks * features[-1]].

    `kernels` has the sides of each stack's kernels, `features` the channels of each convolution of a stack;
    `first` initialises its first one, `others` those after it.
    """

    features: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    dtype: jnp.dtype
    first: Initialisers
    others: Initialisers
    quantise: bool = False

    @nn.compact
    def __call__(self, x):
        """Apply the stacks; see the class."""
        stacks = []
        for stack, sides in enumerate(self.kernels):
            y = x
            for i, side in enumerate(sides):
                name, size = f"stack{stack}_conv{i}", (side, side)
                init = self.others if i else self.first
                y = nn.relu(_conv(self.features[i], size, self.dtype, init, name, self.quantise)(y))
                y = to_uint8(y) if self.quantise else y
            stacks.append(y)
        return jnp.concatenate(stacks, axis=-1)


def _conv(features, size, dtype, init: Initialisers, name: str, quantise: bool) -> nn.Conv:
    fields = {"dtype": dtype, "kernel_init": init[0], "bias_init": init[1], "name": name}
    return nn.Conv(features, size, conv_general_dilated=partial(_convolve, quantise=quantise), **fields)


def to_int8(kernel: jax.Array) -> jax.Array:
    """Round weights [..., outputs] to -127 to 127 times a scale of each output."""
    scale = jnp.max(jnp.abs(kernel), tuple(range(kernel.ndim - 1))) / 127
    scale = lax.stop_gradient(jnp.maximum(scale, 1e-12))
    return straight_through(kernel, jnp.round(kernel / scale) * scale)


def to_uint8(x: jax.Array) -> jax.Array:
    """Round activations from 0 on to 0 to 255 times `UNIT`, what is larger to 255."""
    x = jnp.minimum(x, 255 * UNIT)
    return straight_through(x, jnp.round(x / UNIT) * UNIT)


def _convolve(x, kernel, *arguments, quantise: bool, **options):
    """Convolve; a kernel of 1x1 as a matrix product, whose gradient is many times faster on a CPU."""
    kernel = to_int8(kernel) if quantise else kernel
    if kernel.shape[:2] == (1, 1):
        return jnp.einsum("...i,io->...o", x, kernel[0, 0], precision=options["precision"])
    return lax.conv_general_dilated(x, kernel, *arguments, **options)


class Network(nn.Module):
    """Two blocks, four convolutions deep and one deep, then 1x1 to RGB if `out` says so."""

    out: bool
    features: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    dtype: jnp.dtype
    block: type[nn.Module]
    delta: bool
    quantise: bool

    @nn.compact
    def __call__(self, x):
        """Apply the network; see the class."""
        usual = (_random, nn.initializers.zeros)
        joined, collected = ((len(self.kernels), features) for features in self.features[DEPTH - 1 :])
        lifting, passing, joining, collecting = (
            (hand_on(lift=_LIFT), hand_on(), hand_on(*joined), hand_on(*collected, -_LIFT, _REST))
            if self.delta
            else (usual,) * 4
        )
        for number, (part, first) in enumerate(((slice(DEPTH), lifting), (slice(DEPTH, None), joining))):
            sides = tuple(stack[part] for stack in self.kernels)
            settings = self.dtype, first, passing, self.quantise
            x = self.block(self.features[part], sides, *settings, name=f"block{number}")(x)
        return _conv(RGB, (1, 1), self.dtype, collecting, "out", self.quantise)(x) if self.out else x


def _sides(kernels: Sequence[int | Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Return the sides of every stack's kernels, those of the first block and that of the second."""
    sides = tuple((k,) * (DEPTH + 1) if isinstance(k, int) else tuple(k) for k in kernels)
    if any(len(each) != DEPTH + 1 for each in sides):
        raise UserError(f"kernels of a stack must have one side or {DEPTH + 1} sides, not {kernels}")
    return sides


def _reach(kernels: tuple[tuple[int, ...], ...]) -> int:
    """Return the pixels around it that a pixel of the output of a network of these kernels depends on."""
    return sum(max(stack[i] // 2 for stack in kernels) for i in range(DEPTH + 1))


def _features(config, side: str) -> tuple[int, ...]:
    """Return the features of every convolution of a stack of `side`, hide or reveal."""
    found = tuple(config.get(f"{side}_features", ())) or (config.features,) * (DEPTH + 1)
    if len(found) != DEPTH + 1:
        raise UserError(f"config.model.{side}_features must be empty or {DEPTH + 1} numbers, not {found}")
    return found


def _frames(x: jax.Array) -> jax.Array:
    return x.reshape(-1, *x.shape[-3:])


def build(config) -> Model:
    """Build the model of `config`: features and kernels of both sides, start, dtype, remat.

    Video goes frame by frame.

    Raises:
        UserError: an unknown start, or fewer features than it needs.
    """
    sides = "hide", "reveal"
    start = config.get("start", "delta")
    if start not in ("random", "delta", "modulo"):
        raise UserError(f"config.model.start must be random, delta or modulo, not {start!r}")
    features = [_features(config, side) for side in sides]
    if start != "modulo" and (fewest := min(map(min, features))) < RGB:
        raise UserError(f"config.model.features must be at least {RGB}, not {fewest}")
    kernels = [_sides(config.get(f"{side}_kernels", KERNELS)) for side in sides]
    quantise = config.get("quantise", "")
    if quantise not in ("", "int8"):
        raise UserError(f"config.model.quantise must be empty or int8, not {quantise!r}")
    settings = compute_dtype(config), rematerialise(Block, config), start == "delta", quantise == "int8"
    prepare, hide_network, reveal_network = (
        Network(out, features[side], kernels[side], *settings)
        for out, side in ((False, 0), (True, 0), (True, 1))
    )

    def init(key):
        prepare_key, hide_key, reveal_key = jax.random.split(key, 3)
        picture = jnp.zeros((1, 8, 8, RGB))
        prepared = jnp.zeros((1, 8, 8, RGB + len(kernels[0]) * features[0][-1]))
        params = {
            "hide": {
                "prepare": prepare.init(prepare_key, picture)["params"],
                "hide": hide_network.init(hide_key, prepared)["params"],
            },
            "reveal": reveal_network.init(reveal_key, picture)["params"],
        }
        if start != "modulo":
            return params
        starts = (
            Start(config.levels, len(stacks), each, MEAN, DEVIATION)
            for stacks, each in zip(kernels, features, strict=True)
        )
        return apply_modulo_start(params, *starts)

    def hide(params, cover, secret):
        def one(cover, secret):
            prepared = prepare.apply({"params": params["prepare"]}, normalise(secret))
            together = jnp.concatenate([normalise(cover), prepared], axis=-1)
            stego = hide_network.apply({"params": params["hide"]}, together)
            return denormalise(stego.astype(jnp.float32))

        return map_tiles(one, TILE, 2 * _reach(kernels[0]), _frames(cover), _frames(secret)).reshape(
            cover.shape
        )

    def reveal(params, stego):
        def one(stego):
            return denormalise(reveal_network.apply({"params": params}, normalise(stego)).astype(jnp.float32))

        return map_tiles(one, TILE, _reach(kernels[1]), _frames(stego)).reshape(stego.shape)

    # Metadata that moves samples by `levels` leaves the remainders.
    exact = start == "modulo" and config.levels <= LARGEST_MODULUS
    # The first layer reads pixels, whose steps 8 bits would lose once they are normalised.
    integers = Integers(r"stack\d+_conv[1-9]|block1/", 255 * UNIT) if start == "modulo" else None
    return Model(init, hide, reveal, modulus=config.levels if exact else 1, integers=integers)
