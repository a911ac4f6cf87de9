"""Jobs that the workers of a cluster import."""

import os
import signal
from pathlib import Path


def act(word):
    """Do what a word says; return the word, or a fact about the process."""
    if word == "fail":
        raise ValueError("as told")
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if Path(word).is_absolute() and not Path(word).exists():
        Path(word).touch()  # and die the first time
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "threads":
        return os.environ["NPROC"], os.environ["OMP_NUM_THREADS"]
    return word


def hide(paths):
    """Hide with the stand-in scheme; the first to hide `lethal` is killed on the way, `cut` is cut short."""
    from deepsteg_jax import keys, pipeline  # not for `act`, whose workers start sooner
    from deepsteg_jax.errors import PartialError
    from tests.helpers import PlaneScheme

    secret = Path(paths["secret"])
    killed = secret.with_suffix(".killed")

    def progress(frames):
        if secret.stem == "lethal" and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    key = keys.read_key_file(paths["key_file"])
    report = pipeline.hide(PlaneScheme(), key, paths["cover"], secret, paths["output"], progress)
    if secret.stem == "cut":
        raise PartialError(f"{paths['output']} is\ncut short")
    return report._replace(notes=("a note",))
