"""Hide a file as configs/adaptive.py does, at costs from a network that was trained against a steganalyser.

    python main.py --config configs/adaptive_learned.py --mode train --config.data.path=PHOTOS \
        --config.model.strength=0 --config.optimizer.num_steps=1000
    python main.py --config configs/adaptive_learned.py --mode train --config.data.path=PHOTOS

The steganalyser learns alone first, on HILL; then both play. The shipped checkpoint took 10 CPU minutes. Only
the sender needs it: receivers take `adaptive`. `:tiny` is for smoke runs.
"""

from ml_collections import ConfigDict

from configs import adaptive


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; `variant` is empty or `tiny`."""
    if variant not in ("", "tiny"):
        raise ValueError(f"configs/adaptive_learned.py has the variant tiny, not {variant!r}")
    config = adaptive.get_config()
    config.seed = 0
    config.deterministic = False
    config.checkpoint = "adaptive_learned"

    config.model.name = "adaptive_learned"
    config.model.steganalyser = (24, 32, 48)  # its channels
    config.model.payloads = (0.4, 1.0)  # bits per sample that is changed; one is drawn for each picture
    config.model.strength = 1.0  # of the costs' gradient; 0: they stay, and the steganalyser learns alone

    config.optimizer = ConfigDict()
    config.optimizer.num_steps = 3679
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 20
    config.optimizer.clip_norm = 5.0
    config.optimizer.ema_decay = 0.99
    config.optimizer.plateau_factor = 0.5
    config.optimizer.plateau_patience = 5
    config.optimizer.plateau_window = 200

    config.train = ConfigDict()
    config.train.batch_size = 8
    config.train.accumulate_steps = 1
    config.train.log_every_steps = 20
    config.train.picture_every_steps = 1000
    config.train.save_every_steps = 200
    config.train.keep = 2
    config.train.profile_steps = 0
    config.train.validate_every_steps = 500
    config.train.best_metric = ""  # what the costs gain, the steganalyser loses: no step is the best

    config.data = ConfigDict()
    config.data.source = "images"
    config.data.path = "data/train/images"
    config.data.validation_path = ""
    config.data.frames = 1
    config.data.height = 48
    config.data.width = 48
    config.data.flip = True
    config.data.min_scale = 1.0
    config.data.cache = True

    if variant == "tiny":
        config.model.steganalyser = (4, 4)
        config.optimizer.update(num_steps=4, warmup_steps=1)
        config.train.update(batch_size=2, log_every_steps=1, picture_every_steps=4)
        config.train.update(save_every_steps=2, validate_every_steps=2)
        config.data.update(height=32, width=32)
    return config
