"""Recordings hold what arrived of the symbols that were sent, as training reads it."""

import numpy as np
import pytest

from configs.robust import get_config
from deepsteg_jax.channels import ladder
from deepsteg_jax.data.recordings import KINDS, read_recording
from deepsteg_jax.models import symbols as symbol_model
from experiments import record_codecs
from tests.synthetic import in_planes, smooth


@pytest.mark.parametrize(
    ("kind", "variant", "hold", "exact"),
    [("clips", "", 1, "C2"), ("clips", "", 4, "C2"), ("images", "image", 1, "C0")],
)
def test_what_arrived_says_what_was_sent(kind, variant, hold, exact, monkeypatch, tmp_path):
    monkeypatch.setitem(record_codecs.HOLDS, kind, (hold,))
    monkeypatch.setitem(record_codecs.CODECS, kind, [ladder.named(exact)])
    frames, config = smooth(9, 48, 64) // 2 + 60, get_config(variant)
    frames = in_planes(frames) if kind == "clips" else frames
    content = record_codecs.record(kind, frames, config, np.random.default_rng(0))
    np.savez(tmp_path / "a.npz", **content)
    found = read_recording(tmp_path / "a.npz", KINDS["videos" if kind == "clips" else "images"])
    carriers = symbol_model.carriers_of(config.model)
    assert found["symbols"].shape == (9 // hold, 3, 4, len(carriers.blocks))
    planes = tuple(found[name].astype(np.float32) for name in ("luma", "cb", "cr") if name in found)
    phases = symbol_model.read_phases(planes, found["step"], carriers)
    errors = np.abs(symbol_model.wrap(phases - found["symbols"]))
    assert np.quantile(errors * found["step"], 0.9) < 2  # rounding to 8 bits and to float16


def test_codecs_that_lose_something_are_told(tmp_path, monkeypatch):
    monkeypatch.setitem(record_codecs.CODECS, "clips", [ladder.x264("", 40)])
    frames = in_planes(smooth(8, 48, 64))
    made = [record_codecs.record("clips", frames, get_config(), np.random.default_rng(0)) for _ in range(2)]
    assert all(np.array_equal(made[0][name], made[1][name]) for name in made[0])  # of the seed alone
    assert {made[0][name].dtype for name in ("luma", "cb", "cr")} == {np.dtype(np.float16)}
