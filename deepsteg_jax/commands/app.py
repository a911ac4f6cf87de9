"""`--mode app`: the local web page."""

import importlib.util

from ml_collections import ConfigDict

from deepsteg_jax.commands import Options
from deepsteg_jax.errors import UserError

PACKAGES = ("gradio", "websockets")  # of the extra app


def run(config: ConfigDict, options: Options) -> None:
    """Serves the page on `--host` and `--port` until it is interrupted.

    `config` takes the place of the shipped one for its kind: configs/video.py, configs/image.py,
    configs/robust.py or configs/robust.py:image.

    Raises:
        UserError: gradio is not installed, the port is taken, or the config's model is neither `block_dct`
            nor `robust`.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        raise UserError(f'the page needs {names}: run pip install ".[app]"')

    from deepsteg_jax.app import server, work

    server.serve(work.Models(config), options)
