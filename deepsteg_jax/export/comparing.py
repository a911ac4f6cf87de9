"""Compares an exported file in its own runtime with the graph in JAX."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from deepsteg_jax import metrics
from deepsteg_jax.export.graphs import Arrays, Graph

REPEATS = 3


def compare(
    run: Callable[..., list], graph: Graph, exact: Sequence[Graph], inputs: Arrays
) -> dict[str, float]:
    """Run a file and JAX on one group of frames.

    Args:
        run: from `formats.load`.
        graph: that was exported.
        exact: the scheme's graphs as JAX has them, see `Scheme.graphs`.
        inputs: of all graphs, by name.

    Returns:
        The largest difference in 8-bit levels (of phases in steps) and the share of samples that differ;
        where there are pictures, their PSNR in dB, of a stego through JAX's reveal; milliseconds of both.
    """
    reference = next(other for other in exact if other.name == graph.name)
    given, arrays = graph.pick(inputs), list(reference.pick(inputs).values())
    found, wanted = run(**given), reference(inputs)
    works = [lambda: run(**given), lambda: jax.block_until_ready(reference.compiled(*arrays))]
    return (
        _differences(graph, found, wanted)
        | quality(graph, exact, inputs, found)
        | {f"jax_{name}": x for name, x in quality(graph, exact, inputs, wanted).items()}
        | dict(zip(("ms", "jax_ms"), _fastest_ms(works), strict=True))
    )


def _differences(graph: Graph, found: list[np.ndarray], wanted: list[np.ndarray]) -> dict[str, float]:
    gaps = [np.abs(np.asarray(a, np.float64) - b) for a, b in zip(found, wanted, strict=True)]
    if "phase" in graph.outputs:  # on a circle: -1/2 is 1/2
        gaps[0] = np.abs(gaps[0] - np.round(gaps[0]))
    return {
        "max_difference": float(max(gap.max() for gap in gaps)),
        "share_different": float(np.mean([np.mean(gap > 0) for gap in gaps])),
    }


def quality(
    graph: Graph, exact: Sequence[Graph], inputs: Arrays, outputs: list[np.ndarray]
) -> dict[str, float]:
    """Return the PSNR in dB of the pictures among the outputs, of a stego through JAX's reveal too."""
    picture = outputs[0]
    if picture.dtype != np.uint8:
        return {}
    if "stego" not in graph.outputs:
        return {"secret_psnr_db": metrics.mean_psnr(picture, inputs["secret"])}
    reveal = next(other for other in exact if "stego" in other.inputs)
    revealed = reveal(inputs | {"stego": picture})[0]
    return {
        "stego_psnr_db": metrics.mean_psnr(picture, inputs["cover"]),
        "secret_psnr_db": metrics.mean_psnr(revealed, inputs["secret"]),
    }


def _fastest_ms(works: Sequence[Callable[[], Any]]) -> list[float]:
    """Milliseconds of the fastest of a few runs of each, in turn."""
    best = [float("inf")] * len(works)
    for _ in range(REPEATS):
        for number, work in enumerate(works):
            start = time.perf_counter()
            work()
            best[number] = min(best[number], 1000 * (time.perf_counter() - start))
    return best
