"""What several tests do."""

import numpy as np

from deepsteg_jax import media


def read_stack(path):
    """All frames of a short clip, uint8 [t, h, w, 3]."""
    return np.stack(list(media.read_frames(path)))
