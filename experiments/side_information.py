"""What side information and sound cost, in dB of stego and of secret.

    python -m experiments.side_information [--seconds 60] [--bit_rate 64000] [--workdir runs/side_information]

Hides a clip with sound in another, all of one length and size, three times: without any side information
(the bare model), with the record, and with the record and the secret's sound as Opus. The clips are made of
sample clips, played back and forth, so no data are needed. RGB, 8-bit, through files written and read back;
mean over frames of per-frame dB. Checks that the sound came back as it was coded, packet by packet. Writes
side_information.json.
"""

from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np

from deepsteg_jax import evaluation, keys, loading, media, metrics, pipeline, sample_clips
from deepsteg_jax.schemes.pixels import PixelScheme
from experiments import common, tables
from experiments.entries import ENTRIES

COVER, SECRET = "sample:bikes.mp4", "sample:bigbuckbunny.mp4"
RATE = Fraction(25)
SAMPLE_SECONDS = Fraction(5)  # the sound of the sample is repeated after this


def make_clip(path: Path, sample: str, frames: int, width: int, height: int, sound: bool) -> Path:
    """Writes `frames` frames of a sample clip, forwards and backwards in turn, with its sound repeated."""
    sample = sample_clips.resolve(sample)
    source = list(media.read_frames(sample, stop=100, width=width, height=height))
    passes = int(np.ceil(frames / RATE / SAMPLE_SECONDS))
    rest = frames / RATE - (passes - 1) * SAMPLE_SECONDS
    loop = media.Loop(passes, SAMPLE_SECONDS, rest)
    with media.Writer(path, RATE, tracks_from=sample if sound else None, loop=loop) as writer:
        for frame in common.to_and_fro(source, frames):
            writer.write(frame)
    return path


def bare(scheme: PixelScheme, cover: Path, secret: Path) -> dict[str, float]:
    """PSNR of stego and secret in dB with nothing but the model."""
    key, number = keys.key_words(keys.random_key()), 0
    found = {"stego_psnr_db": [], "secret_psnr_db": []}
    pairs = zip(media.read_frames(cover), media.read_frames(secret), strict=True)
    codec = scheme.codec()
    while chunk := list(islice(pairs, scheme.group)):
        covers, secrets = (np.stack(frames) for frames in zip(*chunk, strict=True))
        stego = np.asarray(codec.hide(scheme.hide_params, key, number, covers, secrets))
        revealed = np.asarray(codec.reveal(scheme.reveal_params, key, number, stego))
        found["stego_psnr_db"] += map(metrics.psnr, covers, stego)
        found["secret_psnr_db"] += map(metrics.psnr, secrets, revealed)
        number += len(chunk)
    return {name: float(np.mean(values)) for name, values in found.items()}


def through_files(scheme: PixelScheme, files: evaluation.Files, bit_rate: int) -> dict[str, float]:
    """PSNR of stego and secret in dB with side information, and with sound unless `bit_rate` is 0."""
    key, quiet = keys.random_key(), lambda frames: None
    settings = pipeline.Settings(sound_bit_rate=bit_rate)
    pipeline.hide(scheme, key, files.cover, files.secret, files.stego, quiet, settings)
    pipeline.reveal([scheme], key, files.stego, files.revealed, quiet)
    return evaluation.measure(files)


def packets(file) -> list[bytes]:
    """The packets of the first sound track of a file."""
    with av.open(file) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def sound_report(files: evaluation.Files, bit_rate: int) -> dict:
    """How large the hidden sound is, and whether it came back to the bit."""
    coded = media.encode_sound(files.secret, bit_rate)
    sent, received = packets(coded.file), packets(str(files.revealed))
    return {"sound_bytes": coded.size, "packets": len(sent), "sound_is_exact": sent == received}


def main() -> int:
    """Measures the three and prints the table."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--bit_rate", type=int, default=64_000)
    parser.add_argument("--width", type=int, default=448)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--workdir", type=Path, default=Path("runs/side_information"))
    arguments = parser.parse_args()
    folder, size = arguments.workdir, (arguments.width, arguments.height)
    folder.mkdir(parents=True, exist_ok=True)
    files = evaluation.Files(*(folder / f"{name}.mkv" for name in evaluation.Files._fields))
    frames = int(arguments.seconds * RATE)
    make_clip(files.cover, COVER, frames, *size, sound=False)
    make_clip(files.secret, SECRET, frames, *size, sound=True)
    config = ENTRIES["block_dct"].load()
    scheme = loading.load(config)
    rows = {
        "bare model": bare(scheme, files.cover, files.secret),
        "with side information": through_files(scheme, files, 0),
        "with side information and sound": through_files(scheme, files, arguments.bit_rate),
    }
    report = {"seconds": arguments.seconds, "bit_rate": arguments.bit_rate, "rows": rows}
    report |= sound_report(files, arguments.bit_rate)
    common.write_json(folder / "side_information.json", report)
    print(tables.side_information(report))
    for path in files:
        path.unlink()
    return 0 if report["sound_is_exact"] else 1


if __name__ == "__main__":
    common.run(main)
