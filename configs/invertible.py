"""Invertible couplings after HiNet, frame by frame on clips, through 8-bit rounding.

`configs/invertible.py:swap` starts at the linear swap of coefficients on 8x8 blocks instead of at the
identity on Haar coefficients; `configs/invertible.py:tiny` shrinks everything for smoke runs.
"""

from ml_collections import ConfigDict

from configs import video


def get_config(variant: str = "") -> ConfigDict:
    """configs/video.py with the invertible model; `variant` is empty, `swap` or `tiny`."""
    config = video.get_config("tiny" if variant == "tiny" else "")
    config.checkpoint = f"runs/invertible{'_swap' if variant == 'swap' else ''}"
    config.model = ConfigDict({"name": "invertible", "frames": 1, "block": 2, "start": "identity"})
    config.model.couplings = 6
    config.model.features = 24
    config.model.depth = 2
    config.model.update(dtype="float32", remat=False)  # as in configs/video.py
    config.shuffle.moves = "secret"
    config.shuffle.cipher = "blocks"
    config.losses.stego = config.losses.secret = 1.0
    config.losses.secret_db = config.losses.penalty = 0.0
    config.optimizer.learning_rate = 3e-4
    config.optimizer.clip_norm = 0.05  # usual norms are below; couplings that blow up are tamed
    config.data.height = config.data.width = 64
    if variant == "swap":
        config.model.block = 8
        config.model.start = "swap"
        config.model.couplings = 3
        config.model.features = 64
        config.model.depth = 1
    elif variant == "tiny":
        config.model.couplings = 2
        config.model.features = 4
        config.model.depth = 1
        config.data.height = config.data.width = 32
    elif variant:
        raise ValueError(f"configs/invertible.py has the variants swap and tiny, not {variant!r}")
    return config
