"""A checkpoint's two sides as files that other runtimes open: StableHLO, TFLite (LiteRT) and ONNX.

A `Graph` is one pure function of 8-bit frames with its parameters inside, for one group length and one frame
size. Two forms of hide and reveal:

    keyed   The key (8 words) and the number of the first frame go in; ChaCha20, permutation and model are
            inside. StableHLO only: the converters of the other formats lack unsigned shifts or sorts.
    tabled  What the cipher does to each sample goes in as a table, see `sample_table`; the model is inside.

Pure: config and parameters in, bytes out. docs/EXPORT.md says what a receiver needs besides.
"""

import importlib
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import models, steganography
from deepsteg_jax.errors import UserError
from deepsteg_jax.models import block_dct
from deepsteg_jax.models import symbols as symbol_model

SUFFIXES = {"stablehlo": ".stablehlo", "tflite": ".tflite", "onnx": ".onnx"}
QUANTISATIONS = ("float16", "dynamic", "int8")  # besides float32; not of StableHLO
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # that a StableHLO file runs on
_PACKAGES = {"tflite": ("tensorflow", "ai_edge_litert"), "onnx": ("jax2onnx", "onnxruntime"), "stablehlo": ()}

Arrays = dict[str, np.ndarray]


@lru_cache(maxsize=16)
def _typed(raw: Callable, kinds: tuple[type, ...]) -> Callable:
    def typed(*inputs):
        outputs = zip(raw(*inputs), kinds, strict=True)
        return tuple((jnp.round(x) if kind == np.uint8 else x).astype(kind) for x, kind in outputs)

    return typed


class Graph(NamedTuple):
    """A function to export."""

    name: str  # hide or reveal; of `robust` demodulate or restore
    raw: Callable[..., Any]  # of arrays in the order of `inputs`, returns a tuple of float32, not rounded
    inputs: dict[str, jax.ShapeDtypeStruct]
    outputs: dict[str, type]  # their types in a file

    @property
    def function(self) -> Callable[..., Any]:
        """`raw` with outputs in their types, rounded; the same every time, so that JAX compiles it once."""
        return _typed(self.raw, tuple(self.outputs.values()))


def check_packages(formats: Sequence[str]) -> None:
    """Raises UserError where a format is unknown, or a package that makes or runs it is missing."""
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


# --- graphs --------------------------------------------------------------------------------------


def _pictures(frames, count: int):
    """uint8 [t, h, w, 3] -> a batch of one group, as models take it."""
    x = frames.astype(jnp.float32) / 255
    return x if count == 1 else x[None]


def _levels(x):
    """Inverse of `_pictures`, 0 to 255, not rounded."""
    # Clipped last: TFLite's int8 models clip tensors of five axes wrongly.
    return jnp.clip(x.reshape(-1, *x.shape[-3:]), 0, 1) * 255


def _key_inputs() -> dict[str, jax.ShapeDtypeStruct]:
    return {"key": jax.ShapeDtypeStruct((8,), np.uint32), "first_frame": jax.ShapeDtypeStruct((), np.int32)}


def keyed_graphs(config: ConfigDict, params: dict, shape: tuple[int, int, int]) -> list[Graph]:
    """Hide and reveal with the cipher inside.

    Args:
        config: the whole config.
        params: of both sides, {"hide": ..., "reveal": ...}.
        shape: (t, h, w) of a group of frames, t at most `config.model.frames`.

    Returns:
        hide(key, first_frame, cover, secret) -> (stego,) and reveal(key, first_frame, stego) -> (revealed,);
        key uint32 [8], first_frame int32 (the group's first frame's number in its video), frames uint8
        [t, h, w, 3].
    """
    model, frames = models.build(config.model), jax.ShapeDtypeStruct((*shape, 3), np.uint8)
    steganography.transform(config.shuffle)

    def hide(key, first_frame, cover, secret):
        pictures = (_pictures(x, shape[0]) for x in (cover, secret))
        first = jnp.reshape(first_frame, 1)
        return (
            _levels(steganography.hide(model, config.shuffle, params["hide"], key[None], first, *pictures)),
        )

    def reveal(key, first_frame, stego):
        first, stego = jnp.reshape(first_frame, 1), _pictures(stego, shape[0])
        return (
            _levels(steganography.reveal(model, config.shuffle, params["reveal"], key[None], first, stego)),
        )

    return [
        Graph("hide", hide, _key_inputs() | {"cover": frames, "secret": frames}, {"stego": np.uint8}),
        Graph("reveal", reveal, _key_inputs() | {"stego": frames}, {"revealed": np.uint8}),
    ]


def tabled_graphs(config: ConfigDict, params: dict, shape: tuple[int, int, int]) -> list[Graph]:
    """Hide and reveal with the cipher as tables: see `sample_table`; arguments as for `keyed_graphs`.

    Returns:
        Where the key moves the cover, hide(cover, secret, encipher, decipher) and reveal(stego, encipher);
        where it moves the secret, hide(cover, secret, encipher) and reveal(stego, decipher); where it moves
        nothing, neither takes a table. Tables are int32 [t, h * w * 3].

    Raises:
        UserError: the cipher moves coefficients of the secret, not samples.
    """
    model, moves = models.build(config.model), config.shuffle.moves
    _check_moves_samples(config.shuffle)
    frames = jax.ShapeDtypeStruct((*shape, 3), np.uint8)
    table = jax.ShapeDtypeStruct((shape[0], shape[1] * shape[2] * 3), np.int32)
    hide_one = _hide_one(config, model)

    def hide(cover, secret, encipher=None, decipher=None):
        cover, secret = (_pictures(x, shape[0]) for x in (cover, secret))
        if moves == "cover":
            cover = apply_table(cover, encipher)
        elif moves == "secret":
            secret = apply_table(secret, encipher)
        stego = hide_one(params["hide"], cover, secret)
        return (_levels(apply_table(stego, decipher) if moves == "cover" else stego),)

    def reveal(stego, cipher=None):
        stego = _pictures(stego, shape[0])
        revealed = model.reveal(params["reveal"], apply_table(stego, cipher) if moves == "cover" else stego)
        return (_levels(apply_table(revealed, cipher) if moves == "secret" else revealed),)

    of_hide = {"cover": ("encipher", "decipher"), "secret": ("encipher",)}.get(moves, ())
    of_reveal = {"cover": ("encipher",), "secret": ("decipher",)}.get(moves, ())
    return [
        Graph(
            "hide",
            hide,
            {"cover": frames, "secret": frames} | dict.fromkeys(of_hide, table),
            {"stego": np.uint8},
        ),
        Graph("reveal", reveal, {"stego": frames} | dict.fromkeys(of_reveal, table), {"revealed": np.uint8}),
    ]


def _hide_one(config: ConfigDict, model: models.Model) -> Callable:
    """`model.hide` for a batch of one, without batched scatters, which jax2onnx does not know."""
    if config.model.name != "block_dct":
        return model.hide
    quantiser = block_dct.make_quantiser(config.model.modulus)

    def hide(params, cover, secret):
        group = cover.reshape(-1, *cover.shape[-3:]), secret.reshape(-1, *secret.shape[-3:])
        return block_dct.hide_group(params["codebook"], *group, quantiser).reshape(cover.shape)

    return hide


def robust_graphs(config: ConfigDict, params: dict, shape: tuple[int, int, int]) -> list[Graph]:
    """The networks of the model `robust`: what is between them is a code, not arithmetic on arrays.

    Args:
        config: the whole config.
        params: of the reveal side.
        shape: (t, h, w) of consecutive frames.

    Returns:
        demodulate(stego, spacing) -> (phase, scale, lost), float32 [t, h//8, w//8, k] each, spacing float32;
        restore(coded) -> (restored,); frames uint8 [t, h, w, 3].
    """
    frames = jax.ShapeDtypeStruct((*shape, 3), np.uint8)

    def demodulate(stego, spacing):
        luma = symbol_model.luma_of(stego.astype(jnp.float32))[None]
        read = symbol_model.demodulate(config.model, params["reliability"], luma, jnp.reshape(spacing, 1))
        return tuple(x[0] for x in read)

    def restore(coded):
        x = coded.astype(jnp.float32)[None] / 255
        return (_levels(symbol_model.restore(config.model, params["restoration"], x)),)

    inputs = {"stego": frames, "spacing": jax.ShapeDtypeStruct((), np.float32)}
    return [
        Graph("demodulate", demodulate, inputs, dict.fromkeys(("phase", "scale", "lost"), np.float32)),
        Graph("restore", restore, {"coded": frames}, {"restored": np.uint8}),
    ]


# --- the cipher as a table -----------------------------------------------------------------------


def _check_moves_samples(shuffle: ConfigDict) -> None:
    steganography.transform(shuffle)
    if (shuffle.moves, shuffle.cipher) == ("secret", "coefficients"):
        raise UserError(
            "the cipher 'coefficients' of a secret moves no samples, so tflite and onnx cannot take it as a "
            "table: export to stablehlo, or set config.shuffle"
        )


def sample_table(
    shuffle: ConfigDict, key: np.ndarray, first_frame: int, shape: tuple[int, int, int], invert: bool
) -> np.ndarray:
    """What the cipher does to each sample: where it comes from, and whether it is turned over.

    Args:
        shuffle: section of the config.
        key: uint32 [8].
        first_frame: number of the group's first frame in its video.
        shape: (t, h, w) of the group.
        invert: of the decipherment.

    Returns:
        int32 [t, h * w * 3]: place p of the same frame as p, turned over (x -> 1 - x) as -1 - p.

    Raises:
        UserError: the cipher moves no samples.
    """
    _check_moves_samples(shuffle)
    t, h, w = shape
    keyed = steganography.transform(shuffle)
    change = keyed.decipher if invert else keyed.encipher
    ramp = np.broadcast_to(np.arange(1, h * w * 3 + 1, dtype=np.int32).reshape(h, w, 3), (t, h, w, 3))
    moved = jax.jit(change)(ramp, np.asarray(key, np.uint32), np.int32(first_frame))
    return np.asarray(moved).reshape(t, -1) - 1  # 1 - (p + 1) - 1 is -1 - p


def apply_table(frames: jax.Array, table: jax.Array) -> jax.Array:
    """Moves and turns over samples of t frames [..., h, w, 3] in [0, 1]; table int32 [t, h * w * 3]."""
    turned = table < 0
    starts = np.arange(len(table), dtype=np.int32)[:, None] * table.shape[1]
    samples = frames.ravel()[jnp.where(turned, -1 - table, table) + starts]
    return jnp.where(turned, 1 - samples, samples).reshape(frames.shape)


# --- formats -------------------------------------------------------------------------------------


def to_stablehlo(graph: Graph) -> bytes:
    """The graph as `jax.export` serialises it; any JAX with that module calls it, on any of `PLATFORMS`."""
    from jax import export

    exported = export.export(jax.jit(graph.function), platforms=PLATFORMS)(*graph.inputs.values())
    return bytes(exported.serialize())


def to_tflite(graph: Graph, quantisation: str = "", samples: Sequence[Arrays] = ()) -> bytes:
    """The graph as a TFLite model with one signature, inputs and outputs by name.

    Args:
        graph: what to export.
        quantisation: empty for float32, or one of QUANTISATIONS: float16 weights, int8 weights ("dynamic"),
            or int8 weights and activations ("int8") where the converter can; then pictures come out as
            float32, 0 to 255, not rounded, since the converter cuts what is rounded at 127.
        samples: inputs that "int8" is calibrated on.

    Raises:
        Exception: whatever the converter raises where an operation has no counterpart.
    """
    import tensorflow as tf
    from jax.experimental import jax2tf

    tf.config.set_visible_devices([], "GPU")
    converted = jax2tf.convert(graph.raw if quantisation == "int8" else graph.function, with_gradient=False)
    specs = [tf.TensorSpec(x.shape, x.dtype, name=name) for name, x in graph.inputs.items()]
    module = tf.Module()
    module.run = tf.function(
        lambda *arrays: dict(zip(graph.outputs, converted(*arrays), strict=True)),
        input_signature=specs,
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
    """Converts in a child process; RuntimeError with its last line, or its signal, where that fails."""
    import tensorflow as tf

    with TemporaryDirectory() as name:
        folder = Path(name)
        tf.saved_model.save(module, str(folder / "saved_model"), signatures=function)
        for number, arrays in enumerate(samples):
            np.savez(folder / f"{number:04d}.npz", **arrays)
        command = [sys.executable, "-m", "deepsteg_jax.export.tflite_calibration", name]
        root = str(Path(__file__).parents[2])
        child = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=root)
        if child.returncode < 0:
            raise RuntimeError(f"the TFLite converter crashed: {signal.strsignal(-child.returncode)}")
        if child.returncode:
            raise RuntimeError((child.stderr.strip().splitlines() or ["the TFLite converter failed"])[-1])
        return (folder / "model.tflite").read_bytes()


def to_onnx(graph: Graph, quantisation: str = "", samples: Sequence[Arrays] = ()) -> bytes:
    """The graph as an ONNX model, inputs and outputs by name; arguments and what it raises as `to_tflite`."""
    import jax2onnx

    specs = list(graph.inputs.values())
    names = {"input_names": list(graph.inputs), "output_names": list(graph.outputs)}
    model = jax2onnx.to_onnx(graph.function, specs, model_name=graph.name, **names)
    if not quantisation:
        return model.SerializeToString()
    if quantisation == "float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        return convert_float_to_float16(model, keep_io_types=True).SerializeToString()
    return _quantise_onnx(model, quantisation, samples)


def _quantise_onnx(model, quantisation: str, samples: Sequence[Arrays]) -> bytes:
    from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.samples = iter(samples)

        def get_next(self):
            return next(self.samples, None)

    with TemporaryDirectory() as folder:
        output = Path(folder) / "quantised.onnx"
        if quantisation == "dynamic":
            quantize_dynamic(model, output)
        else:
            quantize_static(model, output, Reader())
        return output.read_bytes()


_CONVERTERS = {"tflite": to_tflite, "onnx": to_onnx}


def serialise(graph: Graph, name: str, quantisation: str = "", samples: Sequence[Arrays] = ()) -> bytes:
    """The graph in the format `name`; other arguments and what it raises as for `to_tflite`."""
    if name == "stablehlo":
        return to_stablehlo(graph)
    return _CONVERTERS[name](graph, quantisation, samples)


# --- running -------------------------------------------------------------------------------------


def load(blob: bytes, name: str, outputs: Sequence[str], threads: int) -> Callable[..., list[np.ndarray]]:
    """A file's content in its own runtime: a function of the inputs by name to the list of outputs.

    Args:
        blob: from `serialise`.
        name: the format.
        outputs: their names, in the order that is wanted; StableHLO has the graph's.
        threads: that the runtime may use; JAX uses what it likes.
    """
    return {"stablehlo": _load_stablehlo, "tflite": _load_tflite, "onnx": _load_onnx}[name](
        blob, outputs, threads
    )


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
