"""Several secrets of `pixels` in one cover, each in its own slot: a share of every frame's samples.

A secret's digits are added to a keystream modulo D before they are written, so that those of any secret, and
of none, are uniform noise to all who lack the key. Every frame has a packet for each slot, and no slot sound.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Int32, UInt8, UInt32

from deepsteg_jax import keys
from deepsteg_jax.keystream import keystream
from deepsteg_jax.models import Model
from deepsteg_jax.models.base import Revealed
from deepsteg_jax.models.block_dct import wrap_into
from deepsteg_jax.plan import Plan, SecretFrame, secret_frames
from deepsteg_jax.schemes import metadata, slots
from deepsteg_jax.schemes.base import Pair, Sender
from deepsteg_jax.schemes.metadata import PACKET_HEADER, Header, Packet, Packets
from deepsteg_jax.schemes.runner import Runner
from deepsteg_jax.schemes.slots import Slot
from deepsteg_jax.shapes import Array, Frames, Index

_PADS = 5  # purpose of a keystream; `cipher` has those below


class SlotCodec:
    """Compiled hide and reveal of 8-bit frames in slots; compiles once for every frame size and number."""

    def __init__(self, model: Model, frames: int):
        """Compile for groups of `frames` frames of a model that has `digits`."""
        self.frames = frames
        self.hide = jax.jit(partial(_hide, model, frames))
        self.reveal = jax.jit(partial(_reveal, model, frames))


def shares(samples: int, count: int) -> Int32[np.ndarray, " {count} each"]:
    """Return the samples of a frame that each of `count` slots has."""
    return np.stack([slots.share(samples, Slot(number, count)) for number in range(count)])


def _hide(
    model: Model,
    group: int,
    params: Any,
    places: Int32[Array, "slots m"],
    key_words: UInt32[Array, "slots 8"],
    first_frame: Index,
    cover: Frames,
    *secrets: Frames,
) -> Frames:
    """Hide n frames of each secret in a cover, n a multiple of the group or less than it."""
    count, group = len(cover), min(group, len(cover))

    def describe(slot):
        key, secret, number = slot
        digits = model.digits.encode(params, secret / 255, group * places.shape[1])
        digits = jnp.maximum(digits, 0) + _pads(key, number, digits.size, model.modulus)
        return (digits % model.modulus).reshape(group, -1)

    numbers = first_frame + jnp.arange(0, count, group)
    every = jnp.stack(secrets).reshape(-1, group, *cover.shape[1:])  # [slots * groups, ...]
    which = jnp.repeat(key_words, len(numbers), axis=0), every, jnp.tile(numbers, len(places))
    digits = lax.map(describe, which).reshape(len(places), count, -1)
    taken = places.ravel()
    samples = cover.reshape(count, -1)
    into = samples[:, taken, None].astype(jnp.float32)
    written = wrap_into(into, digits.swapaxes(0, 1), model.modulus)
    return samples.at[:, taken].set(written[..., 0].astype(jnp.uint8)).reshape(cover.shape)


def _reveal(
    model: Model,
    group: int,
    params: Any,
    places: Int32[Array, " m"],
    key_words: UInt32[Array, " 8"],
    first_frame: Index,
    stego: Frames,
) -> Revealed:
    """Reveal n frames of the secret in a slot, n as they were hidden; spoilt is [n]."""
    count, group = len(stego), min(group, len(stego))
    digits = stego.reshape(count, -1)[:, places].astype(jnp.int32)

    def read(part):
        digits, number = part
        digits = (digits.ravel() - _pads(key_words, number, digits.size, model.modulus)) % model.modulus
        return model.digits.decode(params, digits, (group, *stego.shape[1:]))

    parts = digits.reshape(-1, group, digits.shape[1]), first_frame + jnp.arange(0, count, group)
    revealed, spoilt = lax.map(read, parts)
    levels = jnp.round(jnp.clip(revealed.reshape(stego.shape), 0, 1) * 255)
    return Revealed(levels.astype(jnp.uint8), jnp.repeat(spoilt, group))


def _pads(key, number, count: int, modulus: int) -> Array:
    """Return what is added to the digits of a group, int32 [count] in [0, D)."""
    return (keystream(key, number, count, _PADS) % modulus).astype(jnp.int32)


class _Content:
    """A secret on its way into a slot, or a blank one under a random key in its place."""

    def __init__(self, plan: Plan | None, header: Header, credential: keys.Credential, salts: list[bytes]):
        self.header = header
        self.masters = [keys.derive_key(credential, salt) for salt in salts]
        self.key_words = keys.key_words(keys.subkey(self.masters[0], "shuffle"))
        self.packets = Packets(self.masters[0], PACKET_HEADER.size, header.modulus, header.slot)
        blank = SecretFrame(np.zeros((1, 1, 3), np.uint8), 0, 0)
        self.frames = _over_and_over(plan, header.secret.cover_frames) if plan else repeat(blank)


def _over_and_over(plan: Plan, count: int) -> Iterator[SecretFrame]:
    """Yield the secret's frames in `count` frames of the cover, the last one to the end, and again."""
    numbers = np.pad(plan.schedule.numbers, (0, count - len(plan.schedule.numbers)), "edge")
    while True:
        yield from secret_frames(plan, numbers)


class SlotSender(Sender):
    """Hides videos side by side in a video, or images in an image, and blank ones in slots that are left."""

    def __init__(
        self,
        codec: SlotCodec,
        params: Any,
        plan: Plan,
        credentials: Sequence[keys.Credential],
        count: int,
        make_header: Callable[[Plan, bytes], Header],
    ):
        """Compile.

        Args:
            codec: to hide with.
            params: the model's, of the hide side.
            plan: of the job.
            credentials: of each secret.
            count: number of slots.
            make_header: makes the header of a plan and a salt.
        """
        info = plan.cover
        metadata.check_size(info.width, info.height, count)
        self._salts, self._sent = [os.urandom(keys.SALT_BYTES) for _ in range(2)], 0
        filled = slots.deal(zip(plan.each, credentials, strict=True), None, count)
        self._contents = [
            _Content(each, _in_slot(make_header(each or plan, self._salts[0]), plan, slot), key, self._salts)
            for (each, key), slot in zip(filled, (Slot(i, count) for i in range(count)), strict=True)
        ]
        key_words = np.stack([content.key_words for content in self._contents])
        run = partial(codec.hide, params, shares(info.width * info.height * 3, count))
        self._runner = Runner(run, key_words, codec.frames, info.height, info.width)
        self._runner.warm_up((len(plan.cover_clock.times),), 1 + count)
        self.announcement = f"{count} slots of the cover's size each"

    def send(self, pair: Pair) -> list[UInt8[np.ndarray, "h w 3"]]:
        """Take the next frame of the cover; see `Sender.send`."""
        taken = [next(content.frames) for content in self._contents]
        stacks = (_padded(one.frame, pair.cover.shape) for one in taken)
        packets = [Packet(one.number, one.time, b"") for one in taken]
        done = self._runner.take((pair.cover, packets), (pair.cover, *stacks))
        return [self._marked(*one) for one in done]

    def finish(self) -> list[UInt8[np.ndarray, "h w 3"]]:
        """Return the rest of the stego."""
        return [self._marked(*one) for one in self._runner.cut() + self._runner.finish()]

    def __exit__(self, *exception: object) -> None:
        """End the work."""
        self._runner.close()

    def _marked(self, item: tuple[np.ndarray, list[Packet]], stego: np.ndarray) -> np.ndarray:
        """Embed the next frame's metadata, of all slots."""
        (cover, packets), number = item, self._sent
        self._sent += 1
        for content, packet in zip(self._contents, packets, strict=True):
            if number < len(self._salts):
                salt, master = self._salts[number], content.masters[number]
                stego = metadata.embed_header(stego, cover, salt, master, content.header)
            if number:
                stego = content.packets.embed(stego, cover, number, packet)
        return stego


def _in_slot(header: Header, plan: Plan, slot: Slot) -> Header:
    """Return the header in a slot: with packets, and with a last group as long as the cover allows."""
    lasts = header.secret.cover_frames + -header.secret.cover_frames % header.group
    lasts = max(header.secret.cover_frames, min(lasts, len(plan.cover_clock.times)))
    secret = header.secret._replace(cover_frames=lasts)
    return header._replace(secret=secret, packet_bytes=PACKET_HEADER.size, slot=slot)


def _padded(frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.pad(frame, [(0, most - side) for side, most in zip(frame.shape, shape, strict=True)], "edge")
