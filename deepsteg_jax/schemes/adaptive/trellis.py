"""Embed bits into samples at little cost by a ternary syndrome-trellis code.

Filler, Judas and Fridrich, "Minimizing additive distortion in steganography using syndrome-trellis codes",
IEEE TIFS 2011, over GF(3) instead of GF(2): a sample carries its value mod 3, a change of -1 or +1 reaches
every other symbol, and the message is the syndrome of all symbols under a banded parity-check matrix. The
search for the cheapest changes (Viterbi) runs over 3^height states in independent lanes. Samples come in a
keyed order: it hides the message, and spreads cheap and forbidden samples over all lanes.
"""

from __future__ import annotations

import functools
import hashlib
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

HEIGHT = 6  # constraint height: 3^6 states
LANES = 64  # searched at once
LONGEST = 4096  # samples in a lane: the search of a large frame needs no more memory than that of a small one
SHORTEST = 128  # trits in a lane, since its ends cost distortion
WIDEST = 80  # samples per message trit at most
ONSET = 16  # samples of a lane before its message starts, lest the first trits depend on a few forbidden ones
BITS, TRITS = 19, 12  # 2^19 < 3^12, a loss of 0.1 %
# Metrics are integers, which add up exactly, in multiples of 4: the two low bits tell the branch that won.
MEAN, DEAREST, WET = 1 << 10, 1 << 19, 1 << 22  # quarters: of a usual cost, at most, of a forbidden change
LIMIT = 1 << 28  # of a state over the best one; with WIDEST forbidden changes it stays below 2^31


class Layout(NamedTuple):
    """Say which samples carry which part of a message; the same for sender and receiver."""

    samples: int
    bits: int
    height: int
    lanes: int
    length: int  # samples in a lane
    trits: int  # of the syndrome of a lane
    spare: int  # trits before the message's in each lane, which may come out as they like
    width: int  # samples per trit, at most


def layout(samples: int, bits: int, height: int = HEIGHT) -> Layout:
    """Lay `bits` message bits over `samples` samples.

    Raises ValueError where fewer than two samples are left for each trit (about 0.78 bit per sample).
    """
    trits = math.ceil(bits / BITS) * TRITS
    if not 0 < 2 * trits <= samples:
        raise ValueError(f"{samples} samples cannot carry {bits} bits.")
    lanes = 1 << min(int(math.log2(LANES)), int(math.log2(max(1, trits // SHORTEST))))
    if samples > LANES * LONGEST:
        lanes = LANES * math.ceil(samples / (LANES * LONGEST))
    length, each = samples // lanes, math.ceil(trits / lanes)
    spare = min(height - 1, ONSET * each // length)
    each += spare
    if length < 2 * each:
        raise ValueError(f"{samples} samples cannot carry {bits} bits.")
    return Layout(samples, bits, height, lanes, length, each, spare, min(WIDEST, math.ceil(length / each)))


@functools.partial(jax.jit, static_argnums=0)
def embed(layout: Layout, symbols: jax.Array, costs: jax.Array, message: jax.Array):
    """Find the cheapest changes that make `extract` return the message.

    Args:
      layout: of these samples and bits.
      symbols: int [samples], sample values.
      costs: float32 [samples, 2] of a change by -1 and by +1: positive, infinite where it is forbidden.
      message: uint8 [bits] of 0 and 1.

    Returns:
      changes int8 [samples] in -1, 0, 1, and a bool: False where the message cannot be embedded since too
      many changes are forbidden; the changes are of no use then.
    """
    columns = _parity_columns(layout.height, layout.width)
    priced = _deal(layout, _metrics(costs), 4 * WET)
    symbols = _deal(layout, symbols % 3, 0)
    trits = _trits(layout, message)
    # The metrics of the lanes that are searched at once should fit a core's cache.
    lanes = min(layout.lanes, LANES if layout.height < 7 else LANES // 2)
    stripes = layout.lanes // lanes

    def cut(x):  # [..., all lanes] to [stripes, ..., lanes]
        return jnp.moveaxis(x.reshape(*x.shape[:-1], stripes, lanes), -2, 0)

    targets = cut(trits - _syndrome(columns, symbols))
    found = lax.map(lambda stripe: _search(columns, layout.spare, *stripe), (targets, cut(priced)))
    found = jnp.moveaxis(found, 0, -2).reshape(symbols.shape)
    price = jnp.select([found == 1, found == 2], [priced[..., 1, :], priced[..., 0, :]], 0)
    carried = (_syndrome(columns, symbols + found) == trits)[layout.spare :]
    met = jnp.all(price < 4 * WET) & jnp.all(carried)
    return _collect(layout, jnp.where(found == 2, -1, found).astype(jnp.int8)), met


@functools.partial(jax.jit, static_argnums=0)
def extract(layout: Layout, symbols: jax.Array) -> jax.Array:
    """Return the message uint8 [bits] that sample values int [samples] carry."""
    columns = _parity_columns(layout.height, layout.width)
    trits = _syndrome(columns, _deal(layout, symbols % 3, 0))[layout.spare :].reshape(-1)
    groups = math.ceil(layout.bits / BITS)
    values = trits[: groups * TRITS].reshape(groups, TRITS) @ jnp.asarray(3 ** np.arange(TRITS), jnp.int32)
    return (values[:, None] >> np.arange(BITS) & 1).astype(jnp.uint8).reshape(-1)[: layout.bits]


def _parity_columns(height: int, width: int) -> np.ndarray:
    """Return the columns of one band of the parity-check matrix, int32 [width, height] of trits.

    They are random but for the first trit, which is 1, and the last one, which is not 0: the best of 100 such
    choices has 1 % less distortion.
    """
    digest = hashlib.shake_128(f"{height} {width} 0".encode()).digest(width * height)
    columns = np.frombuffer(digest, np.uint8).reshape(width, height).astype(np.int32)
    ends = 1 + columns[:, -1] // 3 % 2
    columns = columns % 3
    columns[:, 0], columns[:, -1] = 1, ends
    columns[0, -1] = 1  # lets `_search` read a first sample's change off the state
    return columns


def _rows(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return the row of each trit's samples in the lane, int32 [trits, width], and whether it exists."""
    edges = np.arange(layout.trits + 1) * layout.length // layout.trits
    rows = edges[:-1, None] + np.arange(layout.width)
    return np.minimum(rows, layout.length - 1), rows < edges[1:, None]


def _deal(layout: Layout, x: jax.Array, missing: int) -> jax.Array:
    """Deal [samples, ...] to the trits' places, [trits, width, ..., lanes]."""
    rows, present = _rows(layout)
    x = x[: layout.length * layout.lanes].reshape(layout.length, layout.lanes, *x.shape[1:])
    x = jnp.moveaxis(x, 1, -1)[rows]
    return jnp.where(present.reshape(rows.shape + (1,) * (x.ndim - 2)), x, missing)


def _collect(layout: Layout, x: jax.Array) -> jax.Array:
    """Undo `_deal` for [trits, width, lanes]; samples without a place get 0."""
    rows, present = _rows(layout)
    place = np.full(layout.length, rows.size)
    place[rows[present]] = np.flatnonzero(present)
    x = x.reshape(rows.size, layout.lanes).at[place].get(mode="fill", fill_value=0).reshape(-1)
    return jnp.pad(x, (0, layout.samples - x.size))


def _trits(layout: Layout, message: jax.Array) -> jax.Array:
    """Write the message as trits, int32 [trits, lanes], after the spare ones."""
    groups = math.ceil(layout.bits / BITS)
    bits = jnp.pad(message.astype(jnp.int32), (0, groups * BITS - layout.bits)).reshape(groups, BITS)
    values = bits @ jnp.asarray(1 << np.arange(BITS), jnp.int32)
    trits = (values[:, None] // 3 ** np.arange(TRITS) % 3).reshape(-1)
    before = layout.spare * layout.lanes
    after = layout.trits * layout.lanes - before - trits.size
    return jnp.pad(trits, (before, after)).reshape(layout.trits, layout.lanes)


def _syndrome(columns: np.ndarray, symbols: jax.Array) -> jax.Array:
    """Multiply symbols [trits, width, lanes] with the parity-check matrix, to int32 [trits, lanes]."""
    symbols, columns = symbols.astype(jnp.float32), columns.astype(np.float32)
    parts = jnp.einsum("kwl,wh->hkl", symbols, columns, precision="highest")
    shifted = (jnp.pad(part, ((d, 0), (0, 0)))[: len(part)] for d, part in enumerate(parts))
    return sum(shifted).astype(jnp.int32) % 3


def _metrics(costs: jax.Array) -> jax.Array:
    """Turn costs into metrics, int32; the mean of their reciprocal roots sets the unit."""
    allowed = jnp.isfinite(costs)
    roots = jnp.where(allowed, lax.rsqrt(jnp.where(allowed, costs, 1)), 0)
    scale = MEAN * jnp.square(roots.sum() / jnp.maximum(allowed.sum(), 1))
    metrics = jnp.clip(jnp.where(allowed, costs * scale, 0), 0, DEAREST).astype(jnp.int32)
    return 4 * jnp.where(allowed, metrics, WET)


def _offsets(columns: np.ndarray, target: jax.Array) -> jax.Array:
    """Find changes of each trit's first sample alone that have the syndrome [trits, lanes]."""

    def step(register, wanted):
        change = (wanted - register[0]) % 3
        register = (register + change * columns[0][:, None]) % 3
        return jnp.concatenate([register[1:], jnp.zeros_like(register[:1])]), change

    return lax.scan(step, jnp.zeros((columns.shape[1], target.shape[1]), jnp.int32), target)[1]


def _transitions(columns: np.ndarray) -> np.ndarray:
    """Return the state before a change by 0, 1, 2, int32 [width, 3, states], of each state after it.

    A state holds the trits of the syndrome that are not yet settled, the next one lowest.
    """
    powers = 3 ** np.arange(columns.shape[1])
    trits = np.arange(3 ** columns.shape[1])[:, None] // powers % 3
    change = np.arange(3)[None, :, None, None]
    return ((trits - change * columns[:, None, None]) % 3 @ powers).astype(np.int32)


def _pack(metric: jax.Array) -> jax.Array:
    """Pack the branches that won, [states, lanes], three in a byte."""
    first, second, third = jnp.split((metric & 3).astype(jnp.uint8), 3)
    return first | second << 2 | third << 4


def _choose(metric: jax.Array, before: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    """Add a sample: the cheapest way to each state of `before` [3, states], its branch in the low bits."""
    branches = (metric.at[b].get(mode="promise_in_bounds") & ~3 for b in before)
    stay, plus, minus = (b + cost for b, cost in zip(branches, (0, up, down), strict=True))
    return jnp.minimum(stay, jnp.minimum(plus, minus))


def _search(columns: np.ndarray, spare: int, target: jax.Array, costs: jax.Array) -> jax.Array:
    """Find the cheapest changes with a syndrome (Viterbi).

    Args:
      columns: int32 [width, height].
      spare: first trits of the syndrome that may come out as they like.
      target: int32 [trits, lanes], the syndrome wanted.
      costs: int32 [trits, width, 2, lanes], metrics of changes by -1 and +1.

    Returns:
      changes uint8 [trits, width, lanes] mod 3.
    """
    before = _transitions(columns)
    third = before.shape[-1] // 3
    # One change of the first samples meets the target; what is added to it has the syndrome zero in all
    # lanes, so that all lanes walk through the same trellis.
    offsets = _offsets(columns, target)
    three = jnp.stack([jnp.zeros_like(costs[:, 0, 0]), costs[:, 0, 1], costs[:, 0, 0]], 1)
    turned = (np.arange(3)[:, None] + offsets[:, None]) % 3
    first = jnp.take_along_axis(three, turned, 1)
    middle, ends = before[1:-1], before[-1][:, ::3]
    up, down = costs[:, 1:, 1] + 1, costs[:, 1:, 0] + 2

    def trit(metric, xs):
        first, up, down = xs
        metric = jnp.minimum(metric - metric.min(0), LIMIT)
        # The highest trit was zero so far: it tells the change of the first sample.
        states = np.split(np.arange(3 * third), 3)
        metric = jnp.concatenate([metric[before[0, d, states[d]]] + first[d] for d in range(3)])

        def sample(metric, xs):
            metric = _choose(metric, *xs)
            return metric, _pack(metric)

        metric, won = lax.scan(sample, metric, (middle, up[:-1], down[:-1]))
        metric = _choose(metric, ends, up[-1], down[-1])  # only states whose lowest trit is the wanted zero
        return metric & ~3, (won, _pack(metric))

    start = jnp.full((third, target.shape[1]), LIMIT).at[: 3**spare].set(0)
    metric, won = lax.scan(trit, start, (first, up, down))
    changes = _trace(before, jnp.argmin(metric, 0), won)
    return changes.at[:, 0].set(((changes[:, 0] + offsets) % 3).astype(jnp.uint8))


def _trace(before: np.ndarray, state: jax.Array, won: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Walk back from the last state [lanes], along the branches that won; return changes mod 3."""
    third = before.shape[-1] // 3
    before = jnp.asarray(before)

    def branch(won, state):
        part, place = jnp.divmod(state, len(won))
        return jnp.take_along_axis(won, place[None], 0)[0] >> (2 * part).astype(jnp.uint8) & 3

    def sample(state, xs):
        change = branch(xs[0], state)
        return xs[1][change, state], change

    def trit(state, won):
        last = branch(won[1], state)
        state, middle = lax.scan(sample, before[-1][last, 3 * state], (won[0], before[1:-1]), reverse=True)
        first = state // third
        return before[0][first, state], jnp.concatenate([first[None].astype(jnp.uint8), middle, last[None]])

    return lax.scan(trit, state.astype(jnp.int32), won, reverse=True)[1]


def bound(costs: np.ndarray, payload: float) -> float:
    """Return the least mean cost per sample at which any code embeds `payload` bits per sample.

    The rate-distortion bound of Filler and Fridrich, "Gibbs construction in steganography", IEEE TIFS 2010:
    changes have probabilities in proportion to exp(-multiplier * cost).

    Args:
      costs: [samples, 2] of both changes, infinite where forbidden (all of one kind: the binary bound).
      payload: bits per sample; what the costs do not allow gives the cost of the most that they do.
    """
    costs = np.concatenate([np.zeros((len(costs), 1)), costs], 1)
    allowed = np.isfinite(costs)
    costs = np.where(allowed, costs, 0)

    def rate_and_cost(multiplier):
        p = np.where(allowed, np.exp(-multiplier * costs), 0)
        p /= p.sum(1, keepdims=True)
        return -(p * np.log2(np.maximum(p, 1e-300))).sum(1).mean(), (p * costs).sum(1).mean()

    low, high = -30.0, 30.0  # natural logarithm of the multiplier
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if rate_and_cost(np.exp(middle))[0] > payload else (low, middle)
    return float(rate_and_cost(np.exp(low))[1])
