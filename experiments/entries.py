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


ENTRIES = {
    "block_dct": Entry("video"),
    "block_dct_image": Entry("image"),
    "prep_hide_reveal": Entry("prep_hide_reveal"),
    "prep_hide_reveal_small": Entry("prep_hide_reveal", "small"),
    "invertible": Entry("invertible"),
    "invertible_identity": Entry("invertible", "identity"),
}
