"""`--mode train`: trains into --workdir, going on where it stopped."""

import signal
import threading

from ml_collections import ConfigDict

from deepsteg_jax.modes import Options, make_workdir


def run(config: ConfigDict, options: Options) -> None:
    """Trains the config's model; see `training.loop.train`.

    SIGTERM, which clusters send before they take a machine away, ends the training after the step that is
    running: the state is saved and the exit code is 0. The same command goes on from there.
    """
    workdir = make_workdir(options)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    from deepsteg_jax.modes.common import use_compilation_cache
    from deepsteg_jax.training.loop import train

    use_compilation_cache()
    step = int(train(config, workdir, stop.is_set).step)
    if step < config.optimizer.num_steps:
        print(f"stopped and saved at step {step} of {config.optimizer.num_steps}; the same command goes on")
    else:
        print(f"trained to step {step}; use it with --config.checkpoint={workdir}")
