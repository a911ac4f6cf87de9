"""Hide a file, whatever it is, in a JPEG or Motion JPEG that stays one: a trellis code at J-UNIWARD costs.

    python main.py --config configs/adaptive_jpeg.py --mode hide --cover A.jpg --secret FILE --output B.jpg

Nothing is trained. Quantised coefficients change by one, where this is noticed least; all else in the file
stays as it is.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; there are no variants."""
    if variant:
        raise ValueError(f"configs/adaptive_jpeg.py has no variants, not {variant!r}")
    config = ConfigDict()
    config.checkpoint = "adaptive_jpeg"  # holds this config and nothing else

    config.model = ConfigDict()
    config.model.name = "adaptive_jpeg"
    config.model.height = 6  # constraint height of the trellis; 8: 8 times as long, 4 % less distortion
    config.model.chroma = 1.0  # factor of the costs of Cb and Cr

    config.payload = ConfigDict()
    config.payload.rate = 0.1  # most bits per AC coefficient other than 0; more is found sooner

    config.video = ConfigDict()
    config.video.align = "time"
    config.video.sound_bit_rate = 64_000  # of a secret that has to be coded, bits per second; 0: left out
    return config
