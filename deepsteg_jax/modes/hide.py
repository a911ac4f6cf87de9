"""`--mode hide`: a secret file into a cover file."""

from ml_collections import ConfigDict

from deepsteg_jax import keys, samples
from deepsteg_jax.modes import Options
from deepsteg_jax.video import io


def run(config: ConfigDict, options: Options) -> None:
    """Hides `--secret` in `--cover` and writes `--output`.

    Raises:
        UserError: see `pipeline.hide`; also a missing passphrase.
    """
    cover, secret = samples.resolve(options.cover), samples.resolve(options.secret)
    info = io.probe(cover)
    frames = io.probe(secret).frames
    io.check_output(options.output, (cover, secret), image=info.is_image)
    passphrase = keys.read_passphrase(options.passphrase_file, confirm=True)

    from deepsteg_jax.modes.common import load_side, progress_bar
    from deepsteg_jax.video import pipeline

    side = load_side(config, "hide")
    with progress_bar("hide", frames) as bar:
        report = pipeline.hide(side, passphrase, cover, secret, options.output, bar.update)
    print(f"{options.output}: {report.summary()}")
