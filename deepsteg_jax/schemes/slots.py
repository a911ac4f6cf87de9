"""Slots: equal parts of a stego, each for a secret with a key of its own, and all of them filled."""

import random
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from deepsteg_jax import keys
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes import low_bits

NUMBERS = (1, 2, 4, 8)
"""The numbers of slots that a stego may have; a receiver, who is not told, tries all."""


class Slot(NamedTuple):
    """One of the slots of a stego."""

    number: int = 0
    of: int = 1

    @property
    def nonce(self) -> bytes:
        """12 bytes that no other slot has, zeros where there is but one."""
        return bytes([self.number, self.of - 1]).ljust(12, b"\0")


ALONE = Slot()
"""The slot of a stego that has no others."""


def every(most: int) -> Iterator[Slot]:
    """Yield all slots of stegos that have at most `most`."""
    return (Slot(number, of) for of in NUMBERS if of <= most for number in range(of))


def check(most: int, wanted: int, secrets: int, loop_cover: bool, scheme: str) -> None:
    """Raise UserError unless a scheme of at most `most` slots has those wanted, and they hold the secrets."""
    if wanted not in NUMBERS:
        raise UserError(f"a stego has {', '.join(map(str, NUMBERS))} slots, not {wanted}")
    if wanted > most:
        has = f"the scheme {scheme} has {most} slot{'s' * (most > 1)} at most"
        raise UserError(f"{has}: give fewer --slots, or another --scheme")
    if secrets < 1:
        raise UserError("there is no secret: give at least one")
    if secrets > wanted:
        raise UserError(f"{secrets} secrets need as many slots: give --slots with 2, 4 or 8")
    if loop_cover and wanted > 1:
        raise UserError("a cover with slots cannot be repeated: give a longer cover")


def in_each(slots: int) -> str:
    """Return the words that make one slot's capacity that of all."""
    return f" in each of {slots} slots" if slots > 1 else ""


def deal(secrets: Iterable[tuple[Any, keys.Credential]], nothing: Any, slots: int) -> list[tuple]:
    """Return the content and key of each slot, shuffled: the secrets, then `nothing` with random keys."""
    filled = list(secrets)
    filled += [(nothing, keys.random_key()) for _ in range(slots - len(filled))]
    random.SystemRandom().shuffle(filled)
    return filled


@lru_cache(maxsize=8)
def public_order(samples: int, count: int) -> np.ndarray:
    """Return the first `count` indices of a random order of a frame's samples that everybody knows, int32."""
    return low_bits.choose_indices(bytes(keys.KEY_BYTES), 0, count, samples).astype(np.int32)


def share(samples: int, slot: Slot, after: int = 0) -> np.ndarray:
    """Return a slot's samples of a frame, int32 [n]; the first `after` of the public order are nobody's."""
    return public_order(samples, samples)[after:][slot.number :: slot.of][: (samples - after) // slot.of]
