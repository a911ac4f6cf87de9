"""`--mode app`: the local web page."""

from ml_collections import ConfigDict

from deepsteg_jax.errors import UserError
from deepsteg_jax.modes import Options


def run(config: ConfigDict, options: Options) -> None:
    """Serves the page on `--host` and `--port` until it is interrupted.

    `config` takes the place of the shipped one for its kind: configs/video.py, configs/image.py,
    configs/robust.py or configs/robust.py:image.

    Raises:
        UserError: gradio is not installed, the port is taken, or the config's model is neither `block_dct`
            nor `robust`.
    """
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--mode app needs a package that is missing ({error.name}): "
            "run pip install -r requirements-app.txt"
        ) from None

    from deepsteg_jax.app import server, work

    server.serve(work.Models(config), options)
