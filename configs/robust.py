"""A secret that survives real codecs: symbols in low luma frequencies, layers of bits, two small networks.

`configs/robust.py:tiny` shrinks everything for smoke runs, `:image` is for still images and JPEG.
"""

from ml_collections import ConfigDict

from configs.video import get_config as get_video_config

_TINY = {
    "model.features": 8,
    "model.depth": 1,
    "model.restoration_features": 8,
    "model.restoration_depth": 1,
}


def get_config(variant: str = "") -> ConfigDict:
    """The config; `variant` is empty, `image` or `tiny`."""
    if variant not in ("", "image", "tiny"):
        raise ValueError(f"configs/robust.py has the variants image and tiny, not {variant!r}")
    config = get_video_config("tiny" if variant == "tiny" else "")
    config.checkpoint = "robust_image" if variant == "image" else "robust"

    config.model = ConfigDict()
    config.model.name = "robust"
    # D of the fewest carriers: a larger one survives more; stego of about 71 - 20 log10(D) dB.
    config.model.spacing = 64.0
    config.model.coefficients = 9  # most AC coefficients of a block that carry symbols, by rising frequency
    config.model.features = 48  # of the reliability network
    config.model.depth = 3
    config.model.restoration_features = 32
    config.model.restoration_depth = 4
    config.model.dtype = "float32"

    # So many coefficients of a block, and frames that share them; each segment takes what carries most.
    config.modulations = ((4, 1), (9, 4), (9, 8), (9, 16))

    # Shares of a frame's symbols that are known (pilots, and as many references), and that the header takes.
    config.overhead = ConfigDict({"pilots": 1 / 40, "header": 0.12})

    # Carriers of the layer "fine": coefficients of a block above the others, in every frame, and their D.
    config.fine = ConfigDict({"coefficients": 10, "spacing": 8.0})

    # From the most robust to the finest: levels of the symbols, share of them, rung that it is to survive.
    config.secret_layers = (
        ("01", 0.20, "CRF28"),
        ("01", 0.27, "CRF26"),
        ("01", 0.53, "CRF24"),
        ("2", 1.0, "CRF18"),
        ("3", 1.0, "C4"),
        ("fine", 1.0, "C2"),
    )
    config.growth = 1.7  # D gets smaller where H.264 of the stego would take so many times the cover's bits
    config.margin = 0.85  # share that is used of what a layer could carry through its rung

    config.video.crf = 18  # of an H.264 stego, x264's constant rate factor
    config.video.jpeg_quality = 90  # of a JPEG stego

    config.optimizer.num_steps = 1600
    config.optimizer.learning_rate = 2e-3
    config.optimizer.clip_norm = 10.0
    config.optimizer.warmup_steps = 200

    config.train.batch_size = 8
    config.train.log_every_steps = 100
    config.train.save_every_steps = 200

    config.data.source = "records"  # made by experiments/record_codecs.py
    config.data.path = "data/records"
    config.data.frames = 4
    config.data.height = config.data.width = 96

    if variant == "image":
        config.model.coefficients = 14
        config.model.spacing = 32.0
        config.modulations = ((14, 1),)
        config.growth, config.margin = 0.0, 0.90
        config.overhead.pilots, config.overhead.header = (
            1 / 80,
            0.06,
        )  # a frame alone, which need not be found
        config.data.frames = 1
        config.secret_layers = (
            ("01", 0.06, "C9-50"),
            ("01", 0.94, "C9-75"),
            ("2", 1.0, "C9-90"),
            ("3", 1.0, "C2"),
            ("45", 1.0, "C2"),
        )
    if variant == "tiny":
        config.update_from_flattened_dict(_TINY)
        config.optimizer.num_steps, config.optimizer.warmup_steps = 4, 1
        config.train.log_every_steps, config.train.save_every_steps = 1, 2
        config.data.frames, config.data.height, config.data.width = 2, 32, 32
    return config
