import os
import shutil
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import image, robust, video
from deepsteg_jax import loading, media
from deepsteg_jax.commands import Options
from deepsteg_jax.commands import live as mode
from deepsteg_jax.commands.settings import LIVE
from deepsteg_jax.errors import UserError
from deepsteg_jax.media.camera import Captured
from deepsteg_jax.window import Window
from tests.helpers import PlainScheme
from tests.synthetic import noise, save, smooth

HEIGHT, WIDTH = 32, 48


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Stands in for schemes that can be live."""
    load = loading.load

    def load_plain(config):
        return load(config) if config.model.name == "robust" else PlainScheme(config.model.frames)

    monkeypatch.setattr(loading, "load", load_plain)


@pytest.fixture
def files(tmp_path):
    """Options with a cover of six frames, 10 ms apart, a secret of four and an output."""
    cover = save(tmp_path / "cover.mkv", smooth(6, HEIGHT, WIDTH), rate=100)
    secret = save(tmp_path / "secret.mkv", noise(4, HEIGHT, WIDTH) & 0xF0)
    return Options(
        "", cover=str(cover), secret=str(secret), output=str(tmp_path / "live.mkv"), live=settings()
    )


def settings(**values):
    return ConfigDict({**LIVE, "width": WIDTH, "height": HEIGHT, **values})


@pytest.fixture(scope="module")
def display():
    """A display that nobody sees."""
    pytest.importorskip("tkinter", reason="needs tkinter")
    if shutil.which("Xvfb") is None:
        pytest.skip("needs Xvfb")
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "800x600x24"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        number = pipe.readline().strip()
    before = os.environ.get("DISPLAY")
    os.environ["DISPLAY"] = f":{number}"
    yield
    os.environ.pop("DISPLAY")
    if before is not None:
        os.environ["DISPLAY"] = before
    server.terminate()
    server.wait()


@pytest.mark.parametrize("module", [image, video])
def test_a_clip_goes_into_a_file_frame_by_frame_at_its_times(files, capsys, module):
    mode.run(module.get_config(), files)
    written = list(media.read_timed(files.output))
    covers, secrets = smooth(6, HEIGHT, WIDTH), noise(4, HEIGHT, WIDTH) & 0xF0
    assert [at for _, at in written] == [0, 10, 20, 30, 40, 50]  # ms
    for i, (frame, _) in enumerate(written):
        stego, revealed = frame[:, :WIDTH], frame[:, WIDTH:]
        np.testing.assert_array_equal(stego, (covers[i] & 0xF0) + (secrets[i % 4] >> 4))
        np.testing.assert_array_equal(revealed, secrets[i % 4])
    said = capsys.readouterr().out
    assert "6 frames, " in said and "frames/s" in said and "latency" not in said


def test_the_panels_are_those_asked_for(files):
    mode.run(image.get_config(), files._replace(live=settings(panels="secret, cover")))
    for i, frame in enumerate(media.read_frames(files.output)):
        np.testing.assert_array_equal(frame[:, :WIDTH], (noise(4, HEIGHT, WIDTH) & 0xF0)[i % 4])
        np.testing.assert_array_equal(frame[:, WIDTH:], smooth(6, HEIGHT, WIDTH)[i])


def test_a_camera_is_recorded_at_the_times_of_its_frames(files, monkeypatch, capsys):
    def read(source, width, height):
        assert (source, width, height) == ("0", WIDTH, HEIGHT)
        for frame in smooth(6, height, width):
            yield Captured(frame, time.monotonic())
            time.sleep(0.03)

    monkeypatch.setattr(mode.camera, "read", read)
    mode.run(image.get_config(), files._replace(cover="0", output=files.output.replace(".mkv", ".mp4")))
    times = [at for _, at in media.read_timed(files.output.replace(".mkv", ".mp4"))]
    said = capsys.readouterr().out
    dropped = int(said.rpartition(", ")[2].split()[0])
    assert len(times) == 6 - dropped and "95th percentile" in said
    assert len(times) < 2 or np.diff(times).min() > 0


def test_ctrl_c_ends_a_recording_cleanly(files, monkeypatch, capsys):
    written, add = threading.Event(), mode.Statistics.add

    def read(source, width, height):
        interrupted = False
        for _ in range(10_000):
            yield Captured(smooth(1, height, width)[0], time.monotonic())
            if written.is_set() and not interrupted:
                os.kill(os.getpid(), signal.SIGINT)
                interrupted = True
            time.sleep(0.005)

    monkeypatch.setattr(mode.Statistics, "add", lambda *given: add(*given) or written.set())
    monkeypatch.setattr(mode.camera, "read", read)
    before = signal.getsignal(signal.SIGINT)
    mode.run(image.get_config(), files._replace(cover="0"))
    assert 0 < len(list(media.read_frames(files.output))) < 1000
    assert "frames/s, latency" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before


def test_what_a_camera_complains_of_leaves_no_file(files, monkeypatch, tmp_path):
    def read(source, width, height):
        yield Captured(smooth(1, height, width)[0], 0.0)
        raise UserError("unplugged")

    monkeypatch.setattr(mode.camera, "read", read)
    with pytest.raises(UserError, match="unplugged"):
        mode.run(image.get_config(), files._replace(cover="0"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cover.mkv", "secret.mkv"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"live": settings(panels="stego hidden")}, "--live.panels"),
        ({"live": settings(panels="")}, "--live.panels"),
        ({"cover": "none.mp4"}, "does not exist"),
        ({"secret": "none.mp4"}, "does not exist"),
        ({"output": "live.avi"}, "cannot be the output"),
        ({"live": settings(width=47, panels="stego"), "output": "live.mp4"}, "even"),
    ],
)
def test_bad_input_is_refused_before_anything_is_compiled(files, monkeypatch, change, said):
    monkeypatch.setattr(mode, "Session", None)
    with pytest.raises(UserError, match=said):
        mode.run(image.get_config(), files._replace(**change))


@pytest.mark.parametrize(
    ("module", "change", "said"),
    [(robust, {}, "the scheme robust"), (image, {"live": settings(width=2, height=2)}, "too small")],
)
def test_a_scheme_that_cannot_be_live_leaves_no_file(files, tmp_path, module, change, said):
    with pytest.raises(UserError, match=said):
        mode.run(module.get_config(), files._replace(**change))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cover.mkv", "secret.mkv"]


def test_a_still_cover_is_refused(files, tmp_path):
    picture = str(save(tmp_path / "cover.png", smooth(1, HEIGHT, WIDTH)))
    with pytest.raises(UserError, match="is an image"):
        mode.run(image.get_config(), files._replace(cover=picture))


def test_without_a_display_a_file_is_suggested(files, monkeypatch):
    pytest.importorskip("tkinter", reason="needs tkinter")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(UserError, match="--output"):
        mode.run(image.get_config(), files._replace(output=None))


def test_a_window_shows_the_pixels_it_is_given(display):
    picture = noise(1, 20, 60)[0]
    window = Window(["stego", "revealed"], 30, 20)
    window.show(picture, "25.0 frames/s")
    window.update()
    for y, x in ((0, 0), (19, 59), (7, 31)):
        assert window._image.get(x, y) == tuple(picture[y, x])
    window.close()


@pytest.mark.parametrize("end", ["<q>", "<Escape>", "close"])
def test_a_window_ends_by_key_or_when_closed(display, end):
    window = Window(["stego"], 30, 20)
    window.update()
    assert window.open
    if end == "close":
        window._root.tk.call(*window._root.tk.splitlist(window._root.protocol("WM_DELETE_WINDOW")))
    else:
        window._root.focus_force()
        window.update()
        window._root.event_generate(end)
    window.update()
    assert not window.open
    window.close()


@pytest.mark.parametrize("module", [image, video])
def test_a_clip_plays_in_a_window_to_its_end(display, files, capsys, monkeypatch, module):
    drawn = []
    monkeypatch.setattr(Window, "show", lambda window, picture, text: drawn.append((picture, text)))
    mode.run(module.get_config(), files._replace(output=None))
    said = capsys.readouterr().out
    frames, dropped = int(said.split()[0]), int(said.rpartition(", ")[2].split()[0])
    assert frames + dropped == 6 and drawn and "frames/s" in drawn[-1][1]
    last = noise(4, HEIGHT, WIDTH)[(frames - 1) % 4] & 0xF0
    np.testing.assert_array_equal(drawn[-1][0][:, WIDTH:], last)


def test_a_key_ends_a_camera_in_a_window(display, files, capsys, monkeypatch):
    over = threading.Event()

    def read(source, width, height):
        while not over.is_set():
            yield Captured(smooth(1, height, width)[0], time.monotonic())
            time.sleep(0.01)

    def show(window, picture, text):
        window._end()

    monkeypatch.setattr(mode.camera, "read", read)
    monkeypatch.setattr(Window, "show", show)
    mode.run(image.get_config(), files._replace(cover="0", output=None))
    over.set()
    assert "frames/s, latency" in capsys.readouterr().out
