"""Clips in memory, which are read and written like files."""

from collections.abc import Iterable

import numpy as np


class Clip:
    """Frames in memory, at 25 a second and without sound; without frames it can be written to."""

    def __init__(self, name: str, frames: Iterable[np.ndarray] = (), is_image: bool = False):
        """Name a clip for messages; `frames` are uint8 [h, w, 3], one of them for an image."""
        self.frames, self.is_image = list(frames), is_image
        self._name = name

    def __str__(self) -> str:
        """Return the name for messages."""
        return self._name
