"""The notebook experiments/tutorial.ipynb: as it is shipped, and run in its tiny variant."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "experiments" / "tutorial.ipynb"
MOST_BYTES = 1_000_000


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def printed(notebook):
    """What the cells printed, in order."""
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not [output for output in outputs if output["output_type"] == "error"]
    return "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")


def pictures(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    return [output for output in outputs if "image/png" in output.get("data", {})]


def check_claims(text, levels, gain):
    """What the text between the cells says of the figures holds."""
    number = r"(-?\d+\.\d)"
    assert "are read back: True" in text
    mine, shipped = (
        [float(x) for x in re.search(rf"{name} +stego {number} dB +secret {number} dB", text).groups()]
        for name in ("trained here", "shipped")
    )
    assert shipped[0] > 47  # D = 3 and its square's twelfth: 49.9 dB
    assert mine[0] > 33  # D = 16: 35.3 dB
    steps = float(re.search(rf"in 16 steps +secret {number} dB", text)[1])
    assert steps + gain < mine[1] < shipped[1]
    right, wrong = (float(re.search(rf"{name} key: {number} dB", text)[1]) for name in ("right", "wrong"))
    assert right > 40 and wrong < 10
    assert "UserError: no hidden video for this passphrase or key" in text
    found = [
        [float(x) for x in groups]
        for groups in re.findall(rf"D = (\d): stego {number} dB, secret {number} dB", text)
    ]
    assert [int(level) for level, *_ in found] == list(levels)
    for (_, stego, secret), (_, next_stego, next_secret) in zip(found, found[1:], strict=False):
        assert next_stego < stego and next_secret > min(secret, 70)  # where hardly anything is missing
    for crf in (18, 23):
        assert re.search(rf"CRF {crf} +video .* nothing is found", text)
        assert float(re.search(rf"CRF {crf} +robust .* secret {number} dB", text)[1]) > 15


def test_what_is_shipped():
    """It was run once, from its first cell to its last, in full, and nothing in it is of that machine."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    check_claims(printed(notebook), (2, 3, 5, 8), 1)
    assert len(pictures(notebook)) >= 8
    texts = [text for cell in notebook["cells"] for text in cell["source"]] + [printed(notebook)]
    for place in ("/home/", "/root", "/tmp", "/usr/", str(Path.home()), "site-packages"):
        assert not [text for text in texts if place in text], place
    assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"])
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}


@pytest.mark.slow
def test_the_tiny_variant_runs(tmp_path, monkeypatch):
    for package in ("nbformat", "nbclient", "ipykernel"):
        pytest.importorskip(package, reason="nbformat, nbclient and ipykernel run the notebook")
    from deepsteg_jax import media
    from deepsteg_jax.schemes.robust import secret_codec
    from experiments.run_tutorial import execute

    if not (media.has_encoder("libx264") and secret_codec.has_encoder()):
        pytest.skip("this build of FFmpeg lacks x264 or an encoder of secrets")
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    before = NOTEBOOK.read_bytes()
    notebook = execute("tiny")
    check_claims(printed(notebook), (3, 6), -15)  # four steps do harm
    assert len(pictures(notebook)) >= 8
    assert NOTEBOOK.read_bytes() == before
