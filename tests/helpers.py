"""Helpers of several tests: reading a clip, and schemes that stand in for real ones."""

from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from ml_collections import ConfigDict

from deepsteg_jax import keys, media
from deepsteg_jax.errors import UserError
from deepsteg_jax.models.base import Revealed
from deepsteg_jax.schemes.base import Cost, Found, Metadata, Receiver, Scheme, Sender
from deepsteg_jax.schemes.pixels import PixelScheme

FINGERPRINT = b"12345678"

needs_dask = pytest.mark.skipif(
    not find_spec("distributed"), reason="Dask is not installed: pip install -e .[cluster]"
)


def names(folder):
    """The names of all that is in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def read_stack(path):
    """All frames of a short clip, uint8 [t, h, w, 3]."""
    return np.stack(list(media.read_frames(path)))


def refused(path, words, run=media.probe):
    """Asserts that `run(path)` raises a UserError of one line that names the path and matches `words`."""
    with pytest.raises(UserError, match=words) as caught:
        run(path)
    assert "\n" not in str(caught.value) and str(path).rstrip("/") in str(caught.value)


# --- pictures in RGB ------------------------------------------------------------------------------


class Call(NamedTuple):
    what: str
    blank_key: bool  # no key yet: compiling
    first_frame: int
    frames: int


class PlainCodec:
    """Stands in for compiled programs: the low four bits of the stego are the high four of the secret."""

    def __init__(self, frames=4):
        self.frames, self.calls = frames, []

    def note(self, what, key, first_frame, count):
        assert count % self.frames == 0 or count < self.frames
        self.calls.append(Call(what, not key.any(), first_frame, count))

    def hide(self, params, key, first_frame, cover, secret):
        assert cover.shape == secret.shape and cover.dtype == secret.dtype == np.uint8
        self.note("hide", key, first_frame, len(cover))
        return (cover & 0xF0) + (secret >> 4)

    def reveal(self, params, key, first_frame, stego):
        self.note("reveal", key, first_frame, len(stego))
        return stego << 4

    def inspect(self, *given):
        revealed = self.reveal(*given)
        return Revealed(revealed, np.zeros(len(revealed)))


class PlainScheme(PixelScheme):
    """The scheme `pixels` around a `PlainCodec`, or anything that is called like it."""

    def __init__(self, group=4, modulus=16, codec=None, fingerprint=FINGERPRINT):
        self.config = ConfigDict(
            {
                "model": {"name": "plain", "frames": group},
                "shuffle": {"moves": "cover", "cipher": "blocks", "block_size": 8},
                "video": {"align": "time", "sound_bit_rate": 64_000},
            }
        )
        self.group, self.modulus, self.still = group, modulus, group == 1
        self.plain = PlainCodec(group) if codec is None else codec
        self.hide_params, self.reveal_params, self.fingerprint = "of hide", "of reveal", fingerprint

    def codec(self, modulus=None, group=None, **shuffle):
        return self.plain

    def complexity(self, height, width):
        return Scheme.complexity(self, height, width)


# --- bytes in planes ------------------------------------------------------------------------------


class _Slots(NamedTuple):
    """Where a key's bytes lie: bit i of every frame's luma, in slot `number`."""

    capacity: int  # bytes of a frame in one slot
    frames: int


class PlaneScheme(Scheme):
    """Hides files in the lowest bits of luma, one key's in each of two slots, in the cover's own planes.

    A frame holds a share of each slot under a keystream; first come a tag and the file size. The pass
    over the whole cover counts its frames.
    """

    name, purpose, domain, accepts, slots = "planes", "file", "planes", "bytes", 2
    TAG, SALT = b"here", b"planes of a test"

    def cost(self, height, width, frames, slots=1):
        size = height * width
        return Cost(1e-8 * size * frames, 10 * size, size * frames, 10 * size)

    def measure(self, cover):
        sizes = [frame.y.size // 2 // 8 for frame in cover]
        return _Slots(min(sizes), len(sizes))

    def sender(self, plan, credentials, settings, measured=None):
        data = [Path(each.secret_path).read_bytes() for each in plan.each]
        return _PlaneSender(measured, list(zip(credentials, data, strict=True)), self.slots)

    def probe(self, stego, deriver):
        first = next(stego.frames())
        capacity = first.y.size // 2 // 8
        for slot in range(self.slots):
            stream = _stream(deriver(PlaneScheme.SALT), capacity)
            head = _read_slot(first, slot, capacity) ^ stream
            if head[:4].tobytes() == self.TAG:
                size = int.from_bytes(head[4:8].tobytes(), "little")
                return Found(_metadata(stego.info), (slot, capacity, size, stream))
        return None

    def receiver(self, found):
        return _PlaneReceiver(found.metadata, *found.state)


def _metadata(info):
    return Metadata(info.width, info.height, 1, 1, info.rate, False, False, Fraction(1))


def _stream(key, count):
    return np.random.default_rng(list(key)).integers(0, 256, count, np.uint8)


def _read_slot(frame, slot, capacity):
    return np.packbits(frame.y.ravel()[slot::2][: 8 * capacity] & 1)


class _PlaneSender(Sender):
    def __init__(self, measured, secrets, slots):
        self._capacity, self._number = measured.capacity, 0
        self._slots = [self._shares(measured, *secret) for secret in secrets]
        self._slots += [np.random.default_rng(0).integers(0, 256, self._slots[0].shape, np.uint8)] * (
            slots - len(secrets)
        )

    def _shares(self, measured, credential, data):
        stream = _stream(keys.Deriver(credential)(PlaneScheme.SALT), measured.capacity)
        whole = PlaneScheme.TAG + len(data).to_bytes(4, "little") + data
        room = measured.capacity * measured.frames
        assert len(whole) <= room
        return np.frombuffer(whole.ljust(room, b"\0"), np.uint8).reshape(measured.frames, -1) ^ stream

    def send(self, pair):
        luma = pair.cover.y.copy()
        for slot, shares in enumerate(self._slots):
            bits = np.unpackbits(shares[self._number])
            places = np.arange(slot, luma.size, len(self._slots))[: len(bits)]
            luma.flat[places] = luma.flat[places] & 0xFE | bits
        self._number += 1
        return [pair.cover._replace(y=luma)]

    def finish(self):
        return []


class _PlaneReceiver(Receiver):
    def __init__(self, metadata, slot, capacity, size, stream):
        self.metadata, self._slot, self._capacity, self._stream = metadata, slot, capacity, stream
        self._skip, self._left = 8, size

    @property
    def complete(self):
        return not self._left

    def receive(self, frame):
        self.received += 1
        data = (_read_slot(frame, self._slot, self._capacity) ^ self._stream).tobytes()[self._skip :]
        self._skip, data = 0, data[: self._left]
        self._left -= len(data)
        self.written += len(data)
        return [data]

    def finish(self):
        return []

    def complaint(self, stego, output, damaged):
        return f"{stego} is cut short: {output} lacks {self._left} bytes" if self._left else None
