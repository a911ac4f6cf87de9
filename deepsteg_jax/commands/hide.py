"""`--mode hide`: a secret file into a cover file."""

from ml_collections import ConfigDict

from deepsteg_jax import keys, media, sample_clips
from deepsteg_jax.commands import Options, is_robust


def run(config: ConfigDict, options: Options) -> None:
    """Hides `--secret` in `--cover` and writes `--output`.

    Raises:
        UserError: see `pipeline.hide` and `robust_pipeline.hide`; also a missing passphrase or key.
    """
    cover, secret = sample_clips.resolve(options.cover), sample_clips.resolve(options.secret)
    info = media.probe(cover)
    media.probe(secret)
    size = info.width, info.height
    media.check_output(options.output, (cover, secret), info.is_image, is_robust(config), size)
    credential = keys.read_credential(options.passphrase_file, options.key_file, confirm=True)

    from deepsteg_jax.commands.common import hider, progress_bar, settings_of

    hide = hider(config)
    settings = settings_of(config, options.loop_cover)
    with progress_bar("hide", None if options.loop_cover else info.frames) as bar:
        report = hide(credential, cover, secret, options.output, bar.update, settings)
    print(f"{options.output}: {report.summary()}")
