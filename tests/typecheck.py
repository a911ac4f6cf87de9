"""Checks signatures while tests run; whole numbers pass for floats, as Python means it."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
