"""Draw secrets that are no photographs: pages of text, diagrams, screens.

    python -m experiments.drawn_secrets --output FOLDER [--count 60] [--size 256] [--seed 0]

Writes KIND_NUMBER.png, the kinds in turn. `config.data.secret_path` trains on them, `validation_secret_path`
measures on others.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from experiments import common

LETTERS = "abcdefghijklmnopqrstuvwxyz"
Colour = tuple[int, int, int]


def pick_colour(rng: np.random.Generator, low: int, high: int) -> Colour:
    """A colour with components from low to high - 1."""
    red, green, blue = rng.integers(low, high, 3).tolist()
    return red, green, blue


def write_lines(
    draw: ImageDraw.ImageDraw, rng, box: tuple[int, int, int, int], size: int, ink: Colour
) -> None:
    """Fill a box (left, top, right, bottom) with lines of words."""
    left, top, right, bottom = box
    font = ImageFont.load_default(size)
    for y in range(top, bottom - size, int(1.4 * size)):
        line = ""
        while draw.textlength(line, font) < right - left - 4 * size:
            line += "".join(rng.choice(list(LETTERS), rng.integers(2, 9))) + " "
        draw.text((left, y), line, ink, font)


def draw_text(rng: np.random.Generator, size: int) -> Image.Image:
    """A page of dark text on light ground, or the other way round."""
    paper, ink = pick_colour(rng, 225, 256), pick_colour(rng, 0, 60)
    if rng.random() < 0.3:
        paper, ink = ink, paper
    page = Image.new("RGB", (size, size), paper)
    write_lines(ImageDraw.Draw(page), rng, (8, 8, size - 8, size - 8), int(rng.integers(10, 22)), ink)
    return page


def draw_diagram(rng: np.random.Generator, size: int) -> Image.Image:
    """Filled and outlined shapes, lines and curves in flat colours."""
    picture = Image.new("RGB", (size, size), pick_colour(rng, 200, 256))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(6, 14))):
        (x0, x1), (y0, y1) = np.sort(rng.integers(0, size, (2, 2)), axis=1).tolist()
        colour, width = pick_colour(rng, 0, 256), int(rng.integers(1, 6))
        match rng.integers(4):
            case 0:
                draw.rectangle((x0, y0, x1, y1), colour, pick_colour(rng, 0, 80), width)
            case 1:
                draw.ellipse((x0, y0, x1, y1), colour)
            case 2:
                draw.line((x0, y1, x1, y0), colour, width)
            case _:
                draw.arc((x0, y0, x1, y1), *rng.integers(0, 360, 2).tolist(), fill=colour, width=width)
    return picture


def draw_screen(rng: np.random.Generator, size: int) -> Image.Image:
    """A desktop: a gradient, windows with title bars, text and buttons."""
    ends = np.asarray([pick_colour(rng, 0, 256) for _ in range(2)])
    ramp = np.linspace(ends[0], ends[1], size)[:, None]
    screen = Image.fromarray(np.uint8(np.broadcast_to(ramp, (size, size, 3))))
    draw = ImageDraw.Draw(screen)
    for _ in range(int(rng.integers(2, 5))):
        x, y = rng.integers(0, size // 2, 2).tolist()
        right, bottom = (int(v) for v in rng.integers(size // 2, size, 2))
        draw.rectangle((x, y, right, bottom), pick_colour(rng, 230, 256), (90, 90, 90))
        draw.rectangle((x, y, right, y + 14), pick_colour(rng, 20, 160))
        write_lines(
            draw, rng, (x + 6, y + 20, right - 6, bottom - 24), int(rng.integers(8, 13)), (30, 30, 30)
        )
        draw.rounded_rectangle((right - 44, bottom - 20, right - 6, bottom - 6), 4, pick_colour(rng, 60, 220))
    return screen


KINDS = {"text": draw_text, "diagram": draw_diagram, "screen": draw_screen}


def main() -> None:
    """Draw and write the pictures."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for i in range(arguments.count):
        kind = list(KINDS)[i % len(KINDS)]
        picture = KINDS[kind](np.random.default_rng((arguments.seed, i)), arguments.size)
        picture.save(arguments.output / f"{kind}_{i:04d}.png")


if __name__ == "__main__":
    common.run(main)
