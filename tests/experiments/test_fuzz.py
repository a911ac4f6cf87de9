import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_sample_of_damaged_files(tmp_path):
    command = [
        sys.executable,
        "-m",
        "experiments.fuzz",
        "--count=40",
        "--seed=1",
        "--real=0",
        "--workers=1",
        "--seconds=600",
        f"--output={tmp_path}",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "fuzz.json").read_text())["results"]
    assert report["count"] == 40 and report["findings"] == []
    outcomes = report["outcomes"]
    assert outcomes["done"] and outcomes["refused"] and outcomes["finding"] == 0
    assert sum(outcomes.values()) == 40 and "40 cases" in done.stdout
    assert not (tmp_path / "findings").exists() and not (tmp_path / "cases").exists()
