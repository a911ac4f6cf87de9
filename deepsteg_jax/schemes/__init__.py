"""Ways of hiding, all behind the interface of `schemes.base`."""

from deepsteg_jax.schemes.adaptive.jpeg import JpegScheme
from deepsteg_jax.schemes.adaptive.scheme import AdaptiveScheme
from deepsteg_jax.schemes.pixels import PixelScheme
from deepsteg_jax.schemes.robust.scheme import RobustScheme

SCHEMES = {
    "adaptive": AdaptiveScheme,
    "adaptive_jpeg": JpegScheme,
    "adaptive_learned": AdaptiveScheme,
    "pixels": PixelScheme,
    "robust": RobustScheme,
}
"""By the name of the model that needs a scheme of its own; all other models are pictures in `pixels`."""
