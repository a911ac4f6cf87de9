"""Hide images in images with the original prepare, hide and reveal networks, after Baluja 2017.

    python main.py --config configs/prep_hide_reveal.py --mode train --config.data.path=PHOTOS

The networks start at hiding by remainders (`deepsteg_jax/models/modulo_start.py`), which is exact and stays
as it is; the end of the reveal network learns to smooth the steps of the secret's colours. `:small` has
21,299 parameters, kernels of 1x1 and 3x3, and one stack in reveal. Both are shipped, the larger one as the
small one written into it (`experiments.export_checkpoint --widen-to`). `:delta` starts at the cover and has
learned 24.3 and 20.5 dB in 25 CPU minutes, from random weights 21.0 and 18.6; Baluja 2019 reports 34.1 and
35.2 dB. `:tiny` is for smoke runs. configs/video.py explains the fields.
"""

from ml_collections import ConfigDict

FROZEN = ("hide", r"reveal/block0/stack\d_conv[012]")  # they hide by remainders exactly


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; `variant` is empty, `small`, `delta` or `tiny`."""
    if variant not in ("", "small", "delta", "tiny"):
        known = "small, delta and tiny"
        raise ValueError(f"configs/prep_hide_reveal.py has the variants {known}, not {variant!r}")
    config = ConfigDict()
    config.seed = 0
    config.deterministic = False
    shipped = {"": "prep_hide_reveal", "small": "prep_hide_reveal_small"}
    config.checkpoint = shipped.get(variant, "runs/prep_hide_reveal")

    config.model = ConfigDict()
    config.model.name = "prep_hide_reveal"
    config.model.frames = 1
    config.model.features = 50
    config.model.dtype = "float32"
    config.model.remat = False
    config.model.quantise = ""  # or int8: compute as integer arithmetic would
    config.model.hide_kernels = (3, 4, 5)  # of prepare and hide, sides in pixels, one for each stack
    config.model.reveal_kernels = (3, 4, 5)
    config.model.hide_features = ()  # of prepare and hide, of each convolution of a stack; empty: `features`
    config.model.reveal_features = ()
    config.model.start = "modulo"  # or delta, at stego = cover, or random
    config.model.levels = 16  # of the secret's colours at the start modulo; more: better secret, worse stego

    config.shuffle = ConfigDict()
    config.shuffle.moves = "secret"
    config.shuffle.cipher = "blocks"
    config.shuffle.block_size = 16  # 196 blocks of a 224x224 frame; the original has 56

    config.channel = (("round", 8),)  # the original: (("gaussian_noise", 0.01),)

    config.losses = ConfigDict()
    config.losses.stego = 1.0
    config.losses.secret = 1.0  # beta
    config.losses.secret_db = 0.0
    config.losses.penalty = 0.0
    config.losses.stego_ssim = 0.0  # 1 - SSIM
    config.losses.secret_ssim = 0.0
    config.losses.steganalyser = 0.0  # one is trained beside: the weight of what it finds
    config.losses.colour = "rgb"  # of the squared errors stego and secret; or ycbcr, lab

    config.optimizer = ConfigDict()
    config.optimizer.num_steps = 5000
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.frozen = FROZEN  # beginnings of the names of parameters that stay as they are
    config.optimizer.sparsity = 0.0  # share of the others' weights that pruning makes zero
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 1.0
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
    config.data.secret_path = ""  # a folder of other secrets, such as experiments.drawn_secrets; empty: path
    config.data.validation_secret_path = ""
    config.data.height = 224
    config.data.width = 224
    config.data.growing = ((20_000, 32), (60_000, 64))  # sides of the crops to these steps
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

    if variant == "delta":
        config.model.start = "delta"
        config.optimizer.update(learning_rate=1e-3, schedule="plateau", frozen=())
    if variant == "small":
        config.model.update(hide_kernels=(1, 1, 1), hide_features=(17, 17, 3, 3, 3))
        config.model.update(reveal_kernels=((1, 1, 1, 3, 3),), reveal_features=(48, 48, 3, 48, 32))
    if variant == "tiny":
        config.model.update(features=4, start="delta")
        config.optimizer.frozen = ()
        config.shuffle.block_size = 8
        config.optimizer.update(num_steps=4, warmup_steps=1, learning_rate=1e-3)
        config.train.update(batch_size=2, log_every_steps=1, picture_every_steps=4)
        config.train.update(save_every_steps=2, validate_every_steps=2)
        config.data.update(height=32, width=32)
    return config
