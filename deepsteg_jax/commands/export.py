"""`--mode export`: a checkpoint as StableHLO, TFLite and ONNX files, each run and compared with JAX."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import media, sample_clips
from deepsteg_jax.commands import Options, is_robust, make_workdir
from deepsteg_jax.errors import PartialError, UserError

CALIBRATION_GROUPS = 4  # from the beginning of the clips
TEST_FRAME = 40  # where the group begins that files are compared on; of shorter clips the last one
REPEATS = 3
LEAST_SIDE = 16  # pixels
COLUMNS = ("file", "KiB", "levels", "differ", "stego dB", "secret dB", "JAX", "ms", "JAX ms")


class Plan(NamedTuple):
    """What the settings of the mode ask for."""

    formats: list[str]
    quantisations: list[str]  # "" is float32
    shapes: list[tuple[int, int, int]]  # (t, h, w)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str, between: str) -> list[int]:
    """The whole numbers of a text; none where one of them is something else."""
    words = text.split(between)
    return [int(word) for word in words] if all(word.strip().isdecimal() for word in words) else []


def read_plan(config: ConfigDict, settings: ConfigDict) -> Plan:
    """Checks the settings (see `commands.settings.EXPORT`) and looks for the packages they take.

    Raises:
        UserError: a value is unknown, or a package missing.
    """
    from deepsteg_jax.export import convert

    longest = config.data.frames if is_robust(config) else config.model.frames
    formats, quantisations = _words(settings.formats), _words(settings.quantise)
    if not formats:
        raise UserError(f"--export.formats is empty: give one or more of {', '.join(convert.SUFFIXES)}")
    for name in quantisations:
        if name not in convert.QUANTISATIONS:
            raise UserError(
                f"--export.quantise is one or more of {', '.join(convert.QUANTISATIONS)}, not {name!r}"
            )
    sizes = [_numbers(size, "x") for size in _words(settings.sizes)]
    lengths = _numbers(settings.frames, ",") if settings.frames else list(range(longest, 0, -1))
    if not sizes or any(len(size) != 2 or min(size) < LEAST_SIDE for size in sizes):
        raise UserError(f"--export.sizes is like 448x256,1920x1080, not {settings.sizes!r}")
    if not all(1 <= length <= longest for length in lengths) or not lengths:
        raise UserError(f"--export.frames is like 4,2,1, of 1 to {longest}, not {settings.frames!r}")
    convert.check_packages(formats)
    shapes = [(length, height, width) for width, height in sizes for length in lengths]
    return Plan(formats, ["", *quantisations], shapes)


# --- frames to compare and calibrate on ----------------------------------------------------------


def _groups(path: str, shape: tuple[int, int, int]) -> list[np.ndarray]:
    """The first groups of a clip, and the one to test on as the last; uint8 [t, h, w, 3] each."""
    t, height, width = shape
    stop = TEST_FRAME + t
    frames = list(media.read_frames(sample_clips.resolve(path), stop=stop, width=width, height=height))
    while len(frames) < t:
        frames.append(frames[-1])
    starts = [*range(0, min(CALIBRATION_GROUPS * t, len(frames) - t + 1), t), len(frames) - t]
    return [np.stack(frames[start : start + t]) for start in starts]


class Case(NamedTuple):
    """Inputs of every graph for one group of frames, by name, and what they are judged by."""

    inputs: dict[str, np.ndarray]
    cover: np.ndarray
    secret: np.ndarray


def _cases(config: ConfigDict, keyed: list, shape: tuple[int, int, int]) -> list[Case]:
    """Groups to calibrate on and, as the last, one to test on; `keyed` are the graphs in JAX."""
    from deepsteg_jax import keys
    from deepsteg_jax.export import convert

    covers, secrets = (_groups(path, shape) for path in (config.video.cover, config.video.secret))
    key, cases = keys.key_words(keys.random_key()), []
    for number, (cover, secret) in enumerate(zip(covers, secrets, strict=False)):
        inputs: dict[str, Any] = {"cover": cover, "secret": secret}
        if is_robust(config):
            inputs |= {
                "stego": cover,
                "spacing": np.array(config.model.spacing, np.float32),
                "coded": secret // 8 * 8 + 4,
            }
        else:
            first = np.int32(number * shape[0])
            inputs |= {"key": key, "first_frame": first}
            inputs["stego"] = call(keyed[0], inputs)[0]
            if config.shuffle.moves != "nothing" and _has_tables(config):
                for name in ("encipher", "decipher"):
                    table = convert.sample_table(config.shuffle, key, first, shape, name == "decipher")
                    inputs[name] = table
        cases.append(Case(inputs, cover, secret))
    return cases


def _has_tables(config: ConfigDict) -> bool:
    return (config.shuffle.moves, config.shuffle.cipher) != ("secret", "coefficients")


def _picked(graph, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: inputs[name] for name in graph.inputs}


def call(graph, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """A graph in JAX, from whatever holds its inputs by name."""
    import jax

    return [np.asarray(x) for x in jax.jit(graph.function)(*_picked(graph, inputs).values())]


# --- comparing ------------------------------------------------------------------------------------


def _fastest_ms(works: list[Callable[[], Any]]) -> list[float]:
    """Milliseconds of the fastest of a few runs of each, in turn."""
    best = [float("inf")] * len(works)
    for _ in range(REPEATS):
        for number, work in enumerate(works):
            start = time.perf_counter()
            work()
            best[number] = min(best[number], 1000 * (time.perf_counter() - start))
    return best


def compare(run: Callable[..., list], graph, keyed: list, case: Case) -> dict[str, float]:
    """A file in its own runtime against the graph in JAX, on one group of frames.

    Args:
        run: from `convert.load`.
        graph: that was exported.
        keyed: the graphs in JAX.
        case: the group.

    Returns:
        The largest difference in 8-bit levels (of phases in steps) and the share of samples that differ;
        where there are pictures, their PSNR in dB, of a stego through JAX's reveal; milliseconds of both.
    """
    import jax

    from deepsteg_jax import metrics

    reference = next(other for other in keyed if other.name == graph.name)
    inputs, compiled = _picked(graph, case.inputs), jax.jit(reference.function)
    arrays = list(_picked(reference, case.inputs).values())
    found, wanted = run(**inputs), call(reference, case.inputs)
    for number, kind in enumerate(graph.outputs.values()):
        if kind == np.uint8:
            found[number] = np.clip(np.round(found[number]), 0, 255).astype(kind)
    gaps = [np.abs(np.asarray(a, np.float64) - b) for a, b in zip(found, wanted, strict=True)]
    if "phase" in graph.outputs:  # on a circle: -1/2 is 1/2
        gaps[0] = np.abs(gaps[0] - np.round(gaps[0]))
    figures = {
        "max_difference": float(max(gap.max() for gap in gaps)),
        "share_different": float(np.mean([np.mean(gap > 0) for gap in gaps])),
    }
    if graph.name == "hide":
        again = partial(call, keyed[1])
        secrets = [again(case.inputs | {"stego": stego[0]})[0] for stego in (found, wanted)]
        figures["stego_psnr_db"] = metrics.mean_psnr(found[0], case.cover)
        figures["jax_stego_psnr_db"] = metrics.mean_psnr(wanted[0], case.cover)
        figures["secret_psnr_db"], figures["jax_secret_psnr_db"] = (
            metrics.mean_psnr(secret, case.secret) for secret in secrets
        )
    elif found[0].dtype == np.uint8:
        figures["secret_psnr_db"], figures["jax_secret_psnr_db"] = (
            metrics.mean_psnr(secret[0], case.secret) for secret in (found, wanted)
        )
    times = _fastest_ms([lambda: run(**inputs), lambda: jax.block_until_ready(compiled(*arrays))])
    return figures | dict(zip(("ms", "jax_ms"), times, strict=True))


# --- writing --------------------------------------------------------------------------------------


def _described(graph) -> dict[str, dict]:
    return {
        name: {"shape": list(x.shape), "dtype": np.dtype(x.dtype).name} for name, x in graph.inputs.items()
    }


def _output_types(graph, name: str, quantisation: str) -> dict[str, str]:
    """As `convert.to_tflite` says, its int8 models give pictures as float32, 0 to 255."""
    calibrated = (name, quantisation) == ("tflite", "int8")
    return {key: "float32" if calibrated else np.dtype(kind).name for key, kind in graph.outputs.items()}


class _CannotWrite(UserError):
    """The fault of a folder or a disk, not of a converter."""


def _write(path: Path, blob: bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
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


def export_shape(
    config: ConfigDict, params: dict, plan: Plan, shape: tuple[int, int, int], folder: Path
) -> Iterator[dict]:
    """Exports and compares every graph of one shape.

    Args:
        config: the whole config.
        params: of both sides.
        plan: what to make.
        shape: (t, h, w).
        folder: where to.

    Yields:
        For each file what export.json says of it; with "error" in place of figures where the converter or the
        runtime cannot do it. A file that was made but does not run is kept.
    """
    from deepsteg_jax.export import convert

    robust = is_robust(config)
    keyed = (
        convert.robust_graphs(config, params["reveal"], shape)
        if robust
        else convert.keyed_graphs(config, params, shape)
    )
    cases = _cases(config, keyed, shape)
    for name in plan.formats:
        for number, reference in enumerate(keyed):
            for quantisation in plan.quantisations[: 1 if name == "stablehlo" else None]:
                t, height, width = shape
                parts = [reference.name, f"{width}x{height}x{t}", *([quantisation] if quantisation else [])]
                path = folder / ("_".join(parts) + convert.SUFFIXES[name])
                row = {"file": path.name, "format": name, "graph": reference.name}
                row |= {"frames": t, "height": height, "width": width, "weights": quantisation or "float32"}
                try:
                    graphs = keyed
                    if not robust and name != "stablehlo":
                        graphs = convert.tabled_graphs(config, params, shape)
                    graph = graphs[number]
                    calibration = [_picked(graph, case.inputs) for case in cases[:-1]]
                    blob = convert.serialise(graph, name, quantisation, calibration)
                    _write(path, blob)
                    row |= {
                        "inputs": _described(graph),
                        "outputs": _output_types(graph, name, quantisation),
                        "bytes": len(blob),
                    }
                    row |= compare(
                        convert.load(blob, name, graph.outputs, os.cpu_count()), graph, keyed, cases[-1]
                    )
                except _CannotWrite:
                    raise
                except Exception as error:  # converters raise whatever they like
                    row["error"] = _first_line(error)
                yield row


def describe(config: ConfigDict, params: dict, rows: list[dict]) -> dict:
    """What convert.json holds: all that a receiver must know besides the key, and the figures."""
    import jax

    from deepsteg_jax import models

    return {
        "model": config.model.name,
        "checkpoint": Path(config.checkpoint).name,
        "fingerprint": models.fingerprint(params["reveal"]).hex(),
        "modulus": models.build(config.model).modulus,
        "group": config.data.frames if is_robust(config) else config.model.frames,
        **({} if is_robust(config) else {"shuffle": config.shuffle.to_dict()}),
        "jax": jax.__version__,
        "cores": os.cpu_count(),
        "files": rows,
    }


def markdown(rows: list[dict]) -> str:
    """The rows as a Markdown table."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---|" * (len(COLUMNS) - 1)]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['file']} | closed: {row['error'].replace('|', ' ')} |" + " |" * 7)
            continue
        decibels = [row.get(name) for name in ("stego_psnr_db", "secret_psnr_db", "jax_secret_psnr_db")]
        gap, whole = row["max_difference"], row["graph"] != "demodulate"
        cells = [
            row["file"],
            f"{row['bytes'] / 1024:.0f}",
            f"{gap:.0f}" if whole else f"{gap:.5f} steps",
            f"{100 * row['share_different']:.4f} %" if whole else "-",
            *("-" if value is None else f"{value:.2f}" for value in decibels),
            f"{row['ms']:.1f}",
            f"{row['jax_ms']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def run(config: ConfigDict, options: Options) -> dict:
    """Exports config.checkpoint to the folder --output, or export/ under --workdir, and prints a table.

    Returns:
        What convert.json holds.

    Raises:
        UserError: the config asks for what there is not, a package is missing, or nothing can be written.
        PartialError: some of the files cannot be made or do not run; the table says why.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # converters narrate every operation
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    plan = read_plan(config, options.export)
    from deepsteg_jax import models
    from deepsteg_jax.training import checkpoints

    model = models.build(config.model)
    params = {
        side: checkpoints.restore_params(config.checkpoint, model, config.model, side)
        for side in ("hide", "reveal")
    }
    folder = Path(options.output) if options.output else Path(options.workdir) / "export"
    make_workdir(options._replace(workdir=str(folder)))
    return write(config, params, plan, folder)


def write(config: ConfigDict, params: dict, plan: Plan, folder: Path) -> dict:
    """Writes all files and convert.json, prints the table; see `run`."""
    from tqdm import tqdm

    count = (
        len(plan.shapes) * 2 * sum(1 if f == "stablehlo" else len(plan.quantisations) for f in plan.formats)
    )
    rows: list[dict] = []
    with tqdm(desc="export", total=count, unit="file", dynamic_ncols=True) as bar:
        for shape in plan.shapes:
            for row in export_shape(config, params, plan, shape, folder):
                rows.append(row)
                bar.update()
    report = describe(config, params, rows)
    _write(folder / "export.json", (json.dumps(report, indent=2) + "\n").encode())
    print(markdown(rows))
    closed = [row["file"] for row in rows if "error" in row]
    print(
        f"\n{len(rows) - len(closed)} files in {folder}; what goes in and out is in {folder / 'export.json'}"
    )
    if closed:
        raise PartialError(
            f"{len(closed)} of {len(rows)} files are closed, see the table: {', '.join(closed)}"
        )
    return report
