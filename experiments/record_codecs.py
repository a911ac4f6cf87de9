"""Record what real codecs do, for training `configs/robust.py` with `data.source = "recordings"`.

    python -m experiments.record_codecs --clips FOLDER --output data/records [--each 4]
    python -m experiments.record_codecs --images FOLDER --output data/records_image [--each 1]

Random symbols with a random D, held over a random number of frames, are written into a run of a clip, or into
photos; a file has them and what arrived after a random codec of the ladder: planes Y, Cb and Cr of videos,
luma of images, the mean of the frames that share symbols. See `deepsteg_jax.data.recordings`.

Every file is a function of --seed and its number alone, so that an interrupted run goes on.
"""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from configs.robust import get_config
from deepsteg_jax import evaluation, media
from deepsteg_jax.channels import ladder
from deepsteg_jax.channels.ladder import jpeg, webp, x264
from deepsteg_jax.models import symbols as symbol_model
from experiments import common

FRAMES = 32  # of a recording
STEPS = {"clips": (24, 72), "images": (15, 32)}  # from which D is drawn, uniformly in its logarithm
HOLDS = {"clips": (1, 1, 1, 2, 4, 8), "images": (1,)}  # each as likely
CODECS = {
    "clips": [
        *ladder.VIDEO,
        *(x264(f"crf{crf}", crf) for crf in (*range(14, 32), *range(20, 30))),
        *(x264(f"twice{crf}", crf, times=2) for crf in (18, 23)),
    ],
    "images": [
        *ladder.VIDEO[:3],
        *(jpeg(f"jpeg{quality}", quality) for quality in range(40, 98, 2)),
        *(webp(f"webp{quality}", quality) for quality in range(60, 100, 5)),
        *(jpeg(f"scaled{q}", q, scale=s) for q in (75, 85, 95) for s in (2 / 3, 3 / 4, 5 / 4)),
    ],
}


def draw_frames(kind: str, items: list[Path], number: int, random: np.random.Generator):
    """A random run of item `number` as planes in 4:2:0, or random photos; None if it is too short."""
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
            return media.stack([media.from_rgb(frame, "yuv420p") for frame in frames])
    return None


def log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    """A number between two, uniform in its logarithm."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def record(kind: str, frames, config: ConfigDict, random: np.random.Generator) -> dict:
    """Send random symbols through a random codec; return what arrived."""
    hold = int(random.choice(HOLDS[kind]))
    step = log_uniform(random, *STEPS[kind])
    carriers = symbol_model.carriers_of(config.model)
    frames = jax.tree.map(lambda x: x[: len(x) // hold * hold], frames)
    rows, columns = (side // symbol_model.MACROBLOCK for side in symbol_model.planes_of(frames)[0].shape[1:3])
    shape = len(jax.tree.leaves(frames)[0]) // hold, rows, columns, len(carriers.blocks)
    symbols = random.uniform(-0.5, 0.5, shape).astype(np.float32)
    stego = symbol_model.write_repeated(frames, symbols, step, carriers, hold)
    codec_run = CODECS[kind][random.integers(len(CODECS[kind]))]
    received = ladder.run(codec_run, jax.tree.map(lambda x: np.asarray(x).astype(np.uint8), stego)).frames
    means = symbol_model.group_means(symbol_model.planes_of(received), hold)
    planes = dict(zip(("luma", "cb", "cr"), (np.asarray(x, np.float16) for x in means), strict=False))
    return planes | {"symbols": symbols.astype(np.float16), "step": np.float32(step)}


def main() -> None:
    """Write the recordings that are missing."""
    parser = common.make_parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--clips")
    source.add_argument("--images")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--each", type=int, default=4, help="recordings per clip, or per 32 photos")
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
        path = arguments.output / f"{'videos' if kind == 'clips' else kind}-{number:04d}.npz"
        if not path.exists():
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.savez(file, **record(kind, frames, config, random))
            part.replace(path)


if __name__ == "__main__":
    common.run(main)
