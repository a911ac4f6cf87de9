"""Hide frames in frames with invertible couplings, by remainders or after HiNet 2021, through 8-bit rounding.

    python main.py --config configs/invertible.py --mode train --config.data.path=PHOTOS

Starts at hiding by remainders of block-DCT coefficients, which couplings inside the secret then scale; the
figures are on the card of the checkpoint `invertible`. `:identity` starts at HiNet's, couplings between cover
and secret on Haar coefficients, and trains on clips: 34.8 and 34.5 dB on ten unseen clips of 448x256 after 25
minutes on two cores (`experiments.train_entries`). `:tiny` is for smoke runs. configs/video.py explains the
fields.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; `variant` is empty, `identity` or `tiny`."""
    if variant not in ("", "identity", "tiny"):
        raise ValueError(f"configs/invertible.py has the variants identity and tiny, not {variant!r}")
    config = ConfigDict()
    config.seed = 0
    config.deterministic = False
    config.checkpoint = "runs/invertible" if variant else "invertible"

    config.model = ConfigDict()
    config.model.name = "invertible"
    config.model.frames = 1
    config.model.block = 8  # pixels, side of the blocks that are transformed
    config.model.start = "modulo"  # or identity
    config.model.modulus = 5  # D of the start modulo; larger: better secret, worse stego
    config.model.couplings = 5
    config.model.features = 128
    config.model.depth = 1
    config.model.dtype = "float32"
    config.model.remat = False

    config.shuffle = ConfigDict()
    config.shuffle.moves = "secret"
    config.shuffle.cipher = "blocks"
    config.shuffle.block_size = 8

    config.channel = (("round", 8),)

    config.losses = ConfigDict()
    config.losses.stego = 0.0  # remainders change the cover by the same, whatever is learned
    config.losses.secret = 0.0
    config.losses.secret_db = 1.0
    config.losses.penalty = 0.0

    config.optimizer = ConfigDict()
    config.optimizer.num_steps = 400
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.clip_norm = 10.0
    config.optimizer.ema_decay = 0.0
    config.optimizer.plateau_factor = 0.5
    config.optimizer.plateau_patience = 5
    config.optimizer.plateau_window = 200

    config.train = ConfigDict()
    config.train.batch_size = 8
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
    config.data.height = 64
    config.data.width = 64
    config.data.flip = True
    config.data.min_scale = 1.0
    config.data.cache = True

    config.evaluate = ConfigDict()
    config.evaluate.path = "data/val/clips"
    config.evaluate.first_frame = 5
    config.evaluate.frames = 30
    config.evaluate.height = 256
    config.evaluate.width = 448
    config.evaluate.perceptual = False
    config.evaluate.pictures = 4

    config.video = ConfigDict()
    config.video.align = "time"
    config.video.sound_bit_rate = 64_000
    config.video.cover = "sample:bikes.mp4"
    config.video.secret = "sample:bigbuckbunny.mp4"

    if variant == "identity":
        config.model.update(block=2, start="identity", couplings=6, features=24, depth=2)
        config.losses.update(stego=1.0, secret=1.0, secret_db=0.0)
        config.optimizer.update(num_steps=5000, learning_rate=3e-4, warmup_steps=100)
        config.optimizer.clip_norm = 0.05  # usual norms are below; couplings that blow up are tamed
        config.data.update(source="clips", path="data/train/clips", max_stride=2, max_frames=64)
        config.data.update(cache_height=256, cache_width=448)
    if variant == "tiny":
        config.model.update(couplings=2, features=4)
        config.optimizer.update(num_steps=4, warmup_steps=1)
        config.train.update(batch_size=2, log_every_steps=1, picture_every_steps=4)
        config.train.update(save_every_steps=2, validate_every_steps=2)
        config.data.update(height=32, width=32)
    return config
