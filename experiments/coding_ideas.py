"""What ideas for the entropy coder of `block_dct` would bring at most: sums of -log2 p, no coding.

    python -m experiments.coding_ideas --clips FOLDER [--leave_out LIST] [--count 4]

Takes frames 5..12 at 448x256 of some clips in FOLDER, without those in LIST, the shipped classes and D = 3.
An idea that saves bits makes the step of all coefficients finer by so many levels, 6 dB an octave. "For
nothing": the sender's choice is not paid for. Writes coding_ideas.json: dB of the secret for each clip.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepsteg_jax import evaluation, loading
from deepsteg_jax.models import block_dct, cells, rans
from deepsteg_jax.models.quantiser import LEVEL_STEPS, ROUNDING, Quantiser, make_quantiser, step
from experiments import common
from experiments.entries import ENTRIES

SIZE, FRAMES = common.SIZE["clips"], 4
MODULUS = 3
COLOURS = 3
LEVEL_DB = 20 * np.log10(2) / LEVEL_STEPS
FACTORS = (-4, -2, 0, 2, 4)  # of the widths of a cell, scale steps
EXPONENTS = (0, 0.1, 0.2, 0.3)  # of the neighbours' magnitude, relative to what the class foretells
SHIFTS = range(-3, 4)  # pixels
ERROR_A_BIT = np.log(2) / 6  # that one more saves at high rates, squared steps
AROUND = (16, 8, 0, -8, -16)  # levels, to find the error at equal bits


class Coded(NamedTuple):
    """A group of frames, coded with the shipped classes."""

    pairs: jax.Array  # [t, n, 96, 2] grey levels
    scales: jax.Array  # [t, k, 96]
    level: int
    bits: np.ndarray  # [t, n, colours, k] under all classes
    slope: float  # bits that one level more saves

    @property
    def classes(self) -> np.ndarray:
        """Those of fewest bits, [t, n]."""
        return self.bits.sum(2).argmin(-1)

    @property
    def least(self) -> np.ndarray:
        """Bits of all cells, [t, n]."""
        return self.bits.sum(2).min(-1)

    def db(self, saved: float) -> float:
        """Turn bits that are saved into dB."""
        return float(saved / self.slope * LEVEL_DB)


@jax.jit
def bits_of(pairs, scales, level):
    """Bits of cells under all classes, of each colour by itself: [t, n, colours, k]."""
    magnitudes = jnp.floor(jnp.abs(pairs) / step(level) + ROUNDING)
    indices = cells.excess_indices(scales, level)
    columns = (jnp.asarray(column)[indices] for column in make_quantiser(MODULUS).bits.T)
    parts = (magnitudes > 0).sum(-1).astype(jnp.float32), magnitudes.sum(-1)
    zero, other, slope, some, units = (x.reshape(*x.shape[:2], COLOURS, -1) for x in (*columns, *parts))
    fixed = 2 * zero.sum(-1).transpose(0, 2, 1)[:, None]
    return fixed + sum(jnp.einsum("tncp,tkcp->tnck", *x) for x in ((some, other), (units, slope)))


def total(pairs, scales, level) -> float:
    """Bits of all cells under their best classes."""
    return float(bits_of(pairs, scales, level).sum(2).min(-1).sum())


def transformed(video: np.ndarray) -> jax.Array:
    """Pairs [t, n, 96, 2] of frames in [0, 1]."""
    return jax.jit(cells.analyse)(jnp.asarray(video)).reshape(len(video), -1, cells.PAIRS, 2)


def code(video: np.ndarray, scales: jax.Array, budget: float) -> Coded:
    """Find the finest level at which a group takes `budget` bits."""
    pairs = transformed(video)
    level = int(
        cells.finest_level(lambda level: bits_of(pairs, scales, level).sum(2).min(-1).sum() <= budget)
    )
    slope = (total(pairs, scales, level) - total(pairs, scales, level + 16)) / 16
    return Coded(pairs, scales, level, np.asarray(bits_of(pairs, scales, level)), slope)


# --- ideas: dB of the secret --------------------------------------------------------------------


def free_classes(coded: Coded, digits: int) -> float:
    """Classes for nothing: more than any prediction of them brings."""
    return coded.db(coded.classes.size * digits * np.log2(MODULUS))


def predicted_classes(coded: Coded, digits: int) -> float:
    """Classes coded adaptively by what was counted after those to the left and above."""
    kinds, rows = coded.bits.shape[-1], SIZE[0] // cells.BLOCK
    bits = 0.0
    for plane in coded.classes.reshape(FRAMES, rows, -1):
        counts = np.full((2, kinds + 1, kinds), 0.1)
        padded = np.pad(plane, ((1, 0), (1, 0)), constant_values=kinds)
        for y, x in np.ndindex(plane.shape):
            contexts = padded[y + 1, x], padded[y, x + 1]
            odds = counts[0, contexts[0]] + counts[1, contexts[1]]
            bits -= np.log2(odds[plane[y, x]] / odds.sum())
            counts[range(2), contexts, plane[y, x]] += 1
    return free_classes(coded, digits) - coded.db(bits)


def class_for_each_colour(coded: Coded, digits: int) -> float:
    """Three classes for a cell in place of one, in plain digits."""
    saved = coded.least.sum() - coded.bits.min(-1).sum()
    return coded.db(saved) - (COLOURS - 1) * free_classes(coded, digits)


def scale_of_a_cell(coded: Coded) -> float:
    """The widths of each cell times one of five factors, for nothing."""
    wider = [bits_of(coded.pairs, coded.scales + n, coded.level).sum(2).min(-1) for n in FACTORS]
    return coded.db(coded.least.sum() - np.min(wider, axis=0).sum())


def laplace_bits(magnitudes: np.ndarray, widths: np.ndarray) -> float:
    """Bits of indices under Laplace densities, in steps."""
    a = 1 / np.maximum(widths, 1e-3)
    zero = -np.log2(-np.expm1(-(1 - ROUNDING) * a))
    other = 1 + (magnitudes - ROUNDING) * a / np.log(2) - np.log2(-np.expm1(-a))
    return np.where(magnitudes == 0, zero, other).sum()


def widths_from_neighbours(coded: Coded) -> float:
    """Widths from the same coefficients to the left and above too: the lanes would have to wait for them."""
    shape = (FRAMES, SIZE[0] // cells.BLOCK, -1, 2 * cells.PAIRS)
    sizes = np.abs(np.asarray(coded.pairs)).reshape(shape) / float(step(coded.level))
    scales = np.asarray(coded.scales)[np.arange(FRAMES)[:, None], coded.classes]
    widths = np.repeat(2.0 ** (scales / 8 - coded.level / LEVEL_STEPS), 2, axis=-1).reshape(shape)
    around = np.zeros_like(sizes)
    around[:, :, 1:] += sizes[:, :, :-1] / 2
    around[:, 1:] += sizes[:, :-1] / 2
    relative = np.clip(0.5 + around / np.maximum(widths, 1e-3) / 2, 0.3, 3)
    bits = [laplace_bits(np.floor(sizes + ROUNDING), widths * relative**n) for n in EXPONENTS]
    return coded.db(bits[0] - min(bits))


def predicted_dc(coded: Coded) -> float:
    """The mean of a block, over the group, as the difference from the block to the left: one Laplace each."""
    rows = SIZE[0] // cells.BLOCK
    means = np.asarray(coded.pairs)[0].reshape(rows, -1, COLOURS, cells.BLOCK**2)[..., 0]
    apart = np.diff(means, axis=1, prepend=means[:, :1])
    widths = [np.abs(x).mean((0, 1)) for x in (means - means.mean((0, 1)), apart)]
    return coded.db(means[..., 0].size * np.log2(widths[0] / widths[1]).sum())


def bits_and_db(coded: Coded, level: int, error_a_bit: float) -> tuple[float, float]:
    """Bits and PSNR where indices of least error and bits replace those of the dead zone; 0: they do not."""
    quantiser, size = make_quantiser(MODULUS), float(step(level))
    kinds = np.asarray(cells.excess_indices(coded.scales, level))[np.arange(FRAMES)[:, None], coded.classes]
    zero, other, slope = (column[kinds][..., None] for column in quantiser.bits.T)
    sizes = np.abs(np.asarray(coded.pairs)) / size

    def bits(index):
        return zero + (index > 0) * (other + index * slope)

    def errors(index):
        return (sizes - (index > 0) * (index + quantiser.shifts[kinds][..., None])) ** 2

    index = np.floor(sizes + ROUNDING)
    tries = [index, index + 1, np.maximum(index - 1, 0)] if error_a_bit else [index]
    costs = [errors(x) + error_a_bit * bits(x) for x in tries]
    index = np.choose(np.argmin(costs, axis=0), tries)
    return bits(index).sum(), 10 * np.log10(255**2 / np.mean(errors(index) * size**2))


def optimised_indices(coded: Coded) -> float:
    """Each index by its own error and bits, read as it is today: the difference in PSNR at equal bits."""
    found = []
    for error_a_bit in (0, ERROR_A_BIT):
        points = [bits_and_db(coded, coded.level + n, error_a_bit) for n in AROUND]
        found.append(np.interp(coded.least.sum(), *zip(*points, strict=True)))
    return float(found[1] - found[0])


def previous_frame(coded: Coded, video: np.ndarray, last: np.ndarray) -> float:
    """Blocks as differences from the frame before, by one shift for all, where that takes fewer bits."""
    shifted = [np.roll(last, (y, x), (0, 1)) for y in SHIFTS for x in SHIFTS]
    best = min(shifted, key=lambda frame: np.abs(video[0] - frame).mean())
    differences = transformed(video - best + np.float32(128 / 255))
    bits = np.asarray(bits_of(differences, coded.scales, coded.level)).sum(2).min(-1).sum(0)
    blocks = coded.least.sum(0)
    return coded.db(np.maximum(blocks - bits, 0).sum() - blocks.size)  # a bit says which


def groups_of_8(coded: Coded, video: np.ndarray, codebook: jax.Array, budget: float) -> float:
    """Eight frames transformed together, with the classes of four."""
    longer = code(video, cells.integer_scales(codebook, 2 * FRAMES), 2 * budget)
    return (coded.level - longer.level) * LEVEL_DB


def measure(frames: np.ndarray, codebook: jax.Array, quantiser: Quantiser) -> dict[str, float]:
    """dB of all ideas for uint8 frames of two groups, of which the second is coded."""
    sizes = block_dct.sizes_of((FRAMES, *SIZE, 3), codebook.shape[1], quantiser)
    words = block_dct.MARGIN * sizes.words - rans.STATE_WORDS * sizes.lanes * sizes.stripes
    budget = words * np.log2(quantiser.coder.base)
    video = frames / np.float32(255)
    coded = code(video[FRAMES:], cells.integer_scales(codebook, FRAMES), budget)
    return {
        "classes for nothing": free_classes(coded, sizes.class_digits),
        "classes predicted from left and above": predicted_classes(coded, sizes.class_digits),
        "class for each colour": class_for_each_colour(coded, sizes.class_digits),
        "scale of a cell, for nothing": scale_of_a_cell(coded),
        "widths from left and above": widths_from_neighbours(coded),
        "DC predicted from the left": predicted_dc(coded),
        "rate-distortion optimised quantisation": optimised_indices(coded),
        "previous frame as prediction": previous_frame(coded, video[FRAMES:], video[FRAMES - 1]),
        "t = 8, not trained": groups_of_8(coded, video, codebook, budget),
    }


def main() -> None:
    """Entry point."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--clips", required=True)
    parser.add_argument("--leave_out", type=Path)
    parser.add_argument("--count", type=int, default=4)
    args = parser.parse_args()
    left_out = args.leave_out.read_text().splitlines() if args.leave_out else []
    paths = [path for path in evaluation.list_items(args.clips) if path.name not in left_out]
    settings = common.q1_settings("clips", args.clips, 2 * FRAMES)
    scheme = loading.load(ENTRIES["block_dct"].load())
    codebook, quantiser = scheme.hide_params["codebook"], make_quantiser(MODULUS)
    found: dict[str, list[float]] = {}
    for path in paths[:: max(1, len(paths) // args.count)][: args.count]:
        frames = np.stack(evaluation.prepare(path, settings))
        for idea, db in measure(frames, codebook, quantiser).items():
            found.setdefault(idea, []).append(round(db, 3))
    common.write_json(common.RESULTS / "coding_ideas.json", found)
    print({idea: round(float(np.mean(dbs)), 2) for idea, dbs in found.items()})


if __name__ == "__main__":
    common.run(main)
