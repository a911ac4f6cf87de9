"""The scheme `robust`: a secret in layers of bits, in symbols that codecs leave readable."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from itertools import chain, islice, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepsteg_jax import media, models
from deepsteg_jax.errors import UserError
from deepsteg_jax.export.graphs import Arrays, Graph, Shape, symbol_graphs
from deepsteg_jax.keys import KEY_BYTES, Credential, Deriver, derive_key
from deepsteg_jax.models import symbols as symbol_model
from deepsteg_jax.plan import Plan, by_number, secret_frames
from deepsteg_jax.schemes import slots
from deepsteg_jax.schemes.base import Cost, Found, Metadata, Scheme, Settings, Stego
from deepsteg_jax.schemes.robust import alignment, geometry, layout, sender
from deepsteg_jax.schemes.robust.geometry import Geometry
from deepsteg_jax.schemes.robust.layout import SEGMENT
from deepsteg_jax.schemes.robust.modem import Modem, planes_of, repeats_of
from deepsteg_jax.schemes.robust.receiver import RobustReceiver, SegmentReceiver
from deepsteg_jax.schemes.robust.segment import make_format
from deepsteg_jax.schemes.robust.sender import RobustSender, SegmentSender
from deepsteg_jax.schemes.robust.sound import sound_of
from deepsteg_jax.schemes.slots import ALONE, Slot

MASTER_SALT = b"deepsteg robust\0"  # public: without the key no other could be read
PROBE_FRAMES = 256  # of a stego in which something has to be found
_MOST_CRF, _MOST_QUALITY = 51, 100
# Of hiding with the shipped configs, on two cores:
#     448x256    4.3 frames/s    1.0 GB at the peak, for any length (1280x720: 3.5 GB)
#     stego, mean of ten clips at CRF 18: 0.056 bytes for each pixel of a frame; JPEG, quality 90: 0.41
_PIXELS_PER_SECOND = 4.3 * 448 * 256
_SLOT_SECONDS = 0.9  # for each further slot, as a share of those of the first: secrets take most
_BYTES, _BYTES_PER_PIXEL = 660e6, 3_100  # memory: of the process, and of a pixel of one frame
_SLOT_BYTES_PER_PIXEL = 1_600  # of memory, for each further slot
_STEGO_BYTES, _STILL_BYTES = 0.056, 0.41  # of a pixel


class RobustScheme(Scheme):
    """Keeps its compiled programs; parameters of a side are loaded when it is first used."""

    name, purpose, slots = "robust", "post", geometry.SLOTS

    def __init__(self, config: ConfigDict, load_params: Callable[[str], Any]):
        """Take the whole config, and `load_params`, which returns the parameters of "hide" or "reveal".

        Raises:
            UserError: config.secret_layers, repeats, model.spacing, growth, margin or sound_share makes no
                sense.
        """
        layout.layers_of(config)
        sender.check(config)
        self.config, self._load = config, load_params
        self.still, self.lossy = config.data.frames == 1, lossy_of(config)
        self.group = 1 if self.still else SEGMENT
        self.carries_sound = config.sound_share > 0
        self.domain, self.pixel_format = ("planes", "yuv420p") if config.model.chroma else ("rgb", None)
        repeats_of(config)

    def cost(self, height: int, width: int, frames: int, slots: int = 1) -> Cost:
        """Predict from figures measured with the shipped configs, whatever the quality of lossy outputs."""
        pixels = height * width
        return Cost(
            frames * pixels / _PIXELS_PER_SECOND * (1 + _SLOT_SECONDS * (slots - 1)),
            int(_BYTES + (_BYTES_PER_PIXEL + _SLOT_BYTES_PER_PIXEL * (slots - 1)) * pixels),
            frames * int((_STILL_BYTES if self.still else _STEGO_BYTES) * pixels),
            int(_BYTES + _BYTES_PER_PIXEL / 2 * pixels),
        )

    def check(self, info: media.Info) -> None:
        """Raise UserError if a cover is too small to carry anything."""
        make_format(self.config, bytes(KEY_BYTES), info.height, info.width)

    def pass_numbers(self, plan: Plan) -> np.ndarray:
        """See `Scheme`; a secret that ends within a segment stands still to its end.

        Coding frames of the next pass with it would take bits away from those that count.
        """
        numbers = plan.schedule.numbers
        return np.pad(numbers, (0, -len(numbers) % SEGMENT), mode="edge")

    def shown_numbers(self, plan: Plan) -> np.ndarray:
        """See `Scheme`; one frame is shown for each of the cover that carries the secret."""
        return plan.schedule.numbers

    def sender(
        self, plan: Plan, credentials: Sequence[Credential], settings: Settings, measured: Any = None
    ) -> RobustSender:
        """See `Scheme`."""
        # A slot that is left has the first secret again, under a key that nobody keeps: the work is the same.
        filled = slots.deal(zip(plan.each, credentials, strict=True), plan, settings.slots)
        masters = [derive_key(key, MASTER_SALT) for _, key in filled]
        segments = self.segment_sender(masters, plan.cover.height, plan.cover.width, settings.exact)
        plans = [each for each, _ in filled]
        sounds = [sound_of(each, settings, self.config) for each in plans]
        about = [describe(each, settings) for each in plans]
        if settings.slots == 1:
            return RobustSender(segments, about, sounds, notes_on(plan))
        return RobustSender(segments, about, sounds, streams=list(map(self._over_and_over, plans)))

    def _over_and_over(self, plan: Plan) -> Iterator[np.ndarray]:
        """Yield the frames of a secret, and again from its start."""
        while True:
            yield from (hidden.frame for hidden in secret_frames(plan, self.pass_numbers(plan)))

    def probe(self, stego: Stego, deriver: Deriver) -> Found | None:
        """See `Scheme`; receives until something can be read, for PROBE_FRAMES at most, in every slot."""
        master, size = deriver(MASTER_SALT), (stego.info.height, stego.info.width)
        as_it_is = product(slots.every(self.slots), [None])
        for slot, placed in chain(as_it_is, self._places(stego, master)):
            try:
                segments = self.segment_receiver(master, *(placed.size if placed else size), slot, placed)
            except UserError:  # such frames are too small to carry anything
                continue
            receiver = self._listen(stego, segments, placed.describe(*size) if placed else "")
            if receiver.found:
                return Found(receiver.metadata, receiver, receiver.received)
        return None

    def _listen(self, stego: Stego, segments: SegmentReceiver, note: str = "") -> RobustReceiver:
        """Receive until something can be read, for PROBE_FRAMES at most."""
        receiver = RobustReceiver(segments, stego.info.is_image, note)
        for frame in islice(stego.frames(), PROBE_FRAMES):
            receiver.listen(frame)
            if receiver.found:
                break
        if not receiver.found and receiver.received < PROBE_FRAMES:
            receiver.end()
        return receiver

    def _places(self, stego: Stego, master: bytes) -> Iterator[tuple[Slot, Geometry]]:
        """Yield the slots that this key may have, and how the received picture then lies in the stego."""
        frames = [planes_of(frame) for frame in islice(stego.frames(), geometry.FRAMES)]
        grid = geometry.make_grid(symbol_model.carriers_of(self.config.model), master)
        planes = tuple(np.stack(plane) for plane in zip(*frames, strict=True))
        found = list(geometry.find(planes, grid, self.config.lines))
        for slot in slots.every(self.slots):
            placed = [place for number, place in found if number == slot.number]
            if len(placed) > 1:
                placed = self._agreeing(frames, placed, master, slot)
            yield from ((slot, place) for place in placed[:1])

    def _agreeing(
        self, frames: list[tuple], found: list[Geometry], master: bytes, slot: Slot
    ) -> list[Geometry]:
        """Return those of geometries of the same scale and offset whose size has the pilots of this key."""
        largest = tuple(max(sides) for sides in zip(*(placed.size for placed in found), strict=True))
        rectified = [found[0]._replace(size=largest).rectify(frame) for frame in frames]
        rows, columns = (side // symbol_model.MACROBLOCK for side in largest)
        values = np.stack([self._receiving.values(frame) for frame in rectified])
        values = values.reshape(len(frames), -1, rows, columns)
        return [placed for placed in found if self._agrees(values, placed.size, master, slot)]

    def _agrees(self, values: np.ndarray, size: tuple[int, int], master: bytes, slot: Slot) -> bool:
        """Return whether frames whose coefficients [n, k, rows, columns] are these have pilots of a size."""
        rows, columns = (side // symbol_model.MACROBLOCK for side in size)
        try:
            shared = make_format(self.config, master, *size, slot)
        except UserError:
            return False
        pilots = values[:, :, :rows, :columns].reshape(len(values), -1)[:, shared.layout.pilots]
        finder = alignment.Finder(shared.layout, [1])
        return finder.together(pilots, range(alignment.FIRST), alignment.SPACINGS) is not None

    def segment_sender(
        self, masters: Sequence[bytes], height: int, width: int, exact: bool = True
    ) -> SegmentSender:
        """Make the sender of segments of frames of one size, with a slot for each master key.

        `exact`: see `make_format`.
        """
        shared = [
            make_format(self.config, master, height, width, Slot(number, len(masters)), exact=exact)
            for number, master in enumerate(masters)
        ]
        return SegmentSender(self.config, self._sending, shared)

    def segment_receiver(
        self, master: bytes, height: int, width: int, slot: Slot = ALONE, placed: Geometry | None = None
    ) -> SegmentReceiver:
        """Make the receiver of such segments, which were moved as `placed`; raise as `check` does."""
        shared = make_format(self.config, master, height, width, slot)
        return SegmentReceiver(self._receiving, shared, placed)

    def receiver(self, found: Found) -> RobustReceiver:
        """See `Scheme`; only once for each result of `probe`."""
        return found.state

    def complexity(self, height: int, width: int) -> dict[str, dict[str, float]]:
        """See `Scheme`; of the symbols and the network, for whole macroblocks, without codecs."""
        from deepsteg_jax import costs

        model, n, side = models.build(self.config.model), self.config.data.frames, symbol_model.MACROBLOCK
        side *= symbol_model.block_scale(self.config.lines, height, width)
        rows, columns, side = height // side, width // side, symbol_model.MACROBLOCK
        cover = jax.ShapeDtypeStruct((1, n, side * rows, side * columns), jnp.float32)
        colour = jax.ShapeDtypeStruct((1, n, side * rows // 2, side * columns // 2), jnp.float32)
        cover = (cover, colour, colour) if self.domain == "planes" else (cover,)
        count = len(symbol_model.carriers_of(self.config.model).blocks)
        symbols = jax.ShapeDtypeStruct((1, n, rows, columns, count), jnp.float32)
        params = jax.eval_shape(model.init, jax.random.key(0))
        gmac = {
            "hide": costs.flops(model.hide, params["hide"], cover, symbols) / (2e9 * n),
            "reveal": costs.flops(model.reveal, params["reveal"], cover) / (2e9 * n),
        }
        return {"gmac_per_frame": gmac, "parameters": costs.parameter_counts(model)}

    def graphs(self, shape: Shape, portable: bool = False) -> list[Graph]:
        """Return the network, demodulate."""
        return symbol_graphs(self.config, self._reveal_params, shape)

    def graph_inputs(self, cover: np.ndarray, secret: np.ndarray, first_frame: int) -> Arrays:
        """See `Scheme`; the cover stands for a stego, whose planes are y, cb and cr, or luma alone."""
        arrays = {
            "cover": cover,
            "secret": secret,
            "spacing": np.array(self.config.model.spacing, np.float32),
        }
        if self.domain == "rgb":
            return arrays | {"luma": planes_of(cover)[0]}
        planes = media.stack([media.from_rgb(frame, self.pixel_format) for frame in cover])
        return arrays | {name: plane.astype(np.float32) for name, plane in planes._asdict().items()}

    def graph_facts(self) -> dict[str, Any]:
        """See `Scheme`; also D of the fewest coefficients."""
        return {
            "group": self.config.data.frames,
            "spacing": self.config.model.spacing,
            "fingerprint": models.fingerprint(self._reveal_params).hex(),
        }

    @cached_property
    def _reveal_params(self) -> Any:
        return self._load("reveal")

    @cached_property
    def _sending(self) -> Modem:
        return Modem(self.config.model, self._load("hide"), self.config.lines)

    @cached_property
    def _receiving(self) -> Modem:
        return Modem(self.config.model, self._reveal_params, self.config.lines)


def describe(plan: Plan, settings: Settings) -> Metadata:
    """Return the metadata of a plan."""
    count = len(plan.schedule.numbers)
    paired = by_number(plan.cover_clock, plan.secret_clock, settings.align)
    return Metadata(
        width=plan.fit.width,
        height=plan.fit.height,
        frames=count,
        cover_frames=count,
        rate=(plan.secret_clock if paired else plan.cover_clock).rate,
        timed=False,
        turned=plan.fit.turned,
        aspect=plan.secret.aspect or Fraction(1),
    )


def notes_on(plan: Plan) -> tuple[str, ...]:
    """Return notes for the user on the times of the secret that are lost."""
    clocks = {"cover": plan.cover_clock, "secret": plan.secret_clock}
    varying = " and ".join(name for name, clock in clocks.items() if not clock.constant)
    note = f"the frame rate of the {varying} varies, that of the revealed video will not"
    return (note,) if varying else ()


def lossy_of(config: ConfigDict) -> media.Lossy:
    """Return the quality of lossy outputs: `crf` and `jpeg_quality` of section `video`.

    Raises:
        UserError: they are out of range.
    """
    crf = config.video.get("crf", media.Lossy().crf)
    quality = config.video.get("jpeg_quality", media.Lossy().quality)
    if not (0 <= crf <= _MOST_CRF and 1 <= quality <= _MOST_QUALITY):
        raise UserError(
            f"config.video.crf must be 0 to {_MOST_CRF}, and config.video.jpeg_quality 1 to {_MOST_QUALITY}"
        )
    return media.Lossy(crf, quality)
