"""Weights with which `prep_hide_reveal` hides by remainders before any training.

Quantisation index modulation (Chen and Wornell 2001) written as ReLU units at the centres of the kernels:
each colour of the secret is rounded to one of `levels` digits, and a sample of the stego is the 8-bit value
nearest to the cover's whose remainder modulo `levels` is the digit. Covers and stegos have 8 bits, so that
steps between neighbouring values are exact; where a step lies has no gradient. Units that this does not need
are zero, but for those behind the remainder in the reveal network: they are random and without influence at
first, and learn to smooth the steps of the secret's colours.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from deepsteg_jax.errors import UserError

RGB = 3
DEPTH = 4  # convolutions of a stack
UNIT = 1 / 127  # an activation for one 8-bit value, so that int8 weights hold whole values
SLACK = 0.25  # of an 8-bit value, by which a sample may be off
SLOPE = 256.0  # at which a threshold decides: as int8 weights it makes the bias 1 a whole number, 63.0


class Start(NamedTuple):
    """What the weights depend on: digits, stacks and features of a network, the normalisation of pixels."""

    levels: int
    stacks: int
    features: tuple[int, ...]  # of each convolution of a stack
    mean: np.ndarray
    deviation: np.ndarray

    @property
    def steps(self) -> int:
        """Return the number of multiples of `levels` between 8-bit values, the last range being longer."""
        return 256 // self.levels - 1

    @property
    def modulus(self) -> float:
        """Return the activation for `levels` 8-bit values."""
        return UNIT * self.levels

    @property
    def digit(self) -> float:
        """Return the activation for one digit."""
        return 1 / self.levels


class _Wires:
    """Weights of one convolution, zero at first."""

    def __init__(self, conv: Mapping[str, Any]):
        self.random = conv["kernel"]
        shape = self.random.shape
        self.kernel, self.bias = np.zeros(shape, np.float32), np.zeros(shape[-1], np.float32)
        self.spare = np.zeros(shape[-2:], bool)  # connections that stay random
        self.middle = (shape[0] - 1) // 2, (shape[1] - 1) // 2

    def add(self, feature: int, weights: dict[int, float], bias: float = 0.0) -> None:
        """Make a feature the sum of inputs, {input: weight}, and a bias."""
        for source, weight in weights.items():
            self.kernel[(*self.middle, source, feature)] = weight
        self.bias[feature] = bias

    def copy(self, *features: int) -> None:
        """Hand features on under their own numbers."""
        for feature in features:
            self.add(feature, {feature: 1.0})

    def decide(self, *features: int) -> None:
        """Make features 1 where they were 0, and 0 where they were UNIT / 2 or more."""
        for feature in features:
            self.add(feature, {feature: -SLOPE}, 1.0)

    def leave_random(self, inputs: Sequence[int], but: Sequence[int]) -> None:
        """Connect these inputs to all features but some by random weights."""
        self.spare[list(inputs)] = True
        self.spare[:, list(but)] = False

    def merge(self) -> dict:
        """Return the parameters; random weights are as large as if there were no other inputs."""
        inputs = self.spare.any(1).sum()
        gain = np.sqrt(len(self.spare) / max(1, inputs)).astype(np.float32)
        return {
            "kernel": jnp.where(self.spare, gain * self.random, self.kernel),
            "bias": jnp.asarray(self.bias),
        }


class _Circuit:
    """The convolutions of a network."""

    def __init__(self, network: Mapping[str, Any]):
        self.blocks = {
            block: {name: _Wires(conv) for name, conv in convs.items()}
            for block, convs in network.items()
            if block != "out"
        }
        self.out = _Wires(network["out"]) if "out" in network else None

    def stack(self, number: int) -> list[_Wires]:
        """Return the convolutions of a stack of the first block."""
        return [self.blocks["block0"][f"stack{number}_conv{i}"] for i in range(DEPTH)]

    @property
    def joined(self) -> _Wires:
        """Return the convolution of the second block through which everything goes."""
        return self.blocks["block1"]["stack0_conv0"]

    def merge(self) -> dict:
        """Return the parameters of the network."""
        found: dict = {
            block: {name: wires.merge() for name, wires in convs.items()}
            for block, convs in self.blocks.items()
        }
        return found | ({"out": self.out.merge()} if self.out else {})


def apply_modulo_start(params: Mapping[str, Any], hide: Start, reveal: Start) -> dict:
    """Return parameters of `prep_hide_reveal` that hide and reveal by remainders.

    Args:
        params: random ones.
        hide: for the prepare and hide networks.
        reveal: for the reveal network.

    Raises:
        UserError: too few features, or digits that do not fit 8-bit values.
    """
    if not 2 <= hide.levels <= 64:
        raise UserError(f"config.model.levels must be 2 to 64, not {hide.levels}")
    of_hide = max(hide.levels - 1, hide.steps + 2)  # features of a colour, of prepare and of hide
    for start, widths in ((hide, (of_hide, of_hide, 3, 3)), (reveal, (reveal.steps + 1,) * 2 + (1, 1))):
        needed = [-(-RGB // start.stacks) * width for width in widths] + [RGB]
        if any(a > b for a, b in zip(needed, start.features, strict=True)):
            raise UserError(
                f"features of a stack's convolutions must be at least {needed} for config.model.start = "
                f"modulo with {hide.levels} levels, not {list(start.features)}"
            )
    prepare = _prepare(_Circuit(params["hide"]["prepare"]), hide)
    hiding = _hide(_Circuit(params["hide"]["hide"]), hide)
    return {
        "hide": {"prepare": prepare, "hide": hiding},
        "reveal": _reveal(_Circuit(params["reveal"]), reveal),
    }


def _place(start: Start, colour: int, width: int) -> tuple[int, range]:
    """Return the stack of a colour, and its features there."""
    first = colour // start.stacks * width
    return colour % start.stacks, range(first, first + width)


def _take_sample(wires: _Wires, feature: int, colour: int, start: Start) -> None:
    """Make a feature UNIT times the 8-bit value of a normalised colour."""
    scale = 255 * UNIT
    wires.add(feature, {colour: scale * start.deviation[colour]}, scale * start.mean[colour])


def _compare(stack: list[_Wires], feature: int, colour: int, threshold: int, start: Start) -> None:
    """Make a feature of the second convolution 1 where an 8-bit value is at least `threshold`, else 0."""
    slope = -255 * UNIT * start.deviation[colour]
    stack[0].add(feature, {colour: slope}, UNIT * (threshold - SLACK - 255 * start.mean[colour]))
    stack[1].decide(feature)


def _give_out(out: _Wires, colour: int, start: Start) -> None:
    """Normalise a colour, the inverse of `_take_sample`."""
    mean, deviation = start.mean[colour], start.deviation[colour]
    out.add(colour, {colour: 1 / (255 * UNIT * deviation)}, -mean / deviation)


def _prepare(circuit: _Circuit, start: Start) -> dict:
    """Secret -> its digits."""
    for colour in range(RGB):
        number, digits = _place(start, colour, start.levels - 1)
        stack = circuit.stack(number)
        for i, feature in enumerate(digits, 1):
            _compare(stack, feature, colour, -(-256 * i // start.levels), start)
        _, (digit,) = _place(start, colour, 1)
        stack[2].add(digit, dict.fromkeys(digits, start.digit))
        stack[3].copy(digit)
        circuit.joined.add(colour, {number * start.features[3] + digit: 1.0})
    return circuit.merge()


def _hide(circuit: _Circuit, start: Start) -> dict:
    """Cover and digits -> stego."""
    modulus, edge = start.modulus, UNIT * (start.levels // 2 + 0.5 + SLACK)
    forbid = 1 - modulus  # more than what the others come to
    for colour in range(RGB):
        number, (*steps, sample, digit) = _place(start, colour, start.steps + 2)
        stack = circuit.stack(number)
        for i, feature in enumerate(steps, 1):
            _compare(stack, feature, colour, i * start.levels, start)
        _take_sample(stack[0], sample, colour, start)
        stack[0].add(digit, {RGB + colour: 1.0})
        stack[1].copy(sample, digit)
        # Of the values with the right remainder, the one in the cover's range of `levels` values, or that
        # in the next one up or down where it is nearer and there is one.
        same = dict.fromkeys(steps, modulus) | {digit: UNIT / start.digit}
        rise = same | {sample: -1.0}
        fall = {source: -weight for source, weight in rise.items()}
        _, (up, down, value) = _place(start, colour, 3)
        stack[2].add(up, rise | {steps[-1]: rise[steps[-1]] + forbid}, edge)
        stack[2].add(down, fall | {steps[0]: fall[steps[0]] - forbid}, edge + forbid)
        stack[2].add(value, same)
        stack[3].decide(up, down)
        stack[3].copy(value)
        first = number * start.features[3]
        circuit.joined.add(colour, {first + value: 1.0, first + up: modulus, first + down: -modulus})
        _give_out(circuit.out, colour, start)
    return circuit.merge()


def _reveal(circuit: _Circuit, start: Start) -> dict:
    """Stego -> the middles of what the digits stand for; by every stack, where they are large enough."""
    width, gain = start.steps + 1, 256 / start.levels
    taken: list[list[int]] = [[] for _ in range(start.stacks)]  # features that hold remainders
    everywhere = RGB * width <= min(start.features[:2]) and min(start.features[2:4]) >= RGB
    for colour in range(RGB):
        alone = start._replace(stacks=1) if everywhere else start
        number, (*steps, sample) = _place(alone, colour, width)
        _, (rest,) = _place(alone, colour, 1)
        numbers = range(start.stacks) if everywhere else [number]
        for stack in map(circuit.stack, numbers):
            for i, feature in enumerate(steps, 1):
                _compare(stack, feature, colour, i * start.levels, start)
            _take_sample(stack[0], sample, colour, start)
            stack[1].copy(sample)
            remainder = dict.fromkeys(steps, -gain * start.modulus) | {sample: gain}
            stack[2].add(rest, remainder, UNIT * (gain - 1) / 2)
            stack[3].copy(rest)
        for kept in numbers:
            taken[kept].append(rest)
        inputs = [number * start.features[3] + rest for number in numbers]
        circuit.joined.add(colour, dict.fromkeys(inputs, 1 / len(inputs)))
        _give_out(circuit.out, colour, start)
    for number, samples in enumerate(taken):
        circuit.stack(number)[3].leave_random(samples, but=samples)
        joining = circuit.blocks["block1"][f"stack{number}_conv0"]
        joining.leave_random(range(start.stacks * start.features[3]), but=() if number else range(RGB))
    return circuit.merge()
