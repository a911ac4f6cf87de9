"""Edits are undone by the geometry that is told with them."""

import numpy as np
import pytest

from deepsteg_jax import media
from experiments.off_grid import EDITS
from tests.synthetic import in_planes, smooth


@pytest.mark.parametrize("edit", EDITS[2::2], ids=lambda edit: edit.title)
def test_an_edit_is_undone_at_its_place(edit):
    (frame,) = media.unstack(in_planes(smooth(1, 128, 192)))
    edited = edit.frames(frame)
    place = edit.place(frame.y.shape, edited.y.shape)
    inside = np.kron(place.received(edited.y.shape), np.ones((16, 16))).astype(bool)
    assert inside.mean() > 0.4
    assert np.abs(place.rectify(edited)[0].astype(int) - frame.y)[inside].mean() < 1
