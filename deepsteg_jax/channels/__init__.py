"""Channels between hide and reveal: differentiable ones for training, real codecs for measuring."""
