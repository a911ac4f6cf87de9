"""Embed bytes in the quantised DCT coefficients of a JPEG, where changes of +-1 cost least.

Salt and header have coefficients of their own, of low frequencies and at public places; payloads have the
others, of the lowest frequencies that the trellis can make use of. All three are embedded by the same code at
the same costs, since zeros that become ones at random would be seen.
"""

from typing import NamedTuple

import numpy as np

from deepsteg_jax.keys import KEY_BYTES
from deepsteg_jax.media import Coefficients
from deepsteg_jax.media.huffman import ZIGZAG
from deepsteg_jax.schemes import low_bits
from deepsteg_jax.schemes.adaptive import juniward, trellis

_LOW = 20  # frequencies, in zigzag order, of salt and header
_SHARE = 4  # the least number of coefficients of low frequency for each that salt and header have


class Places(NamedTuple):
    """The coefficients, by number, that salt and header lie in; everybody knows them."""

    salt: np.ndarray = np.zeros(0, int)
    header: np.ndarray = np.zeros(0, int)


def flat(frame: Coefficients) -> np.ndarray:
    """Return all coefficients, int16 [n], block by block, plane after plane."""
    return np.concatenate([plane.ravel() for plane in frame.planes])


def frame_of(samples: np.ndarray, cover: Coefficients) -> Coefficients:
    """Return a frame like `cover` with such coefficients."""
    ends = np.cumsum([plane.size for plane in cover.planes])[:-1]
    parts = zip(np.split(samples, ends), cover.planes, strict=True)
    return cover._replace(planes=tuple(part.reshape(plane.shape) for part, plane in parts))


def costs(frame: Coefficients, chroma: float) -> np.ndarray:
    """Return the costs of changes by -1 and by +1, float32 [n, 2]; `chroma`: factor of Cb and Cr."""
    found = []
    for i, (plane, steps) in enumerate(zip(frame.planes, frame.steps, strict=True)):
        found.append(np.asarray(juniward.changes(plane, steps)).reshape(-1, 2) * (chroma if i else 1))
    return np.concatenate(found)


def places(blocks: int, salt: int, header: int) -> Places:
    """Return the places of that many bytes in a picture of `blocks` blocks."""
    low = _lowest(blocks, _LOW)
    counts = [min(_useful(8 * count), len(low) // _SHARE // 2) for count in (salt, header)]
    chosen = low[low_bits.choose_indices(bytes(KEY_BYTES), 0, sum(counts), len(low))]
    return Places(*np.split(chosen, counts[:1]))


def rest(blocks: int, public: Places, count: int, key: bytes, number: int = 0) -> np.ndarray:
    """Return the coefficients that `count` bytes of payload lie in, in the order of a key for a frame."""
    taken = len(public.salt) + len(public.header)
    frequencies = min(64, -(-(_useful(8 * count) + taken) // blocks))
    free = np.zeros(64 * blocks, bool)
    free[_lowest(blocks, frequencies)] = True
    free[np.concatenate(public)] = False
    return ordered(np.flatnonzero(free), key, number)


def ordered(at: np.ndarray, key: bytes, number: int = 0) -> np.ndarray:
    """Return places in the order of a key for a frame."""
    return at[low_bits.choose_indices(key, number, len(at), len(at))]


def _lowest(blocks: int, frequencies: int) -> np.ndarray:
    return (64 * np.arange(blocks)[:, None] + ZIGZAG[:frequencies]).ravel()


def _useful(bits: int) -> int:
    """Return the largest number of samples that the trellis spreads bits over."""
    return trellis.WIDEST * -(-bits // trellis.BITS) * trellis.TRITS


def embed(
    samples: np.ndarray, costs: np.ndarray, at: np.ndarray, data: bytes, height: int = trellis.HEIGHT
) -> np.ndarray | None:
    """Embed bytes in the coefficients `at`, in this order; None where too few of them can be changed.

    Args:
        samples: int16 [n].
        costs: float32 [n, 2], of changes by -1 and by +1.
        at: int [m], their numbers.
        data: the bytes.
        height: constraint height of the trellis.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    layout = _layout(at, data, height)
    if layout is None:
        return None
    changes, met = trellis.embed(layout, samples[at].astype(np.int32), costs[at], bits)
    changed = samples.copy()
    changed[at] += np.asarray(changes)
    return changed if met else None


def extract(samples: np.ndarray, at: np.ndarray, count: int, height: int = trellis.HEIGHT) -> bytes:
    """Return the `count` bytes that `embed` put there; any where nothing was."""
    layout = _layout(at, bytes(count), height)
    if layout is None:
        return bytes(count)
    return np.packbits(np.asarray(trellis.extract(layout, samples[at].astype(np.int32)))).tobytes()


def _layout(at: np.ndarray, data: bytes, height: int) -> trellis.Layout | None:
    try:
        return trellis.layout(len(at), 8 * len(data), height)
    except ValueError:
        return None
