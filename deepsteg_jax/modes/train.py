"""`--mode train`: trains into --workdir, going on where it stopped."""

from ml_collections import ConfigDict

from deepsteg_jax.modes import Options


def run(config: ConfigDict, options: Options) -> None:
    """Trains the config's model; see `training.loop.train`."""
    from deepsteg_jax.modes.common import use_compilation_cache
    from deepsteg_jax.training.loop import train

    use_compilation_cache()
    state = train(config, options.workdir)
    print(f"trained to step {int(state.step)}; use it with --config.checkpoint={options.workdir}")
