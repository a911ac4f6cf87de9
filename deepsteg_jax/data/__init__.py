"""Training and evaluation data: endless, resumable batches of cover and secret pairs.

TensorFlow is used here only (importing this package imports it, which takes seconds) and only on the CPU.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # silences the start-up notes, not the errors
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # nothing here uses it; on, it prints a note

import tensorflow as tf  # noqa: E402

tf.config.set_visible_devices([], "GPU")  # the accelerator belongs to JAX

from deepsteg_jax.data.pairs import Share, create_pairs, create_validation, has_validation, section  # noqa: E402

__all__ = ["Share", "create_pairs", "create_validation", "has_validation", "section"]
