"""`--mode keygen`: a key file, to be used in place of a passphrase."""

from ml_collections import ConfigDict

from deepsteg_jax import keys
from deepsteg_jax.commands import Options


def run(config: ConfigDict, options: Options) -> None:
    """Write a fresh key to `--output`.

    Raises:
        UserError: the file is there already, or cannot be written.
    """
    del config
    keys.write_key_file(options.output)
    print(f"{options.output}: a key for --key_file; whoever has it can reveal, keep a copy in a safe place")
