"""The original: prepare, hide and reveal networks on a folder of photographs, after Baluja 2017."""

from ml_collections import ConfigDict

from configs import image


def get_config(variant: str = "") -> ConfigDict:
    """configs/image.py with the original model, channel, loss and schedule; `variant` is empty or `tiny`."""
    config = image.get_config(variant)
    config.checkpoint = "runs/prep_hide_reveal"
    config.model = ConfigDict({"name": "prep_hide_reveal", "frames": 1, "features": 50})
    config.model.update(dtype="float32", remat=False)  # as in configs/video.py
    config.shuffle.moves = "secret"
    config.shuffle.cipher = "blocks"
    config.shuffle.block_size = 56  # 16 blocks of a 224x224 frame
    config.channel = (("gaussian_noise", 0.01),)
    config.losses.stego = config.losses.secret = 1.0  # the weight of `secret` is beta
    config.losses.secret_db = config.losses.penalty = 0.0
    config.optimizer.schedule = "plateau"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 1.0
    config.train.batch_size = 8
    config.data.height = config.data.width = 224
    if variant == "tiny":
        config.model.features = 4
        config.train.batch_size = 2
        config.data.height = config.data.width = 32
        config.shuffle.block_size = 8
    return config
