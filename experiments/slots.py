"""Several secrets in one cover: how good each of them is, and whether their number can be seen.

    python -m experiments.slots quality --clips FOLDER [--count 1] [--only "pixels 8" ...]
    python -m experiments.slots detection --images FOLDER [--count 64]

quality: clips as in protocol Q1 (frames 5..34 at 448x256, RGB, 8-bit, through files written and read back).
The eight clips after clip i go into clip i, 1, 2, 4 or 8 at a time, for the first --count clips; mean PSNR
over frames, then over secrets and over stegos. `adaptive` codes them to fit at a total of RATE bits per
sample, covers in 4:2:0; `pixels` has D = 5; `robust`, which has two slots, is an .mp4 at CRF 18.

detection: stegos of `adaptive` with four slots at its usual rate, one of them real or all four. Detectors are
trained on three quarters of the photos to tell the two, and to tell stegos from covers, which says what they
can see.

Rows are kept in WORKDIR. Writes slots.json or slots_detection.json to --results.
"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from deepsteg_jax import evaluation, keys, loading, media, metrics, pipeline
from deepsteg_jax.schemes import slots
from deepsteg_jax.schemes.base import Scheme
from experiments import common, steganalysis

RATE, MODULUS, SECRETS, DETECTED = 0.3, 5, 8, 4
SCHEMES = {  # checkpoint, changes, most slots
    "adaptive": ("adaptive", {"payload.rate": RATE}, 8),
    "pixels": ("video", {"model.modulus": MODULUS}, 8),
    "robust": ("robust", {}, 2),
}
ROWS = [f"{name} {n}" for name, (*_, most) in SCHEMES.items() for n in slots.NUMBERS if n <= most]


def ignore(told: object) -> None:
    """Progress that nobody watches."""


# --- quality -------------------------------------------------------------------------------------


def hide_group(scheme: Scheme, cover: list, secrets: list[list], count: int, folder: Path) -> dict:
    """Hide secrets in a cover of `count` slots; the PSNR of the stego and of each secret."""
    paths = tuple(folder / f"secret{i}.mkv" for i in range(len(secrets)))
    for path, frames in zip(paths, secrets, strict=True):
        media.write_frames(path, frames)
    write = evaluation.write_planes if scheme.domain == "own" else media.write_frames
    write(folder / "cover.mkv", cover)
    settings = pipeline.DEFAULTS._replace(slots=count)
    stego = folder / ("stego.mp4" if scheme.lossy else "stego.mkv")
    own = [keys.random_key() for _ in paths]
    pipeline.hide(scheme, own, folder / "cover.mkv", paths, stego, ignore, settings)
    found = []
    for key, path in zip(own, paths, strict=True):
        pipeline.reveal([scheme], key, stego, folder / "revealed.mkv", ignore)
        found.append(psnr(folder / "revealed.mkv", path))
    return {"stego_psnr_db": psnr(stego, folder / "cover.mkv"), "secret_psnr_db": found}


def psnr(path: Path, wanted: Path) -> float:
    """The mean PSNR of frames in dB."""
    return metrics.mean_psnr(media.read_frames(path), media.read_frames(wanted))


def measure_row(row: str, arguments) -> dict:
    """Hide eight clips in each cover, as many at a time as there are slots."""
    name, count = row.split()
    count, (checkpoint, changes, _) = int(count), SCHEMES[name]
    scheme = loading.load(loading.config_of(checkpoint, changes))
    settings = common.q1_settings("clips", arguments.clips)
    items, stegos = evaluation.list_items(arguments.clips), []
    for i in range(arguments.count):
        cover, *secrets = (
            evaluation.prepare(items[(i + j) % len(items)], settings) for j in range(SECRETS + 1)
        )
        for first in range(0, SECRETS, count):
            with TemporaryDirectory(dir=arguments.workdir) as folder:
                stegos.append(hide_group(scheme, cover, secrets[first : first + count], count, Path(folder)))
            print(row, stegos[-1], flush=True)
    each = np.array([figure for stego in stegos for figure in stego["secret_psnr_db"]])
    stego = float(np.mean([stego["stego_psnr_db"] for stego in stegos]))
    return {"row": row, "stego_psnr_db": stego, "secret_psnr_db": float(each.mean()), "each": each.tolist()}


def quality(arguments) -> None:
    """The command `quality`."""
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    for row in arguments.only or ROWS:
        path = arguments.workdir / f"{row}.json"
        if not path.exists():
            common.write_json(path, measure_row(row, arguments))
    found = [common.read_json(arguments.workdir / f"{row}.json") for row in ROWS]
    rows = [row for row in found if row]
    titles = ["scheme, slots", "stego dB", "secret dB, mean", "least", "most"]
    lines = [
        [
            f"`{row['row']}`",
            *(
                f"{x:.1f}"
                for x in (row["stego_psnr_db"], row["secret_psnr_db"], min(row["each"]), max(row["each"]))
            ),
        ]
        for row in rows
    ]
    lines.append(["*LF-VSN 2023, 1 to 7 secrets*", "*> 31*", "*> 31*", "-", "-"])
    common.write_json(arguments.results / "slots.json", {"rows": rows, "table": [titles, lines]})


# --- detection -----------------------------------------------------------------------------------


def hide_in_photo(scheme: Scheme, photo: np.ndarray, real: int, seed: int, folder: Path) -> np.ndarray:
    """A photo with DETECTED slots, of which some are real: text that fills half of them."""
    rng, paths = np.random.default_rng((seed, real)), []
    samples = photo.size if (photo != photo[..., :1]).any() else photo[..., 0].size
    size = scheme.room(samples, photo[..., 0].size, 1, DETECTED) // 2
    for i in range(real):
        paths.append(folder / f"{i}.txt")
        paths[-1].write_bytes(rng.integers(97, 123, size, np.uint8).tobytes())
    media.write_frames(folder / "cover.png", photo[None])
    settings, stego = pipeline.DEFAULTS._replace(slots=DETECTED), folder / "stego.png"
    own = [keys.random_key() for _ in paths]
    pipeline.hide(scheme, own, folder / "cover.png", tuple(paths), stego, ignore, settings)
    return next(media.read_frames(stego))


def features_of(cover: np.ndarray, stego: np.ndarray, names: list[str]) -> dict:
    """Features and PSNR of a stego."""
    planes = steganalysis.planes_of(stego)
    found = {name: steganalysis.FEATURES[name](planes) for name in names}
    return {**found, "psnr_db": metrics.psnr(cover, stego)}


def detection(arguments) -> None:
    """The command `detection`."""
    scheme = loading.load(loading.config_of("adaptive"))
    store = steganalysis.Store(arguments.workdir / "photos")
    photos = [
        steganalysis.cut_photo(path) for path in steganalysis.list_photos(arguments.images)[: arguments.count]
    ]
    with TemporaryDirectory() as folder:
        hide = partial(hide_in_photo, scheme, folder=Path(folder))
        for row, make in (
            ("cover", lambda photo, seed: photo),
            ("1 real", lambda photo, seed: hide(photo, 1, seed)),
            ("4 real", lambda photo, seed: hide(photo, DETECTED, seed)),
        ):
            if not store.has(row):
                made = ((photo, make(photo, seed)) for seed, photo in enumerate(photos))
                store.write(row, [features_of(*pair, arguments.features) for pair in made])
                print(row, flush=True)
    train, test = steganalysis.split(len(photos))
    rows = [
        {"pair": f"{a}, {b}", "detector": detector}
        | steganalysis.judge(detector, store.read(a), store.read(b), train, test)
        for a, b in (("1 real", "4 real"), ("cover", "1 real"), ("cover", "4 real"))
        for detector in arguments.features
    ]
    lines = [
        [
            row["pair"],
            row["detector"],
            "{:.0f} % ({:.0f} to {:.0f})".format(
                *(100 * x for x in (row["accuracy"], *row["accuracy_interval"]))
            ),
        ]
        for row in rows
    ]
    table = [["told apart", "features", "accuracy, 95 % interval"], lines]
    common.write_json(
        arguments.results / "slots_detection.json", {"photos": len(photos), "rows": rows, "table": table}
    )


COMMANDS = {"quality": quality, "detection": detection}


def main() -> None:
    """Runs a command."""
    parser = common.make_parser(__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--clips")
    parser.add_argument("--images")
    parser.add_argument("--count", type=int, default=1, help="covers, or photos")
    parser.add_argument("--only", nargs="+", choices=ROWS, help="rows of quality to measure")
    parser.add_argument("--features", nargs="+", choices=steganalysis.FEATURES, default=["spam", "srm"])
    parser.add_argument("--workdir", type=Path, default=Path("runs/slots"))
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    arguments = parser.parse_args()
    COMMANDS[arguments.command](arguments)


if __name__ == "__main__":
    common.run(main)
