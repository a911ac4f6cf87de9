"""Hide a file, whatever it is, where changes are noticed least: a syndrome-trellis code at HILL costs.

    python main.py --config configs/adaptive.py --mode hide --cover COVER.mp4 --secret FILE --output STEGO.mp4

Nothing is trained. The stego is exact (.mp4 with H.264 at qp 0, .mkv, .webm, .png); a secret that does not
fit at `payload.rate` is coded anew, if it is a picture or video.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; there are no variants."""
    if variant:
        raise ValueError(f"configs/adaptive.py has no variants, not {variant!r}")
    config = ConfigDict()
    config.checkpoint = "adaptive"  # holds this config and nothing else

    config.model = ConfigDict()
    config.model.name = "adaptive"
    config.model.height = 6  # constraint height of the trellis; 8: 8 times as long, 4 % less distortion
    # Factors of the costs: of the planes Cb and Cr, and of samples that stand still from frame to frame.
    config.model.chroma = 1.0
    config.model.still = 4.0

    config.payload = ConfigDict()
    config.payload.rate = 0.1  # most bits per sample of the cover; more is found sooner

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
    config.video.sound_bit_rate = 64_000  # of a secret that has to be coded, bits per second; 0: left out
    config.video.cover = "sample:bikes.mp4"
    config.video.secret = "sample:bigbuckbunny.mp4"
    return config
