"""`--mode hide`: a secret file into a cover file."""

from functools import partial

from ml_collections import ConfigDict

from deepsteg_jax import media, sample_clips
from deepsteg_jax.commands import Options


def run(config: ConfigDict, options: Options) -> None:
    """Hide `--secret` in `--cover` and write `--output`.

    Raises:
        UserError: see `pipeline.hide`; also a missing passphrase or key.
    """
    from deepsteg_jax import loading, pipeline
    from deepsteg_jax.cli import announce, asked
    from deepsteg_jax.commands.common import progress_bar

    cover, secret = sample_clips.resolve(options.cover), sample_clips.resolve(options.secret)
    info = media.probe(cover)
    media.check_readable(secret)
    scheme = loading.load(config)
    if scheme.accepts == "pictures":
        media.probe(secret)
    pipeline.check_output(scheme, options.output, info, (cover, secret))
    settings = loading.settings_of(config, options.loop_cover, options.drop_tags)
    with progress_bar("hide", None if options.loop_cover else info.frames) as bar:
        files = cover, secret, options.output
        key = partial(asked, options, bar)
        report = pipeline.hide(scheme, key, *files, bar.update, settings, announce)
    print(f"{options.output}: {report.summary()}")
