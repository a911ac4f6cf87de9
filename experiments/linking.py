"""Whether an observer without the key can tell that two stegos of `robust` have the same one.

    python -m experiments.linking --clips FOLDER [--items 3] [--workdir runs/linking]

Stegos of one key share pilots. An observer who knows the scheme reads the phases of all symbols of two stegos
and compares them, symbol by symbol and frame by frame: how alike they are, over its deviation where nothing
is shared, is a standard normal score for stegos of different keys. Item i + 1 is hidden in item i (protocol
Q1) under two keys; stegos of different items are compared, before and after x264 at CRF 23. Writes
linking.json: mean and least score of pairs of one key, and largest of pairs of two.
"""

from itertools import product
from pathlib import Path

import numpy as np

from deepsteg_jax import keys
from deepsteg_jax.channels import ladder
from deepsteg_jax.models import symbols as symbol_model
from deepsteg_jax.schemes.robust.alignment import nearest_spacing
from experiments import common
from experiments.entries import Entry
from experiments.robustness import pairs_of
from experiments.systems import Context, robust_system

CLEARED = 0.1  # turns
KEYS = {"a": bytes(32), "b": bytes(range(32))}


def score(first: np.ndarray, second: np.ndarray) -> float:
    """How much more alike phases in turns [n, ...] are than chance, in standard deviations.

    A codec clears coefficients, whose phases then are 0 in all stegos: points on the circle count less their
    mean over the stego, and those near 0 not at all.
    """
    count = min(len(first), len(second))
    first, second = first[:count], second[:count]
    told = (np.abs(first) > CLEARED) & (np.abs(second) > CLEARED)
    a, b = (np.exp(2j * np.pi * x[told]) for x in (first, second))
    products = ((a - a.mean()) * (b - b.mean()).conj()).real
    return float(products.sum() / np.sqrt(np.sum(products**2)))


def main() -> None:
    """Hides, compares and writes the scores."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--clips", required=True)
    parser.add_argument("--items", type=int, default=3)
    parser.add_argument("--workdir", type=Path, default=Path("runs/linking"))
    arguments = parser.parse_args()
    config = Entry("robust").load()
    system, carriers = robust_system(config), symbol_model.carriers_of(config.model)
    spacing = nearest_spacing(config.model.spacing)
    phases: dict[tuple[str, str, int], np.ndarray] = {}
    for i, pair in enumerate(pairs_of(common.q1_settings("clips", arguments.clips), arguments.items)):
        for name, key in KEYS.items():
            context = Context(keys.key_words(key), pair.secret.shape)
            stego = system.hide(pair.cover_for(system), pair.secret, context)
            coded = ladder.run(ladder.named("C6"), stego).frames
            for stage, frames in {"as sent": stego, "after x264 CRF 23": coded}.items():
                read = symbol_model.read_phases(frames, spacing, carriers)
                phases[stage, name, i] = np.asarray(read)
    results = {}
    for stage in dict.fromkeys(stage for stage, _, _ in phases):
        found: dict[bool, list[float]] = {True: [], False: []}
        here = {(name, i): x for (at, name, i), x in phases.items() if at == stage}
        for (a, i), (b, j) in product(here, here):
            if i < j:
                found[a == b].append(score(here[a, i], here[b, j]))
        one, two = found[True], found[False]
        results[stage] = {"mean": float(np.mean(one)), "least": min(one), "largest of two keys": max(two)}
        print(stage, results[stage])
    common.write_json(arguments.workdir / "linking.json", results)


if __name__ == "__main__":
    common.run(main)
