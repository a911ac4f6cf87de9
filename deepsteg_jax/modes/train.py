"""`--mode train`: trains into --workdir, going on where it stopped."""

from ml_collections import ConfigDict

from deepsteg_jax.modes import Options, make_workdir


def run(config: ConfigDict, options: Options) -> None:
    """Trains the config's model; see `training.loop.train`."""
    workdir = make_workdir(options)

    from deepsteg_jax.modes.common import use_compilation_cache
    from deepsteg_jax.training.loop import train

    use_compilation_cache()
    state = train(config, workdir)
    print(f"trained to step {int(state.step)}; use it with --config.checkpoint={workdir}")
