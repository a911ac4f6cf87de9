"""Embeddings of the literature, simulated at the bound of ideal codes: what steganalysers are measured on.

Payloads are bits per sample. Costs of HILL (Li et al. 2014) and S-UNIWARD (Holub et al. 2014) come from
conseal (experiments/requirements-steganalysis.txt).
"""

import numpy as np


def lsb_matching(plane: np.ndarray, payload: float, rng: np.random.Generator) -> np.ndarray:
    """Return a uint8 plane with payload / 2 of its samples changed by one, as a message's bits would."""
    changed = rng.random(plane.shape) < payload / 2
    up = np.where(plane == 0, True, np.where(plane == 255, False, rng.random(plane.shape) < 0.5))
    return np.where(changed, plane.astype(int) + np.where(up, 1, -1), plane).astype(np.uint8)


def costs(method: str, plane: np.ndarray) -> np.ndarray:
    """Return the cost of a change by one of every sample of a uint8 plane: `method` is hill or suniward."""
    import conseal

    up, down = getattr(conseal, method).compute_cost_adjusted(plane)
    return np.maximum(up, down).astype(np.float64)  # black and white samples stay


def embed(plane: np.ndarray, cost: np.ndarray, payload: float, rng: np.random.Generator) -> np.ndarray:
    """Return a uint8 plane after ternary embedding of `payload` at the least expected cost.

    The payload-limited sender of Filler and Fridrich 2010, "Gibbs Construction in Steganography": a change to
    either side has probability exp(-l cost) / (1 + 2 exp(-l cost)), l such that the entropy is the payload.
    """
    exponents = cost / np.median(cost)
    low, high = -20.0, 60.0  # of log2 l; far up where few samples can be changed at all
    for _ in range(32):
        middle = (low + high) / 2
        chance = _chance(exponents, 2**middle)
        low, high = (middle, high) if _entropy(chance) > payload else (low, middle)
    return change(plane, chance, rng)


def change(plane: np.ndarray, chance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return uint8 samples, each moved by one with probability `chance` to either side, within 0..255."""
    draw = rng.random(plane.shape)
    moved = plane + (draw < chance).astype(int) - (draw > 1 - chance)
    return np.clip(moved, 0, 255).astype(np.uint8)


def _chance(exponents: np.ndarray, scale: float) -> np.ndarray:
    x = np.exp(-np.minimum(exponents * scale, 700))
    return x / (1 + 2 * x)


def _entropy(chance: np.ndarray) -> float:
    """Return bits per sample of changes to either side that have this probability each."""
    p, still = np.maximum(chance, 1e-300), 1 - 2 * chance
    return float(np.mean(-2 * p * np.log2(p) - still * np.log2(still)))
