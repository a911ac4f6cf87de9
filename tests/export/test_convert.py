"""Exported graphs against JAX; those of TFLite and ONNX skip where the packages are missing."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import image, invertible, prep_hide_reveal, robust, video
from deepsteg_jax import keys, media, models, pipeline
from deepsteg_jax.commands import Options
from deepsteg_jax.commands import export as mode
from deepsteg_jax.commands.common import load_side
from deepsteg_jax.commands.settings import EXPORT
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.export import convert
from deepsteg_jax.steganography import Codec

EXAMPLE = Path(__file__).parent.parent / "experiments" / "reveal_exported.py"
KEY = np.arange(5, 13, dtype=np.uint32) * 0x10325476
CONFIGS = {"block_dct": video, "prep_hide_reveal": prep_hide_reveal, "invertible": invertible}


def frames(count: int, height: int, width: int, seed: int) -> np.ndarray:
    """Smooth pictures, so that a model has something to work with."""
    t, y, x, c = np.mgrid[:count, :height, :width, :3]
    waves = np.sin(0.2 * x + t + c + seed) + np.cos(0.3 * y - 0.5 * t + seed)
    grain = np.random.default_rng(seed).normal(0, 4, waves.shape)
    return np.clip(128 + 55 * waves + grain, 0, 255).astype(np.uint8)


def random_params(config):
    """Parameters of any values, without compiling what initialises networks."""
    model = models.build(config.model)
    if config.model.name == "block_dct":
        return model.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    scale = lambda x: min(0.1, np.prod(x.shape[:-1]) ** -0.5)  # noqa: E731
    return model.tie(jax.tree.map(lambda x: np.float32(rng.normal(0, scale(x), x.shape)), shapes))


def settings(**values) -> ConfigDict:
    return ConfigDict({**EXPORT, **values})


def case(name: str, shape, **shuffle):
    """Config, random parameters, and inputs of every graph by name, with any picture as the stego."""
    config = CONFIGS[name].get_config("tiny")
    config.shuffle.update(shuffle)
    inputs = {"key": KEY, "first_frame": np.int32(9)}
    inputs |= {name: frames(*shape, seed) for seed, name in enumerate(("cover", "secret", "stego"))}
    if (config.shuffle.moves, config.shuffle.cipher) != ("secret", "coefficients"):
        for table in ("encipher", "decipher"):
            inputs[table] = convert.sample_table(config.shuffle, KEY, 9, shape, table == "decipher")
    return config, random_params(config), inputs


def serialised(graph, inputs, name, quantisation=""):
    picked = {key: inputs[key] for key in graph.inputs}
    blob = convert.serialise(graph, name, quantisation, [picked] * 2)
    return blob, convert.load(blob, name, graph.outputs, 2)(**picked)[0]


@pytest.mark.parametrize("name", ["prep_hide_reveal", "invertible"])
def test_stablehlo_gives_the_bits_of_jax(name):
    config, params, inputs = case(name, (1, 24, 40))
    codec = Codec(models.build(config.model), config.shuffle, config.model.frames)
    hide, reveal = convert.keyed_graphs(config, params, (1, 24, 40))
    wanted = codec.hide(params["hide"], KEY, 9, inputs["cover"], inputs["secret"])
    np.testing.assert_array_equal(serialised(hide, inputs, "stablehlo")[1], wanted)
    wanted = codec.reveal(params["reveal"], KEY, 9, inputs["stego"])
    np.testing.assert_array_equal(serialised(reveal, inputs, "stablehlo")[1], wanted)


@pytest.mark.parametrize(
    ("name", "moves", "cipher"),
    [
        ("block_dct", "cover", "coefficients"),
        ("invertible", "cover", "blocks"),
        ("invertible", "secret", "blocks"),
    ],
)
def test_tables_do_what_the_cipher_does(name, moves, cipher):
    shape = (2 if name == "block_dct" else 1, 20, 36)  # not whole blocks
    config, params, inputs = case(name, shape, moves=moves, cipher=cipher, block_size=8)
    for keyed, tabled in zip(
        convert.keyed_graphs(config, params, shape), convert.tabled_graphs(config, params, shape), strict=True
    ):
        np.testing.assert_array_equal(mode.call(keyed, inputs)[0], mode.call(tabled, inputs)[0])


def test_a_table_is_a_permutation_of_its_frame_and_its_inverse_undoes_it():
    shuffle, shape = video.get_config().shuffle, (3, 8, 10)
    table, back = (convert.sample_table(shuffle, KEY, 2, shape, invert) for invert in (False, True))
    places = np.where(table < 0, ~table, table)
    assert (np.sort(places, axis=1) == np.arange(240)).all()
    assert 0.35 < np.mean(table < 0) < 0.65 and not (places[0] == places[1]).all()
    x = frames(3, 8, 10, seed=0) / np.float32(255)
    moved = convert.apply_table(x, table)
    np.testing.assert_allclose(convert.apply_table(moved, back), x, atol=1e-6)
    later = convert.sample_table(shuffle, KEY, 3, shape, False)
    np.testing.assert_array_equal(later[:2], table[1:])  # frames count on


def test_a_secret_whose_coefficients_move_has_no_table():
    config, params, inputs = case("invertible", (1, 16, 16), moves="secret", cipher="coefficients")
    with pytest.raises(UserError, match="stablehlo"):
        convert.tabled_graphs(config, params, (1, 16, 16))
    reveal = convert.keyed_graphs(config, params, (1, 16, 16))[1]
    wanted = mode.call(reveal, inputs)[0]
    np.testing.assert_array_equal(serialised(reveal, inputs, "stablehlo")[1], wanted)


def has(name: str) -> str:
    """Skips where the packages of a format are missing."""
    try:
        convert.check_packages([name])
    except UserError as error:
        pytest.skip(str(error))
    return name


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_block_dct_in_other_runtimes(name):
    shape = (2, 20, 24)
    config, params, inputs = case("block_dct", shape)
    for graph in convert.tabled_graphs(config, params, shape):
        got, wanted = serialised(graph, inputs, has(name))[1], mode.call(graph, inputs)[0].astype(int)
        assert got.dtype == np.uint8
        # Another rounding of a coefficient or class may change digits, and move a sample of the stego by D.
        assert abs(got - wanted).max() <= (config.model.modulus if graph.name == "hide" else 1)
        assert np.mean(got != wanted) < 0.01
        inputs["stego"] = wanted.astype(np.uint8)


def test_calibrated_weights_keep_the_range_of_pictures():
    """TFLite's converter cuts pictures at 127 that an int8 model rounds."""
    config = robust.get_config("tiny")
    graph = convert.robust_graphs(config, random_params(config)["reveal"], (1, 16, 16))[1]
    inputs = {"coded": frames(1, 16, 16, 0)}
    wanted = mode.call(graph, inputs)[0].astype(int)
    assert wanted.max() > 180
    assert abs(serialised(graph, inputs, has("tflite"), "int8")[1] - wanted).max() < 40


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_small_weights_make_a_small_file(name):
    config, _, inputs = case("prep_hide_reveal", (1, 16, 16))
    config.model.features = 12  # TFLite leaves kernels of less than 1024 numbers as they are
    graph = convert.tabled_graphs(config, random_params(config), (1, 16, 16))[1]
    (large, same), (small, near) = (serialised(graph, inputs, has(name), q) for q in ("", "float16"))
    wanted = mode.call(graph, inputs)[0].astype(int)
    assert abs(same - wanted).max() <= 1 and abs(near - wanted).mean() < 0.5
    assert len(small) < 0.8 * len(large)


@pytest.mark.parametrize("name", convert.SUFFIXES)
def test_the_networks_of_robust(name, tmp_path):
    config = robust.get_config("tiny")
    plan = mode.read_plan(config, settings(formats=has(name), frames="2", sizes="48x32"))
    report = mode.write(config, random_params(config), plan, tmp_path)
    assert [row["graph"] for row in report["files"]] == ["demodulate", "restore"]
    demodulate, restore = (row["max_difference"] for row in report["files"])
    assert demodulate < 1e-4 and restore <= (name != "stablehlo")
    assert report["files"][0]["outputs"] == dict.fromkeys(("phase", "scale", "lost"), "float32")


# --- the mode -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The shipped checkpoint for single frames of 48x32."""
    folder = tmp_path_factory.mktemp("exported")
    config = image.get_config()
    options = Options(workdir=str(folder), output=str(folder), export=settings(sizes="48x32"))
    mode.run(config, options)
    return folder


def test_what_the_mode_writes(exported):
    report = json.loads((exported / "export.json").read_text())
    names = {f"{side}_48x32x1.stablehlo" for side in ("hide", "reveal")}
    assert {path.name for path in exported.iterdir()} == names | {"export.json"}
    for row in report["files"]:
        assert row["max_difference"] == 0 and row["bytes"] == (exported / row["file"]).stat().st_size
        assert row["secret_psnr_db"] == row["jax_secret_psnr_db"] > 25
    reveal = report["files"][1]["inputs"]
    assert reveal["key"] == {"shape": [8], "dtype": "uint32"}
    assert reveal["stego"] == {"shape": [1, 32, 48, 3], "dtype": "uint8"}
    side = load_side(image.get_config(), "hide")
    pictures = frames(1, 32, 48, 1), frames(1, 32, 48, 2)
    file = convert.load((exported / "hide_48x32x1.stablehlo").read_bytes(), "stablehlo", ("stego",), 1)
    again = file(key=KEY, first_frame=np.int32(8), cover=pictures[0], secret=pictures[1])[0]
    np.testing.assert_array_equal(again, side.codec.hide(side.params, KEY, 8, *pictures))
    assert report["fingerprint"] == side.fingerprint.hex() and report["modulus"] == 3 and report["group"] == 1


@pytest.fixture(scope="module")
def stego(tmp_path_factory):
    """A folder with a stego of 3 frames, its key file, and what the pipeline reveals of it."""
    folder = tmp_path_factory.mktemp("stego")
    media.write_frames(folder / "cover.mkv", frames(3, 32, 48, seed=3))
    media.write_frames(folder / "secret.mkv", frames(3, 44, 28, seed=4))  # comes to lie turned, and smaller
    keys.write_key_file(folder / "my.key")
    config, key = image.get_config(), keys.read_key_file(folder / "my.key")
    quiet = lambda count: None  # noqa: E731
    names = [str(folder / f"{name}.mkv") for name in ("cover", "secret", "stego", "revealed")]
    pipeline.hide(load_side(config, "hide"), key, *names[:3], quiet)
    pipeline.reveal(load_side(config, "reveal"), key, *names[2:], quiet)
    return folder


def example(*arguments, cwd):
    """Runs the example outside of the project; the last line of its output names its modules of ours."""
    program = (
        f"import runpy, sys; sys.argv = {[str(EXAMPLE), *map(str, arguments)]!r}\n"
        f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')\n"
        "print([name for name in sys.modules if name.startswith(('deepsteg', 'configs', 'flax'))])"
    )
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH",)}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def test_the_example_reveals_without_the_project(exported, stego, tmp_path):
    done = example(exported, stego / "stego.mkv", tmp_path / "pictures", stego / "my.key", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    wanted = list(media.read_frames(stego / "revealed.mkv"))
    files = sorted((tmp_path / "pictures").iterdir())
    assert len(files) == len(wanted) == 3
    for path, frame in zip(files, wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), frame)


def test_the_example_says_when_the_key_is_wrong(exported, stego, tmp_path):
    keys.write_key_file(tmp_path / "other.key")
    done = example(exported, stego / "stego.mkv", tmp_path / "out", tmp_path / "other.key", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.strip() == "no hidden video for this passphrase or key"
    assert not (tmp_path / "out").exists()


def test_the_table_of_the_example_is_ours():
    spec = importlib.util.spec_from_file_location("reveal_exported", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shape, key = (2, 18, 22), keys.random_key()
    wanted = convert.sample_table(video.get_config().shuffle, keys.key_words(key), 6, shape, False)
    np.testing.assert_array_equal(module.table(key, 6, *shape), wanted)


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("formats", "savedmodel", "stablehlo, tflite, onnx"),
        ("formats", "", "formats is empty"),
        ("quantise", "int4", "float16, dynamic, int8"),
        ("sizes", "448", "448x256"),
        ("sizes", "8x8", "448x256"),
        ("sizes", "", "448x256"),
        ("frames", "5", "1 to 4"),
        ("frames", "two", "1 to 4"),
    ],
)
def test_bad_sections(field, value, part):
    with pytest.raises(UserError, match=part):
        mode.read_plan(video.get_config(), settings(**{field: value}))


@pytest.mark.parametrize(("name", "package"), [("onnx", "jax2onnx"), ("tflite", "ai_edge_litert")])
def test_a_missing_package_is_one_line(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf'{package}.*pip install "\.\[export\]"'):
        convert.check_packages(["stablehlo", name])


def test_a_closed_file_is_told_and_the_rest_is_written(monkeypatch, tmp_path, capsys):
    real = convert.serialise

    def no_hide(graph, *rest):
        if graph.name == "hide":
            raise NotImplementedError("\nsort has\nerror: no counterpart | here")
        return real(graph, *rest)

    monkeypatch.setattr(convert, "serialise", no_hide)
    config = invertible.get_config("tiny")
    params = random_params(config)
    with pytest.raises(PartialError, match="1 of 2 files .*hide_48x32x1.stablehlo"):
        mode.write(config, params, mode.read_plan(config, settings(sizes="48x32")), tmp_path)
    rows = json.loads((tmp_path / "export.json").read_text())["files"]
    assert rows[0]["error"] == "NotImplementedError: error: no counterpart | here"
    assert "closed: NotImplementedError: error: no counterpart   here" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"reveal_48x32x1.stablehlo", "export.json"}


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="cannot make the folder"):
        mode.run(video.get_config(), Options(workdir="x", output=str(tmp_path / "taken")))
    (tmp_path / "reveal.onnx").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        mode._write(tmp_path / "reveal.onnx", b"x")
    assert not (tmp_path / "reveal.onnx.part").exists()


def test_pool_without_scatters_is_what_repeat_makes():
    """The digits' owners against `jnp.repeat`, also where counts overflow the pool."""
    from deepsteg_jax.models import block_dct

    rng = np.random.default_rng(0)
    for size in (500, 100, 900):
        counts = rng.integers(0, 5, 250).astype(np.int32) * rng.integers(0, 2, 250).astype(np.int32)
        starts = np.cumsum(counts) - counts
        owners = np.asarray(block_dct._owners(block_dct.Layout(counts, starts, None), size))
        wanted = np.repeat(np.arange(250), counts)[:size]
        np.testing.assert_array_equal(owners[: len(wanted)], wanted)
