import json
import sys
from types import SimpleNamespace

from experiments import gpu_smoke


def test_report(toy, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(gpu_smoke, "CASES", {"toy": SimpleNamespace(load=lambda: toy), "late": None})
    monkeypatch.setattr(gpu_smoke, "VARIANTS", {"float32": {}, "absent": {"no_such_field": 1}})
    ticks = iter(range(1000))  # a second each
    monkeypatch.setattr(gpu_smoke, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    options = ["--side", 16, "--batch", 2, "--seconds", 1.5, "--output", tmp_path / "found.json"]
    monkeypatch.setattr(sys, "argv", ["gpu_smoke", *map(str, options)])
    gpu_smoke.main()
    found = json.loads((tmp_path / "found.json").read_text())["results"]["models"]["toy"]
    assert found["same_bits"] and found["float32"]["images_per_s"] == 2 and "absent" not in found
    assert found["hide"] == found["reveal"] == {"equal": 1.0, "farthest": 0}
    late, *_, row = capsys.readouterr().out.splitlines()
    assert late == "late: not tried, the time is over"
    assert row.startswith("| `toy` | yes | 100.00 %, 100.00 % | 0, 0 | ")
