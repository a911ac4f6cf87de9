"""`python -m deepsteg_jax`, the same as `deepsteg`."""

import sys

from deepsteg_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
