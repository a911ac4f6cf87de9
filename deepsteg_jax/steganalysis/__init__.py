"""Steganalysers: features, a linear ensemble, a network, and tests that need no training."""
