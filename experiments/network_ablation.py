"""What schedule, crops, losses, secrets and precision bring to `prep_hide_reveal:small` in the same time.

    python -m experiments.network_ablation --train PHOTOS --test OTHERS [--steps 200]

Every variant trains from the same start on as many steps of as many pixels, random crops, and is tested under
a key on the middle 96x96 pixels of the photos of --test, photo i + 1 in photo i, and with drawn secrets in
them. WORKDIR keeps what was measured, so that an interrupted run goes on. Writes network_ablation.json.
"""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax import losses, models
from deepsteg_jax.training.objective import hide_and_reveal, psnr
from deepsteg_jax.training.state import create_optimizer, create_state
from deepsteg_jax.training.step import example_keys, make_train_step
from experiments import common, tables
from experiments.drawn_secrets import KINDS
from experiments.entries import Entry

SIDE = 96  # of what is tested, pixels
DRAWN = 30  # drawn secrets to train on, and as many others to test on
DRAWN_SECRETS = "trained on drawn secrets"
UNTRAINED = "untrained"
BASE = {
    "data.height": 48,
    "optimizer.warmup_steps": 10,
    "optimizer.ema_decay": 0.0,
    "optimizer.plateau_window": 20,
}
VARIANTS = {
    UNTRAINED: {"optimizer.learning_rate": 0.0},
    "default": {},
    "seed 1": {"seed": 1},
    "constant rate": {"optimizer.schedule": "constant"},
    "plateau": {"optimizer.schedule": "plateau"},
    "rate 1e-3": {"optimizer.learning_rate": 1e-3},
    "average of parameters, 0.99": {"optimizer.ema_decay": 0.99},
    "18 crops of 32x32": {"data.height": 32, "train.batch_size": 18},
    "2 crops of 96x96": {"data.height": 96, "train.batch_size": 2},
    "nothing frozen, beta 0.3": {"optimizer.frozen": (), "losses.secret": 0.3},
    "nothing frozen, beta 1": {"optimizer.frozen": ()},
    "nothing frozen, beta 3": {"optimizer.frozen": (), "losses.secret": 3.0},
    "SSIM besides": {"losses.secret_ssim": 0.002},
    "loss in YCbCr": {"losses.colour": "ycbcr"},
    "loss in Lab": {"losses.colour": "lab"},
    DRAWN_SECRETS: {},
    "half of the weights zero": {"optimizer.sparsity": 0.5},
    "three quarters zero": {"optimizer.sparsity": 0.75},
    "int8 in training": {"model.quantise": "int8"},
}


def config_of(name: str, steps: int) -> ConfigDict:
    """The config of a variant."""
    return Entry("prep_hide_reveal", "small", BASE | VARIANTS[name] | {"optimizer.num_steps": steps}).load()


def read_photos(folder: str) -> list[np.ndarray]:
    """The photos of a folder that are large enough, uint8 [h, w, 3], by name."""
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(Path(folder).iterdir())]
    return [photo for photo in photos if min(photo.shape[:2]) >= SIDE]


def draw_secrets(seed: int) -> list[np.ndarray]:
    """Drawn secrets, uint8 [256, 256, 3], the kinds in turn."""
    rngs = (np.random.default_rng((seed, i)) for i in range(DRAWN))
    return [np.asarray(list(KINDS.values())[i % len(KINDS)](rng, 256)) for i, rng in enumerate(rngs)]


def crop(rng: np.random.Generator, pictures: list[np.ndarray], count: int, side: int) -> np.ndarray:
    """Random crops of random pictures, mirrored or not, uint8 [count, side, side, 3]."""
    found = []
    for number in rng.integers(len(pictures), size=count):
        picture = pictures[number]
        y, x = (rng.integers(n - side + 1) for n in picture.shape[:2])
        found.append(picture[y : y + side, x : x + side][:, :: rng.choice((-1, 1))])
    return np.stack(found)


def batches(config: ConfigDict, covers: list[np.ndarray], secrets: list[np.ndarray]) -> Iterator[dict]:
    """Batches without end, the same for the same config."""
    rng, count = np.random.default_rng(config.seed), config.train.batch_size
    while True:
        parts = (crop(rng, pictures, count, config.data.height) for pictures in (covers, secrets))
        yield dict(zip(("cover", "secret"), parts, strict=True))


def train(config: ConfigDict, covers: list[np.ndarray], secrets: list[np.ndarray]) -> tuple[dict, float]:
    """The trained parameters, and the processor's seconds but for compiling."""
    model, optimizer = models.build(config.model), create_optimizer(config.optimizer)
    key, given = jax.random.key(config.seed), batches(config, covers, secrets)
    state = create_state(model, optimizer, key, ema=config.optimizer.ema_decay > 0)
    step = jax.jit(make_train_step(model, optimizer, config, key)).lower(state, next(given)).compile()
    start = time.process_time()
    for _ in range(config.optimizer.num_steps):
        state, _ = step(state, next(given))
    jax.block_until_ready(state)
    return state.tested, time.process_time() - start


def measure(config: ConfigDict, params: dict, covers: np.ndarray, secrets: np.ndarray) -> dict[str, float]:
    """Quality of what is hidden and revealed under keys, the stego in 8 bits."""
    model = models.build(config.model)
    keys = example_keys(jax.random.key(1), len(covers))
    found = jax.jit(partial(hide_and_reveal, model, config))(
        params, {"cover": covers, "secret": secrets}, keys
    )
    cover, stego, secret, revealed = (np.round(255 * np.clip(x, 0, 1)) / np.float32(255) for x in found)
    return {
        "stego_psnr_db": float(psnr(cover, stego)),
        "secret_psnr_db": float(psnr(secret, revealed)),
        "secret_ssim": 1 - float(losses.dissimilarity(secret, revealed)),
    }


def centres(pictures: list[np.ndarray]) -> np.ndarray:
    """The middles of pictures, uint8 [n, SIDE, SIDE, 3]."""
    corners = [[(n - SIDE) // 2 for n in picture.shape[:2]] for picture in pictures]
    return np.stack([p[y : y + SIDE, x : x + SIDE] for p, (y, x) in zip(pictures, corners, strict=True)])


def main() -> None:
    """Train and measure what is missing and print the table."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--workdir", type=Path, default=Path("runs/network_ablation"))
    arguments = parser.parse_args()
    path = arguments.workdir / "network_ablation.json"
    photos, covers = read_photos(arguments.train), centres(read_photos(arguments.test))
    drawn = centres(draw_secrets(1))[np.arange(len(covers)) % DRAWN]
    for name in arguments.only:
        found = common.read_json(path, {})
        if name in found:
            continue
        given = draw_secrets(0) if name == DRAWN_SECRETS else photos
        config = config_of(name, 1 if name == UNTRAINED else arguments.steps)
        params, seconds = train(config, photos, given)
        row = {"steps": config.optimizer.num_steps, "seconds": seconds}
        row["photos"] = measure(config, params, covers, np.roll(covers, -1, axis=0))
        row["drawn"] = measure(config, params, covers, drawn)
        common.write_json(path, found | {name: row})
    print(tables.network_ablation(common.read_json(path)))


if __name__ == "__main__":
    common.run(main)
