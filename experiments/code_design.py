"""Design the code of `robust`: how many sums message bits take part in, by rate; and what it then reaches.

    python -m experiments.code_design [--length 40000] [--trials 12]

Density evolution with Gaussian messages (Roumy, Guemghar, Caire and Verdu 2004): one number, the mutual
information between a message and its bit, goes through the graph, and the largest rate at which it grows to 1
is a linear program in the shares of edges. Prints for each rate the shares, in thousandths, as in
`schemes.robust.code.SHARES`, and how many words of that code are decoded behind Gaussian noise, at a few
shares of the limit.
"""

import numpy as np
from scipy.optimize import linprog

from deepsteg_jax.schemes.robust import code
from experiments import common

# By rate: information of a received bit, a little above it, and message bits in a sum, as many as converge.
POINTS = {
    1 / 16: (0.08, 1),
    1 / 8: (0.14, 2),
    1 / 5: (0.225, 3),
    1 / 3: (0.37, 4),
    1 / 2: (0.55, 6),
    3 / 4: (0.8, 12),
}
GROWTH = 8e-3  # least, of what is missing of the information, in an iteration
REACHED = (0.76, 0.8, 0.84, 0.88, 0.92)  # shares of the limit

_DEVIATIONS = np.linspace(0, 12, 1201)  # of log-likelihood ratios whose mean is half their variance


def _information_of() -> np.ndarray:
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    ratios = _DEVIATIONS[:, None] * nodes + _DEVIATIONS[:, None] ** 2 / 2
    lost = np.logaddexp(0, -ratios) @ weights / weights.sum() / np.log(2)
    return np.maximum.accumulate(np.append(0, 1 - lost[1:]))


_INFORMATION = _information_of()


def to_information(deviation: np.ndarray) -> np.ndarray:
    """Return the mutual information, bits, of Gaussian log-likelihood ratios with this deviation."""
    return np.interp(deviation, _DEVIATIONS, _INFORMATION)


def to_deviation(information: np.ndarray) -> np.ndarray:
    """Invert `to_information`."""
    return np.interp(information, _INFORMATION, _DEVIATIONS)


def said_by_sums(asked: np.ndarray, received: float, terms: int, iterations: int = 300) -> np.ndarray:
    """Return the information of what sums say to message bits, the parities' messages having converged.

    Args:
        asked: information of what message bits say to sums, [n].
        received: of a received bit.
        terms: message bits in a sum.
        iterations: of sums and parities.
    """
    channel, others = to_deviation(received) ** 2, to_deviation(1 - asked) ** 2
    parity = np.full(len(asked), received)
    for _ in range(iterations):
        said = 1 - to_information(np.sqrt(terms * others + to_deviation(1 - parity) ** 2))
        parity = to_information(np.sqrt(channel + to_deviation(said) ** 2))
    return 1 - to_information(np.sqrt((terms - 1) * others + 2 * to_deviation(1 - parity) ** 2))


def design(received: float, terms: int, degrees: tuple[int, ...] = code.DEGREES) -> tuple[float, np.ndarray]:
    """Return the largest rate at which belief propagation converges, and the share of each degree."""
    degree = np.array(degrees)
    asked = np.concatenate([np.geomspace(received, 0.5, 75), 1 - np.geomspace(0.5, 1e-5, 75)])
    said = to_deviation(said_by_sums(asked, received, terms)) ** 2
    answers = to_information(np.sqrt((degree - 1) * said[:, None] + to_deviation(received) ** 2))
    grown = asked + GROWTH * (1 - asked)
    found = linprog(-1 / degree, -answers, -grown, np.ones((1, len(degree))), [1], (0, 1))
    shares = found.x / degree
    bits = terms * shares.sum()  # of the message, for each sum
    return bits / (1 + bits), shares / shares.sum()


def decoded(length: int, size: int, received: float, trials: int) -> int:
    """Return how many of so many random words are decoded behind Gaussian noise."""
    book, draw, deviation = code.build(length, size), np.random.default_rng(0), to_deviation(received)
    count = 0
    for _ in range(trials):
        message = draw.integers(0, 2, size, np.uint8)
        signs = 1 - 2.0 * book.encode(message)
        found = book.decode(deviation**2 / 2 * signs + deviation * draw.normal(size=length))
        count += found is not None and np.array_equal(found, message)
    return count


def main() -> None:
    """Prints the table."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--length", type=int, default=40_000, help="bits of a word")
    parser.add_argument("--trials", type=int, default=12, help="words for each figure")
    arguments = parser.parse_args()
    for rate, (received, terms) in POINTS.items():
        _, shares = design(received, terms)
        print(f"rate {rate:.4f}, {received} bits received: {np.round(1000 * shares).astype(int).tolist()}")
        for reached in REACHED:
            size = int(reached * received * arguments.length)
            count = decoded(arguments.length, size, received, arguments.trials)
            print(f"  at {reached:.2f} of the limit {count} of {arguments.trials} words are decoded")


if __name__ == "__main__":
    common.run(main)
