"""Hide images in images, without loss: `block_dct` on single frames; configs/video.py explains the fields.

    python main.py --config configs/image.py --mode train --config.data.path=PHOTOS

The shipped checkpoint `image` took five minutes on two cores. A hundred unseen photos of 256x256: stego
49.7 dB, secret 48.1 dB. `:tiny` is for smoke runs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; `variant` is empty or `tiny`."""
    if variant not in ("", "tiny"):
        raise ValueError(f"configs/image.py has the variant tiny, not {variant!r}")
    config = ConfigDict()
    config.seed = 0
    config.deterministic = False
    config.checkpoint = "image"

    config.model = ConfigDict()
    config.model.name = "block_dct"
    config.model.modulus = 3
    config.model.frames = 1
    config.model.classes = 64
    config.model.depth = 0
    config.model.features = 96
    config.model.dtype = "float32"
    config.model.remat = False

    config.shuffle = ConfigDict()
    config.shuffle.moves = "cover"
    config.shuffle.cipher = "coefficients"
    config.shuffle.block_size = 8

    config.channel = (("round", 8),)

    config.losses = ConfigDict()
    config.losses.stego = 1.0
    config.losses.secret = 0.0
    config.losses.secret_db = 1.0
    config.losses.penalty = 1.0

    config.optimizer = ConfigDict()
    config.optimizer.num_steps = 1000
    config.optimizer.learning_rate = 8e-2
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 10.0
    config.optimizer.ema_decay = 0.0
    config.optimizer.plateau_factor = 0.5
    config.optimizer.plateau_patience = 5
    config.optimizer.plateau_window = 200

    config.train = ConfigDict()
    config.train.batch_size = 32  # as many blocks as in 8 groups of 4 frames
    config.train.accumulate_steps = 1
    config.train.log_every_steps = 50
    config.train.picture_every_steps = 1000
    config.train.save_every_steps = 500
    config.train.keep = 2
    config.train.profile_steps = 0
    config.train.validate_every_steps = 500
    config.train.best_metric = "loss"

    config.data = ConfigDict()
    config.data.source = "images"
    config.data.path = "data/train/images"
    config.data.validation_path = ""
    config.data.height = 128
    config.data.width = 128
    config.data.flip = True
    config.data.min_scale = 1.0
    config.data.cache = True  # keeps the decoded images in memory

    config.evaluate = ConfigDict()
    config.evaluate.path = "data/val/images"
    config.evaluate.first_frame = 5
    config.evaluate.frames = 30
    config.evaluate.height = 256
    config.evaluate.width = 256
    config.evaluate.perceptual = False
    config.evaluate.pictures = 4

    config.video = ConfigDict()
    config.video.align = "time"
    config.video.sound_bit_rate = 64_000
    config.video.cover = "sample:bikes.mp4"
    config.video.secret = "sample:bigbuckbunny.mp4"

    if variant == "tiny":
        config.model.classes = 8
        config.optimizer.update(num_steps=4, warmup_steps=1)
        config.train.update(batch_size=8, log_every_steps=1, picture_every_steps=4)
        config.train.update(save_every_steps=2, validate_every_steps=2)
        config.data.update(height=32, width=32)
    return config
