"""Exported graphs against JAX; those of TFLite and ONNX skip where the packages are missing."""

import sys

import jax
import numpy as np
import pytest

from configs import invertible, prep_hide_reveal, robust, video
from deepsteg_jax import models
from deepsteg_jax.errors import UserError
from deepsteg_jax.export import formats, graphs, quantised
from deepsteg_jax.models import symbols as symbol_model
from deepsteg_jax.schemes import SCHEMES
from deepsteg_jax.schemes.base import Scheme
from tests.synthetic import in_planes, smooth

KEY = np.arange(5, 13, dtype=np.uint32) * 0x10325476
CONFIGS = {
    "block_dct": video,
    "prep_hide_reveal": prep_hide_reveal,
    "invertible": invertible,
    "robust": robust,
}


def random_params(config):
    """Parameters of any values, without compiling what initialises networks."""
    model = models.build(config.model)
    if config.model.name == "block_dct":
        return model.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))

    def fill(x):
        return np.float32(rng.normal(0, min(0.1, np.prod(x.shape[:-1]) ** -0.5), x.shape))

    return model.tie(jax.tree.map(fill, shapes))


def random_scheme(name, shuffle=(), **model):
    """The scheme of a tiny config with random parameters."""
    config = CONFIGS[name].get_config("tiny")
    config.model.update(model)
    if shuffle:
        config.shuffle.update(shuffle)
    return SCHEMES.get(name, SCHEMES["pixels"])(config, random_params(config).__getitem__)


def pictures(shape):
    """Inputs of every graph but the key and the tables, with any picture as the stego."""
    names = ("cover", "secret", "stego")
    return {name: smooth(*shape, seed=seed) for seed, name in enumerate(names)}


def pictures_graph():
    """A graph whose output is a picture, with its inputs: reveal, as it begins."""
    config, shape = CONFIGS["prep_hide_reveal"].get_config("tiny"), (1, 16, 16)
    scheme = SCHEMES["pixels"](config, models.build(config.model).init(jax.random.key(0)).__getitem__)
    inputs = scheme.graph_inputs(*list(pictures(shape).values())[:2], 9)
    return scheme.graphs(shape, portable=True)[1], inputs


def in_a_file(graph, inputs, name, quantisation=""):
    """The file, and the first of the outputs that its own runtime gives."""
    picked = graph.pick(inputs)
    blob = formats.serialise(graph, name, quantisation, [picked] * 2)
    return blob, formats.load(blob, name, list(graph.outputs), 2)(**picked)[0]


def has(name: str) -> str:
    """Skips where the packages of a format are missing."""
    try:
        formats.check_packages([name])
    except UserError as error:
        pytest.skip(str(error))
    return name


# --- StableHLO and the cipher --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prep_hide_reveal", "invertible"])
def test_stablehlo_gives_the_bits_of_jax(name):
    scheme, shape = random_scheme(name), (1, 24, 40)
    inputs = pictures(shape) | {"key": KEY, "first_frame": np.int32(9)}
    hide, reveal = scheme.graphs(shape)
    codec = scheme.codec()
    wanted = codec.hide(scheme.hide_params, KEY, 9, inputs["cover"], inputs["secret"])
    np.testing.assert_array_equal(in_a_file(hide, inputs, "stablehlo")[1], wanted)
    wanted = codec.reveal(scheme.reveal_params, KEY, 9, inputs["stego"])
    np.testing.assert_array_equal(in_a_file(reveal, inputs, "stablehlo")[1], wanted)


@pytest.mark.parametrize(
    ("name", "moves", "cipher"),
    [
        ("prep_hide_reveal", "cover", "coefficients"),
        ("invertible", "cover", "blocks"),
        ("invertible", "secret", "blocks"),
    ],
)
def test_tables_do_what_the_cipher_does(name, moves, cipher):
    shape = (1, 20, 36)  # not whole blocks
    scheme = random_scheme(name, {"moves": moves, "cipher": cipher, "block_size": 8})
    inputs = scheme.graph_inputs(*list(pictures(shape).values())[:2], 9)
    for keyed, tabled in zip(scheme.graphs(shape), scheme.graphs(shape, portable=True), strict=True):
        assert keyed.name == tabled.name
        np.testing.assert_array_equal(keyed(inputs)[0], tabled(inputs)[0])
        if keyed.name == "hide":
            np.testing.assert_array_equal(keyed(inputs)[0], inputs["stego"])


def test_a_table_is_a_permutation_of_its_frame_and_its_inverse_undoes_it():
    shuffle, shape = video.get_config().shuffle, (3, 8, 10)
    tables = graphs.sample_tables(shuffle, KEY, 2, shape)
    table, back = tables["encipher"], tables["decipher"]
    places = np.where(table < 0, ~table, table)
    assert (np.sort(places, axis=1) == np.arange(240)).all()
    assert 0.35 < np.mean(table < 0) < 0.65 and not (places[0] == places[1]).all()
    x = smooth(3, 8, 10) / np.float32(255)
    moved = graphs.apply_table(x, table)
    np.testing.assert_allclose(graphs.apply_table(moved, back), x, atol=1e-6)
    later = graphs.sample_tables(shuffle, KEY, 3, shape)["encipher"]
    np.testing.assert_array_equal(later[:2], table[1:])  # frames count on


def test_a_secret_whose_coefficients_move_has_no_table():
    scheme = random_scheme("invertible", {"moves": "secret", "cipher": "coefficients"})
    with pytest.raises(UserError, match="stablehlo"):
        scheme.graphs((1, 16, 16), portable=True)
    assert graphs.sample_tables(scheme.config.shuffle, KEY, 9, (1, 16, 16)) == {}
    reveal = scheme.graphs((1, 16, 16))[1]
    inputs = pictures((1, 16, 16)) | {"key": KEY, "first_frame": np.int32(9)}
    np.testing.assert_array_equal(in_a_file(reveal, inputs, "stablehlo")[1], reveal(inputs)[0])


@pytest.mark.parametrize(("variant", "planes"), [("", ("y", "cb", "cr")), ("image", ("luma",))])
def test_the_network_of_symbols_reads_planes_as_the_scheme_does(variant, planes):
    """Of frames of odd sizes too."""
    config = robust.get_config(variant)
    config.model.update(features=8, depth=1)
    scheme, shape = SCHEMES["robust"](config, random_params(config).__getitem__), (2, 33, 47)
    inputs = scheme.graph_inputs(smooth(*shape), smooth(*shape), 0)
    (graph,) = scheme.graphs(shape)
    assert graph.name == "demodulate" and tuple(graph.inputs) == (*planes, "spacing")
    assert {name: x.shape for name, x in graph.pick(inputs).items()} == {
        name: x.shape for name, x in graph.inputs.items()
    }
    phase, scale, lost = graph(inputs)
    cover = in_planes(smooth(*shape)) if config.model.chroma else smooth(*shape)
    carriers = symbol_model.carriers_of(config.model)
    wanted = symbol_model.read_phases(cover, config.model.spacing, carriers)
    assert phase.shape == scale.shape == lost.shape == (2, 2, 2, len(carriers.blocks))
    assert np.abs(symbol_model.wrap(phase - wanted)).max() < 1e-3
    assert (scale > 0).all() and (lost > 0).all()


def test_a_scheme_may_have_nothing_to_export():
    class Bare(Scheme):
        name, purpose = "bare", "file"
        cost = sender = probe = receiver = None

    with pytest.raises(UserError, match="bare has nothing to export"):
        Bare().graphs((1, 16, 16))


# --- TFLite and ONNX -----------------------------------------------------------------------------


def test_block_dct_goes_to_stablehlo_alone():
    with pytest.raises(UserError, match="entropy coder of block_dct does: export to stablehlo"):
        random_scheme("block_dct").graphs((2, 20, 24), portable=True)


def remainders(name):
    """Hide and reveal of the start modulo, as small as it gets, with inputs; skips without packages."""
    has(name)
    fields = {"hide_kernels": (1, 1, 1), "hide_features": (17, 17, 3, 3, 3), "start": "modulo"}
    fields |= {"reveal_kernels": ((1, 1, 1, 3, 3),), "reveal_features": (48, 48, 3, 4, 3)}
    config, shape = CONFIGS["prep_hide_reveal"].get_config("tiny"), (1, 16, 48)
    config.model.update(fields)
    scheme = SCHEMES["pixels"](config, models.build(config.model).init(jax.random.key(0)).__getitem__)
    inputs = scheme.graph_inputs(*list(pictures(shape).values())[:2], 9)
    return scheme.graphs(shape, portable=True), inputs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_remainders_stay_exact_in_whole_numbers(name):
    (hide, reveal), inputs = remainders(name)
    np.testing.assert_array_equal(in_a_file(hide, inputs, name, "int8")[1], hide(inputs)[0])
    for quantisation in ("weights", "int8"):
        revealed = in_a_file(reveal, inputs, name, quantisation)[1]
        assert abs(revealed - reveal(inputs)[0].astype(int)).max() <= 1


@pytest.mark.slow
def test_ranges_that_nobody_states_are_measured():
    has("tflite")
    graph, inputs = pictures_graph()
    wanted = graph(inputs)[0].astype(int)
    assert wanted.max() > 180
    assert abs(in_a_file(graph, inputs, "tflite", "int8")[1] - wanted).max() < 40


def test_onnx_takes_stated_ranges_alone():
    pytest.importorskip("onnx")
    with pytest.raises(UserError, match="states the range"):
        quantised.quantise_onnx(None, None, activations=True)


@pytest.mark.slow
def test_small_weights_make_a_small_file():
    has("tflite")
    # TFLite leaves kernels of less than 1024 numbers as they are
    scheme = random_scheme("prep_hide_reveal", features=12)
    inputs = scheme.graph_inputs(*list(pictures((1, 16, 16)).values())[:2], 9)
    graph = scheme.graphs((1, 16, 16), portable=True)[1]
    (large, same), (small, near) = (in_a_file(graph, inputs, "tflite", kind) for kind in ("", "float16"))
    wanted = graph(inputs)[0].astype(int)
    assert abs(same - wanted).max() <= 1 and abs(near - wanted).mean() < 0.5
    assert len(small) < 0.8 * len(large)


@pytest.mark.parametrize(("name", "package"), [("onnx", "jax2onnx"), ("tflite", "ai_edge_quantizer")])
def test_a_missing_package_is_one_line(monkeypatch, name, package):
    for each in ("tensorflow", "ai_edge_litert", "jax2onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, each, sys)  # nothing is imported that is there
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf'{package}.*pip install "\.\[export\]"'):
        formats.check_packages(["stablehlo", name])
