"""A folder of records: what real codecs left of symbols and of coded pictures, kept in memory.

An example is no pair of cover and secret; a model that learns from records says itself what its loss of them
is (`Model.loss`). TensorFlow has no part in it.
"""

import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax.data.examples import open_folder, report_unreadable
from deepsteg_jax.data.pairs import WHOLE, Batch, Share
from deepsteg_jax.errors import UserError
from deepsteg_jax.media.background import read_ahead

BLOCK = 8  # pixels; crops begin and end at whole blocks

Record = dict[str, np.ndarray]


class Entry(NamedTuple):
    """An array of a record.

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
# place of a kind here decides over its random numbers, so new ones come last.
KINDS: dict[str, dict[str, Entry]] = {
    "symbols": {
        "frames": Entry(np.float16, 1),  # luma of what was received
        "symbols": Entry(np.float32, BLOCK, (None,)),  # phases that were sent, in steps, from -1/2 to 1/2
        "step": Entry(np.float32, 0),  # in grey levels
        "count": Entry(np.int32, 0),  # how many of a block's symbols were sent, from the first one on
    },
    "pictures": {
        "coded": Entry(np.uint8, 1, (3,)),  # RGB of a secret that was coded to a few bits
        "secret": Entry(np.uint8, 1, (3,)),  # RGB of what it was before
    },
}

_DAMAGE = (OSError, EOFError, KeyError, TypeError, ValueError, MemoryError, RuntimeError)
_DAMAGE += (zipfile.BadZipFile, zlib.error)
_CENTRE = (0.0, 0.5, 0.5)  # first frames, central crop; see `_cut`


def create_records(
    config: ConfigDict, *, seed: int, batch_size: int, start_step: int = 0, share: Share = WHOLE
) -> Iterator[Batch]:
    """Create an endless iterator of batches of records for training; see `create_pairs`.

    Every kind passes over its files in a new random order every epoch, independently of the other one. File,
    first frame and place of an example depend on `seed` and on its number in the whole stream only.

    Args:
        config: the `data` section; uses `path`, a folder of .npz files of the kinds of `KINDS`, `frames` (t),
            `height` and `width` (of the crop, multiples of 8).
        seed: of order, crops and first frames, at least 0.
        batch_size: examples in a batch, over all processes.
        start_step: the first step to yield.
        share: which part of every batch to yield.

    Returns:
        An iterator of batches, with b = batch_size / processes: of symbols `frames` float16 [b, t, height,
        width], `symbols` float32 [b, t, height/8, width/8, k], `step` float32 [b] and `count` int32 [b]; of
        pictures `coded` and `secret`, uint8 [b, t, height, width, 3]. A kind that the folder has no files of
        is left out. Crops begin at multiples of 8.

    Raises:
        UserError: no folder, no records in it, none of a kind that can be read and is long and large enough,
            one that holds something else, different numbers of symbols in a block, or a crop that is not of
            whole blocks.
    """
    kinds = _open_kinds(config)

    def load(number: int) -> Record:
        example = {}
        for stream, kind in enumerate(KINDS):
            if files := kinds.get(kind):
                epoch, position = divmod(number, len(files))
                order = np.random.default_rng((seed, stream, 0, epoch)).permutation(len(files))
                draws = np.random.default_rng((seed, stream, 1, number)).random(3).tolist()
                example |= _cut(files[order[position]], KINDS[kind], config, draws)
        return example

    return read_ahead(_batches(load, count(start_step), batch_size, share))


def create_validation_records(
    config: ConfigDict, *, batch_size: int, share: Share = WHOLE
) -> Callable[[], Iterator[Batch]]:
    """Load the records of `config.path` once and create a function that makes a pass over them.

    A pass takes the first frames and the central crop of every file once, sorted by name. Where one kind has
    fewer files than the other, they come again, from the first one on, until the pass ends.

    Args:
        config: as for `create_records`.
        batch_size: examples in a batch, over all processes.
        share: which part of every batch to yield.

    Returns:
        A function without arguments that returns an iterator as `create_records` does, with `weight` besides:
        float32 [b], 1 for an example and 0 for what fills up the last batch.

    Raises:
        UserError: as for `create_records`.
    """
    kinds = _open_kinds(config)
    total = max(map(len, kinds.values()))

    def load(number: int) -> Record:
        example = {"weight": np.float32(number < total)}
        for kind, files in kinds.items():
            example |= _cut(files[number % len(files)], KINDS[kind], config, _CENTRE)
        return example

    steps = range(-(-total // batch_size))
    return lambda: read_ahead(_batches(load, steps, batch_size, share))


def _batches(
    load: Callable[[int], Record], steps: Iterable[int], batch_size: int, share: Share
) -> Iterator[Batch]:
    size = share.of(batch_size)
    for step in steps:
        examples = [load(share.number(step * size + i, batch_size)) for i in range(size)]
        yield {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def _cut(record: Record, entries: dict[str, Entry], config: ConfigDict, draws: Sequence[float]) -> Record:
    """Cut an example out of a record; `draws`, three numbers in [0, 1), choose its time, row and column."""
    frames, height, width = _size(record)
    first = int(draws[0] * (frames - config.frames + 1))
    top = BLOCK * int(draws[1] * ((height - config.height) // BLOCK + 1))
    left = BLOCK * int(draws[2] * ((width - config.width) // BLOCK + 1))

    def cut(x: np.ndarray, pitch: int) -> np.ndarray:
        if not pitch:
            return x
        rows = slice(top // pitch, (top + config.height) // pitch)
        columns = slice(left // pitch, (left + config.width) // pitch)
        return x[first : first + config.frames, rows, columns]

    return {name: cut(record[name], entry.pitch) for name, entry in entries.items()}


def _size(record: Record) -> tuple[int, int, int]:
    """Frames, height and width; 0 for axes that a faulty record lacks."""
    frames, height, width = (*next(iter(record.values())).shape, 0, 0, 0)[:3]
    return frames, height, width


# --- files ---------------------------------------------------------------------------------------


def _open_kinds(config: ConfigDict) -> dict[str, list[Record]]:
    """Load all records of the folder, by kind; kinds without files are left out."""
    if config.height % BLOCK or config.width % BLOCK:
        raise UserError(
            f"data.height and data.width must be multiples of {BLOCK} for records, not "
            f"{config.height} and {config.width}"
        )
    folder = open_folder(config.path)
    paths = {kind: sorted(p for p in folder.glob(f"{kind}-*.npz") if p.is_file()) for kind in KINDS}
    if not any(paths.values()):
        names = " and no ".join(f"{kind}-*.npz" for kind in KINDS)
        raise UserError(f"data.path: no {names} in {folder}")
    return {kind: _open_kind(found, KINDS[kind], folder, config) for kind, found in paths.items() if found}


def _open_kind(
    paths: list[Path], entries: dict[str, Entry], folder: Path, config: ConfigDict
) -> list[Record]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = list(pool.map(partial(_read_record, entries=entries), paths))
    large = [r is not None and _is_large(r, config) for r in read]
    report_unreadable([p for p, usable in zip(paths, large, strict=True) if not usable], len(paths), folder)
    found = [(p, r) for p, r, usable in zip(paths, read, large, strict=True) if usable]
    first_path, first = found[0]
    for path, record in found:
        for name, x in record.items():
            if x.shape[3:] != first[name].shape[3:]:
                lengths = f"{x.shape[-1]} and {first[name].shape[-1]} {name}"
                raise UserError(f"data.path: {path} and {first_path.name} have {lengths} in a block")
    return [record for _, record in found]


def _read_record(path: Path, entries: dict[str, Entry]) -> Record | None:
    """Read the entries of one file; None if it is damaged.

    Raises:
        UserError: it is sound, but holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            record = {name: file[name] for name in entries if name in file}
    except _DAMAGE:
        return None
    for name, entry in entries.items():
        if name not in record:
            raise UserError(f"data.path: {path} is no record of its kind: it has no {name!r}")
        if record[name].dtype.kind == np.dtype(entry.dtype).kind == "f":
            record[name] = record[name].astype(entry.dtype, copy=False)  # kept in 16 bits, perhaps
    for name, entry in entries.items():
        if complaint := _find_fault(record[name], entry, _size(record)):
            raise UserError(f"data.path: {path} is no record of its kind: {name!r} {complaint}")
    return record


def _find_fault(x: np.ndarray, entry: Entry, size: tuple[int, int, int]) -> str:
    """What is wrong with an entry of a record of `size` frames, height and width; empty if nothing is."""
    lead = [size[0], size[1] / entry.pitch, size[2] / entry.pitch] if entry.pitch else []
    wanted = [*lead, *entry.tail]  # half a block equals no length
    alike = [w in (None, length) for w, length in zip(wanted, x.shape, strict=False)]
    if x.dtype != entry.dtype or len(wanted) != x.ndim or not all(alike):
        lengths = ", ".join("any" if w is None else f"{w:g}" for w in wanted)
        return f"is {x.dtype} {list(x.shape)}, not {np.dtype(entry.dtype)} [{lengths}]"
    return "" if x.dtype == np.uint8 or np.isfinite(x).all() else "has values that are not finite"


def _is_large(record: Record, config: ConfigDict) -> bool:
    """Whether a record holds at least one example."""
    wanted = (config.frames, config.height, config.width)
    return all(length >= least for length, least in zip(_size(record), wanted, strict=True))
