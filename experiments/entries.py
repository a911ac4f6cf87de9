"""The learned entries of the benchmark: one config each, and what it is trained with."""

import importlib
from typing import NamedTuple

from ml_collections import ConfigDict


def file_name(title: str) -> str:
    """A title as the name of a file or folder."""
    return "".join(c if c.isalnum() else "_" for c in title)


class Entry(NamedTuple):
    """A model of the benchmark."""

    config: str  # module in configs/
    variant: str = ""
    overrides: dict = {}  # what differs from the config, by dotted name

    def load(self) -> ConfigDict:
        """The config with its overrides."""
        config = importlib.import_module(f"configs.{self.config}").get_config(self.variant)
        config.update_from_flattened_dict(self.overrides)
        return config


# The original trains on photographs of 224x224 for days; here on crops of clips that give it more steps.
_ORIGINAL_ON_CLIPS = {
    "data.source": "clips",
    "data.height": 48,
    "data.width": 48,
    "data.growing": (),
    "data.max_stride": 2,
    "data.cache_height": 256,
    "data.cache_width": 448,
    "data.max_frames": 64,
    "train.batch_size": 2,  # eight of 32x32 end at 19.5 / 22.1 dB where these have 24.3 / 20.5
    "shuffle.block_size": 16,
    "channel": (("round", 8),),
    "losses.secret": 1.5,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_steps": 20,
}

ENTRIES = {
    "block_dct": Entry("video"),
    "block_dct_image": Entry("image"),
    "prep_hide_reveal": Entry("prep_hide_reveal", "delta", _ORIGINAL_ON_CLIPS),
    "invertible": Entry("invertible"),
    "invertible_swap": Entry("invertible", "swap"),
}
