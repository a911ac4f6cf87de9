"""Hide what survives real codecs: symbols in the colour of 4:2:0, layers of bits, one small network.

    python main.py --config configs/robust.py --mode train --config.data.path=RECORDS

RECORDS come from `experiments.record_codecs`. The shipped checkpoint `robust` took 8 minutes on two cores, on
152 recordings. Ten unseen clips of 448x256: stego 35.9 dB, SSIMULACRA2 71; secret 25.1 dB behind x264 at
CRF 23, 24.1 at CRF 26. With `--config.model.spacing=59`: stego 33.0 dB, SSIMULACRA2 61, secret 1.2 dB better.

`:image` is for stills and JPEG. The shipped `robust_image` took `--config.optimizer.num_steps=600
--config.optimizer.warmup_steps=50`, a minute. `:tiny` is for smoke runs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; `variant` is empty, `image` or `tiny`."""
    if variant not in ("", "image", "tiny"):
        raise ValueError(f"configs/robust.py has the variants image and tiny, not {variant!r}")
    config = ConfigDict()
    config.seed = 0
    config.deterministic = False
    config.checkpoint = "robust_image" if variant == "image" else "robust"

    config.model = ConfigDict()
    config.model.name = "robust"
    # D: a larger one survives more and is seen more. 42: not seen; 60: the best secret; stego about
    # 68 - 20 log10(D) dB.
    config.model.spacing = 42.0
    # The spacing of each coefficient that carries symbols, by rising frequency, in units of D; 0: none.
    config.model.luma = ()
    config.model.chroma = (1.0, 1.0, 1.0)
    config.model.features = 48  # of the reliability network
    config.model.depth = 3
    config.model.dtype = "float32"

    # Frames that share symbols; a segment takes the first number whose stego stays within `growth`.
    config.repeats = (1, 2, 4, 8, 16)

    # Larger frames have blocks of 16, 24, ... samples, as if they had about this many lines; 0: of 8 always.
    config.lines = 360

    # Shares of a frame's symbols that are known (pilots, and as many references), and that the header takes.
    config.overhead = ConfigDict({"pilots": 1 / 40, "header": 0.11})

    # Of the layer "fine": coefficients of a luma block in every frame, above those of symbols, and their D.
    config.fine = ConfigDict({"coefficients": 6, "spacing": 6.0})

    # From the most robust to the finest: levels of the symbols, share of them, codec runs. The first layer
    # is to survive the first run behind which a thumbnail has room, the others one that leaves a video.
    # Runs that scale large covers are not for small ones. Those that imitate sites count as one: the worst
    # with room.
    config.secret_layers = (
        ("01", 0.16, "messenger", "site-480-vp9", "site-480-av1", "C11", "CRF28"),
        ("01", 0.84, "CRF25-480", "CRF25"),
        ("2", 1.0, "CRF18"),
        ("fine", 1.0, "C2"),
    )
    config.growth = 2.4  # most that H.264 of the stego may take, in bits of the cover's; 0: no limit
    config.sound_share = 0.25  # of a layer's bytes, most that the secret's sound may take; 0: leave it out
    config.margin = 0.9  # share that is used of what a layer could carry through its codec run

    config.optimizer = ConfigDict()
    config.optimizer.num_steps = 6000
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 200
    config.optimizer.clip_norm = 10.0
    config.optimizer.ema_decay = 0.0
    config.optimizer.plateau_factor = 0.5
    config.optimizer.plateau_patience = 5
    config.optimizer.plateau_window = 200

    config.train = ConfigDict()
    config.train.batch_size = 8
    config.train.accumulate_steps = 1
    config.train.log_every_steps = 100
    config.train.save_every_steps = 200
    config.train.keep = 2
    config.train.profile_steps = 0
    config.train.validate_every_steps = 500
    config.train.best_metric = "loss"

    config.data = ConfigDict()
    config.data.source = "recordings"  # made by experiments.record_codecs
    config.data.path = "data/records"
    config.data.validation_path = ""
    config.data.frames = 4  # of a recording in a batch; the model works frame by frame
    config.data.height = 96
    config.data.width = 96

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
    config.video.crf = 18  # of an H.264 stego, x264's constant rate factor
    config.video.jpeg_quality = 90  # of a JPEG stego
    config.video.sound_bit_rate = 16_000  # most of the secret's sound, bits per second; 0: hide none
    config.video.cover = "sample:bikes.mp4"
    config.video.secret = "sample:bigbuckbunny.mp4"

    if variant == "image":
        # The two lowest are seen most; JPEG quantises the higher ones more, one of them too much. The
        # base lies in the fourth and fifth, which JPEG quantises little.
        luma = (0.0,) * 2 + (1.0, 1.27, 1.37) + (0.95,) * 4 + (1.22,) * 5 + (0.0,) + (1.45,) * 5
        config.model.update(spacing=19.0, luma=luma, chroma=())
        config.model.top = 4.0  # of the errors' density: JPEG rounds, which errs alike up to half a step
        config.growth, config.margin, config.repeats, config.lines = 0.0, 0.98, (1,), 0
        config.overhead.update(pilots=1 / 80, header=0.065)  # a frame alone, which need not be found
        config.data.frames = 1
        config.secret_layers = (
            ("0", 0.065, "C9-50"),
            ("01", 0.935, "C9-75"),
            ("fine", 1.0, "C2"),
        )
    if variant == "tiny":
        config.model.update(features=8, depth=1)
        config.optimizer.update(num_steps=4, warmup_steps=1)
        config.train.update(log_every_steps=1, save_every_steps=2, validate_every_steps=2)
        config.data.update(frames=2, height=32, width=32)
    return config
