"""Still images: `block_dct` on single frames, trained on a folder of photographs."""

from ml_collections import ConfigDict

from configs import video


def get_config(variant: str = "") -> ConfigDict:
    """configs/video.py on images; `variant` is empty or `tiny`."""
    config = video.get_config(variant)
    config.checkpoint = "image"
    config.model.frames = 1
    config.data.source = "images"
    config.data.path = "data/train/images"
    config.data.cache = True  # keeps the decoded images in memory
    config.train.batch_size *= 4  # as many blocks in a batch as there are with 4 frames
    config.evaluate.path = "data/val/images"
    config.evaluate.height = config.evaluate.width = 256
    if not variant:
        config.export.sizes = "256x256"
    return config
