"""`--mode reveal`: the secret out of a stego file."""

from ml_collections import ConfigDict

from deepsteg_jax import keys, media
from deepsteg_jax.commands import Options


def run(config: ConfigDict, options: Options) -> None:
    """Reveal `--stego` and write `--output`.

    Raises:
        UserError: see `pipeline.reveal`; also a missing passphrase or key.
        PartialError: as `pipeline.reveal`.
    """
    from deepsteg_jax import loading, pipeline
    from deepsteg_jax.cli import announce
    from deepsteg_jax.commands.common import progress_bar, revealer

    info = media.probe(options.stego, [])
    scheme = loading.load(config)
    if scheme.accepts == "pictures":
        pipeline.check_revealed(options.output, info, (options.stego,))
    else:
        media.check_place(options.output, (options.stego,))
    credential = keys.read_credential(options.passphrase_file, options.key_file)

    reveal = revealer(scheme, options.enhance if options.enhance_revealed else None)
    with progress_bar("reveal") as bar:
        report = reveal(credential, options.stego, options.output, bar.update, announce)
    print(f"{options.output}: {report.summary()}")
