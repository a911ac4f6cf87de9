"""A folder of recordings of what real codecs leave of symbols, kept in memory.

An example is no pair of cover and secret; a model that learns from recordings brings a loss of its own
(`Model.loss`).
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from deepsteg_jax.data.examples import Draws, Source, open_folder, pick, report_unreadable
from deepsteg_jax.errors import UserError

BLOCK = 16  # pixels; crops begin and end at whole macroblocks

Recording = dict[str, np.ndarray]


class Entry(NamedTuple):
    """An array of a recording.

    Attributes:
        dtype: of its values; floating-point numbers of other precisions are converted.
        pitch: pixels in each direction for which it has one value: its shape is
            [n, h / pitch, w / pitch, *tail]. 0: it is a scalar, the same for the whole file.
        tail: lengths of its last axes; None: any length, but the same in all files of a folder.
    """

    dtype: type[np.generic]
    pitch: int
    tail: tuple[int | None, ...] = ()


# What a file holds, by its name up to the first "-". The first entry of each kind has the frames' size; the
# position of a kind here decides its random numbers, so new ones come last.
_SENT = {
    "symbols": Entry(np.float32, BLOCK, (None,)),  # phases that were sent, in steps, from -1/2 to 1/2
    "step": Entry(np.float32, 0),  # in grey levels
}
_LUMA = {"luma": Entry(np.float16, 1)}  # as received
KINDS: dict[str, dict[str, Entry]] = {
    "videos": _LUMA | {"cb": Entry(np.float16, 2), "cr": Entry(np.float16, 2)} | _SENT,
    "images": _LUMA | _SENT,
}

_DAMAGE = (OSError, EOFError, KeyError, TypeError, ValueError, MemoryError, RuntimeError)
_DAMAGE += (zipfile.BadZipFile, zlib.error)


def open_recordings(config: ConfigDict) -> list[Source | None]:
    """Read a folder of recordings into memory.

    Args:
        config: the `data` section; uses `path`, a folder of .npz files of the kinds of `KINDS`, `frames` (t),
            `height` and `width` (of the crop, multiples of 16).

    Returns:
        A source for each kind, in the order of `KINDS`; None for a kind that the folder has no files of. An
        example is a part of one recording: `luma` float16 [t, height, width], of videos also `cb` and `cr`
        of half the sides, `symbols` float32 [t, height/16, width/16, k] and `step` float32. Crops begin at
        multiples of 16.

    Raises:
        UserError: no folder, no recordings in it, none of a kind that can be read and is long and large
            enough, one that holds something else, different numbers of symbols in a block, or a crop that is
            not of whole blocks.
    """
    kinds = _open_kinds(config)
    return [_make_source(kinds[kind], KINDS[kind], config) if kind in kinds else None for kind in KINDS]


def _make_source(files: list[Recording], entries: dict[str, Entry], config: ConfigDict) -> Source:
    sizes = tf.constant([_size(file) for file in files], tf.int32)
    types = [tf.as_dtype(entry.dtype) for entry in entries.values()]
    shapes = [_cut(files[0][name], entry.pitch, (0, 0, 0), config).shape for name, entry in entries.items()]

    def cut(index: np.ndarray, corner: np.ndarray) -> list[np.ndarray]:
        file = files[index]
        return [_cut(file[name], entry.pitch, corner.tolist(), config) for name, entry in entries.items()]

    def load(index: tf.Tensor, draws: Draws) -> dict[str, tf.Tensor]:
        corner = _choose_corner(sizes[index], config, draws)
        parts = tf.numpy_function(cut, [index, corner], types, stateful=False)
        shaped = [tf.ensure_shape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
        return dict(zip(entries, shaped, strict=True))

    return Source(len(files), load, f"{len(files):,} recordings")


def _choose_corner(size: tf.Tensor, config: ConfigDict, draws: Draws) -> tf.Tensor:
    """Choose first frame, top and left (int32 [3]) of an example in a recording of `size` [3]."""
    spare = size - tf.constant([config.frames, config.height, config.width])
    first = pick(draws.first, spare[0] + 1)
    top, left = (BLOCK * pick(u, r // BLOCK + 1) for u, r in ((draws.y, spare[1]), (draws.x, spare[2])))
    return tf.stack([first, top, left])


def _cut(x: np.ndarray, pitch: int, corner: Sequence[int], config: ConfigDict) -> np.ndarray:
    if not pitch:
        return x
    first, top, left = corner
    rows = slice(top // pitch, (top + config.height) // pitch)
    columns = slice(left // pitch, (left + config.width) // pitch)
    return np.ascontiguousarray(x[first : first + config.frames, rows, columns])


def _size(recording: Recording) -> tuple[int, int, int]:
    """Return frames, height and width; 0 for axes that a faulty recording lacks."""
    frames, height, width = (*next(iter(recording.values())).shape, 0, 0, 0)[:3]
    return frames, height, width


# --- files ---------------------------------------------------------------------------------------


def _open_kinds(config: ConfigDict) -> dict[str, list[Recording]]:
    """Load all recordings of the folder, by kind; kinds without files are left out."""
    if config.height % BLOCK or config.width % BLOCK:
        raise UserError(
            f"data.height and data.width must be multiples of {BLOCK} for recordings, not "
            f"{config.height} and {config.width}"
        )
    folder = open_folder(config.path)
    paths = {kind: sorted(p for p in folder.glob(f"{kind}-*.npz") if p.is_file()) for kind in KINDS}
    if not any(paths.values()):
        names = " and no ".join(f"{kind}-*.npz" for kind in KINDS)
        raise UserError(f"data.path: no {names} in {folder}")
    if all(paths.values()):
        raise UserError(
            f"data.path: {folder} has recordings of {' and '.join(KINDS)}: give each its own folder"
        )
    return {kind: _open_kind(found, KINDS[kind], folder, config) for kind, found in paths.items() if found}


def _open_kind(
    paths: list[Path], entries: dict[str, Entry], folder: Path, config: ConfigDict
) -> list[Recording]:
    # one after the other: CPython 3.11 may fail to parse headers in several threads (gh-106905)
    read = [read_recording(path, entries) for path in paths]
    large = [r is not None and _is_large(r, config) for r in read]
    report_unreadable([p for p, usable in zip(paths, large, strict=True) if not usable], len(paths), folder)
    found = [(p, r) for p, r, usable in zip(paths, read, large, strict=True) if usable]
    first_path, first = found[0]
    for path, recording in found:
        for name, x in recording.items():
            if x.shape[3:] != first[name].shape[3:]:
                lengths = f"{x.shape[-1]} and {first[name].shape[-1]} {name}"
                raise UserError(f"data.path: {path} and {first_path.name} have {lengths} in a block")
    return [recording for _, recording in found]


def read_recording(path: Path, entries: dict[str, Entry]) -> Recording | None:
    """Read the entries of one file; None if it is damaged.

    Raises:
        UserError: it is sound, but holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            recording = {name: file[name] for name in entries if name in file}
    except _DAMAGE:
        return None
    for name, entry in entries.items():
        if name not in recording:
            raise UserError(f"data.path: {path} is not a recording of its kind: it has no {name!r}")
        if recording[name].dtype.kind == np.dtype(entry.dtype).kind == "f":
            recording[name] = recording[name].astype(entry.dtype, copy=False)  # kept in 16 bits, perhaps
    for name, entry in entries.items():
        if complaint := _find_fault(recording[name], entry, _size(recording)):
            raise UserError(f"data.path: {path} is not a recording of its kind: {name!r} {complaint}")
    return recording


def _find_fault(x: np.ndarray, entry: Entry, size: tuple[int, int, int]) -> str:
    """Describe the fault of an entry of a recording of this size; empty if it has none."""
    lead = [size[0], size[1] / entry.pitch, size[2] / entry.pitch] if entry.pitch else []
    wanted = [*lead, *entry.tail]  # half a block equals no length
    alike = [w in (None, length) for w, length in zip(wanted, x.shape, strict=False)]
    if x.dtype != entry.dtype or len(wanted) != x.ndim or not all(alike):
        lengths = ", ".join("any" if w is None else f"{w:g}" for w in wanted)
        return f"is {x.dtype} {list(x.shape)}, not {np.dtype(entry.dtype)} [{lengths}]"
    return "" if x.dtype == np.uint8 or np.isfinite(x).all() else "has values that are not finite"


def _is_large(recording: Recording, config: ConfigDict) -> bool:
    """Return whether a recording holds at least one example."""
    wanted = (config.frames, config.height, config.width)
    return all(length >= least for length, least in zip(_size(recording), wanted, strict=True))
