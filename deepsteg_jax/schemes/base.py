"""One interface between files and mathematics.

Pipeline, library, page, camera and evaluation know a `Scheme`, the `Sender` and the `Receiver` that it makes,
and nothing of its inside:

    sender = scheme.sender(plan, keys, settings)    stego += sender.send(pair) ..., sender.finish()
    found = scheme.probe(stego, keys)               None: there is nothing for this key
    receiver = scheme.receiver(found)               secret += receiver.receive(frame) ..., receiver.finish()

A sender and a receiver take one frame at a time and answer with the frames, or bytes, that are ready: they
buffer as many as they hide together.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.export.graphs import Arrays, Graph, Shape
from deepsteg_jax.keys import Credential, Deriver
from deepsteg_jax.plan import Plan
from deepsteg_jax.schemes.slots import in_each

Purpose = Literal["file", "post", "live"]

NOTHING = (
    "no hidden video for this passphrase or key: it is wrong, or the checkpoint or config is another, "
    "or nothing is hidden, or the file was recoded"
)

GREY = 128
"""The level that stands for unreadable pixels."""

Frame = Any
"""A frame in a scheme's domain: RGB uint8 [h, w, 3], `media.Planes` or `media.Coefficients`."""


class Settings(NamedTuple):
    """The sender's choices; see section `video` of the config."""

    align: str = "time"
    loop_cover: bool = False
    sound_bit_rate: int = 64_000  # bits per second; 0 leaves the secret's sound out
    drop_tags: bool = False  # leave out the cover's: location, camera, author, title, ...
    slots: int = 1  # equal parts of the cover: one for each secret, noise in those that are left
    exact: bool = True  # the stego's file keeps every sample; `pipeline.hide` finds that out


class Cost(NamedTuple):
    """The cost of hiding, known before the work."""

    seconds: float  # on two cores
    memory_bytes: int  # of the process at its peak
    stego_bytes: int  # 0: as many as the cover has
    revealing_bytes: int  # of the process at its peak, to reveal


class Metadata(NamedTuple):
    """The properties of the secret, which travel sealed to every receiver."""

    width: int  # pixels, as it lies in the stego
    height: int
    frames: int
    cover_frames: int  # frames of the stego that carry it, from the first one on
    rate: Fraction  # frames per second; of a timed secret its ticks per second
    timed: bool  # every frame of the secret has a time of its own
    turned: bool  # left by 90 degrees, to fit better
    aspect: Fraction  # of a pixel, width over height; of the secret as it was
    end: int = 0  # ticks, until which the last frame of a timed secret is shown

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the secret, upright."""
        return (self.height, self.width) if self.turned else (self.width, self.height)

    def upright(self, frame: np.ndarray) -> np.ndarray:
        """Turn a frame [h, w, 3] of the secret as it lies back to where it came from."""
        return np.ascontiguousarray(np.rot90(frame, -1) if self.turned else frame)


class Pair(NamedTuple):
    """A frame of the cover and the secret that it is to carry."""

    cover: Frame
    secret: np.ndarray | None  # uint8 [h', w', 3] as it lies, no larger than the cover; None: bytes or slots
    number: int = 0  # of the secret's frame
    time: int = 0  # its ticks


class Timed(NamedTuple):
    """A frame of the secret, with its time if it has one of its own."""

    frame: np.ndarray  # uint8 [h, w, 3], upright
    time: int | None = None  # ticks


@dataclass
class Stego:
    """An opened stego, whose frames can be read from the start any number of times."""

    info: media.Info
    frames: Callable[[], Iterator[Frame]]


@dataclass
class Found:
    """The result of a probe for a key: everything that a receiver needs."""

    metadata: Metadata
    state: Any = field(repr=False)  # of the scheme
    read: int = 0  # frames that the probe has passed on to the receiver already


class Sender(ABC):
    """Hides one secret, or several in slots; a context manager that releases temporary files."""

    notes: tuple[str, ...] = ()
    """Notes for the user."""

    announcement = ""
    """The treatment of the secret, for the user before the work."""

    progress: Callable[[int], Any] = staticmethod(lambda frames: None)
    """Called during a long `send` with the number of frames just hidden, of those that it will return."""

    @abstractmethod
    def send(self, pair: Pair) -> list[Frame]:
        """Take the next frame of the cover; return the frames of the stego that are ready, in order."""

    @abstractmethod
    def finish(self) -> list[Frame]:
        """Return the rest of the stego."""

    def __enter__(self) -> "Sender":
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:  # noqa: B027
        """Release temporary files."""


class Receiver(ABC):
    """Reveals one secret; a context manager as a sender is."""

    metadata: Metadata
    received = 0  # frames of the stego
    written = 0  # frames of the secret that it has given
    notes: tuple[str, ...] = ()
    file_name = ""
    """The secret's own, where it is a file, as the sender's machine had it: not to be trusted."""

    announcement = ""
    """What was found, where it is a file, for the user before the work."""

    coded = False
    """Whether the secret was coded anew to fit, into a matroska file."""

    @property
    @abstractmethod
    def complete(self) -> bool:
        """Whether nothing more is to come, so that the rest of the stego need not be read."""

    @abstractmethod
    def receive(self, frame: Frame) -> list[Timed] | list[bytes]:
        """Take the next frame of the stego; return the pieces of the secret that are ready, in order."""

    @abstractmethod
    def finish(self) -> list[Timed] | list[bytes]:
        """Return the rest of the secret."""

    @abstractmethod
    def complaint(self, stego: str, output: str, damaged: Sequence[int]) -> str | None:
        """Say in one line what is missing or wrong; None: nothing.

        Args:
            stego: its name.
            output: the name of the written file.
            damaged: frames of the stego that could not be decoded whole.
        """

    def sound(self) -> media.Sound | None:
        """Return the secret's sound as far as it arrived; valid until the context ends."""
        return None

    def __enter__(self) -> "Receiver":
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:  # noqa: B027
        """Release temporary files."""


class Scheme(ABC):
    """A way of hiding: a config, its parameters, and compiled programs that are kept for many files."""

    name: str
    purpose: Purpose
    """"file": survives exact copies; "post": survives codecs; "live": frame by frame."""

    domain: Literal["rgb", "planes", "own", "coefficients"] = "rgb"
    """The frames that it works on: RGB, planes, those of the two that the file has, or coefficients."""

    pixel_format: str | None = None
    """The format of its planes, to which all others are converted; None: the cover's own."""

    accepts: Literal["pictures", "bytes"] = "pictures"
    group = 1
    """The number of frames that are hidden together."""

    lossy: media.Lossy | None = None
    """The quality of an output in a lossy format; None: such formats destroy the secret."""

    carries_sound = True
    """Whether the sound of a secret that is a video travels with it."""

    slots = 1
    """The largest number of slots, each for a secret with a key of its own, in one cover, see `slots`."""

    still = False
    """Whether it is made for single images."""

    @abstractmethod
    def cost(self, height: int, width: int, frames: int, slots: int = 1) -> Cost:
        """Predict what hiding in a cover of this size takes."""

    def capacity(self, info: media.Info, frames: int, slots: int = 1) -> str:
        """Say what a cover like `info`, with this number of frames, can hold."""
        return f"a secret of up to {info.width}x{info.height}, as long as itself{in_each(slots)}"

    def holds(self, info: media.Info, frames: int, slots: int = 1, measured: Any = None) -> int | None:
        """Return the bytes of the largest file that fits into a slot as it is; None: pictures travel.

        Without `measured`, the result of `measure`, it may be a guess.
        """
        return None

    def check(self, info: media.Info) -> None:  # noqa: B027
        """Raise UserError where a cover cannot carry anything, before any work."""

    def pass_numbers(self, plan: Plan) -> np.ndarray:
        """Return the number of the secret's frame that each frame of the cover carries, to the secret's end.

        In the rest of a longer cover they come again from the start.
        """
        return plan.schedule.numbers

    def shown_numbers(self, plan: Plan) -> np.ndarray | None:
        """Return the numbers of the secret's frames that the revealed ones show; None: each of them once."""
        return None

    def measure(self, cover: Iterable[Frame]) -> Any:
        """Look at the whole cover before the first frame is sent; the sender is given the result."""
        return None

    @abstractmethod
    def sender(
        self, plan: Plan, credentials: Sequence[Credential], settings: Settings, measured: Any = None
    ) -> Sender:
        """Make the sender of one stego.

        Args:
            plan: the plan of the job.
            credentials: a passphrase or a key file's content for each plan of `plan.each`.
            settings: the sender's choices.
            measured: the result of `measure`.

        Raises:
            UserError: the secret does not fit.
        """

    @abstractmethod
    def probe(self, stego: Stego, deriver: Deriver) -> Found | None:
        """Look for a secret of a key with bounded work; None: there is none."""

    @abstractmethod
    def receiver(self, found: Found) -> Receiver:
        """Make the receiver of what `probe` found."""

    def reveal_blindly(self, stego: np.ndarray, key: bytes) -> np.ndarray | None:
        """Reveal frames [n, h, w, 3] with any key, past the probe; None: no other key gives anything."""
        return None

    def session(self, key: Credential, height: int, width: int) -> tuple[Any, Any]:
        """Return the two parties of a live session, sender and receiver.

        Raises:
            UserError: it hides files, or too many frames at once to be live.
        """
        reason = "hides files" if self.accepts == "bytes" else "needs seconds of frames at once"
        raise UserError(
            f"the scheme {self.name} {reason} and cannot be live: "
            "use configs/image.py or configs/video.py live"
        )

    def complexity(self, height: int, width: int) -> dict[str, dict[str, float]]:
        """Count the cost of the networks: {"gmac_per_frame": {side: ...}, "parameters": {side: ...}}."""
        return {"gmac_per_frame": {"hide": 0.0, "reveal": 0.0}, "parameters": {"hide": 0, "reveal": 0}}

    def graphs(self, shape: Shape, portable: bool = False) -> list[Graph]:
        """Return the functions to export for groups of one shape, the same ones by name in both forms.

        Args:
            shape: (t, h, w), t at most `graph_facts()["group"]`.
            portable: made of what the converters to TFLite and ONNX know; else as exact as JAX.

        Raises:
            UserError: there are none.
        """
        raise UserError(f"the scheme {self.name} has nothing to export: use another config")

    def graph_inputs(self, cover: np.ndarray, secret: np.ndarray, first_frame: int) -> Arrays:
        """Return inputs of all `graphs` by name, to calibrate and compare on, "cover" and "secret" included.

        Args:
            cover: uint8 [t, h, w, 3].
            secret: uint8 [t, h, w, 3].
            first_frame: number of the first of them in its video.
        """
        return {"cover": cover, "secret": secret}

    def graph_facts(self) -> dict[str, Any]:
        """Return what users of exported files must know; "group": the most frames of a graph."""
        return {"group": self.group}


def ranges(numbers: Sequence[int]) -> str:
    """Return 1, 2, 3, 7 as '1-3, 7'; at most five ranges."""
    runs = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in runs[:5]]
    return ", ".join(shown) + (", ..." if len(runs) > 5 else "")
