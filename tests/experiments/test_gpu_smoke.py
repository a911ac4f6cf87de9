import json
import sys

from experiments import gpu_smoke
from experiments.entries import Entry


def test_report_of_a_tiny_model(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(gpu_smoke, "CASES", {"tiny": Entry("invertible", "tiny"), "late": None})
    monkeypatch.setattr(gpu_smoke, "VARIANTS", {"remat": {"remat": True}, "absent": {"no_such_field": 1}})
    monkeypatch.setattr(gpu_smoke, "TIMED", 3)
    options = ["--side", 16, "--batch", 2, "--seconds", 0.1, "--output", tmp_path / "found.json"]
    monkeypatch.setattr(sys, "argv", ["gpu_smoke", *map(str, options)])
    gpu_smoke.main()
    found = json.loads((tmp_path / "found.json").read_text())["results"]["models"]["tiny"]
    assert found["same_bits"] and found["remat"]["images_per_s"] > 0 and "absent" not in found
    assert found["hide"] == found["reveal"] == {"equal": 1.0, "farthest": 0}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "late: not tried, the time is over"
    assert lines[-1].startswith("| `tiny` | yes | 100.00 %, 100.00 % | 0, 0 | ")
