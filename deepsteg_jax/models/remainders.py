"""Start of `invertible` that hides by remainders: its fixed couplings, and the secret's conditional ones.

A block of the secret becomes DCT coefficients, companded whole numbers, and these digits modulo D, as many as
the block has samples; a sample of the stego is the 8-bit value nearest to the cover's whose remainder is the
digit (quantisation index modulation, Chen and Wornell 2001), which rounding to 8 bits cannot harm. Every step
is a coupling, so that the chain is invertible: what is lost is where in its cell of the quantiser a
coefficient lies, and the change of the cover.

Learned couplings come before: coefficients are halved again and again (Dinh et al. 2017, "Density estimation
using Real NVP"), and the half of lower frequencies, as the receiver will have it, tells how the other one is
scaled and companded. A last one tells where in its cell a coefficient probably lies. All work within a block,
since a key may have moved the blocks.
"""

from functools import cache
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from deepsteg_jax.dct import diagonal_frequencies, einsum
from deepsteg_jax.errors import UserError
from deepsteg_jax.models.base import straight_through

CLAMP = 2.0  # bound of log scales
PEAK = 16.0  # deviations of a coefficient that its numbers reach
MOST_DIGITS = 6  # of a coefficient: whole numbers stay exact in float32
LARGEST_MODULUS = 9

# Deviations of the 8x8 DCT of photographs, of 8-bit values: of the mean of a block, and the power law
# a / (1 + u + v)^b of the others, for lightness and the opponent colours.
_SPECTRA = ((800, 360, 1.33), (250, 160, 2.1), (160, 75, 1.9))
_LARGEST = np.array([6, 24**0.5, 32**0.5]) / 12**0.5 * 127.5  # of a colour's mean, both ways


class Plan(NamedTuple):
    """How the coefficients of a block become digits; coefficients by falling deviation, [c]."""

    modulus: int
    order: np.ndarray
    """Of each coefficient in a block of `dct.to_blocks`."""
    deviation: np.ndarray
    """In [0, 1] pixels."""
    levels: np.ndarray
    """Of its numbers: modulus ** digits."""
    step: np.ndarray
    """Between its companded values."""
    owner: np.ndarray
    """Of each digit, the most significant first: its coefficient."""
    weight: np.ndarray
    """Of each digit: what it stands for."""


@cache
def make_plan(block: int, modulus: int) -> Plan:
    """Deal digits out, each to the coefficient whose mean squared error then falls most.

    Args:
        block: side in pixels.
        modulus: D.

    Raises:
        UserError: D is out of range.
    """
    if not 3 <= modulus <= LARGEST_MODULUS:
        raise UserError(f"config.model.modulus must be 3 to {LARGEST_MODULUS}, not {modulus}")
    frequency = diagonal_frequencies(block) * 8 / block
    spectra = [np.where(frequency, a / (1 + frequency) ** b, mean) for mean, a, b in _SPECTRA]
    deviation = np.concatenate(spectra) * block / 8
    order = np.argsort(-deviation, kind="stable")
    deviation = deviation[order]
    peak = np.minimum(PEAK, _LARGEST[order // block**2] * block / deviation)
    errors = np.stack([_errors(modulus, p) for p in peak]) * deviation[:, None] ** 2
    owner = _deal(errors)
    counts = np.bincount(owner, minlength=len(order))
    place = np.array([np.count_nonzero(owner[:i] == one) for i, one in enumerate(owner)])
    levels = modulus**counts
    step = 2 * np.arcsinh(peak) / levels
    weight = modulus ** (counts[owner] - 1 - place)
    return Plan(modulus, order, deviation / 255, levels, step, owner, weight)


@cache
def _errors(modulus: int, peak: float) -> np.ndarray:
    """Return the squared error of a Laplacian of unit deviation by the number of its digits."""
    share = (np.arange(2048) + 0.5) / 4096
    x = np.log(2 * share) / 2**0.5  # its lower half
    found = [1.0]
    for levels in modulus ** np.arange(1, MOST_DIGITS + 1):
        step = 2 * np.arcsinh(peak) / levels
        level = np.maximum(np.round(np.arcsinh(x) / step), -(levels // 2))
        found.append(np.mean((np.sinh(level * step) - x) ** 2))
    return np.array(found)


def _deal(errors: np.ndarray) -> np.ndarray:
    """Return the coefficient of each digit in turn, as many as coefficients; errors [coefficient, digits]."""
    count, owner = np.zeros(len(errors), int), []
    while len(owner) < len(errors):
        now = np.take_along_axis(errors, count[:, None], 1)
        more = np.arange(errors.shape[1]) - count[:, None]
        more = np.where(more <= len(errors) - len(owner), more, 0)
        gain = np.where(more > 0, (now - errors) / np.maximum(more, 1), -1)
        best, digits = np.unravel_index(np.argmax(gain), gain.shape)
        owner += [best] * (digits - count[best])
        count[best] = digits
    return np.array(owner)


# --- fixed couplings ------------------------------------------------------------------------------


def _round(x: jax.Array) -> jax.Array:
    return straight_through(x, jnp.round(x))


def _remainder(x: jax.Array, modulus: int) -> jax.Array:
    """Return the remainder in [0, modulus)."""
    return x - modulus * jnp.floor(x / modulus)


def _nearest(x: jax.Array, modulus: int) -> jax.Array:
    """Return the remainder of least size."""
    return x - modulus * jnp.round(x / modulus)


class _Digits(NamedTuple):
    """Which channels hold which digits: coefficients that have any keep the lowest one."""

    kept: np.ndarray
    dropped: np.ndarray
    lowest: np.ndarray
    """Digits, in the order of `kept`."""
    others: np.ndarray
    """The other digits; the channels of `dropped` make room for them."""
    weights: np.ndarray
    """[others, kept]: what each stands for in the number of each coefficient."""


@cache
def _digits(block: int, modulus: int) -> _Digits:
    plan = make_plan(block, modulus)
    kept, dropped = np.flatnonzero(plan.levels > 1), np.flatnonzero(plan.levels == 1)
    lowest, others = np.flatnonzero(plan.weight == 1), np.flatnonzero(plan.weight > 1)
    lowest = lowest[np.argsort(plan.owner[lowest])]
    weights = plan.weight[others, None] * (plan.owner[others, None] == kept)
    return _Digits(kept, dropped, lowest, others, weights.astype(np.float32))


def _higher(numbers: jax.Array, digits: _Digits, modulus: int) -> jax.Array:
    """Return the digits above the lowest, [..., kept] -> [..., others]."""
    column = digits.weights.argmax(1)
    return _remainder(jnp.floor(jnp.round(numbers)[..., column] / digits.weights.max(1)), modulus)


def _merge(a: jax.Array, b: jax.Array, to_a: np.ndarray, to_b: np.ndarray) -> jax.Array:
    """Return the channels of `a` and `b` at these places."""
    return jnp.concatenate([a, b], -1)[..., np.argsort(np.concatenate([to_a, to_b]))]


def embed(x1: jax.Array, x2: jax.Array, block: int, modulus: int) -> tuple[jax.Array, jax.Array]:
    """Apply the fixed couplings: (cover, secret) -> (stego, lost part), all [..., c].

    Args:
        x1: samples, 8-bit values; digits go into them in the order of the plan.
        x2: coefficients in units of their numbers, which are 0 to levels - 1.
        block: side in pixels.
        modulus: D.
    """
    digits = _digits(block, modulus)
    own, room = x2[..., digits.kept], x2[..., digits.dropped]
    room = room + _higher(own, digits, modulus)
    own = own - einsum("...i,ij->...j", jnp.round(room), digits.weights)
    x2 = _merge(own, room, digits.lowest, digits.others) - x1
    x1 = x1 + _nearest(_round(x2), modulus)
    return x1, x2 + x1 - _remainder(x1, modulus)


def extract(x1: jax.Array, lost: jax.Array, block: int, modulus: int) -> tuple[jax.Array, jax.Array]:
    """Invert `embed`."""
    digits = _digits(block, modulus)
    x2 = lost - x1 + _remainder(x1, modulus)
    x1 = x1 - _nearest(_round(x2), modulus)
    x2 = x2 + x1
    own, room = x2[..., digits.lowest], x2[..., digits.others]
    own = own + einsum("...i,ij->...j", jnp.round(room), digits.weights)
    room = room - _higher(own, digits, modulus)
    return x1, _merge(own, room, digits.kept, digits.dropped)


@cache
def _places(block: int) -> np.ndarray:
    """Return the samples of a block, row by row, those nearest to its first corner first."""
    rows, columns, _ = np.mgrid[:block, :block, :3]
    return np.argsort(np.maximum(rows, columns).ravel(), kind="stable")


def to_samples(frames: jax.Array, block: int) -> jax.Array:
    """Return the samples of every block, those that a cut block keeps first: [n, h, w, 3] -> [n, y, x, c]."""
    samples = rearrange(frames, "n (y i) (x j) c -> n y x (i j c)", i=block, j=block)
    return samples[..., _places(block)]


def from_samples(samples: jax.Array, block: int) -> jax.Array:
    """Invert `to_samples`."""
    samples = samples[..., np.argsort(_places(block))]
    return rearrange(samples, "n y x (i j c) -> n (y i) (x j) c", i=block, j=block)


def make_cells(block: int, modulus: int) -> np.ndarray:
    """Return how many numbers are one where a frame's end leaves a square of a block, [side + 1, c].

    Of such a block only the first digits are used, which lie in the square.
    """
    plan = make_plan(block, modulus)
    found = np.ones((block + 1, len(plan.levels)), np.float32)
    for side in range(block):
        missing = plan.owner[3 * side**2 :]
        found[side] = modulus ** np.bincount(missing, minlength=len(plan.levels)).astype(float)
    return found


# --- learned couplings ----------------------------------------------------------------------------


class Network(nn.Module):
    """`depth` dense layers, then one to `out` channels that starts at zero."""

    features: int
    depth: int
    out: int
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x):
        """Apply the network; see the class."""
        for i in range(self.depth):
            x = nn.leaky_relu(nn.Dense(self.features, dtype=self.dtype, name=f"dense{i}")(x), 0.2)
        out = nn.Dense(self.out, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="leave")
        return out(x).astype(jnp.float32)


class Numbers(nn.Module):
    """Coefficients [..., c], in units of their deviations, to whole numbers 0 to levels - 1, and back.

    Each of the `couplings` doubles the coefficients that are known.
    """

    block: int
    modulus: int
    couplings: int
    features: int
    depth: int
    dtype: jnp.dtype = jnp.dtype("float32")

    @property
    def plan(self):
        """Return how coefficients become digits."""
        return make_plan(self.block, self.modulus)

    def setup(self):
        """Make the networks."""
        c = 3 * self.block**2
        self.ends = [c >> k for k in range(self.couplings, -1, -1)]
        sizes = np.diff([0, *self.ends])
        self.first = self.param("first", nn.initializers.zeros, (3 * sizes[0],))
        self.chain = [self._network(3 * int(size)) for size in sizes[1:]]
        self.last = self._network(c)

    def _network(self, out):
        return Network(self.features, self.depth, out, self.dtype)

    def _affine(self, part, known):
        """Return log scale, shift and log gain of the next coefficients."""
        found = self.chain[part - 1](known) if part else self.first
        scale, shift, gain = jnp.split(found, 3, -1)
        return CLAMP * jnp.tanh(scale / CLAMP), shift, CLAMP * jnp.tanh(gain / CLAMP)

    def _values(self, numbers, affine, part):
        """Return what numbers stand for."""
        scale, shift, gain = affine
        companded = (numbers - self.plan.levels[part] // 2) * self.plan.step[part] * jnp.exp(-gain)
        return (jnp.sinh(companded) - shift) * jnp.exp(-scale)

    def _parts(self):
        starts = [0, *self.ends[:-1]]
        return [slice(a, b) for a, b in zip(starts, self.ends, strict=True)]

    def __call__(self, x, cells):
        """Return the numbers; of `cells` [..., c] neighbouring ones only the middle one is used."""
        numbers, known = [], x[..., :0]
        for i, part in enumerate(self._parts()):
            affine = scale, shift, gain = self._affine(i, known)
            z = jnp.arcsinh(x[..., part] * jnp.exp(scale) + shift) * jnp.exp(gain)
            levels = self.plan.levels[part]
            z = jnp.clip(z / self.plan.step[part] + levels // 2, 0, levels - 1)
            numbers.append(_middle(_round(z), cells[..., part]))
            known = jnp.concatenate([known, jnp.arcsinh(self._values(numbers[-1], affine, part))], -1)
        return jnp.concatenate(numbers, -1)

    def inverse(self, numbers, cells):
        """Return the coefficients, where they probably lie in their cells."""
        numbers, affines, known = _middle(numbers, cells), [], numbers[..., :0]
        for i, part in enumerate(self._parts()):
            affines.append(self._affine(i, known))
            values = self._values(numbers[..., part], affines[-1], part)
            known = jnp.concatenate([known, jnp.arcsinh(values)], -1)
        numbers = numbers + self.last(known) * cells
        parts = zip(affines, self._parts(), strict=True)
        return jnp.concatenate([self._values(numbers[..., p], a, p) for a, p in parts], -1)


def _middle(numbers: jax.Array, cells: jax.Array) -> jax.Array:
    """Return the middle number of each one's cell."""
    middle = jnp.floor(numbers / cells) * cells + jnp.floor(cells / 2)
    return straight_through(numbers, middle)
