"""What Chromium shows of written videos."""

import base64

import numpy as np
import pytest

from deepsteg_jax import media
from tests.app.browser import chromium

COLOURS = np.array([[220, 40, 30], [30, 200, 60], [40, 60, 210], [180, 140, 110]], np.uint8)
DRAW = """
const [data, type, x, y, done] = arguments, video = document.createElement('video');
video.muted = true;
video.onerror = () => done(video.error.message);
video.requestVideoFrameCallback(() => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    const context = canvas.getContext('2d');
    context.drawImage(video, 0, 0);
    done([canvas.width, canvas.height, ...x.map((_, i) => [...context.getImageData(x[i], y[i], 1, 1).data])]);
});
video.src = URL.createObjectURL(new Blob([Uint8Array.from(atob(data), c => c.charCodeAt(0))], {type}));
document.body.append(video);
video.play();
"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        driver.get("about:blank")
        yield driver


def shown(browser, path, points):
    """Size of the first frame and its colours at some points (x, y)."""
    data = base64.b64encode(path.read_bytes()).decode()
    kind = f"video/{path.suffix[1:]}"
    found = browser.execute_async_script(DRAW, data, kind, *zip(*points, strict=True))
    assert isinstance(found, list), found
    return tuple(found[:2]), np.array(found[2:])[:, :3]


def patches(height, width):
    """A frame in four colours and a point in each."""
    frame = np.zeros((height, width, 3), np.uint8)
    tops, lefts = (0, height // 2), (0, width // 2)
    points = []
    for colour, (top, left) in zip(COLOURS, [(t, x) for t in tops for x in lefts], strict=True):
        frame[top:, left:] = colour
        points.append((left + width // 4, top + height // 4))
    return frame, points


@pytest.mark.parametrize("size", [(96, 128), (95, 127)])
def test_webm_plays_in_its_colours(tmp_path, browser, size):
    frame, points = patches(*size)
    media.write_frames(tmp_path / "a.webm", [frame] * 5)
    found, colours = shown(browser, tmp_path / "a.webm", points)
    assert found == size[::-1]
    np.testing.assert_allclose(colours, COLOURS, atol=1)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p"])
def test_planes_in_an_mp4_play_in_their_colours(tmp_path, browser, pixel_format):
    """The right ones for BT.601, in which flat colours are known."""
    frame, points = patches(96, 128)
    red, green, blue = np.moveaxis(frame.astype(float), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = [128 + 224 / 255 * (blue - luma) / 1.772, 128 + 224 / 255 * (red - luma) / 1.402]
    step = 2 if pixel_format == "yuv420p" else 1
    planes = media.Planes(
        *(
            plane.round().astype(np.uint8)
            for plane in (16 + 219 / 255 * luma, *(c[::step, ::step] for c in chroma))
        )
    )
    path, colour = tmp_path / "a.mp4", media.Colour(1, 6, 6, 6)
    with media.Writer(path, 25, pixel_format=pixel_format, colour=colour) as writer:
        for _ in range(5):
            writer.write(planes)
    _, colours = shown(browser, path, points)
    np.testing.assert_allclose(colours, COLOURS, atol=4)
