"""StableHLO, TFLite (LiteRT) and ONNX: a `Graph` as bytes, and such bytes in their own runtime."""

import importlib
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import numpy as np

from deepsteg_jax.errors import UserError
from deepsteg_jax.export.graphs import Arrays, Graph

SUFFIXES = {"stablehlo": ".stablehlo", "tflite": ".tflite", "onnx": ".onnx"}
QUANTISATIONS = ("float16", "dynamic", "int8")  # of TFLite, besides float32
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # that a StableHLO file runs on
_PACKAGES = {"tflite": ("tensorflow", "ai_edge_litert"), "onnx": ("jax2onnx", "onnxruntime"), "stablehlo": ()}


def check_packages(formats: Sequence[str]) -> None:
    """Raise UserError where a format is unknown, or a package that makes or runs it is missing."""
    for name in formats:
        if name not in SUFFIXES:
            raise UserError(f"--export.formats is one or more of {', '.join(SUFFIXES)}, not {name!r}")
        for package in _PACKAGES[name]:
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise UserError(
                    f"the format {name} needs the package {package} ({error}): "
                    'run pip install ".[export]", or leave it out of --export.formats'
                ) from None


def serialise(graph: Graph, name: str, quantisation: str = "", samples: Sequence[Arrays] = ()) -> bytes:
    """Return the graph in a format, inputs and outputs by name except in StableHLO.

    Args:
        graph: what to export.
        name: the format.
        quantisation: of TFLite, empty for float32, or one of QUANTISATIONS: float16 weights, int8 weights
            ("dynamic"), or int8 weights and activations ("int8") where the converter can; then pictures come
            out as float32, 0 to 255, not rounded, since the converter cuts what is rounded at 127.
        samples: inputs that "int8" is calibrated on.

    Raises:
        Exception: whatever the converter raises where an operation has no counterpart.
    """
    if name == "tflite":
        return _to_tflite(graph, quantisation, samples)
    return {"stablehlo": _to_stablehlo, "onnx": _to_onnx}[name](graph)


def _to_stablehlo(graph: Graph) -> bytes:
    from jax import export

    return bytes(export.export(graph.compiled, platforms=PLATFORMS)(*graph.inputs.values()).serialize())


def _to_onnx(graph: Graph) -> bytes:
    import jax2onnx

    names = {"input_names": list(graph.inputs), "output_names": list(graph.outputs)}
    specs = list(graph.inputs.values())
    return jax2onnx.to_onnx(graph.function, specs, model_name=graph.name, **names).SerializeToString()


def _to_tflite(graph: Graph, quantisation: str, samples: Sequence[Arrays]) -> bytes:
    import tensorflow as tf
    from jax.experimental import jax2tf

    tf.config.set_visible_devices([], "GPU")
    converted = jax2tf.convert(graph.raw if quantisation == "int8" else graph.function, with_gradient=False)
    module = tf.Module()
    module.run = tf.function(
        lambda *arrays: dict(zip(graph.outputs, converted(*arrays), strict=True)),
        input_signature=[tf.TensorSpec(x.shape, x.dtype, name=name) for name, x in graph.inputs.items()],
        autograph=False,
        jit_compile=True,
    )
    function = module.run.get_concrete_function()
    if quantisation == "int8":
        return _calibrated_tflite(module, function, samples)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    if quantisation:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantisation == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _calibrated_tflite(module, function, samples: Sequence[Arrays]) -> bytes:
    """Convert in a child process; RuntimeError with its last line, or its signal, where that fails."""
    import tensorflow as tf

    with TemporaryDirectory() as name:
        folder = Path(name)
        tf.saved_model.save(module, str(folder / "saved_model"), signatures=function)
        for number, arrays in enumerate(samples):
            np.savez(folder / f"{number:04d}.npz", **arrays)
        # By its path, so that the child finds it wherever the package is, installed or not.
        command = [sys.executable, "-P", str(Path(__file__).with_name("tflite_calibration.py")), name]
        child = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if child.returncode < 0:
            raise RuntimeError(f"the TFLite converter crashed: {signal.strsignal(-child.returncode)}")
        if child.returncode:
            raise RuntimeError((child.stderr.strip().splitlines() or ["the TFLite converter failed"])[-1])
        return (folder / "model.tflite").read_bytes()


# --- running -------------------------------------------------------------------------------------


def load(blob: bytes, name: str, outputs: Sequence[str], threads: int) -> Callable[..., list[np.ndarray]]:
    """Return the function in a file's content: from inputs by name to the list of outputs.

    Args:
        blob: from `serialise`.
        name: the format.
        outputs: their names, in the order that is wanted; StableHLO has the graph's.
        threads: that the runtime may use; JAX uses what it likes.
    """
    loaders = {"stablehlo": _load_stablehlo, "tflite": _load_tflite, "onnx": _load_onnx}
    return loaders[name](blob, outputs, threads)


def _load_stablehlo(blob: bytes, outputs: Sequence[str], threads: int):
    from jax import export

    del outputs, threads
    call = jax.jit(export.deserialize(bytearray(blob)).call)
    return lambda **inputs: [np.asarray(x) for x in call(*inputs.values())]


def _load_tflite(blob: bytes, outputs: Sequence[str], threads: int):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=blob, num_threads=threads).get_signature_runner()

    def run(**inputs):
        found = runner(**inputs)
        return [found[name] for name in outputs]

    return run


def _load_onnx(blob: bytes, outputs: Sequence[str], threads: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
    return lambda **inputs: session.run(list(outputs), {name: np.asarray(x) for name, x in inputs.items()})
