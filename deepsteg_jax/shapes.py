"""Shapes and types of arrays, as signatures say them (jaxtyping); tests check them, nothing else does.

Names of axes: b examples of a batch, t frames of a group, n frames, h rows and w columns of pixels, c
channels; `rows` and `columns` are of blocks. `*t` may be missing: an image. In one signature a name has one
length.
"""

import jax
import numpy as np
from jaxtyping import Float, Integer, UInt8, UInt32

Array = jax.Array | np.ndarray  # functions of JAX take NumPy's too

Key = UInt32[Array, " 8"]  # 256 bits, little-endian words
Index = Integer[Array, ""] | int  # number of a frame in its video, below 2^32
Scalar = Float[Array, ""] | float

Frames = UInt8[Array, "n h w 3"]  # RGB
Group = Float[Array, "t h w 3"]  # RGB in [0, 1]
Video = Float[Array, "*t h w 3"]  # RGB about [0, 1]
Batch = Float[Array, "b *t h w 3"]  # RGB in [0, 1]
