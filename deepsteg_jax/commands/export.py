"""`--mode export`: a checkpoint as StableHLO, TFLite and ONNX files, each run and compared with JAX."""

import json
import logging
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import media, sample_clips
from deepsteg_jax.commands import Options, make_workdir
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.export.graphs import Graph
from deepsteg_jax.schemes.base import Scheme

CALIBRATION_GROUPS = 4  # from the beginning of the clips
TEST_FRAME = 40  # where the group begins that files are compared on; of shorter clips the last one
LEAST_SIDE = 16  # pixels
COLUMNS = ("file", "KiB", "levels", "differ", "stego dB", "secret dB", "JAX", "ms", "JAX ms")


class Plan(NamedTuple):
    """What the settings of the mode ask for."""

    kinds: list[tuple[str, str]]  # format and quantisation; "" is float32
    shapes: list[tuple[int, int, int]]  # (t, h, w)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str, between: str) -> list[int]:
    """The whole numbers of a text; none where one of them is something else."""
    words = text.split(between)
    return [int(word) for word in words] if all(word.strip().isdecimal() for word in words) else []


def read_plan(settings: ConfigDict, longest: int) -> Plan:
    """Check the settings and look for the packages they take.

    Args:
        settings: see `commands.settings.EXPORT`.
        longest: the most frames of a group.

    Raises:
        UserError: a value is unknown, or a package missing.
    """
    from deepsteg_jax.export import formats

    names, quantisations = _words(settings.formats), _words(settings.quantise)
    if not names:
        raise UserError(f"--export.formats is empty: give one or more of {', '.join(formats.SUFFIXES)}")
    for name in quantisations:
        if name not in formats.QUANTISATIONS:
            known = ", ".join(formats.QUANTISATIONS)
            raise UserError(f"--export.quantise is one or more of {known}, not {name!r}")
    sizes = [_numbers(size, "x") for size in _words(settings.sizes)]
    lengths = _numbers(settings.frames, ",") if settings.frames else list(range(longest, 0, -1))
    if not sizes or any(len(size) != 2 or min(size) < LEAST_SIDE for size in sizes):
        raise UserError(f"--export.sizes is like 448x256,1920x1080, not {settings.sizes!r}")
    if not all(1 <= length <= longest for length in lengths) or not lengths:
        raise UserError(f"--export.frames is like 4,2,1, of 1 to {longest}, not {settings.frames!r}")
    formats.check_packages(names)
    kinds = [
        (name, kind)
        for name in names
        for kind in ("", *(kind for kind in quantisations if name in formats.QUANTISATIONS[kind]))
    ]
    return Plan(kinds, [(length, height, width) for width, height in sizes for length in lengths])


def _groups(path: str, shape: tuple[int, int, int]) -> list[np.ndarray]:
    """The first groups of a clip, and the one to test on as the last; uint8 [t, h, w, 3] each."""
    t, height, width = shape
    stop = TEST_FRAME + t
    frames = list(media.read_frames(sample_clips.resolve(path), stop=stop, width=width, height=height))
    while len(frames) < t:
        frames.append(frames[-1])
    starts = [*range(0, min(CALIBRATION_GROUPS * t, len(frames) - t + 1), t), len(frames) - t]
    return [np.stack(frames[start : start + t]) for start in starts]


def _inputs(scheme: Scheme, plan: Plan, shape: tuple[int, int, int]) -> list[dict[str, np.ndarray]]:
    """Inputs of every graph to calibrate on and, as the last, to test on."""
    video = scheme.config.video
    pairs = list(zip(*(_groups(path, shape) for path in (video.cover, video.secret)), strict=False))
    needed = pairs if ("tflite", "int8") in plan.kinds else pairs[-1:]
    return [scheme.graph_inputs(*pair, number * shape[0]) for number, pair in enumerate(needed)]


class _CannotWrite(UserError):
    """The fault of a folder or a disk, not of a converter."""


def _write(path: Path, blob: bytes) -> None:
    """Write a file whole or not at all; UserError if it cannot be written."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(blob)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _CannotWrite(f"cannot write {path}: {error.strerror}") from None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "error:" in line.lower()), lines[0] if lines else "")
    return f"{type(error).__name__}: {told}"[:300]


def _described(graph: Graph) -> dict[str, dict]:
    """Inputs and outputs of a file, as export.json has them."""
    inputs = {
        name: {"shape": list(x.shape), "dtype": np.dtype(x.dtype).name} for name, x in graph.inputs.items()
    }
    return {
        "inputs": inputs,
        "outputs": {name: np.dtype(kind).name for name, kind in graph.outputs.items()},
    }


def export_shape(
    scheme: Scheme, plan: Plan, shape: tuple[int, int, int], folder: Path
) -> Iterator[dict[str, object]]:
    """Export and compare every graph of one shape.

    Yields:
        For each file what export.json says of it; with "error" in place of figures where the converter or the
        runtime cannot do it. A file that was made but does not run is kept.
    """
    from deepsteg_jax.export import comparing, formats

    exact, (*samples, tested) = scheme.graphs(shape), _inputs(scheme, plan, shape)
    t, height, width = shape
    for (name, quantisation), (number, reference) in product(plan.kinds, enumerate(exact)):
        words = filter(None, (reference.name, f"{width}x{height}x{t}", quantisation))
        path = folder / ("_".join(words) + formats.SUFFIXES[name])
        row = {"file": path.name, "format": name, "graph": reference.name}
        row |= {"frames": t, "height": height, "width": width, "weights": quantisation or "float32"}
        try:
            graph = reference if name == "stablehlo" else scheme.graphs(shape, portable=True)[number]
            blob = formats.serialise(graph, name, quantisation, [graph.pick(x) for x in samples])
            _write(path, blob)
            row |= _described(graph) | {"bytes": len(blob)}
            run = formats.load(blob, name, list(graph.outputs), os.cpu_count() or 1)
            row |= comparing.compare(run, graph, exact, tested)
        except _CannotWrite:
            raise
        except Exception as error:  # converters raise whatever they like
            row["error"] = _first_line(error)
        yield row


def markdown(rows: list[dict]) -> str:
    """The rows as a Markdown table."""
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    for row in rows:
        if "error" in row:
            lines.append([row["file"], f"closed: {row['error'].replace('|', ' ')}", *[""] * 7])
            continue
        decibels = [row.get(name) for name in ("stego_psnr_db", "secret_psnr_db", "jax_secret_psnr_db")]
        gap, share = f"{row['max_difference']:.5f} steps", "-"
        if "secret_psnr_db" in row:
            gap, share = f"{row['max_difference']:.0f}", f"{100 * row['share_different']:.4f} %"
        decibels = ["-" if value is None else f"{value:.2f}" for value in decibels]
        times = f"{row['ms']:.1f}", f"{row['jax_ms']:.1f}"
        lines.append([row["file"], f"{row['bytes'] / 1024:.0f}", gap, share, *decibels, *times])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run(config: ConfigDict, options: Options) -> dict:
    """Export config.checkpoint to the folder --output, or export/ under --workdir, and print a table.

    Returns:
        What export.json holds: all that a receiver must know besides the key, and the figures.

    Raises:
        UserError: the config asks for what there is not, a package is missing, or nothing can be written.
        PartialError: some of the files cannot be made or do not run; the table says why.
    """
    from deepsteg_jax import loading

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # converters narrate every operation
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    scheme = loading.load(config)
    plan = read_plan(options.export, scheme.graph_facts()["group"])
    folder = Path(options.output) if options.output else Path(options.workdir) / "export"
    make_workdir(options._replace(workdir=str(folder)))
    return write(scheme, plan, folder)


def write(scheme: Scheme, plan: Plan, folder: Path) -> dict:
    """Write all files and export.json, print the table; see `run`."""
    import jax
    from tqdm import tqdm

    rows: list[dict] = []
    with tqdm(desc="export", total=2 * len(plan.shapes) * len(plan.kinds), unit="file") as bar:
        for shape in plan.shapes:
            for row in export_shape(scheme, plan, shape, folder):
                rows.append(row)
                bar.update()
    config = scheme.config
    report = {"model": config.model.name, "checkpoint": Path(config.checkpoint).name, **scheme.graph_facts()}
    report |= {"jax": jax.__version__, "cores": os.cpu_count(), "files": rows}
    _write(folder / "export.json", (json.dumps(report, indent=2) + "\n").encode())
    closed = [row["file"] for row in rows if "error" in row]
    made, facts = len(rows) - len(closed), folder / "export.json"
    print(f"{markdown(rows)}\n\n{made} files in {folder}; what goes in and out is in {facts}")
    if closed:
        raise PartialError(
            f"{len(closed)} of {len(rows)} files are closed, see the table: {', '.join(closed)}"
        )
    return report
