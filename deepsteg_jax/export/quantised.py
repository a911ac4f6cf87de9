"""TFLite and ONNX files of float32 to files with int8 weights, or int8 weights and 8-bit activations.

Weights are rounded to -127 to 127 times a scale of each output. Ranges of activations are those that
`Graph.integers` states, so that what is exact in whole numbers stays exact; without it they are measured, in
TFLite alone.
"""

import copy
from collections.abc import Sequence

import numpy as np

from deepsteg_jax.errors import UserError
from deepsteg_jax.export.graphs import Arrays, Graph
from deepsteg_jax.models.base import Integers

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL")  # of TFLite


def quantise_tflite(blob: bytes, graph: Graph, activations: bool, samples: Sequence[Arrays]) -> bytes:
    """Return the file with int8 weights.

    Args:
        blob: a file of float32.
        graph: that it holds.
        activations: its convolutions and matrix products compute in int8 too, those of `graph.integers` if it
            says which; otherwise all compute in float32.
        samples: inputs that ranges are measured on.
    """
    from ai_edge_quantizer import qtyping, quantizer

    work = quantizer.Quantizer(blob)
    work.add_weight_only_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, num_bits=8)
    ranges = None
    if activations:
        layers = graph.integers.layers if graph.integers else ""
        for name in LAYERS:
            work.add_static_config(layers, qtyping.TFLOperationName[name], 8, 8)
        ranges = work.calibrate({"serving_default": samples})
        if graph.integers:
            ranges = {name: _stated(found, graph.integers) for name, found in ranges.items()}
    return bytes(work.quantize(ranges, None, False, False).quantized_model)  # no bar, no report


def _stated(found: dict, integers: Integers) -> dict:
    """The range of one tensor as it was measured, with the ends that are stated."""
    ends = {"min": np.zeros_like(found["min"]), "max": np.full_like(found["max"], integers.largest)}
    return found | ends


def quantise_onnx(model, integers: Integers | None, activations: bool) -> None:
    """Give an onnx.ModelProto int8 kernels, and activations behind every ReLU that are rounded to 8 bits.

    A runtime may take each convolution and the roundings around it together, as one of whole numbers.

    Raises:
        UserError: activations are to be rounded whose range nobody states.
    """
    from onnx import helper, numpy_helper

    if activations and integers is None:
        raise UserError("int8 in ONNX needs a model that states the range of its activations")
    graph = model.graph
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    nodes, arrays = [], []
    for stored in [array for array in graph.initializer if array.name in kernels]:
        whole, scale = _whole(numpy_helper.to_array(stored))
        names = [f"{stored.name}_{part}" for part in ("int8", "scale")]
        arrays += [numpy_helper.from_array(x, name) for x, name in zip((whole, scale), names, strict=True)]
        nodes.append(helper.make_node("DequantizeLinear", names, [stored.name], axis=0))
        graph.initializer.remove(stored)
    if activations:
        step = np.float32(integers.largest / 255), np.uint8(0)
        names = ["activation_step", "activation_zero"]
        arrays += [numpy_helper.from_array(np.asarray(x), name) for x, name in zip(step, names, strict=True)]
    for node in graph.node:
        nodes.append(node)
        if activations and node.op_type == "Relu":
            last = node.output[0]
            exact, whole = f"{last}_exact", f"{last}_whole"
            node.output[0] = exact
            nodes.append(helper.make_node("QuantizeLinear", [exact, *names], [whole]))
            nodes.append(helper.make_node("DequantizeLinear", [whole, *names], [last]))
    nodes = copy.deepcopy(nodes)  # emptying the list takes its own away
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(arrays)


def _whole(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 weights [outputs, ...] and the scale of each output."""
    scale = np.maximum(abs(kernel).reshape(len(kernel), -1).max(1) / 127, 1e-12).astype(np.float32)
    spread = scale.reshape(-1, *[1] * (kernel.ndim - 1))
    return np.round(kernel / spread).astype(np.int8), scale
