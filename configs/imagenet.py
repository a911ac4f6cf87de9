"""Train configs/prep_hide_reveal.py on ImageNet: 50,000 photos of 224x224, and 7,498 to validate on.

    python main.py --config configs/imagenet.py --mode train --config.data.path=DATA

50 passes over the photos: many hours on a GPU; not run to its end here, so there are no figures. Needs
imagenet2012 in DATA, prepared by tensorflow-datasets, or its two archives in DATA/downloads/manual. `:small`
trains the small networks, `:tiny` is for smoke runs.
"""

from ml_collections import ConfigDict

from configs import prep_hide_reveal


def get_config(variant: str = "") -> ConfigDict:
    """Return configs/prep_hide_reveal.py with other data; `variant` is one of its own, or empty."""
    config = prep_hide_reveal.get_config(variant)
    config.checkpoint = "runs/imagenet"
    config.train.validate_every_steps = 50_000 // config.train.batch_size  # once in a pass
    if variant != "tiny":
        config.optimizer.num_steps = 50 * config.train.validate_every_steps
    side = 32 if variant == "tiny" else 224
    config.data = ConfigDict()
    config.data.source = "imagenet"
    config.data.path = ""  # data_dir of tensorflow-datasets; empty for its default
    config.data.train_split = "train[:50000]"
    config.data.validation_split = "validation[:7498]"  # empty: none
    config.data.height = side
    config.data.width = side
    config.data.flip = True
    config.data.min_scale = 1.0
    return config
