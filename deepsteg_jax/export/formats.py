"""StableHLO, TFLite (LiteRT) and ONNX: a `Graph` as bytes, and such bytes in their own runtime."""

import importlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from deepsteg_jax.errors import UserError
from deepsteg_jax.export import quantised
from deepsteg_jax.export.graphs import Arrays, Graph

SUFFIXES = {"stablehlo": ".stablehlo", "tflite": ".tflite", "onnx": ".onnx"}
QUANTISATIONS = {  # besides float32, and the formats that have them
    "float16": ("tflite",),
    "weights": ("tflite", "onnx"),
    "int8": ("tflite", "onnx"),
}
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # that a StableHLO file runs on
_PACKAGES = {
    "tflite": ("tensorflow", "ai_edge_litert", "ai_edge_quantizer"),
    "onnx": ("jax2onnx", "onnxruntime"),
    "stablehlo": (),
}


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
        quantisation: empty for float32, or one of QUANTISATIONS: float16 weights, int8 weights ("weights"),
            or int8 weights and 8-bit activations ("int8"); see `quantised`.
        samples: inputs that ranges of activations are measured on, if the model does not state them.

    Raises:
        Exception: whatever the converter raises where an operation has no counterpart.
    """
    if name == "stablehlo":
        return _to_stablehlo(graph)
    return _to_onnx(graph, quantisation) if name == "onnx" else _to_tflite(graph, quantisation, samples)


def _to_stablehlo(graph: Graph) -> bytes:
    from jax import export

    return bytes(export.export(graph.compiled, platforms=PLATFORMS)(*graph.inputs.values()).serialize())


def _to_onnx(graph: Graph, quantisation: str) -> bytes:
    import jax2onnx

    names = {"input_names": list(graph.inputs), "output_names": list(graph.outputs)}
    specs = list(graph.inputs.values())
    model = jax2onnx.to_onnx(graph.function, specs, model_name=graph.name, **names)
    if quantisation:
        quantised.quantise_onnx(model, graph.integers, quantisation == "int8")
    return model.SerializeToString()


def _to_tflite(graph: Graph, quantisation: str, samples: Sequence[Arrays]) -> bytes:
    import tensorflow as tf
    from jax.experimental import jax2tf

    tf.config.set_visible_devices([], "GPU")
    converted = jax2tf.convert(graph.function, with_gradient=False)
    module = tf.Module()
    module.run = tf.function(
        lambda *arrays: dict(zip(graph.outputs, converted(*arrays), strict=True)),
        input_signature=[tf.TensorSpec(x.shape, x.dtype, name=name) for name, x in graph.inputs.items()],
        autograph=False,
        jit_compile=True,
    )
    function = module.run.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    if quantisation == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    blob = converter.convert()
    if quantisation in ("weights", "int8"):
        return quantised.quantise_tflite(blob, graph, quantisation == "int8", samples)
    return blob


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
