"""Settings of single modes, flags such as --live.FIELD, --enhance.FIELD and --export.FIELD."""

from ml_collections import ConfigDict

LIVE = ConfigDict()
LIVE.width = 448  # pixels; the cover is cut to this shape and scaled to this size
LIVE.height = 256
LIVE.panels = "stego revealed"  # shown side by side, of cover, stego, secret and revealed

ENHANCE = ConfigDict()  # see docs/ENHANCE.md
ENHANCE.steps = "denoise"  # of denoise and sharpen, in this order
ENHANCE.strength = 2.0  # of denoise: the noise to be removed, grey levels
ENHANCE.frames = 3  # that are searched around each frame, odd; 1: only itself
ENHANCE.patch = 5  # pixels, side of a compared patch, odd
ENHANCE.search = 11  # pixels, side of the area that is searched, odd
ENHANCE.radius = 1.0  # of sharpen: sigma of the blur, pixels
ENHANCE.amount = 0.5  # of sharpen: factor of the detail that the blur takes away

EXPORT = ConfigDict()  # see docs/EXPORT.md
EXPORT.formats = "stablehlo"  # tflite,onnx too after pip install ".[export]"
EXPORT.sizes = "448x256"  # width x height, several by commas: every size is a file of its own
EXPORT.frames = ""  # lengths of groups, by commas; empty: all, a clip may end with a shorter one
EXPORT.quantise = ""  # besides float32: float16 (of tflite), weights (in int8), int8
