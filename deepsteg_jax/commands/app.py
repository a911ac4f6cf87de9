"""`--mode app`: the local web page."""

import importlib.util

from ml_collections import ConfigDict

from deepsteg_jax.commands import Options
from deepsteg_jax.errors import UserError

PACKAGES = ("fastapi", "uvicorn", "websockets")  # of the extra app


def run(config: ConfigDict, options: Options) -> None:
    """Serve the page on `--host` and `--port` until it is interrupted.

    The scheme of `config` takes the place of the shipped one of its kind: for videos or images, for exact
    copies or for posting.

    Raises:
        UserError: these are not installed, the port is taken, or see `loading.load`.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        raise UserError(f'the page needs {names}: run pip install ".[app]"')

    from deepsteg_jax.app import choices, server

    where = server.Options(options.host, options.port, options.open, options.upload_limit)
    server.serve(choices.Schemes(config), where)
