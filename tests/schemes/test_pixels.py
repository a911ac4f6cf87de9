import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import video
from deepsteg_jax import loading, models, pipeline
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.pixels import PixelScheme
from tests.synthetic import noise, save, smooth

KEY = bytes(range(32))


def test_the_receiver_takes_modulus_and_group_from_the_header(monkeypatch):
    build, built = models.build, []

    def noting(config):
        built.append((config.modulus, config.frames))
        return build(config)

    scheme = loading.load(video.get_config())
    monkeypatch.setattr(models, "build", noting)
    scheme.codec()
    assert scheme.codec(5, 2) is scheme.codec(5, 2)
    assert built == [(3, 4), (5, 2)]


def scheme_of(monkeypatch, modulus=1):
    """A scheme around a linear model that counts how often it is traced."""
    traced = []

    def build(config):
        def hide(params, cover, secret):
            traced.append("hide")
            return cover

        def reveal(params, stego):
            traced.append("reveal")
            return stego

        return models.Model(lambda key: {"hide": {}, "reveal": {}}, hide, reveal, modulus=modulus)

    monkeypatch.setitem(models.MODELS, "counted", build)
    shuffle = {"moves": "nothing", "cipher": "blocks", "block_size": 8}
    config = ConfigDict({"model": {"name": "counted", "frames": 2}, "shuffle": shuffle})
    params = {"hide": {"x": np.zeros(1)}, "reveal": {"x": np.zeros(1)}}
    return PixelScheme(config, params.__getitem__), traced


def test_a_second_file_traces_nothing(monkeypatch, tmp_path):
    scheme, traced = scheme_of(monkeypatch)
    cover, secret = save(tmp_path / "c.mkv", noise(5)), save(tmp_path / "s.mkv", smooth(5))
    for number in range(2):
        stego, output = tmp_path / f"{number}.mkv", tmp_path / f"{number}.revealed.mkv"
        pipeline.hide(scheme, KEY, cover, secret, stego, lambda frames: None)
        pipeline.reveal([scheme], KEY, stego, output, lambda frames: None)
        assert number or set(traced) == {"hide", "reveal"}
        assert not number or not traced
        traced.clear()


def test_a_modulus_too_large_for_metadata_is_refused(monkeypatch):
    with pytest.raises(UserError, match="from 1 to 32, not 33"):
        scheme_of(monkeypatch, 33)


def test_parameters_of_the_hide_side_are_loaded_when_they_are_used(monkeypatch):
    scheme, _ = scheme_of(monkeypatch)
    assert "hide_params" not in vars(scheme)
    assert jax.tree.leaves(scheme.hide_params)[0].shape == (1,)


MEASURE = """
import re, resource, sys
from pathlib import Path
import numpy as np
import deepsteg_jax
picture = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), np.uint8)
deepsteg_jax.hide(deepsteg_jax.load("image"), picture, picture[::-1], bytes(32))
if sys.platform == "darwin":
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
else:  # where ru_maxrss counts what the parent held when it forked
    print(1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]))
"""


@pytest.mark.slow
def test_memory_is_as_predicted(tmp_path):
    """In a process that compiles, and has one device as a user's has."""
    scheme = loading.load(loading.config_of("image"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "JAX_"))}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, "-c", MEASURE]
    peak = int(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
    assert 0.75 * peak < scheme.cost(1200, 1600, 1).memory_bytes < 2 * peak  # arenas of threads vary


def test_large_frames_go_one_group_at_a_time():
    scheme = loading.load(loading.config_of("video"))
    small, large = (scheme.cost(size, size, 9).memory_bytes for size in (100, 4000))
    assert large - small < 400 * (4000**2 - 100**2)


def test_a_wrong_sample_spoils_few_blocks_which_are_counted():
    scheme = loading.load(loading.config_of("image"))
    programs, words = scheme.codec(), np.arange(8, dtype=np.uint32)
    cover, secret = noise(1, 64, 96), smooth(1, 64, 96)
    stego = np.array(programs.hide(scheme.hide_params, words, 0, cover, secret))
    whole = programs.inspect(scheme.reveal_params, words, 0, stego)
    wrong = stego.copy()
    wrong[0, 20, 30, 1] ^= 1
    found = programs.inspect(scheme.reveal_params, words, 0, wrong)
    changed = (np.asarray(found.pictures) != np.asarray(whole.pictures)).reshape(8, 8, 12, 24)
    assert whole.spoilt[0] == 0 < found.spoilt[0] <= 16 / 96
    assert 0 < changed.any((1, 3)).mean() <= found.spoilt[0]
