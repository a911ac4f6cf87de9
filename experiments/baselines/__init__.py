"""Ways to hide without a network, to compare with."""
