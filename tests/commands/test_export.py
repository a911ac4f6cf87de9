"""`--mode export`, and the program that reveals with nothing but its files."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import image, video
from deepsteg_jax import keys, loading, media, pipeline
from deepsteg_jax.commands import Options, export
from deepsteg_jax.commands.settings import EXPORT
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.export import formats, graphs
from tests.export.test_graphs import has, random_scheme
from tests.helpers import names
from tests.synthetic import smooth

EXAMPLE = Path(__file__).parents[2] / "experiments" / "reveal_exported.py"


def settings(**values) -> ConfigDict:
    return ConfigDict({**EXPORT, **values})


@pytest.mark.parametrize(
    "name",
    [
        "stablehlo",
        pytest.param("tflite", marks=pytest.mark.slow),
        pytest.param("onnx", marks=pytest.mark.slow),
    ],
)
def test_the_network_of_symbols(name, tmp_path):
    plan = export.read_plan(settings(formats=has(name), frames="2", sizes="48x32"), 4)
    report = export.write(random_scheme("robust"), plan, tmp_path)
    assert [row["graph"] for row in report["files"]] == ["demodulate"]
    assert report["files"][0]["max_difference"] < 1e-4
    assert report["files"][0]["outputs"] == dict.fromkeys(("phase", "scale", "lost"), "float32")


def test_a_closed_file_is_told_and_the_rest_is_written(monkeypatch, tmp_path, capsys):
    real = formats.serialise

    def no_hide(graph, *rest):
        if graph.name == "hide":
            raise NotImplementedError("\nsort has\nerror: no counterpart | here")
        return real(graph, *rest)

    monkeypatch.setattr(formats, "serialise", no_hide)
    with pytest.raises(PartialError, match="1 of 2 files .*hide_48x32x1.stablehlo"):
        export.write(random_scheme("invertible"), export.read_plan(settings(sizes="48x32"), 1), tmp_path)
    rows = json.loads((tmp_path / "export.json").read_text())["files"]
    assert rows[0]["error"] == "NotImplementedError: error: no counterpart | here"
    assert "closed: NotImplementedError: error: no counterpart   here" in capsys.readouterr().out
    assert names(tmp_path) == ["export.json", "reveal_48x32x1.stablehlo"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="cannot make the folder"):
        export.run(video.get_config(), Options(workdir="x", output=str(tmp_path / "taken")))
    (tmp_path / "reveal.onnx").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        export._write(tmp_path / "reveal.onnx", b"x")
    assert names(tmp_path) == ["reveal.onnx", "taken"]


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("formats", "savedmodel", "stablehlo, tflite, onnx"),
        ("formats", "", "formats is empty"),
        ("quantise", "int4", "float16, weights, int8"),
        ("sizes", "448", "448x256"),
        ("sizes", "8x8", "448x256"),
        ("sizes", "", "448x256"),
        ("frames", "5", "1 to 4"),
        ("frames", "two", "1 to 4"),
    ],
)
def test_bad_settings(field, value, part):
    with pytest.raises(UserError, match=part):
        export.read_plan(settings(**{field: value}), 4)


def test_groups_of_all_lengths_unless_some_are_named(monkeypatch):
    monkeypatch.setattr(formats, "check_packages", lambda names: None)
    plan = export.read_plan(settings(sizes="48x32,16x16"), 2)
    assert plan.shapes == [(2, 32, 48), (1, 32, 48), (2, 16, 16), (1, 16, 16)]
    wide = settings(formats="stablehlo,tflite,onnx", quantise="float16,int8", frames="1")
    assert export.read_plan(wide, 2).kinds == [
        ("stablehlo", ""),
        ("tflite", ""),
        ("tflite", "float16"),
        ("tflite", "int8"),
        ("onnx", ""),
        ("onnx", "int8"),
    ]


# --- the shipped checkpoint, and the example ------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The shipped checkpoint for single frames of 48x32."""
    folder = tmp_path_factory.mktemp("exported")
    options = Options(workdir=str(folder), output=str(folder), export=settings(sizes="48x32"))
    export.run(image.get_config(), options)
    return folder


@pytest.mark.slow
def test_what_the_mode_writes(exported):
    report = json.loads((exported / "export.json").read_text())
    assert names(exported) == ["export.json", "hide_48x32x1.stablehlo", "reveal_48x32x1.stablehlo"]
    for row in report["files"]:
        assert row["max_difference"] == 0 and row["bytes"] == (exported / row["file"]).stat().st_size
        assert row["secret_psnr_db"] == row["jax_secret_psnr_db"] > 25
    reveal = report["files"][1]["inputs"]
    assert reveal["key"] == {"shape": [8], "dtype": "uint32"}
    assert reveal["stego"] == {"shape": [1, 32, 48, 3], "dtype": "uint8"}
    scheme, key = loading.load(image.get_config()), keys.key_words(keys.random_key())
    pictures = smooth(1, 32, 48, 1), smooth(1, 32, 48, 2)
    file = formats.load((exported / "hide_48x32x1.stablehlo").read_bytes(), "stablehlo", ["stego"], 1)
    again = file(key=key, first_frame=np.int32(8), cover=pictures[0], secret=pictures[1])[0]
    np.testing.assert_array_equal(again, scheme.codec().hide(scheme.hide_params, key, 8, *pictures))
    assert report["fingerprint"] == scheme.fingerprint.hex()
    assert report["modulus"] == 3 and report["group"] == 1


@pytest.fixture(scope="module")
def stego(tmp_path_factory):
    """A folder with a stego of 3 frames, its key file, and what the pipeline reveals of it."""
    folder = tmp_path_factory.mktemp("stego")
    media.write_frames(folder / "cover.mkv", smooth(3, 32, 48, seed=3))
    media.write_frames(folder / "secret.mkv", smooth(3, 44, 28, seed=4))  # comes to lie turned, and smaller
    keys.write_key_file(folder / "my.key")
    scheme, key = loading.load(image.get_config()), keys.read_key_file(folder / "my.key")
    paths = [str(folder / f"{name}.mkv") for name in ("cover", "secret", "stego", "revealed")]
    pipeline.hide(scheme, key, *paths[:3], [].append)
    pipeline.reveal([scheme], key, *paths[2:], [].append)
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


@pytest.mark.slow
def test_the_example_reveals_without_the_project(exported, stego, tmp_path):
    done = example(exported, stego / "stego.mkv", tmp_path / "pictures", stego / "my.key", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    wanted = list(media.read_frames(stego / "revealed.mkv"))
    files = sorted((tmp_path / "pictures").iterdir())
    assert len(files) == len(wanted) == 3
    for path, frame in zip(files, wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), frame)


@pytest.mark.slow
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
    tables = graphs.sample_tables(video.get_config().shuffle, keys.key_words(key), 6, shape)
    np.testing.assert_array_equal(module.table(key, 6, *shape), tables["encipher"])
