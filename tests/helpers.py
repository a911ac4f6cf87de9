"""What several tests do."""

import numpy as np
import pytest

from deepsteg_jax import media
from deepsteg_jax.errors import UserError


def names(folder):
    """The names of all that is in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def read_stack(path):
    """All frames of a short clip, uint8 [t, h, w, 3]."""
    return np.stack(list(media.read_frames(path)))


def refused(path, words, run=media.probe):
    """Asserts that `run(path)` raises a UserError of one line that names the path and matches `words`."""
    with pytest.raises(UserError, match=words) as caught:
        run(path)
    assert "\n" not in str(caught.value) and str(path).rstrip("/") in str(caught.value)
