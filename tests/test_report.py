import base64
import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax import evaluation, report
from deepsteg_jax.errors import UserError
from tests.synthetic import noise, save, smooth

EVIL = """<script>alert(1)<'script> & "x" {{ 7*7 }} {% raw %} onerror=y"""
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
VOID = {"meta", "link", "img"}


class Reader(HTMLParser):
    """What a page holds: its tags with their attributes, and text by the tag around it."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(html)
        assert self.open == []  # every tag is closed

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def text_of(self, *tags):
        return [text for tag, text in self.texts if tag in tags]


# --- pages ----------------------------------------------------------------------------------------


def config_of(**changes):
    return ConfigDict(
        {
            "seed": 0,
            "deterministic": False,
            "checkpoint": "video",
            "model": {"name": "block_dct", "step": 3},
            "evaluate": {"path": "clips", "width": 48, "height": 32, "frames": 6, "first_frame": 5},
            "channel": (("round", 8),),
            **changes,
        }
    )


COST = {"gmac_per_frame": {"hide": 1.25, "reveal": 0.5}, "parameters": {"hide": 12345, "reveal": 678}}
SPEED = {"hide_fps": 12.34, "reveal_fps": 56.78}


def files_in(folder, word=EVIL):
    """A round trip by hand, whose stego is one level off and whose secret is exact in its last frame."""
    folder.mkdir(exist_ok=True)
    cover, secret = noise(6, low=10, high=200), smooth(6)
    revealed = secret.copy()
    revealed[:5, :, ::2] ^= 1
    clips = {f"cover {word}": cover, "stego": cover + 1, "secret": secret, "revealed": revealed}
    return evaluation.Files(
        *(
            save(folder / f"{name}.mkv", clips[name])
            for name in (f"cover {word}", "stego", "secret", "revealed")
        )
    )


@pytest.fixture
def files(tmp_path):
    """Those of `files_in`."""
    return files_in(tmp_path)


def roundtrip(path, files, config=None, notes=("2 frames were left out",), word=EVIL):
    """Writes a report of `files`; returns it and the figures."""
    per_frame = evaluation.measure_frames(files)
    figures = {
        **evaluation.mean_of_frames(files, per_frame),
        **SPEED,
        **COST,
        **{f"{name}_bytes": file.stat().st_size for name, file in files._asdict().items()},
        "per_frame": {name: [frame[name] for frame in per_frame] for name in per_frame[0]},
    }
    rows = evaluation.picked_frames(files, 2, len(per_frame))
    report.write_roundtrip(
        path, config or config_of(), figures, files, rows, f"python main.py '{EVIL}'", notes
    )
    return path.read_text(encoding="utf-8"), figures


def pairs_of(count, word=EVIL, **extra):
    rng = np.random.default_rng(0)
    names = [f"{i} {word}" for i in range(count)]
    columns = ("stego_psnr_db", "stego_ssim", "secret_psnr_db", "secret_ssim", "wrong_key_psnr_db")
    return [
        {
            "cover": names[i],
            "secret": names[(i + 1) % count],
            **dict(zip(columns, rng.uniform((40, 0, 30, 0, 5), (50, 1, 45, 1, 8)), strict=True)),
            **SPEED,
            "stego_bytes": 8000,
            "frames": 6,
            **extra,
        }
        for i in range(count)
    ]


def evaluate(path, pairs, notes=(), config=None):
    """Writes a report of pairs; returns it."""
    figures = {"pairs": pairs, "mean": evaluation.mean_of(pairs), **COST}
    frames = {name: noise(1, seed=i)[0] for i, name in enumerate(evaluation.Files._fields)}
    rows = [(pair["cover"], frames) for pair in pairs[:2]]
    report.write_evaluation(path, config or config_of(), figures, rows, "python main.py", notes)
    return path.read_text(encoding="utf-8")


def write(kind, folder, word):
    """Writes a page of one kind with a word in all places where users' texts go; returns (path, HTML)."""
    path, config = folder / "report.html", config_of(checkpoint=word, section={word: word})
    if kind == "roundtrip":
        html, _ = roundtrip(path, files_in(folder, word), config, [word], word)
        return path, html
    folder.mkdir(exist_ok=True)
    config.evaluate.path = word
    return path, evaluate(path, pairs_of(5, word), [word], config)


@pytest.fixture(params=["roundtrip", "evaluation"])
def page(request, tmp_path):
    """(path, HTML) of both kinds of page, full of hostile names."""
    return write(request.param, tmp_path, EVIL)


@pytest.mark.parametrize("kind", ["roundtrip", "evaluation"])
def test_nothing_is_injected(tmp_path, kind):
    """A page has the same tags whatever the names are, and shows them as they are."""
    hostile, harmless = (
        Reader(write(kind, tmp_path / folder, word)[1]) for folder, word in (("a", EVIL), ("b", "word"))
    )
    shape = [[(tag, list(attributes)) for tag, attributes in reader.tags] for reader in (hostile, harmless)]
    assert shape[0] == shape[1]
    texts = [[text for _, text in reader.texts] for reader in (hostile, harmless)]
    places = [i for i, text in enumerate(texts[1]) if "word" in text]
    assert len(places) >= 5
    assert all(EVIL in texts[0][i] for i in places)
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in hostile.tags}


def test_nothing_outside_is_asked_for(page):
    reader = Reader(page[1])
    addresses = [
        value
        for _, attributes in reader.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href")
    ]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"url\(|@import|@font-face", page[1])
    policy = [
        tag["content"] for tag in reader.all("meta") if tag.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policy) == 1 and policy[0].startswith("default-src 'none'; img-src data:;")


def test_the_page_can_be_read_without_eyes(page):
    reader = Reader(page[1])
    assert page[1].startswith("<!DOCTYPE html>") and reader.all("html") == [{"lang": "en"}]
    assert len(reader.text_of("title")) >= 1
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert all(image["alt"].strip() for image in reader.all("img"))
    assert len({image["alt"] for image in reader.all("img")}) == len(reader.all("img"))
    assert all(header["scope"] in ("row", "col") for header in reader.all("th"))
    assert len(reader.all("caption")) == len(reader.all("table")) >= 4
    drawings = [box for box in reader.all("div") if box.get("class") == "drawing"]
    assert len(drawings) == len(reader.all("svg")) == 1
    assert all(box["role"] == "img" and box["aria-label"] for box in drawings)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert max(Counter(ids).values()) == 1
    named = {attributes.get("aria-labelledby") for _, attributes in reader.tags} - {None}
    assert named <= set(ids)


def test_figures_of_a_round_trip(tmp_path, files):
    html, figures = roundtrip(tmp_path / "r.html", files)
    reader = Reader(html)
    shown = reader.text_of("dd")
    for text in (
        f"{20 * np.log10(255):.2f} dB",
        f"{figures['secret_psnr_db']:.2f} dB",
        f"against the cover, SSIM {figures['stego_ssim']:.4f}",
        "12.3 frames/s",
        "56.8 frames/s",
        "1.75 GMAC",
        "hide 1.25, reveal 0.50",
        "13,023",
        "24.00 bits",
    ):
        assert text in shown, text
    assert "2 frames were left out" in reader.text_of("li")
    assert any("8-bit" in text for text in reader.text_of("li"))
    assert not any("lossy" in text for text in reader.text_of("li"))
    assert reader.text_of("code") == [f"python main.py '{EVIL}'"]
    cells = reader.text_of("bdi")
    for text in ("config.seed", "config.channel", "(('round', 8),)", "jax", "python", "deepsteg_jax"):
        assert text in cells
    size = files.stego.stat().st_size
    assert f"{size / 1024:,.1f} KiB" in cells
    assert (
        f"{8 * size * 25 / 6 / 1e3:,.1f} kbit/s" in cells or f"{8 * size * 25 / 6 / 1e6:,.2f} Mbit/s" in cells
    )


def test_curves_follow_the_frames(tmp_path, files):
    html, figures = roundtrip(tmp_path / "r.html", files)
    reader = Reader(html)
    assert {"stego", "secret", "frame", "dB"} <= set(reader.text_of("text"))
    numbers = reader.text_of("bdi")
    row = numbers[numbers.index("secret", numbers.index("lowest")) :][:7]
    assert row[1] == f"{figures['secret_psnr_db']:.2f}" and row[5:7] == ["100.00", "5"]


def test_an_image_has_no_curve(tmp_path):
    picture = noise(1, low=10, high=200)
    clips = {"cover": picture, "stego": picture + 1, "secret": picture, "revealed": picture}
    files = evaluation.Files(**{n: save(tmp_path / f"{n}.png", c) for n, c in clips.items()})
    html, _ = roundtrip(tmp_path / "r.html", files)
    assert "1 frame " in html and not Reader(html).all("svg")
    assert "bit/s" not in " ".join(Reader(html).text_of("bdi"))


def test_a_lossy_stego_is_named(tmp_path, files):
    jpeg = files._replace(stego=tmp_path / "stego.jpg")
    Image.fromarray(noise(1)[0]).save(jpeg.stego)
    assert report._lossy_rules(jpeg) and not report._lossy_rules(files)


def test_table_of_an_evaluation(tmp_path):
    pairs = pairs_of(3, stego_ssimulacra2=81.25, secret_ssimulacra2=70.0)
    reader = Reader(evaluate(tmp_path / "r.html", pairs, ["a word of warning"]))
    cells = reader.text_of("bdi")
    for number, pair in enumerate(pairs, 1):
        first = [str(number), pair["cover"], pair["secret"]]
        begin = next(i for i in range(len(cells)) if cells[i : i + 3] == first)
        assert f"{pair['secret_psnr_db']:.2f}" in cells[begin : begin + 14]
        assert "81.2" in cells[begin : begin + 14]
    mean = np.mean([pair["wrong_key_psnr_db"] for pair in pairs])
    assert f"{mean:.2f} dB" in reader.text_of("dd")
    assert f"{8 * 8000 / (48 * 32 * 6):.2f} bits" in reader.text_of("dd")
    assert "a word of warning" in reader.text_of("li")
    assert {"stego", "secret", "pair"} <= set(reader.text_of("text"))
    assert len(reader.all("img")) == 2 * 6
    without = Reader(evaluate(tmp_path / "s.html", pairs_of(2)))
    assert "stego SSIMULACRA2" in cells and "stego SSIMULACRA2" not in without.text_of("bdi")


# --- parts ----------------------------------------------------------------------------------------


def decode(picture):
    return np.asarray(Image.open(BytesIO(base64.b64decode(picture.source.partition(",")[2]))).convert("RGB"))


def test_pictures_show_the_frames():
    colours = {"cover": (200, 40, 40), "stego": (200, 41, 40), "secret": (0, 0, 255), "revealed": (0, 9, 250)}
    frames = {name: np.full((32, 48, 3), colour, np.uint8) for name, colour in colours.items()}
    found = report.picture_row("frame 3", frames)
    shown = ["cover", "stego", "difference", "secret", "revealed", "difference"]
    assert all(word in picture.caption for word, picture in zip(shown, found, strict=True))
    assert all("frame 3" in picture.alt for picture in found)
    wanted = [colours["cover"], colours["stego"], (128, 148, 128), colours["secret"], colours["revealed"]]
    for picture, colour in zip(found, [*wanted, (128, 255, 28)], strict=True):
        assert (picture.width, picture.height) == (48, 32)
        assert np.abs(decode(picture) - np.array(colour, int)).max() <= 4


def test_large_pictures_are_scaled_down():
    frames = {name: np.zeros((300, 2 * report.WIDEST, 3), np.uint8) for name in evaluation.Files._fields}
    for picture in report.picture_row("", frames):
        assert (picture.width, picture.height) == (report.WIDEST, 150)
        assert decode(picture).shape == (150, report.WIDEST, 3)


def test_what_cannot_be_written_leaves_nothing(tmp_path, files):
    with pytest.raises(UserError, match="none/r.html cannot be written") as caught:
        evaluate(tmp_path / "none" / "r.html", pairs_of(2))
    assert "\n" not in str(caught.value)
    (tmp_path / "r.html").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        evaluate(tmp_path / "r.html", pairs_of(2))
    assert not list(tmp_path.glob(".*"))


def test_names_that_are_no_text(tmp_path):
    name = b"caf\xe9.mkv".decode(errors="surrogateescape")  # as the file system gives it
    pairs = [pair | {"cover": name} for pair in pairs_of(2)]
    assert "caf?.mkv" in evaluate(tmp_path / "r.html", pairs)


# --- in a browser ---------------------------------------------------------------------------------

PROBE = """<!DOCTYPE html><iframe src="report.html" width="%d" height="4000"></iframe><pre></pre><script>
onload = () => {
  const page = frames[0].document, all = tag => [...page.querySelectorAll(tag)];
  document.querySelector("pre").textContent = JSON.stringify({
    width: page.documentElement.scrollWidth,
    pictures: all("img").map(image => [image.naturalWidth, image.getBoundingClientRect().width]),
    rows: all("table").map(table => table.rows.length),
    background: getComputedStyle(page.body).backgroundColor,
    text: getComputedStyle(page.body).color,
    line: all(".chart .scroll")[0].getBoundingClientRect().width,
    font: all("p, td, th, dd, text, figcaption").map(x => parseFloat(getComputedStyle(x).fontSize)),
    asked: frames[0].performance.getEntriesByType("resource").map(entry => entry.name),
  });
};
</script>"""


def browse(folder, width, *flags):
    """Opens report.html in a frame so many pixels wide; returns (what it holds, lines of the console)."""
    (folder / "probe.html").write_text(PROBE % width)
    profile = folder / "profile"
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        "--disable-dev-shm-usage",
        *(f"--user-data-dir={profile}", "--allow-file-access-from-files", "--enable-logging=stderr"),
        *("--window-size=1400,1000", "--virtual-time-budget=10000", "--dump-dom", *flags),
        (folder / "probe.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    shutil.rmtree(profile, ignore_errors=True)
    found = re.search(r"<pre>(.*?)</pre>", done.stdout, re.S)
    assert found and found[1], (done.stdout, done.stderr)
    return json.loads(found[1]), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def luminance(colour):
    """Relative luminance of "rgb(r, g, b)", after WCAG 2."""
    linear = [(x / 255 / 12.92 if x < 10 else ((x / 255 + 0.055) / 1.055) ** 2.4) for x in colour]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
@pytest.mark.parametrize("width, dark", [(343, True), (1200, False)])
def test_in_a_browser(page, width, dark):
    path, html = page
    found, console = browse(path.parent, width, *(["--force-dark-mode"] if dark else []))
    assert console == []
    assert found["width"] <= width
    reader = Reader(html)
    assert len(found["pictures"]) == len(reader.all("img")) > 0
    assert all(natural == 48 and 100 < shown <= width for natural, shown in found["pictures"])
    assert len(found["rows"]) == len(reader.all("table")) and min(found["rows"]) >= 3
    assert 200 < found["line"] < width and min(found["font"]) >= 12
    assert not [name for name in found["asked"] if not name.startswith("data:")]
    text, background = (
        luminance([int(x) for x in re.findall(r"\d+", found[name])]) for name in ("text", "background")
    )
    assert (text > background) == dark
    high, low = max(text, background), min(text, background)
    assert (high + 0.05) / (low + 0.05) > 7  # WCAG's enhanced contrast


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
def test_the_policy_stops_what_escaping_would_miss(page):
    """Were something injected after all, the browser would not run it, and the test above would see it."""
    path, html = page
    path.write_text(html.replace("<main>", "<main><script>document.title = 1</script>"))
    _, console = browse(path.parent, 800)
    assert any("Content Security Policy" in line for line in console)
