"""The original on ImageNet: 50,000 photographs of 224x224 for training and 7,498 for validation.

Needs imagenet2012, prepared by tensorflow-datasets or its two archives in <data_dir>/downloads/manual.
"""

from ml_collections import ConfigDict

from configs import prep_hide_reveal


def get_config(variant: str = "") -> ConfigDict:
    """configs/prep_hide_reveal.py fed by ImageNet; `variant` is empty or `tiny`."""
    config = prep_hide_reveal.get_config(variant)
    config.checkpoint = "runs/imagenet"
    config.data.source = "imagenet"
    config.data.path = ""  # data_dir of tensorflow-datasets; empty for its default
    config.data.train_split = "train[:50000]"
    config.data.validation_split = "validation[:7498]"  # empty: none
    config.train.validate_every_steps = 50_000 // config.train.batch_size
    return config
