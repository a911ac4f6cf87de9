"""The error-correcting code: irregular repeat-accumulate (Jin, Khandekar and McEliece 2000), of any rate.

Message bits, then the running parities of sums of message bits that are chosen at random. Belief propagation
decodes it, all edges at once: libraries for it go edge by edge, which took ten times as long. Below the least
rate a code of that rate is repeated, which costs little where a bit says so little. Long codes are cut into
parts, whose decoder stays in the cache.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from deepsteg_jax.errors import UserError

LEAST_RATE = 1 / 16  # of a code that is not repeated
MOST_LENGTH = 2**15  # of a part, but for
LEAST_SIZE = 20_000  # message bits, since short ones lose more
DEGREES = (3, 10, 30, 100)  # checks that message bits take part in
# Thousandths of the message bits with each degree, by the code's rate, from `experiments.code_design`.
SHARES = {
    1 / 16: (535, 255, 187, 23),
    1 / 8: (533, 267, 167, 33),
    1 / 5: (558, 275, 151, 16),
    1 / 3: (625, 299, 76, 0),
    1 / 2: (716, 268, 16, 0),
    3 / 4: (909, 91, 0, 0),
}
ITERATIONS = 300  # 150 lose 2 to 5 % of the rate
CHECK_EVERY = 5  # iterations
HOPELESS_AFTER = 60  # iterations
HOPELESS = 0.12  # share of wrong sums then: 0.01 to 0.08 where a code is decoded, else 0.15 to 0.3
MOST_LLR = 20.0
_CERTAIN = np.float32(1 - 1e-6)  # largest tanh of half a ratio
_SHORT = 4.0  # over the square root of its size: the share that a code loses, and by which it varies
# Rate that is decoded, as a share of the limit, by mean information of a bit: measured with Gaussian noise.
_INFORMATION, _SHARE = (0.0, 0.05, 0.1, 0.2, 0.3, 0.8), (0.68, 0.75, 0.82, 0.89, 0.92, 0.94)


class Code(NamedTuple):
    """A code of `size` message bits in `length` bits, in one part.

    An edge is a message bit in a sum. Edges lie message bit by message bit; `places` leads to those of sums.
    """

    bits: np.ndarray  # int32 [edges]: the message bit of each
    starts: np.ndarray  # int [size]: the first edge of each message bit
    places: np.ndarray  # int32 [edges]: where each is in `terms`, flat
    terms: np.ndarray  # int32 [most terms of a sum, parities]: an edge, or the number of edges for none
    length: int

    @property
    def size(self) -> int:
        """Message bits."""
        return len(self.starts)

    def encode(self, message: np.ndarray) -> np.ndarray:
        """Encode uint8 [size] to uint8 [length]."""
        parities = np.cumsum(self._sums(message)) % 2
        return np.resize(np.append(message, parities).astype(np.uint8), self.length)

    def decode(self, llr: np.ndarray) -> np.ndarray | None:
        """Return the message for log-likelihood ratios [length], positive for 0; None if none is found."""
        size, count = self.size, self.terms.shape[1]
        llr = np.bincount(np.arange(len(llr)) % (size + count), llr, size + count)
        message, parity = np.split(np.clip(llr, -MOST_LLR, MOST_LLR).astype(np.float32), [size])
        # What each sum says: to its message bits, to the parity it makes, and to the parity before.
        found, own, before = np.zeros(len(self.bits), np.float32), *np.zeros((2, count), np.float32)
        for iteration in range(ITERATIONS):
            total, after = message + np.add.reduceat(found, self.starts), np.append(before[1:], before[:1])
            if iteration % CHECK_EVERY == 0:
                wrong = self._wrong_sums(total < 0, parity + own + after < 0)
                if not wrong:
                    return (total < 0).astype(np.uint8)
                if iteration >= HOPELESS_AFTER and wrong > HOPELESS:
                    return None
            asked = np.append(total[self.bits] - found, np.float32(MOST_LLR))[self.terms]
            previous = np.append(np.float32(MOST_LLR), (parity + own)[:-1])
            answers = _others(np.vstack([asked, parity + after, previous]))
            found, own, before = answers[:-2].ravel()[self.places], answers[-2], answers[-1]
            before[0] = 0
        return None

    def _sums(self, message: np.ndarray) -> np.ndarray:
        return np.append(message[self.bits], message.dtype.type(0))[self.terms].sum(0)

    def _wrong_sums(self, message: np.ndarray, parities: np.ndarray) -> float:
        return np.mean((self._sums(message) + np.diff(parities, prepend=False)) % 2)


def _others(ratios: np.ndarray) -> np.ndarray:
    """Return for each of some bits the log-likelihood ratio of the sum of the others: [bits, n] -> [bits, n].

    The tanh rule (Gallager 1963).
    """
    values = np.tanh(ratios / 2)
    products, after = [np.ones_like(values[0])], np.ones_like(values[0])
    for row in values[:-1]:  # row by row, twice as fast as `cumprod`
        products.append(products[-1] * row)
    for product, row in zip(products[::-1], values[::-1], strict=True):
        product *= after
        after = after * row
    products = np.clip(products, -_CERTAIN, _CERTAIN)
    return np.log((1 + products) / (1 - products))


class Parts(NamedTuple):
    """A code of `size` message bits in `length` bits, in `count` equal parts that take turns."""

    part: Code
    count: int
    size: int
    length: int

    def encode(self, message: np.ndarray) -> np.ndarray:
        """Encode uint8 [size] to uint8 [length]."""
        filled = np.pad(message, (0, self.count * self.part.size - self.size))
        codewords = [self.part.encode(part) for part in filled.reshape(self.count, -1)]
        return np.pad(np.stack(codewords, axis=1).ravel(), (0, self.length % self.count))

    def decode(self, llr: np.ndarray) -> np.ndarray | None:
        """Return the message for log-likelihood ratios [length], positive for 0; None if none is found."""
        found = []
        for part in llr[: self.count * self.part.length].reshape(-1, self.count).T:
            found.append(self.part.decode(part))
            if found[-1] is None:
                return None
        return np.concatenate(found)[: self.size]


def reached_size(length: int, information: float) -> int:
    """Return the message bits that `length` received bits can carry at this mutual information, in bits."""
    limit = length * max(0.0, information)
    size = limit * float(np.interp(information, _INFORMATION, _SHARE))
    part = size / _parts(length, int(size))
    return int(size * (1 - _SHORT / np.sqrt(max(part, _SHORT**2, 1))))


def build(length: int, size: int) -> Code | Parts:
    """Build the code of `size` message bits in `length` coded ones; the same on every machine.

    Raises:
        UserError: they do not fit.
    """
    if not 0 < size < length:
        raise UserError("these frames are too small to carry anything: use larger or more frames")
    count = _parts(length, size)
    part = _build_part(length // count, -(-size // count))
    return part if count == 1 else Parts(part, count, size, length)


def _parts(length: int, size: int) -> int:
    return max(1, min(-(-length // MOST_LENGTH), size // LEAST_SIZE))


@lru_cache(maxsize=8)
def _build_part(length: int, size: int) -> Code:
    parities = min(length, int(size / LEAST_RATE)) - size
    rate = size / (size + parities)
    shares = SHARES[min(SHARES, key=lambda known: max(known / rate, rate / known))]
    draw = np.random.Philox(0)  # unlike shuffles, its raw bits are the same in every version
    degrees = np.repeat(DEGREES, -(-size * np.array(shares) // 1000))[:size]
    degrees = degrees[np.argsort(draw.random_raw(size), kind="stable")]
    edges = int(degrees.sum())
    rounds = -(-edges // parities)
    order = [np.argsort(draw.random_raw(parities), kind="stable") for _ in range(rounds)]
    places = (np.array(order) + parities * np.arange(rounds)[:, None]).ravel()[:edges].astype(np.int32)
    terms = np.full(rounds * parities, edges, np.int32)
    terms[places] = np.arange(edges)
    bits = np.repeat(np.arange(size, dtype=np.int32), degrees)
    return Code(bits, np.cumsum(degrees) - degrees, places, terms.reshape(rounds, -1), length)
