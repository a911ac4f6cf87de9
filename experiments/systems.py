"""Systems of the benchmark behind codecs: ways to hide frames, each ready to work.

An entry is hide(cover, secret, context) -> stego and reveal(received, context) -> revealed. Nothing but the
frames goes through the codec: side information would not survive it, so that both sides know the key, the
number of the first frame and the secret's size (`Context`). What comes out counts as it is: a network's noise
as noise, a bitstream that cannot be decoded as mid-grey.
"""

from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import keys, loading, media
from deepsteg_jax.errors import UserError
from deepsteg_jax.models.symbols import Frames
from deepsteg_jax.schemes.base import GREY, Metadata
from deepsteg_jax.schemes.robust import secret_codec
from deepsteg_jax.schemes.robust.layout import SEGMENT
from deepsteg_jax.schemes.robust.sender import Secret
from deepsteg_jax.training import checkpoints
from experiments.baselines import digital, lsb_codec
from experiments.entries import ENTRIES, Entry
from experiments.quality import learned_config

KEY = keys.key_words(bytes(range(32)))
# D of the rows of `robust`; None: the config's.
ROBUST_STEPS = {"clips": (None, 32.0, 58.7), "images": (None, 27.0)}
SHIPPED = {"clips": "block_dct", "images": "block_dct_image"}
PHASE_BINS = 64
ONE_LAYER_FOR = ("C5", "CRF20", "C6", "CRF26", "CRF28", "C7", "C10", "C8-vp9", "C8-av1")


class Context(NamedTuple):
    """What both sides know beside the frames; the stego's first frame has number 0."""

    key: np.ndarray  # uint32 [8]
    shape: tuple[int, ...]  # of the secret, (n, h, w, 3)

    def grey(self) -> np.ndarray:
        """The secret of a receiver who could decode nothing."""
        return np.full(self.shape, GREY, np.uint8)


class Arrived(NamedTuple):
    """What arrives of coded symbols; their quotient is the efficiency."""

    payload_bits: float  # of all messages that can be decoded
    information_bits: float  # that the data symbols still carry, see `information`


class System(NamedTuple):
    """A way to hide, ready to work; frames are uint8 [n, h, w, 3], or those of covers planes in 4:2:0."""

    hide: Callable[[Frames, np.ndarray, Context], Frames]  # cover, secret -> stego
    reveal: Callable[[Frames, Context], np.ndarray]  # received -> revealed, of `context.shape`
    arrived: Callable[[Frames], Arrived] | None = None  # received, just revealed, of the last stego
    in_planes: bool = False  # of the cover


def information(errors: np.ndarray) -> float:
    """Return the mutual information, bits, of symbols and what was received of them.

    Symbols are uniform on a circle and the error is added to them, so it is log2(bins) less the entropy of
    the error, pooled over all symbols; half a count is added to each bin.

    `errors`: of phases, in turns, any shape; whole turns do not count.
    """
    counts, _ = np.histogram(errors - np.round(errors), bins=PHASE_BINS, range=(-0.5, 0.5))
    shares = (counts + 0.5) / (counts.sum() + 0.5 * PHASE_BINS)
    return float(errors.size * (np.log2(PHASE_BINS) + np.sum(shares * np.log2(shares))))


class Row(NamedTuple):
    """An entry of the benchmark."""

    settings: dict  # whatever its figures depend on, fit for JSON
    load: Callable[[], System]
    codec: str | None = None  # the only run that it is meant for


def learned_system(config: ConfigDict) -> System:
    """A network: group after group, without the pipeline's side information."""
    scheme = loading.load(config)
    codec = scheme.codec()

    def in_groups(run, frames: int, count: int) -> np.ndarray:
        parts = [slice(i, min(i + frames, count)) for i in range(0, count, frames)]
        return np.concatenate([np.asarray(run(part)) for part in parts])

    def hide(cover, secret, context):
        return in_groups(
            lambda part: codec.hide(scheme.hide_params, context.key, part.start, cover[part], secret[part]),
            codec.frames,
            len(cover),
        )

    def reveal(received, context):
        return in_groups(
            lambda part: codec.reveal(scheme.reveal_params, context.key, part.start, received[part]),
            codec.frames,
            len(received),
        )

    return System(hide, reveal)


def lsb_system(modulus: int) -> System:
    """The baseline of x264's bytes in the low digits: everything or nothing."""

    def reveal(received, context):
        try:
            revealed = lsb_codec.reveal(received, modulus)
        except UserError:
            return context.grey()
        return revealed if revealed.shape == context.shape else context.grey()

    return System(lambda cover, secret, context: lsb_codec.hide(cover, secret, modulus), reveal)


def digital_system(settings: digital.Settings) -> System:
    """The baseline of a tiny coded secret in held bits: everything as it was coded, or nothing."""
    stego, message_bits, opened_bits = None, 0, 0

    def hide(cover, secret, context):
        nonlocal stego, message_bits
        message, _ = secret_codec.encode(secret, settings.capacity(cover.shape))
        stego, message_bits = digital.embed(cover, context.key.tobytes(), message, settings), 8 * len(message)
        return stego

    def reveal(received, context):
        nonlocal opened_bits
        opened_bits = 0
        try:
            message = digital.extract(received, context.key.tobytes(), settings)
        except UserError:
            return context.grey()
        opened_bits = message_bits
        return secret_codec.decode(message, *context.shape[:3])

    def arrived(received):
        errors = digital.phases(received, settings) - digital.phases(stego, settings)
        return Arrived(opened_bits, information(errors))

    return System(hide, reveal, arrived)


def robust_system(config: ConfigDict) -> System:
    """`robust`: segment by segment; the receiver finds out by itself which frames it has, and all else."""
    scheme = loading.load(config)
    sender, sent, parts = None, [], []

    def hide(cover, secret, context):
        nonlocal sender, sent
        n, height, width = secret.shape[:3]
        about = Metadata(width, height, n, n, media.FOLDER_RATE, False, False, Fraction(1))
        sender = scheme.segment_sender([context.key.tobytes()], *jax.tree.leaves(cover)[0].shape[1:3])
        sent = [
            sender.send(i // SEGMENT, _part(cover, i), [Secret(secret[i : i + SEGMENT], about)])
            for i in range(0, n, SEGMENT)
        ]
        return media.stack([frame for segment in sent for frame in media.unstack(segment.stego)])

    def reveal(received, context):
        nonlocal parts
        shown, frames = context.grey(), media.unstack(received)
        receiver = scheme.segment_receiver(context.key.tobytes(), *jax.tree.leaves(frames[0])[0].shape[:2])
        parts = [part for frame in frames for part in receiver.take(frame)] + receiver.finish()
        for part in parts:
            first = part.number * SEGMENT
            if part.frames.shape[1:] == shown.shape[1:]:
                shown[first : first + len(part.frames)] = part.frames[: len(shown) - first]
        return shown

    def arrived(received):
        parts_of = [_part(received, i * SEGMENT) for i in range(len(sent))]
        errors = map(sender.phase_errors, sent, parts_of)
        return Arrived(sum(8 * part.payload for part in parts), sum(map(information, errors)))

    return System(hide, reveal, arrived, scheme.domain == "planes")


def _part(frames: Frames, first: int) -> Frames:
    return jax.tree.map(lambda x: x[first : first + SEGMENT], frames)


def robust_rows(kind: str, trained: Path | None) -> dict[str, Row]:
    """`robust` at its own D and at others, and with all symbols in one layer for one codec run.

    The latter has the carriers, the codec of the secret and the code of `robust`, without its layers.
    """
    own = trained / "robust" if trained else None
    configs = {}
    for spacing in ROBUST_STEPS[kind]:
        config = Entry("robust", "image" if kind == "images" else "").load()
        config.model.spacing = spacing or config.model.spacing
        config.checkpoint = str(own) if own and own.is_dir() else config.checkpoint
        configs[f"robust, D = {spacing:.0f}" if spacing else "robust"] = config, None
    for codec in ONE_LAYER_FOR if kind == "clips" else ():
        config = configs["robust"][0].copy_and_resolve_references()
        config.secret_layers = (("01", 1.0, codec),)
        configs[f"robust, one layer for {codec}"] = config, codec
    rows = {}
    for name, (config, codec) in configs.items():
        with suppress(UserError):  # no parameters
            settings = {field: config[field] for field in ("secret_layers", "margin", "growth")}
            settings |= {"model": config.model.to_dict(), "checkpoint": checkpoint_title(config)}
            rows[name] = Row(settings, cache(partial(robust_system, config)), codec)
    return rows


def checkpoint_title(config: ConfigDict) -> str:
    """The checkpoint of a config and its newest step; raises UserError if there is none."""
    step = max(
        int(path.name) for path in checkpoints.locate(config.checkpoint).iterdir() if path.name.isdigit()
    )
    return f"{config.checkpoint}, step {step}"


def learned_rows(kind: str, trained: Path | None) -> dict[str, Row]:
    """The networks that there are parameters for, in `trained` or shipped."""
    entries = {SHIPPED[kind]: ENTRIES[SHIPPED[kind]]}
    entries |= {name: entry for name, entry in ENTRIES.items() if not name.startswith("block_dct")}
    rows = {}
    for name, entry in entries.items():
        own = trained is not None and not name.startswith("block_dct") and (trained / name).is_dir()
        config = learned_config(entry, str(trained / name) if own else None)
        with suppress(UserError):  # no parameters
            settings = {"model": config.model.to_dict(), "shuffle": config.shuffle.to_dict()}
            settings["checkpoint"] = checkpoint_title(config)
            rows[name] = Row(settings, cache(partial(learned_system, config)))
    return rows


def rows_of(kind: str, trained: Path | None) -> dict[str, Row]:
    """Every entry by its name."""
    rows = robust_rows(kind, trained) | learned_rows(kind, trained)
    for modulus, title in {2: "1 LSB", 3: "ternary"}.items():
        rows[f"lsb_codec {title}"] = Row({"modulus": modulus}, cache(partial(lsb_system, modulus)))
    if kind == "clips":
        usual = digital.Settings()
        rows["digital"] = Row(usual._asdict(), cache(partial(digital_system, usual)))
    return rows
