"""A jigsaw solver against the keyed transforms: what an attacker sees who has the network but not the key.

    python -m experiments.jigsaw --images FOLDER [--count 50] [--workdir experiments/results]

Hides image i + 1 in image i (224x224 centre crops, --count of them spread over the folder, the shipped
checkpoint `image`, 8-bit stego), reveals without a key (`shuffle.moves` "nothing"), cuts the revealed frame
into pieces and hands them to the solver in a random order. The solver knows the orientation of the pieces
and the size of the frame. It is Gallagher's ("Jigsaw puzzles with pieces of unknown orientation", CVPR
2012) with the best buddies of Pomeranz, Shemesh and Ben-Shahar ("A fully automated greedy square jigsaw
puzzle solver", CVPR 2011). Writes jigsaw.json (every image) and jigsaw.jpg (the same on one frame of a
sample clip).
"""

import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from deepsteg_jax import cipher, evaluation, keys, loading, media, metrics, plots, sample_clips
from deepsteg_jax.keystream import permutation
from deepsteg_jax.models import block_dct
from deepsteg_jax.models.quantiser import make_quantiser
from experiments import common, tables
from experiments.entries import ENTRIES

SIZE = 224
MAP_BLOCK = 56  # of the original system's fixed map
REFILLS = 8  # rounds of taking out badly placed pieces and filling the holes again
# Gallagher's nine extra gradients, which keep the covariance at a flat edge regular; four times as large
# as his, which serves small pieces and the noise of a revealed frame better.
EXTRA = 4 * np.concatenate([np.zeros((1, 3)), np.ones((1, 3)), -np.ones((1, 3)), np.eye(3), -np.eye(3)])
HEADER = block_dct.sizes_of((1, SIZE, SIZE, 3), 64, make_quantiser(3)).ends[-1]  # samples
PICTURE = ("sample:bikes.mp4", "sample:bigbuckbunny.mp4")  # cover and secret

# --- the solver ----------------------------------------------------------------------------------


def cut(frame: np.ndarray, size: int) -> np.ndarray:
    """The pieces of a frame [h, w, 3], row by row: [n, size, size, 3]."""
    rows, columns = frame.shape[0] // size, frame.shape[1] // size
    return frame.reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(-1, size, size, 3)


def join(pieces: np.ndarray, columns: int) -> np.ndarray:
    """Inverse of `cut`, [n, size, size, 3] -> [h, w, 3]."""
    size = pieces.shape[1]
    return pieces.reshape(-1, columns, size, size, 3).swapaxes(1, 2).reshape(-1, columns * size, 3)


def _one_sided(inner: np.ndarray, edge: np.ndarray, facing: np.ndarray) -> np.ndarray:
    """Mahalanobis distances of the steps across a border from the steps just before it, [n, n].

    Args:
        inner: [n, p, 3], the last but one line of pixels of each piece.
        edge: [n, p, 3], its last line.
        facing: [n, p, 3], the first line of each piece that may follow.
    """
    gradients = edge - inner
    samples = np.concatenate([gradients, np.broadcast_to(EXTRA, (len(edge), *EXTRA.shape))], axis=1)
    samples = samples - samples.mean(axis=1, keepdims=True)
    inverse = np.linalg.inv(samples.swapaxes(1, 2) @ samples / (samples.shape[1] - 1))  # [n, 3, 3]
    expected = edge + gradients.mean(axis=1, keepdims=True)
    weighted = expected @ inverse
    squares = (facing.swapaxes(1, 2) @ facing).reshape(-1, 9)
    crossed = weighted.reshape(len(edge), -1) @ facing.reshape(len(edge), -1).T
    return inverse.reshape(-1, 9) @ squares.T - 2 * crossed + (weighted * expected).sum(axis=(1, 2))[:, None]


def compatibility(pieces: np.ndarray) -> np.ndarray:
    """Mahalanobis gradient compatibility (Gallagher 2012) of every pair; small fits well.

    Args:
        pieces: [n, p, p, 3].

    Returns:
        [2, n, n]: the cost of piece j to the right of piece i, and of piece j below piece i.
    """
    costs = []
    for x in (pieces.astype(float).swapaxes(1, 2), pieces.astype(float)):  # [n, across, along, 3]
        cost = _one_sided(x[:, -2], x[:, -1], x[:, 0]) + _one_sided(x[:, 1], x[:, 0], x[:, -1]).T
        np.fill_diagonal(cost, np.inf)
        costs.append(np.maximum(cost, 0) + 1e-6)
    return np.stack(costs)


def rival_ratios(costs: np.ndarray) -> list[np.ndarray]:
    """Costs [2, n, n] over those of the best rival (Gallagher 2012), for each of both pieces: [2, n, n].

    Where both are below 1 the pieces prefer each other: best buddies (Pomeranz et al. 2011).
    """
    views = []
    for axis in (1, 2):
        best, second = np.split(np.partition(costs, 1, axis=axis).take([0, 1], axis=axis), 2, axis=axis)
        views.append(costs / np.where(costs == best, second, best))
    return views


def grow_tree(ratios: np.ndarray) -> np.ndarray:
    """Kruskal's algorithm over all pairs, without unions whose pieces would overlap (Gallagher 2012).

    Args:
        ratios: [2, n, n], small is joined first.

    Returns:
        int [n, 2], row and column of each piece; the tree has any outline.
    """
    count = ratios.shape[1]
    stride = 4 * count  # a place is row * stride + column, with columns in (-count, count)
    label, place = np.arange(count), [0] * count
    members, taken = [[i] for i in range(count)], [{0} for _ in range(count)]
    order = np.argsort(ratios, axis=None)
    for chunk in np.split(order, range(4096, len(order), 4096)):
        downs, firsts, seconds = np.unravel_index(chunk, ratios.shape)
        apart = label[firsts] != label[seconds]
        for down, i, j in zip(*(x[apart].tolist() for x in (downs, firsts, seconds)), strict=True):
            a, b = label[i], label[j]
            shift = place[i] + (stride if down else 1) - place[j]  # moves the cluster of j to that of i
            if len(members[a]) < len(members[b]):
                a, b, shift = b, a, -shift
            moved = {p + shift for p in taken[b]}
            if a == b or not taken[a].isdisjoint(moved):
                continue
            taken[a] |= moved
            for k in members[b]:
                place[k] += shift
            label[members[b]] = a
            members[a] += members[b]
        if len(members[label[0]]) == count:
            break
    rows, columns = np.divmod(np.array(place) + stride // 2, stride)
    return np.stack([rows, columns - stride // 2], axis=1)


def trim(places: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The window that holds the most pieces of a tree (Gallagher 2012): int [rows, columns], -1 for holes.

    Args:
        places: int [n, 2] of `grow_tree`.
        rows: of the frame.
        columns: of the frame.
    """
    places = places - places.min(axis=0) + (rows, columns)
    canvas = np.full(places.max(axis=0) + 1 + (rows, columns), -1)
    canvas[tuple(places.T)] = np.arange(len(places))
    held = np.lib.stride_tricks.sliding_window_view(canvas >= 0, (rows, columns)).sum(axis=(2, 3))
    top, left = np.unravel_index(np.argmax(held), held.shape)
    return canvas[top : top + rows, left : left + columns]


def fill(grid: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """Fills holes, those with the most neighbours first, each with the best piece (Gallagher 2012).

    Args:
        grid: int [rows, columns], -1 for holes.
        ratios: [2, n, n], small fits well.

    Returns:
        int [rows, columns], every piece once.
    """
    filled = np.full(np.add(grid.shape, 2), -1)
    near, fits = np.zeros(filled.shape, int), np.zeros((*filled.shape, grid.size))
    sides = ((0, 1, ratios[0]), (0, -1, ratios[0].T), (1, 0, ratios[1]), (-1, 0, ratios[1].T))

    def put(piece, row, column):
        filled[row, column] = piece
        for down, right, table in sides:
            near[row + down, column + right] += 1
            fits[row + down, column + right] += table[piece]

    for row, column in np.argwhere(grid >= 0):
        put(grid[row, column], row + 1, column + 1)
    unused = np.setdiff1d(np.arange(grid.size), grid)
    while len(unused):
        known = np.where(filled < 0, near, -1)[1:-1, 1:-1]
        holes = np.argwhere(known == known.max()) + 1
        costs = fits[holes[:, 0], holes[:, 1]][:, unused]
        hole, k = np.unravel_index(np.argmin(costs), costs.shape)
        put(unused[k], *holes[hole])
        unused = np.delete(unused, k)
    return filled[1:-1, 1:-1]


def count_buddies(grid: np.ndarray, views: list[np.ndarray]) -> np.ndarray:
    """How many best buddies lie beside each piece of a grid, int [rows, columns]."""
    right, below = np.maximum(*views) < 1
    across = np.pad(right[grid[:, :-1], grid[:, 1:]].astype(int), ((0, 0), (1, 1)))
    along = np.pad(below[grid[:-1], grid[1:]].astype(int), ((1, 1), (0, 0)))
    return across[:, :-1] + across[:, 1:] + along[:-1] + along[1:]


def solve(pieces: np.ndarray, columns: int) -> np.ndarray:
    """Puts pieces [n, p, p, 3] together: int [rows, columns], the piece in each place.

    One tree for each of three readings of the ratios; then some rounds take out the pieces with fewer than
    two best buddies beside them and fill the holes again. The arrangement with the most best buddies side by
    side is kept: their number tells a good one without the truth (Pomeranz et al. 2011).
    """
    views, found = rival_ratios(compatibility(pieces)), []
    for read in (np.add, np.maximum, np.minimum):
        ratios = read(*views)
        grid = trim(grow_tree(ratios), len(pieces) // columns, columns)
        for _ in range(REFILLS + 1):
            grid = fill(grid, ratios)
            buddies = count_buddies(grid, views)
            found.append((buddies.sum(), grid))
            if buddies.max() < 2:
                break  # nothing to build on
            grid = np.where(buddies >= 2, grid, -1)
    return max(found, key=lambda entry: entry[0])[1]


def score(places: np.ndarray) -> dict[str, float]:
    """Shares that are right; places int [rows, columns], the true ones of the pieces in the solution."""
    columns, label = places.shape[1], np.arange(places.size).reshape(places.shape)
    right = (places[:, 1:] == places[:, :-1] + 1) & (places[:, 1:] % columns != 0)
    below = places[1:] == places[:-1] + columns
    before = None
    while not np.array_equal(before, label):  # joined places take the least label
        before = label.copy()
        for a, b, joined in ((label[:, :-1], label[:, 1:], right), (label[:-1], label[1:], below)):
            a[joined] = b[joined] = np.minimum(a, b)[joined]
    return {
        "neighbours": float((right.sum() + below.sum()) / (right.size + below.size)),
        "direct": float(np.mean(places.ravel() == np.arange(places.size))),
        "largest": float(np.bincount(label.ravel()).max() / places.size),
    }


# --- what is attacked ----------------------------------------------------------------------------


class Victim(NamedTuple):
    """A system to attack: sides of pieces to try, in pixels, and section `shuffle` of its config."""

    name: str
    sizes: tuple[int, ...]
    moves: str | None  # None: nothing is hidden
    cipher: str = "blocks"
    block_size: int = 8
    fixed_map: bool = False
    header_given: bool = False


SIZES = (56, 16, 8)
VICTIMS = [
    Victim("shuffled photo itself, nothing hidden", (56, 28, 16, 8), None),
    Victim("fixed 4x4 map (public: needs no solver)", (MAP_BLOCK,), "nothing", fixed_map=True),
    *(Victim(f"keyed blocks of the secret, {size} px", (size,), "secret", block_size=size) for size in SIZES),
    Victim("coefficients of the secret", SIZES, "secret", "coefficients"),
    Victim("keyed blocks of the cover, 8 px", SIZES, "cover"),
    Victim("keyed blocks of the cover, 8 px, header given", SIZES, "cover", header_given=True),
    Victim("coefficients, cover (default)", SIZES, "cover", "coefficients"),
    Victim("coefficients, cover (default), header given", SIZES, "cover", "coefficients", header_given=True),
]
# Lines of the picture: number of the victim, side of the pieces.
SHOWN = [(0, 8), (1, 56), (2, 56), (3, 16), (4, 8), (5, 8), (8, 8)]


def true_places(victim: Victim, key: np.ndarray, size: int) -> np.ndarray:
    """Where in the secret each piece of the revealed frame belongs, row by row, int [n].

    Where single coefficients are moved a piece belongs where its mean lightness comes from, the best case for
    an attacker; where the cover is moved, where it is in the frame.
    """
    columns = SIZE // size
    if victim.fixed_map:
        return np.random.default_rng(0).permutation(columns**2)
    if (victim.moves, victim.cipher) == ("secret", "blocks"):
        return np.asarray(permutation(key, 0, columns**2))
    if (victim.moves, size) == ("secret", cipher.BLOCK):  # the first coefficient is the mean lightness
        return np.asarray(cipher.scatter(key, 0, columns, columns, 3 * cipher.BLOCK**2)[0])
    return np.arange(columns**2)


def scheme_of(**changes):
    """Load the shipped image model with other settings of the shuffle."""
    config = ENTRIES["block_dct_image"].load()
    config.shuffle.update(changes)
    return loading.load(config)


def revealed_frames(victim: Victim, frames: list[np.ndarray], words: list[np.ndarray]) -> list[np.ndarray]:
    """What an attacker without the keys reveals of each pair, uint8 [SIZE, SIZE, 3] as `frames`."""
    secrets = frames[1:] + frames[:1]
    if victim.moves is None:
        return secrets
    if victim.fixed_map:
        order = true_places(victim, words[0], MAP_BLOCK)
        secrets = [join(cut(secret, MAP_BLOCK)[order], SIZE // MAP_BLOCK) for secret in secrets]
    hider = scheme_of(moves=victim.moves, cipher=victim.cipher, block_size=victim.block_size)
    plain, revealed = scheme_of(moves="nothing"), []
    for key, cover, secret in zip(words, frames, secrets, strict=True):
        stego = np.array(hider.codec().hide(hider.hide_params, key, 0, cover[None], secret[None]))
        if victim.header_given:  # that of the same secret hidden without a key
            known = np.asarray(plain.codec().hide(plain.hide_params, key, 0, cover[None], secret[None]))
            stego.ravel()[:HEADER] = known.ravel()[:HEADER]
        revealed.append(np.asarray(plain.codec().reveal(plain.reveal_params, key, 0, stego))[0])
    return revealed


def attack(victim: Victim, names: list[str], frames: list[np.ndarray]) -> tuple[list[dict], dict]:
    """Attacks every pair: (a row for each size of piece, {size: pictures and figures of the first pair})."""
    rng = np.random.default_rng(VICTIMS.index(victim))
    words = [keys.key_words(rng.bytes(keys.KEY_BYTES)) for _ in frames]
    revealed, rows, pictures = revealed_frames(victim, frames, words), [], {}
    for size in victim.sizes:
        columns, images = SIZE // size, []
        for i in tqdm(range(len(frames)), desc=f"{victim.name}, {size}", unit="image"):
            secret, truth = frames[(i + 1) % len(frames)], true_places(victim, words[i], size)
            dealt = rng.permutation(columns**2)  # a random order, so that ties tell nothing
            pieces = cut(revealed[i], size)
            solved = dealt[solve(pieces[dealt], columns)]
            perfect = metrics.psnr(secret, join(pieces[np.argsort(truth)], columns))
            figures = {**score(truth[solved]), "perfect_psnr_db": min(float(perfect), 100.0)}
            images.append({"secret": names[(i + 1) % len(frames)], **figures})
            seen = revealed[i] if victim.moves else join(pieces[dealt], columns)
            shown = (secret, seen, join(pieces[solved.ravel()], columns))
            pictures.setdefault(size, (shown, figures["neighbours"]))
        error = np.std([image["neighbours"] for image in images], ddof=1) / len(images) ** 0.5
        settings = {"moves": victim.moves, "cipher": victim.cipher, "block_size": victim.block_size}
        chance = 1 / (columns * (columns + 1))  # c (c - 1) borders each way, c^2 (c^2 - 1) ordered pairs
        mean = {**evaluation.mean_of(images), "standard_error": float(error), "chance": chance}
        row = {"name": victim.name, "piece_size": size, "pieces": columns**2, "shuffle": settings}
        rows.append({**row, "mean": mean, "images": images})
    return rows, pictures


def load_frames(folder: str, count: int) -> tuple[list[str], list[np.ndarray]]:
    """Names and centre crops, uint8 [SIZE, SIZE, 3], of `count` images spread evenly over a folder."""
    settings, items = ConfigDict({"height": SIZE, "width": SIZE}), evaluation.list_items(folder)
    picked = [items[i * len(items) // count] for i in range(count)] if count < len(items) else items
    return [item.name for item in picked], [evaluation.prepare(item, settings)[0] for item in picked]


def shown_rows() -> list[tuple]:
    """What `draw` takes: the attacks of SHOWN on a frame of a sample clip."""
    frames = []
    for sample in PICTURE:
        frame = next(media.read_frames(sample_clips.resolve(sample), start=40))
        top, left = (frame.shape[0] - SIZE) // 2, (frame.shape[1] - SIZE) // 2
        frames.append(np.ascontiguousarray(frame[top : top + SIZE, left : left + SIZE]))
    attacks = [(VICTIMS[number], size, attack(VICTIMS[number], PICTURE, frames)[1]) for number, size in SHOWN]
    return [(victim.name, size, pictures[size]) for victim, size, pictures in attacks]


def draw(path: Path, rows: list[tuple]) -> None:
    """A line for each (name, piece size, ((secret, seen, solved): uint8 [h, w, 3], neighbours right))."""
    size = (8.4, 2.8 * len(rows))
    figure, axes = plots.plt.subplots(len(rows), 3, figsize=size, squeeze=False, layout="constrained")
    for line, (name, pixels, (frames, share)) in zip(axes, rows, strict=True):
        titles = ("secret", "seen without the key", f"solved: {share:.1%} of neighbours right")
        for axis, title, frame in zip(line, titles, frames, strict=True):
            axis.imshow(frame)
            axis.set_title(title, fontsize=10)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(textwrap.fill(name, 28) + f"\npieces of {pixels} px", fontsize=10)
    figure.savefig(path, dpi=80)
    plots.plt.close(figure)


def main() -> None:
    """Attacks every victim and prints the table."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--images", required=True)
    parser.add_argument("--count", type=int, default=50, help="photos, spread evenly over the folder")
    parser.add_argument("--workdir", type=Path, default=common.RESULTS)
    arguments = parser.parse_args()
    names, frames = load_frames(arguments.images, arguments.count)
    rows = [row for victim in VICTIMS for row in attack(victim, names, frames)[0]]
    common.write_json(arguments.workdir / "jigsaw.json", rows)
    draw(arguments.workdir / "jigsaw.jpg", shown_rows())
    print(tables.jigsaw(rows))


if __name__ == "__main__":
    common.run(main)
