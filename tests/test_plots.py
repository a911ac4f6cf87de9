import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from deepsteg_jax import plots

COLOURS = {"cover": (255, 0, 0), "stego": (255, 2, 0), "secret": (0, 0, 255), "revealed": (0, 255, 255)}


def row(height=40, width=60):
    return {name: np.full((height, width, 3), colour, np.uint8) for name, colour in COLOURS.items()}


def test_difference():
    cover = np.array([[[100, 100, 100], [0, 255, 7]]], np.uint8)
    stego = np.array([[[101, 98, 100], [255, 0, 13]]], np.uint8)
    found = plots.difference(cover, stego)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, [[[148, 88, 128], [255, 0, 248]]])


def test_no_difference_is_grey():
    frame = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert (plots.difference(frame, frame) == 128).all()


def panels(picture):
    """The coloured rectangles of a picture, [(centre x, centre y)] by colour."""
    wanted = {**COLOURS, "difference": (128, 168, 128)}
    found = {}
    for name, colour in wanted.items():
        y, x = np.nonzero((picture == colour).all(-1))
        found[name] = (x.size, x.mean() if x.size else None, y)
    return found


@pytest.mark.parametrize("count", [1, 3])
def test_comparison(tmp_path, count):
    path = tmp_path / "comparison.png"
    figures = plt.get_fignums()
    label = r"$\no_mathematics"  # a name may be anything
    plots.comparison(path, [(f"{label} {i}", row()) for i in range(count)])
    assert plt.get_fignums() == figures  # closed
    with Image.open(path) as image:
        assert image.format == "PNG"
        picture = np.asarray(image.convert("RGB"))
    assert picture.shape[1] == 5 * 4 * 110
    assert abs(picture.shape[0] - (4 * 40 / 60 + 0.35) * count * 110) <= 1
    found = panels(picture)
    order = [found[name][1] for name in ("cover", "stego", "difference", "secret", "revealed")]
    assert order == sorted(order)
    widths = np.diff(order)
    assert widths.min() > 0.9 * widths.max()
    sizes = [size for size, _, _ in found.values()]
    assert min(sizes) > 0.8 * max(sizes) > 0.1 * picture.shape[0] * picture.shape[1]
    rows_of_panels = np.unique(found["secret"][2])
    assert np.count_nonzero(np.diff(rows_of_panels) > 1) == count - 1


def test_comparison_takes_a_secret_of_its_own_size(tmp_path):
    frames = row() | {name: row(20, 30)[name] for name in ("secret", "revealed")}
    plots.comparison(tmp_path / "a.png", [("a", frames)])
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert all(size > 1000 for size, _, _ in panels(picture).values())


def quality(path, **points):
    """Draws {group: [(name, stego, secret)]}; returns the picture."""
    groups = {
        group: [(name, {"stego_psnr_db": x, "secret_psnr_db": y}) for name, x, y in systems]
        for group, systems in points.items()
    }
    plots.quality(path, groups)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_quality_places_each_group_by_stego_and_secret(tmp_path):
    figures = plt.get_fignums()
    points = {"poor": [("", 30.0, 30.0)], "faithful": [("", 50.0, 30.0)], "good": [("", 50.0, 45.0)]}
    picture = quality(tmp_path / "a.png", **points)
    assert plt.get_fignums() == figures  # closed
    assert picture.shape == (715, 990, 3)
    ends = []  # right and low end of each colour; the legend is in the upper left
    for colour in plt.rcParams["axes.prop_cycle"].by_key()["color"][:3]:
        rgb = np.round(255 * np.array(to_rgb(colour)))
        y, x = np.nonzero((picture == rgb).all(-1))
        ends.append((x.max(), y.max()))
    (poor_x, poor_y), (faithful_x, faithful_y), (good_x, good_y) = ends
    assert poor_x + 400 < faithful_x and abs(faithful_x - good_x) < 10
    assert good_y + 300 < faithful_y and abs(faithful_y - poor_y) < 10


def test_quality_writes_the_names(tmp_path):
    def ink(*systems):
        return np.count_nonzero(quality(tmp_path / "a.png", group=list(systems)).max(-1) < 100)

    nameless = ink(("", 30.0, 30.0), ("", 40.0, 40.0))
    first = ink(("system", 30.0, 30.0), ("", 40.0, 40.0))
    assert nameless + 30 < first < ink(("system", 30.0, 30.0), ("system", 40.0, 40.0)) - 30


def curves_of(svg):
    """Points of the coloured paths of a chart, by colour."""
    found = {}
    for path, style in re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*)"', svg):
        if colour := re.search(r"stroke: (var\(--\w+\))", style):
            points = [float(x) for x in re.findall(r"-?[\d.]+", path)]
            found.setdefault(colour[1], []).append(np.reshape(points, (-1, 2)))
    return {colour: max(paths, key=len) for colour, paths in found.items()}


def test_a_chart_follows_its_figures():
    values = {"stego": [50.0, 51.0, 49.5, 50.2, 60.0], "secret": [40.0, 30.0, 45.0, 41.0, 42.0]}
    svg = plots.chart(values, "frame", 0)
    found = curves_of(svg)
    for colour, numbers in zip(("var(--first)", "var(--second)"), values.values(), strict=True):
        curve = found[colour]
        assert len(curve) == 5 and np.diff(curve[:, 0]) == pytest.approx(np.diff(curve[:2, 0])[0], abs=1e-3)
        assert np.corrcoef(curve[:, 1], numbers)[0, 1] == pytest.approx(-1)  # SVG counts downwards
    drawn = [*values["stego"], *values["secret"]]
    heights = np.concatenate([found["var(--first)"], found["var(--second)"]])[:, 1]
    assert np.corrcoef(heights, drawn)[0, 1] == pytest.approx(-1)  # on one axis


@pytest.mark.parametrize("marks", [False, True])
def test_a_chart_is_of_the_page(marks):
    figures = plt.get_fignums()
    svg = plots.chart({"stego": [1.0, 2.0], "secret": [3.0, 4.0]}, "pair", 1, marks)
    assert plt.get_fignums() == figures  # closed
    assert svg == plots.chart({"stego": [1.0, 2.0], "secret": [3.0, 4.0]}, "pair", 1, marks)
    assert svg.startswith("<svg") and svg.rstrip().endswith("</svg>")
    assert "currentColor" in svg and not re.search(r"url\(|<style|<metadata|#0102", svg)
    assert not re.search(r"<svg[^>]* (width|height)=", svg)
    assert {"stego", "secret", "pair", "dB"} <= set(re.findall(r">([^<>]+)</text>", svg))


def test_a_chart_of_equal_figures():
    assert "<svg" in plots.chart({"stego": [100.0] * 7, "secret": [100.0] * 7}, "frame", 0)
