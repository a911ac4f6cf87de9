import sys

import numpy as np
from PIL import Image

from experiments import drawn_secrets


def test_pictures_of_each_kind_by_seed(monkeypatch, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = ["--output", tmp_path / name, "--count", 3, "--size", 64, "--seed", seed]
        monkeypatch.setattr(sys, "argv", ["drawn_secrets", *map(str, options)])
        drawn_secrets.main()
    a, b, c = ([np.asarray(Image.open(x)) for x in sorted((tmp_path / y).iterdir())] for y in "abc")
    names = [path.name for path in sorted((tmp_path / "a").iterdir())]
    assert names == ["diagram_0001.png", "screen_0002.png", "text_0000.png"]
    for x, y, z in zip(a, b, c, strict=True):
        assert x.shape == (64, 64, 3) and np.std(x) > 1
        np.testing.assert_array_equal(x, y)
        assert np.any(x != z)
