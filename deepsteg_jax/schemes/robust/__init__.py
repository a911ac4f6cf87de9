"""Secrets that survive real codecs: coded in layers, in symbols that `models.symbols` writes and reads."""
