"""What scaling and cropping leave of the symbols of `robust`, apart from where it goes.

    python -m experiments.off_grid CLIP ... [--workdir runs/off_grid]

Writes random symbols into 32 frames of each clip at 448x256, codes them by x264 at CRF 18 as `deepsteg hide`
does, scales, crops or rotates them, codes them again, and reads them at the place that is known. Bits are the
mutual information of a symbol and its phase as read, over the symbols whose blocks are whole. Adds what is
missing to off_grid.json.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from deepsteg_jax import evaluation, media
from deepsteg_jax.channels import ladder
from deepsteg_jax.models.symbols import carriers_of
from deepsteg_jax.schemes.robust.geometry import Geometry
from deepsteg_jax.schemes.robust.layout import SEGMENT
from deepsteg_jax.schemes.robust.modem import Modem, Modulation, macroblocks_of, planes_of
from experiments import common, tables
from experiments.entries import Entry
from experiments.systems import information

SENT = ladder.named("CRF18")


class Edit(NamedTuple):
    """A change of a stego that was coded once, and the coding after it."""

    title: str
    crf: int | None = 23  # of x264; None: it is not coded again
    scale: Fraction = Fraction(1)
    cut: tuple[int, int] = (0, 0)  # samples of luma, at the top and bottom, left and right
    angle: float = 0  # degrees, clockwise

    def frames(self, planes: media.Planes) -> media.Planes:
        """Rotate, cut, then scale, each plane of a frame."""
        made = []
        for plane, k in zip(planes, (1, 2, 2), strict=True):
            if self.angle:
                plane = ndimage.rotate(plane, -self.angle, reshape=False, order=1, mode="nearest")
            (y, x), (h, w) = (side // k for side in self.cut), plane.shape
            part = plane[y : h - y, x : w - x]
            h, w = (2 * round(self.scale * side * k / 2) // k for side in part.shape)
            made.append(media.resize(part, w, h) if self.scale != 1 else part)
        return media.Planes(*made)

    def place(self, size: tuple[int, int], shape: tuple[int, ...]) -> Geometry:
        """Where frames of that shape, made of frames of that size, lie in these."""
        cut = np.array(self.cut)
        scale = (np.array(size) - 2 * cut) / shape
        return Geometry(size, tuple(map(float, scale)), tuple(map(float, cut)), self.angle)


EDITS = (
    Edit("nothing", None),
    Edit("CRF 23"),
    Edit("whole macroblocks cut off, CRF 23", cut=(16, 32)),
    Edit("5 % of each side cut off, CRF 18", 18, cut=(12, 22)),
    Edit("5 % of each side cut off, CRF 23", cut=(12, 22)),
    Edit("scaled to 5/4, CRF 23", scale=Fraction(5, 4)),
    Edit("scaled to 3/4, CRF 23", scale=Fraction(3, 4)),
    *(
        Edit("scaled to 2/3" + (f", CRF {crf}" if crf else ""), crf, Fraction(2, 3))
        for crf in (None, 12, 18, 23)
    ),
    Edit("rotated by 2°", None, angle=2),
    *(Edit(f"rotated by {angle}°, CRF 23", angle=angle) for angle in (0.5, 1, 2)),
)


def measure(cover: media.Planes, edits: Sequence[Edit]) -> dict[str, float]:
    """Bits per symbol behind each edit."""
    config, (n, height, width) = Entry("robust", "").load(), cover.y.shape
    modem = Modem(config.model, None)  # whose network is not needed
    macroblocks = macroblocks_of(height, width)
    symbols = macroblocks * len(carriers_of(config.model).blocks)
    phases = np.random.default_rng(0).uniform(-0.5, 0.5, (n, symbols)).astype(np.float32)
    spacing = config.model.spacing
    sent = ladder.run(SENT, modem.write(cover, phases, Modulation(spacing, 1), ())).frames
    found = {}
    for edit in edits:
        frames = media.stack([edit.frames(frame) for frame in media.unstack(sent)])
        if edit.crf:
            frames = ladder.run(ladder.x264("", edit.crf), frames).frames
        shape = frames.y.shape[1:]
        place = edit.place((height, width), shape)
        whole = np.tile(place.received(shape).ravel(), symbols // macroblocks)
        read = np.stack([modem.values(place.rectify(planes_of(frame))) for frame in media.unstack(frames)])
        errors = (read / spacing - phases)[:, whole]
        found[edit.title] = information(errors) / errors.size
    return found


def main() -> None:
    """Measures what is not in the file yet, and prints the table."""
    parser = common.make_parser(__doc__)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--workdir", type=Path, default=Path("runs/off_grid"))
    arguments = parser.parse_args()
    path = arguments.workdir / "off_grid.json"
    rows = common.read_json(path, {})
    settings = common.q1_settings("clips", "", SEGMENT)
    for clip in arguments.clips:
        row = rows.setdefault(clip.stem, {})
        if missing := [edit for edit in EDITS if edit.title not in row]:
            frames = evaluation.prepare(clip, settings)
            row |= measure(media.stack([media.from_rgb(frame, "yuv420p") for frame in frames]), missing)
            common.write_json(path, rows)
    print(tables.off_grid(rows))


if __name__ == "__main__":
    common.run(main)
