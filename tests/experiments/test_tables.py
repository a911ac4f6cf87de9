"""The tables of the documentation are those of the measured figures."""

import json
import re

import pytest

from deepsteg_jax.errors import UserError
from experiments import common, steganalysis_tables, tables


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_pages_are_up_to_date(page):
    assert tables.fill(page.read_text()) == page.read_text(), "run python -m experiments.tables"


def test_every_table_is_somewhere_and_every_file_of_results_has_one():
    marks = {name for page in tables.PAGES for _, name, _ in tables.MARK.findall(page.read_text())}
    assert marks == set(tables.TABLES)
    files = {path.stem for path in common.RESULTS.glob("*.json")}
    assert files == {table.file for table in tables.TABLES.values()}


def test_results_say_how_they_were_made():
    for path in common.RESULTS.glob("*.json"):
        found = json.loads(path.read_text())
        assert set(found) == {"command", "revision", "results"}
        assert found["command"].startswith("python ") and re.match(r"[0-9a-f]{40}", found["revision"])


def test_a_figure_reaches_its_page(monkeypatch, tmp_path):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    page = "before\n<!-- table enhancement -->\nold\n<!-- end -->\nafter\n"
    way = {"psnr_db": 30.0}
    report = {"robust": {"nothing": way, **dict.fromkeys(tables.ENHANCED, way)}}
    common.write_json(tmp_path / "enhancement.json", report)
    assert tables.fill(page) == (
        "before\n<!-- table enhancement -->\n| dB | robust |\n|---|---|\n| as revealed | 30.00 |\n"
        + "".join(f"| {name} | +0.00 |\n" for name in tables.ENHANCED)
        + "<!-- end -->\nafter\n"
    )
    with pytest.raises(UserError, match="there is no table 'none'"):
        tables.fill("<!-- table none -->\n<!-- end -->")


def test_few_items_and_frames_are_named():
    def result(entry, codec, items, frames):
        mean = {"frames": frames, "before_psnr_db": 35.0, "secret_psnr_db": 20.0}
        return {
            "entry": entry,
            "codec": codec,
            "title": codec,
            "mean": mean | {"ratio": 1.5, "secret_ssim": 0.5},
            "items": items * [0],
        }

    results = [result("a", "C6", 10, 30.0), result("b", "C6", 2, 8.0)]
    _, _, first, second = tables.robustness(results, "C6").splitlines()
    assert first == "| `a` | 35.00 | 1.50 | 0.50 | 20.00 |" and second.startswith(
        "| `b` (2 items, 8 frames) |"
    )


def test_one_layer_is_compared_on_its_own_clips():
    def result(entry, decibels):
        items = [
            {"cover": cover, "secret_psnr_db": x, "payload_bits": 8, "information_bits": x}
            for cover, x in decibels.items()
        ]
        return {"entry": entry, "codec": "C6", "title": "x264", "items": items}

    tuned = result("robust, one layer", {"b": 20.0, "c": 30.0})
    results = [tuned, result("robust", {"a": 0.0, "b": 10.0, "c": 22.0}), result("digital", {"b": 7, "c": 8})]
    assert tables.one_layer(results).splitlines()[2] == "| x264 | 2 | 25.00 | 16.00 | 7.50 | 0.32 | 0.50 |"


def test_a_script_can_print_what_is_measured_so_far():
    row = {"stego_psnr_db": [50.0], "secret_psnr_db": [40.0]}
    assert tables.ablation({"8 classes": row}).splitlines()[2:] == ["| 8 classes | 50.00 | 40.00 |"]
    mean = {"frames": 1, "stego_psnr_db": 50.0, "secret_psnr_db": 40.0}
    measured = [{"name": "a", "mean": mean, "items": [{"secret_psnr_db": 30.0}]}]
    assert tables.quality(measured, "images").splitlines()[2] == "| `a` | 50.00 | 40.00 | 30.00 |"
    files = [{"graph": "hide", "format": "onnx", "weights": "int8", "error": "no"}]
    assert tables.export({"robust": files}).splitlines()[2:] == ["| `robust` hide | -/- | -/- | -/- |"]


def test_accuracies_stand_with_the_wider_half_of_their_interval():
    assert steganalysis_tables.percent({"accuracy": 0.837, "accuracy_interval": [0.796, 0.874]}) == "83.7±4"
    assert steganalysis_tables.percent(None) == "-"
