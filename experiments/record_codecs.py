"""Record what real codecs do, for training `configs/robust.py` with `data.source = "recordings"`.

    python -m experiments.record_codecs --clips FOLDER --output data/records [--each 4]
    python -m experiments.record_codecs --images FOLDER --output data/records_image [--each 1]

Two kinds of files, see `deepsteg_jax.data.recordings`:

    symbols-N.npz   random symbols written into a run of a clip (or into photos) with a random step D, in a
                    random number of coefficients, held over a random number of frames, and the luma that
                    arrived after a random codec of the ladder: the mean of the frames that share symbols
    pictures-N.npz  a run of a clip (or photos) as it was, and as AV1 coded it to a random number of bytes

Every file is a function of --seed and its number alone, so that an interrupted run goes on.
"""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from configs.robust import get_config
from deepsteg_jax import evaluation
from deepsteg_jax.channels import ladder
from deepsteg_jax.channels.ladder import jpeg, x264
from deepsteg_jax.models import symbols as symbol_model
from deepsteg_jax.schemes.robust import secret_codec
from experiments import common

FRAMES = 32  # of a recording
# From which D of the fewest coefficients is drawn, uniformly in its logarithm; of more it is smaller.
STEPS = {"clips": (30, 84), "images": (20, 48)}
HOLDS = {"clips": (1, 1, 1, 2, 4, 8), "images": (1,)}  # each as likely
BITS_PER_PIXEL = {"clips": (0.0015, 0.08), "images": (0.05, 1.5)}  # of a coded secret, likewise
CODECS = {
    "clips": [
        *ladder.VIDEO,
        *(x264(f"crf{crf}", crf) for crf in (*range(14, 32), *range(20, 30))),
        *(x264(f"twice{crf}", crf, times=2) for crf in (18, 23)),
    ],
    "images": [*ladder.VIDEO[:3], *(jpeg(f"jpeg{quality}", quality) for quality in range(40, 98, 2))],
}


def draw_frames(kind: str, items: list[Path], number: int, random: np.random.Generator) -> np.ndarray | None:
    """A random run of item `number` (of clips), or random photos; uint8 [n, h, w, 3], None if too short."""
    settings = common.q1_settings(kind, "", FRAMES)
    if kind == "images":
        settings.frames, settings.first_frame = 1, 0
        chosen = random.choice(len(items), FRAMES, replace=False)
        return np.concatenate([np.stack(evaluation.prepare(items[i], settings)) for i in chosen])
    settings.frames = FRAMES
    for first in (int(random.integers(0, 40)), 0):
        settings.first_frame = first
        frames = evaluation.prepare(items[number % len(items)], settings)
        if len(frames) >= FRAMES // 2:
            return np.stack(frames)
    return None


def log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    """A number between two, uniform in its logarithm."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def record_symbols(kind: str, frames: np.ndarray, config: ConfigDict, random: np.random.Generator) -> dict:
    """Send random symbols through a random codec; return what arrived."""
    counts = sorted({count for count, _ in config.modulations})
    count, hold = int(random.choice(counts)), int(random.choice(HOLDS[kind]))
    step = log_uniform(random, *STEPS[kind]) * np.sqrt(counts[0] / count)
    rows, columns = (length // symbol_model.BLOCK for length in frames.shape[1:3])
    frames = frames[: len(frames) // hold * hold]
    shape = len(frames) // hold, rows, columns, config.model.coefficients
    symbols = random.uniform(-0.5, 0.5, shape).astype(np.float32)
    stego = np.asarray(symbol_model.write_repeated(frames, symbols[..., :count], step, hold)).astype(np.uint8)
    codec_run = CODECS[kind][random.integers(len(CODECS[kind]))]
    received = np.asarray(symbol_model.luma_of(ladder.run(codec_run, stego).frames))
    luma = received.reshape(-1, hold, *received.shape[1:]).mean(1).astype(np.float16)
    sizes = {"step": np.float32(step), "count": np.int32(count)}
    return {"frames": luma, "symbols": symbols.astype(np.float16), **sizes}


def record_pictures(kind: str, frames: np.ndarray, random: np.random.Generator) -> dict:
    """Code a secret to a random number of bytes with AV1; return it before and after."""
    room = int(log_uniform(random, *BITS_PER_PIXEL[kind]) * np.prod(frames.shape[:3]) / 8)
    groups = frames[:, None] if kind == "images" else frames[None]
    coded = []
    for group in groups:
        message = secret_codec.encode(group, max(600, room // len(groups)))
        coded.append(secret_codec.decode(message, *group.shape[:3]))
    return {"coded": np.concatenate(coded), "secret": frames}


def main() -> None:
    """Write the recordings that are missing."""
    parser = common.make_parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--clips")
    source.add_argument("--images")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--each", type=int, default=4, help="recordings of each kind per clip, or per 32 photos"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    kind = "clips" if arguments.clips else "images"
    config = get_config("image" if kind == "images" else "")
    items = evaluation.list_items(arguments.clips or arguments.images)
    arguments.output.mkdir(parents=True, exist_ok=True)
    total = arguments.each * (len(items) if kind == "clips" else -(-len(items) // FRAMES))
    for number in tqdm(range(total), unit="recording"):
        random = np.random.default_rng([arguments.seed, number])
        frames = draw_frames(kind, items, number, random)
        if frames is None:
            continue
        for name, make in (
            ("symbols", lambda: record_symbols(kind, frames, config, random)),  # noqa: B023
            ("pictures", lambda: record_pictures(kind, frames, random)),  # noqa: B023
        ):
            path = arguments.output / f"{name}-{number:04d}.npz"
            if not path.exists():
                part = path.with_suffix(".part")
                with part.open("wb") as file:
                    np.savez(file, **make())
                part.replace(path)


if __name__ == "__main__":
    common.run(main)
