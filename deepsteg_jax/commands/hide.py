"""`--mode hide`: a secret file into a cover file."""

from functools import partial

from ml_collections import ConfigDict

from deepsteg_jax import media, sample_clips
from deepsteg_jax.commands import Options


def run(config: ConfigDict, options: Options) -> None:
    """Hide each `--secret` in `--cover` and write `--output`.

    Raises:
        UserError: see `pipeline.hide`; also a missing passphrase or key.
    """
    from deepsteg_jax import loading, pipeline
    from deepsteg_jax.cli import announce, asked_for_each, listed
    from deepsteg_jax.commands.common import progress_bar

    cover, *secrets = map(sample_clips.resolve, (options.cover, *listed(options.secret)))
    info = media.probe(cover)
    for secret in secrets:
        media.check_readable(secret)
    scheme = loading.load(config)
    if scheme.accepts == "pictures":
        for secret in secrets:
            media.probe(secret)
    pipeline.check_output(scheme, options.output, info, (cover, *secrets))
    settings = loading.settings_of(config, options.loop_cover, options.drop_tags)
    settings = settings._replace(slots=options.slots)
    with progress_bar("hide", None if options.loop_cover else info.frames) as bar:
        files = cover, tuple(secrets), options.output
        key = partial(asked_for_each, options, bar)
        report = pipeline.hide(scheme, key, *files, bar.update, settings, announce)
    print(f"{options.output}: {report.summary()}")
