"""Secrets that survive real codecs: coded in layers, in symbols that `models.robust` writes and reads."""
