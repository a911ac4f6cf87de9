"""`--mode train`: train into --workdir, going on where it stopped."""

import os
import signal
import threading

from ml_collections import ConfigDict

from deepsteg_jax.commands import Options, make_workdir
from deepsteg_jax.errors import UserError

# Excludes operations that add up in any order, and autotuning, which picks kernels by the clock.
GPU_DETERMINISM = "--xla_gpu_deterministic_ops=true"


def run(config: ConfigDict, options: Options) -> None:
    """Train the config's model; see `training.loop.train`.

    SIGTERM, which clusters send before they take a machine away, ends the training after the step that is
    running: the state is saved and the exit code is 0. The same command goes on from there. With several
    processes a SIGTERM to one of them ends all at the same step.

    Raises:
        UserError: the config has nothing to train.
    """
    if "optimizer" not in config:
        raise UserError(f"nothing of {config.model.name} is trained: use another config")
    workdir = make_workdir(options)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())  # JAX takes it over in several processes
    if config.deterministic:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {GPU_DETERMINISM}".strip()

    from deepsteg_jax.loading import use_compilation_cache
    from deepsteg_jax.training import parallel

    use_compilation_cache()
    parallel.initialize(options.coordinator, options.num_processes, options.process_id)

    from deepsteg_jax.training.loop import train

    step = int(train(config, workdir, stop.is_set).step)
    if parallel.process_index():
        return
    if step < config.optimizer.num_steps:
        print(f"stopped and saved at step {step} of {config.optimizer.num_steps}; the same command goes on")
    else:
        print(f"trained to step {step}; use it with --config.checkpoint={workdir}")
