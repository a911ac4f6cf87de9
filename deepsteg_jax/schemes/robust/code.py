"""The error-correcting code: irregular repeat-accumulate (Jin, Khandekar and McEliece 2000), of any rate.

Message bits, then the running parities of sums of message bits that are chosen at random. The package ldpc
decodes it by belief propagation. Below a rate of a quarter a code of that rate is repeated, which costs
little where a bit says so little. Long codes are cut into parts, whose decoder stays in the cache.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import sparse

from deepsteg_jax.errors import UserError

LEAST_RATE = 0.25  # of a code that is not repeated
MOST_LENGTH = 2**15  # of a part, but for
LEAST_SIZE = 20_000  # message bits, since short ones lose more
DEGREES = ((0.6, 3), (0.25, 8), (0.15, 20))  # share of the message bits, checks that they take part in
EXACT_BELOW = 0.5  # rates for which belief propagation is exact; above, the min-sum rule goes first
ITERATIONS = 150  # 60 lose a tenth of the rate
MIN_SUM_SCALE = 0.75  # makes up for the optimism of the min-sum rule (Chen and Fossorier 2002)
MOST_LLR = 20.0
_SHORT = 4.0  # over the square root of its size: the share that a code loses, and by which it varies
# Rate that is decoded, as a share of the limit, by mean information of a bit: measured with Gaussian noise.
_INFORMATION, _SHARE = (0.0, 0.1, 0.3, 0.5, 0.8), (0.64, 0.76, 0.90, 0.88, 0.92)


class Code(NamedTuple):
    """A code of `size` message bits in `length` bits, in one part."""

    sums: sparse.csr_matrix  # uint8 [parities, size]
    checks: sparse.csr_matrix  # uint8 [parities, size + parities]
    length: int

    @property
    def size(self) -> int:
        """Message bits."""
        return self.sums.shape[1]

    def encode(self, message: np.ndarray) -> np.ndarray:
        """Encode uint8 [size] to uint8 [length]."""
        codeword = np.concatenate([message, np.cumsum(self.sums @ message % 2) % 2]).astype(np.uint8)
        return np.resize(codeword, self.length)

    def decode(self, llr: np.ndarray) -> np.ndarray | None:
        """Return the message for log-likelihood ratios [length], positive for 0; None if none is found."""
        from ldpc import BpDecoder  # brings matplotlib, which takes longer to import than all else

        inner = self.checks.shape[1]
        llr = np.bincount(np.arange(len(llr)) % inner, llr, inner)
        hard = (llr < 0).astype(np.uint8)
        doubt = 1 / (1 + np.exp(np.clip(np.abs(llr), 1e-3, MOST_LLR)))
        # The quicker rule leaves single bits undecided now and then, which the exact one decides.
        exact = self.size < EXACT_BELOW * inner
        for method in ("product_sum",) if exact else ("minimum_sum", "product_sum"):
            decoder = BpDecoder(
                self.checks,
                error_channel=doubt.tolist(),
                max_iter=ITERATIONS,
                bp_method=method,
                ms_scaling_factor=MIN_SUM_SCALE,
                input_vector_type="syndrome",
            )
            errors = decoder.decode((self.checks @ hard % 2).astype(np.uint8))
            if decoder.converge:
                return (hard ^ errors)[: self.size]
        return None


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


def reached_size(length: int, information: float, short: float = _SHORT) -> int:
    """Return the message bits that `length` received bits can carry at this mutual information, in bits.

    `short`: the loss of short codes, as `_SHORT`.
    """
    limit = length * max(0.0, information)
    size = limit * float(np.interp(information, _INFORMATION, _SHARE))
    part = size / _parts(length, int(size))
    return int(size * (1 - short / np.sqrt(max(part, short**2, 1))))


def build(length: int, size: int, degrees: tuple[tuple[float, int], ...] = DEGREES) -> Code | Parts:
    """Build the code of `size` message bits in `length` coded ones; the same on every machine.

    `degrees`: share of the message bits, checks that they take part in. A single degree makes a regular code.

    Raises:
        UserError: they do not fit.
    """
    if not 0 < size < length:
        raise UserError("these frames are too small to carry anything: use larger or more frames")
    count = _parts(length, size)
    part = _build_part(length // count, -(-size // count), degrees)
    return part if count == 1 else Parts(part, count, size, length)


def _parts(length: int, size: int) -> int:
    return max(1, min(-(-length // MOST_LENGTH), size // LEAST_SIZE))


@lru_cache(maxsize=8)
def _build_part(length: int, size: int, degrees: tuple[tuple[float, int], ...]) -> Code:
    parities = min(length, int(size / LEAST_RATE)) - size
    draw = np.random.Philox(0)  # unlike shuffles, its raw bits are the same in every version
    shares, counts = zip(*degrees, strict=True)
    checks_of = np.repeat(counts, np.ceil(size * np.array(shares)).astype(int))[:size]
    if len(degrees) > 1:
        checks_of = checks_of[np.argsort(draw.random_raw(size), kind="stable")]
    edges = int(checks_of.sum())
    passes = -(-edges // parities)
    checks = np.concatenate([np.argsort(draw.random_raw(parities), kind="stable") for _ in range(passes)])
    positions = checks[:edges], np.repeat(np.arange(size), checks_of)
    sums = sparse.coo_matrix((np.ones(edges, np.uint8), positions), (parities, size)).tocsr()
    sums.data %= 2  # two edges between the same two cancel
    sums.eliminate_zeros()
    chain = sparse.diags([1, 1], [0, -1], (parities, parities), dtype=np.uint8)
    return Code(sums, sparse.hstack([sums, chain], format="csr"), length)
