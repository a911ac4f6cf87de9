"""Program that converts one model to int8 for `formats.serialise`: `python tflite_calibration.py FOLDER`.

FOLDER holds saved_model/ and one N.npz of inputs for each sample; writes model.tflite. A process of its own,
since the converter does not raise but crashes on some graphs.
"""

import sys
from pathlib import Path

import numpy as np


def main(folder: Path) -> None:
    """Convert and calibrate."""
    import tensorflow as tf

    def samples():
        for path in sorted(folder.glob("*.npz")):
            with np.load(path) as arrays:
                yield dict(arrays)

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved_model"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    (folder / "model.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
