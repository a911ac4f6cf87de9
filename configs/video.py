"""Hide clips in clips, without loss: `block_dct` on groups of 4 frames.

    python main.py --config configs/video.py --mode train --config.data.path=CLIPS

The shipped checkpoint `video` took five minutes on two cores. Ten unseen clips of 448x256: stego 49.9 dB,
secret 57.7 dB. `:tiny` is for smoke runs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; `variant` is empty or `tiny`."""
    if variant not in ("", "tiny"):
        raise ValueError(f"configs/video.py has the variant tiny, not {variant!r}")
    config = ConfigDict()
    config.seed = 0
    config.deterministic = False  # train: the same bits on GPUs too, more slowly; CPUs always give them
    config.checkpoint = "video"  # a shipped name, a training folder or a checkpoint folder

    config.model = ConfigDict()
    config.model.name = "block_dct"
    config.model.modulus = 3  # D: a larger one hides more, for about 20 log10(883 / D) dB of stego
    config.model.frames = 4  # t: frames transformed together
    config.model.classes = 64  # K: classes in the codebook
    config.model.depth = 0  # of the refinement network; 0: none
    config.model.features = 96  # its channels
    config.model.dtype = "float32"  # or bfloat16: what networks compute in; parameters stay float32
    config.model.remat = False  # train: compute activations again instead of keeping them

    config.shuffle = ConfigDict()
    config.shuffle.moves = "cover"  # what the key permutes: cover, secret or nothing
    config.shuffle.cipher = "coefficients"  # or blocks
    config.shuffle.block_size = 8

    config.channel = (("round", 8),)  # train: (name, parameter) pairs, applied in order

    config.losses = ConfigDict()  # weights
    config.losses.stego = 1.0
    config.losses.secret = 0.0
    config.losses.secret_db = 1.0  # minus the secret's PSNR: trains the refinement network
    config.losses.penalty = 1.0  # trains the codebook

    config.optimizer = ConfigDict()
    config.optimizer.num_steps = 1000
    config.optimizer.learning_rate = 8e-2
    config.optimizer.schedule = "cosine"  # constant, cosine or plateau
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 10.0
    config.optimizer.ema_decay = 0.0  # of the average of the parameters that is validated and saved; 0: none
    config.optimizer.plateau_factor = 0.5
    config.optimizer.plateau_patience = 5
    config.optimizer.plateau_window = 200

    config.train = ConfigDict()
    config.train.batch_size = 8  # over all devices
    config.train.accumulate_steps = 1  # parts of a batch whose gradients are added up, to save memory
    config.train.log_every_steps = 50
    config.train.picture_every_steps = 1000
    config.train.save_every_steps = 500
    config.train.keep = 2  # newest checkpoints
    config.train.profile_steps = 0  # traced for TensorBoard; 0: none
    config.train.validate_every_steps = 500
    config.train.best_metric = "loss"  # keeps the best in best/: loss, stego_psnr_db or secret_psnr_db

    config.data = ConfigDict()
    config.data.source = "clips"
    config.data.path = "data/train/clips"
    config.data.validation_path = ""  # a folder to validate on while training; empty: none
    config.data.height = 128
    config.data.width = 128
    config.data.max_stride = 2
    config.data.flip = True
    config.data.min_scale = 1.0
    config.data.cache_height = 256
    config.data.cache_width = 448
    config.data.max_frames = 64

    config.evaluate = ConfigDict()
    config.evaluate.path = "data/val/clips"  # a folder of clips or of images
    config.evaluate.first_frame = 5
    config.evaluate.frames = 30
    config.evaluate.height = 256  # clips are resized to this, images are centre-cropped
    config.evaluate.width = 448
    config.evaluate.perceptual = False  # SSIMULACRA2 too
    config.evaluate.pictures = 4  # rows of the picture grid

    config.video = ConfigDict()
    config.video.align = "time"  # lay the secret along the cover by time, or one by one: frames
    config.video.sound_bit_rate = 64_000  # of the secret's sound, bits per second; 0: hide none
    # Of --mode roundtrip; a path, or a clip of the sample package.
    config.video.cover = "sample:bikes.mp4"
    config.video.secret = "sample:bigbuckbunny.mp4"

    if variant == "tiny":
        config.model.classes = 8
        config.optimizer.update(num_steps=4, warmup_steps=1)
        config.train.update(batch_size=2, log_every_steps=1, picture_every_steps=4)
        config.train.update(save_every_steps=2, validate_every_steps=2)
        config.data.update(height=32, width=32, cache_height=48, cache_width=48, max_frames=12)
    return config
