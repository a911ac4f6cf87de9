"""What the sound of a secret costs its picture in `robust`: secret dB behind x264 CRF 23, without and with.

python -m experiments.secret_sound --clips FOLDER

Protocol Q1 with one segment of each clip, at several sizes, and with the sound of a sample clip. Writes
secret_sound.json to WORKDIR; an interrupted run goes on.
"""

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np

from deepsteg_jax import loading, media, metrics, sample_clips
from deepsteg_jax.channels import ladder
from deepsteg_jax.schemes.base import Metadata
from deepsteg_jax.schemes.robust.layout import SEGMENT
from deepsteg_jax.schemes.robust.sender import Secret
from deepsteg_jax.schemes.robust.sound import BIT_RATES, SecretSound
from experiments import common, robustness, tables
from experiments.entries import Entry

SOUND, CODEC = "sample:bigbuckbunny.mp4", "C6"
SETTINGS = ((448, 256, 0.6), (640, 360, 0.25))  # width, height, share
KEY = bytes(32)


def measure(pair: robustness.Pair, share: float) -> dict[str, float]:
    """PSNR of the secret in dB, and the sound that arrived in bits per second; share 0 has none."""
    config = Entry("robust", "").load()
    config.sound_share = share
    scheme, (n, height, width, _) = loading.load(config), pair.secret.shape
    about = Metadata(width, height, n, n, media.FOLDER_RATE, False, False, Fraction(1))
    times = np.array([0, n / float(media.FOLDER_RATE)])
    reader = media.encode_packets(sample_clips.resolve(SOUND), BIT_RATES, times[-1]) if share else None
    sound = reader and SecretSound(reader, times, config, max(BIT_RATES))
    hidden = Secret(pair.secret, about, sound)
    sent = scheme.segment_sender([KEY], height, width).send(0, pair.planes, [hidden])
    if sound:
        sound.close()
    received = media.unstack(ladder.run(ladder.named(CODEC), sent.stego).frames)
    receiver = scheme.segment_receiver(KEY, height, width)
    parts = [part for frame in received for part in receiver.take(frame)] + receiver.finish()
    part = parts[0] if parts else None
    shown = part.frames if parts else np.full_like(pair.secret, 128)
    heard = b"".join(part.sound.packets) if parts and part.sound else b""
    return {
        "secret_psnr_db": metrics.mean_psnr(pair.secret, shown),
        "sound_bit_s": 8 * len(heard) / times[-1],
    }


def add_rows(clips: str, items: int, path: Path) -> list[dict]:
    """Measure every pair at every one of SETTINGS and keep each at once, but for those in the file."""
    rows = common.read_json(path, [])
    for width, height, share in SETTINGS:
        settings = common.q1_settings("clips", clips, SEGMENT)
        settings.width, settings.height = width, height
        for pair in robustness.pairs_of(settings, items):
            row = {"cover": Path(pair.names[0]).stem, "width": width, "height": height, "share": share}
            if any(row.items() <= found.items() for found in rows):
                continue
            rows.append(row | {"without": measure(pair, 0), "with": measure(pair, share)})
            common.write_json(path, rows)
    return rows


def parse() -> argparse.Namespace:
    """The command line."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--clips", required=True)
    parser.add_argument("--items", type=int, help="only the first items of the folder")
    parser.add_argument("--workdir", type=Path, default=Path("runs/secret_sound"))
    return parser.parse_args()


def main() -> None:
    """Measures what is missing and prints the table."""
    arguments = parse()
    path = arguments.workdir / "secret_sound.json"
    print(tables.secret_sound(add_rows(arguments.clips, arguments.items, path)))


if __name__ == "__main__":
    common.run(main)
