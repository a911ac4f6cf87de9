"""Choose the settings of the digital baseline for each rung of the ladder of codecs.

    python -m experiments.tune_digital --clips FOLDER [--every 4] [--codecs C5 C6]

Every choice distorts the cover as much as the default: D falls as the square root of the number of
coefficients. Random bits go through the codec; a rate counts as decoded on a clip whose symbols carry 1 / 0.9
of it. Of what every clip decodes, the settings and the rate with the most payload are chosen. Frames 5..34 at
448x256; the clips should not be those that are measured later. Writes digital.json.
"""

import math
from pathlib import Path

import numpy as np

from deepsteg_jax import evaluation
from deepsteg_jax.channels import ladder
from deepsteg_jax.schemes.robust import levels
from experiments import common
from experiments.baselines import digital
from experiments.baselines.digital import Settings

COEFFICIENTS, REPEATS = (4, 9, 16), (4, 8, 15, 30)
REACHED = 0.9  # of the information, by a code of this length
CODECS = ("C2", "C5", "C6", "CRF26", "CRF28", "C7", "C8-vp9", "C8-av1", "C10", "C11")


def choices() -> list[Settings]:
    """Settings that distort as much as the default; their rate is open."""
    usual = Settings()
    return [
        Settings(count, usual.modulus * math.sqrt(usual.coefficients / count), repeat)
        for count in COEFFICIENTS
        for repeat in REPEATS
    ]


def shares(settings: Settings, codec: ladder.CodecRun, clips: list[np.ndarray]) -> list[float]:
    """Bits of information that a bit carries through a codec, for each clip, uint8 [n, h, w, 3]."""
    found = []
    for seed, clip in enumerate(clips):
        sent = np.random.default_rng(seed).integers(0, 2, settings.bits(clip.shape), np.uint8)
        received = ladder.run(codec, digital.write(clip, sent, settings)).frames
        found.append(levels.information(digital.read(received, settings), sent))
    return found


def best(codec: ladder.CodecRun, clips: list[np.ndarray]) -> Settings:
    """The settings with the most payload; of equal ones the first."""
    tried = []
    for settings in choices():
        rate = round(REACHED * min(shares(settings, codec, clips)), 3)
        tried.append(settings._replace(rate=rate))
    return max(tried, key=lambda settings: settings.capacity(clips[0].shape))


def main() -> None:
    """Choose for every codec and write what was chosen."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--clips", required=True)
    parser.add_argument("--every", type=int, default=4, help="only every so many clips")
    parser.add_argument("--codecs", nargs="+", default=CODECS)
    parser.add_argument("--workdir", type=Path, default=Path("runs/digital"))
    arguments = parser.parse_args()
    settings = common.q1_settings("clips", arguments.clips)
    items = evaluation.list_items(arguments.clips)[:: arguments.every]
    clips = [np.stack(evaluation.prepare(path, settings)) for path in items]
    path = arguments.workdir / "digital.json"
    for name in arguments.codecs:
        chosen = best(ladder.named(name), clips)
        print(name, chosen)
        common.write_json(path, common.read_json(path, {}) | {name: chosen._asdict()})


if __name__ == "__main__":
    common.run(main)
