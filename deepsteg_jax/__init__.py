"""Hides a full-size colour video in another video so that nobody sees it, and gets it back with a key.

    import deepsteg_jax

    model = deepsteg_jax.load("video")
    stego = deepsteg_jax.hide(model, cover, secret, "a passphrase that is hard to guess")
    revealed = deepsteg_jax.reveal(model, stego, "a passphrase that is hard to guess")

The functions are those of `deepsteg_jax.api`, imported (and with them JAX) when one of them is first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepsteg_jax.api import LoadedModel as LoadedModel
    from deepsteg_jax.api import PartialError as PartialError
    from deepsteg_jax.api import Report as Report
    from deepsteg_jax.api import UserError as UserError
    from deepsteg_jax.api import hide as hide
    from deepsteg_jax.api import hide_video as hide_video
    from deepsteg_jax.api import load as load
    from deepsteg_jax.api import random_key as random_key
    from deepsteg_jax.api import reveal as reveal
    from deepsteg_jax.api import reveal_video as reveal_video

__version__ = "0.1.0"
__all__ = [
    "LoadedModel",
    "PartialError",
    "Report",
    "UserError",
    "hide",
    "hide_video",
    "load",
    "random_key",
    "reveal",
    "reveal_video",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from deepsteg_jax import api

    globals()[name] = found = getattr(api, name)
    return found


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
