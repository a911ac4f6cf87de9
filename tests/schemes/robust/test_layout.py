"""Where things lie: each symbol once, for the key holder only."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.robust import get_config
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.robust import layout, levels

KEY, OTHER = bytes(range(32)), bytes(32)
OVERHEAD = get_config().overhead
ALL = np.ones(1000, bool)
GRID = np.arange(7, 1000, 50), np.zeros((20, levels.LEVELS), np.uint8)


def test_every_symbol_of_a_frame_has_one_use():
    made = layout.make(KEY, np.ones(7168, bool), 416, OVERHEAD, GRID)
    uses = np.concatenate([made.grid, made.pilots, made.references, made.header, made.data])
    assert np.array_equal(np.sort(uses), np.arange(7168))
    assert len(made.pilots) == len(made.references) == 179
    assert len(made.header) == min(round(7168 * OVERHEAD.header), layout.MOST_HEADER)


def test_quarters_are_dealt_out_once():
    made = layout.make(KEY, ALL, 416, OVERHEAD, GRID)
    parts = made.coarse_indices(3, 5, [0.2, 0.3, 0.5])
    assert [len(part) for part in parts] == [len(made.data), 1.5 * len(made.data), 2.5 * len(made.data)]
    indices = np.concatenate(parts)
    assert len(np.unique(indices)) == len(indices)
    assert set(indices % 1000) == set(made.data)
    finer = made.finer_indices(3, 5)
    assert len(np.unique(finer)) == len(finer) == 5 * (1000 - 20 - 2 * len(made.pilots))
    assert not set(finer % 1000) & {*made.grid, *made.pilots, *made.references}


def test_key_segment_and_frame_decide():
    a, b = (layout.make(key, ALL, 416, OVERHEAD, GRID) for key in (KEY, OTHER))
    assert not np.array_equal(a.pilots, b.pilots)
    assert not np.array_equal(a.pilot_bits(0), b.pilot_bits(0))
    assert not np.array_equal(a.pilot_bits(0), a.pilot_bits(1))
    assert not np.array_equal(a.pilot_bits(0), a.reference_bits(0))
    assert not np.array_equal(a.finer_indices(0, 2), a.finer_indices(1, 2))
    assert np.array_equal(
        a.finer_indices(1, 2), layout.make(KEY, ALL, 416, OVERHEAD, GRID).finer_indices(1, 2)
    )


def test_frames_too_small_are_refused():
    with pytest.raises(UserError, match="too small"):
        layout.make(KEY, ALL[:100], 416, OVERHEAD, GRID)


@pytest.mark.parametrize(
    "layers",
    [
        (("01", 0.7, "CRF28"), ("01", 0.7, "CRF24")),
        (("01", 1.0, "CRF28"), ("3", 1.0, "CRF18")),
        (("2", 1.0, "CRF18"),),
        (("01", 1.0, "CRF28"), ("23456", 1.0, "C2")),
        (("01", 1.0, "CRF28"), ("fine", 1.0, "C2"), ("2", 1.0, "C2")),
        (("01", 0.1, "CRF28"),) * 7,
        (("01", 1.0),),
    ],
)
def test_layers_that_make_no_sense_are_refused(layers):
    with pytest.raises(UserError, match=r"config\.secret_layers"):
        layout.layers_of(ConfigDict({"secret_layers": layers}))
