import functools
import http.server
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import camera
from deepsteg_jax.media.camera import Captured, Newest
from tests.synthetic import save, smooth


def numbered(count):
    return [Captured(np.full((1, 1, 3), i, np.uint8), float(i)) for i in range(count)]


@pytest.fixture
def address(tmp_path):
    """Of a folder that is served to this machine."""
    pytest.importorskip("cv2", reason="needs OpenCV")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_frames_are_kept_and_the_others_counted(keep):
    read = threading.Event()

    def source():
        yield from numbered(10)
        read.set()

    newest = Newest(source(), keep)
    assert read.wait(10)
    assert [frame.at for frame in newest] == list(range(10 - keep, 10))
    assert newest.dropped == 10 - keep


def test_nothing_is_dropped_where_frames_are_taken_in_time():
    taken = threading.Semaphore(1)

    def source():
        for frame in numbered(20):
            taken.acquire()
            yield frame

    newest, seen = Newest(source()), []
    for frame in newest:
        seen.append(frame.at)
        taken.release()
    assert seen == list(range(20)) and newest.dropped == 0


def test_what_the_source_raises_comes_after_its_frames():
    def source():
        yield numbered(1)[0]
        raise UserError("unplugged")

    seen = []
    with pytest.raises(UserError, match="unplugged"):
        for frame in Newest(source()):
            seen.append(frame)
    assert len(seen) == 1


def test_stopping_ends_a_wait_for_a_source_that_hangs():
    never = threading.Event()

    def source():
        never.wait()
        yield numbered(1)[0]

    newest = Newest(source())
    threading.Timer(0.05, newest.stop).start()
    assert list(newest) == []
    never.set()


def test_frames_are_cut_about_the_middle():
    frame = np.zeros((40, 80, 3), np.uint8)
    frame[:, 20:60] = 255
    assert (camera.crop(frame, 40, 40) == 255).all()
    assert (camera.crop(frame.swapaxes(0, 1), 40, 40) == 255).all()
    assert camera.crop(frame, 13, 7).shape == (7, 13, 3)
    assert camera.crop(np.zeros((1, 300, 3), np.uint8), 8, 8).shape == (8, 8, 3)


def test_a_clip_comes_with_its_own_times_or_in_its_own_time(tmp_path, monkeypatch):
    now = [100.0]  # the machine's own clock runs on while the test waits for a core

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(camera, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    frames, times = smooth(5, 32, 48), [0.0, 0.02, 0.04, 0.06, 0.08]
    path = save(tmp_path / "clip.mkv", frames, rate=50)
    read = list(camera.read_clip(path, 48, 32, paced=False))
    np.testing.assert_array_equal([frame for frame, _ in read], frames)
    assert [at for _, at in read] == pytest.approx(times, abs=1e-3) and now[0] == 100
    paced = []
    for _, at in camera.read_clip(path, 48, 32, paced=True):
        paced.append(at - 100)
        now[0] += 0.05 if len(paced) == 2 else 0  # whoever takes this frame is slow: the next two are late
    assert paced == pytest.approx([0, 0.02, 0.07, 0.07, 0.08], abs=1e-3)


def test_a_stream_comes_as_rgb(tmp_path, address):
    frames = smooth(4, 32, 48)
    save(tmp_path / "clip.mkv", frames, rate=100)
    read = [frame for frame, _ in camera.read(f"{address}/clip.mkv", 48, 32)]
    np.testing.assert_array_equal(read, frames)


@pytest.mark.parametrize("source", ["77", "http://127.0.0.1:9/none.mp4", "rtsp://127.0.0.1:9/none"])
def test_what_cannot_be_opened_is_said_in_one_line(source, capfd):
    pytest.importorskip("cv2", reason="needs OpenCV")
    with pytest.raises(UserError, match="cannot be opened"):
        camera.read(source, 48, 32)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["file:///{0}", "concat://{0}", "FILE://{0}", "subfile://{0}"])
def test_an_address_opens_no_file(tmp_path, name):
    pytest.importorskip("cv2", reason="needs OpenCV")
    path = save(tmp_path / "clip.mkv", smooth(2))
    with pytest.raises(UserError, match="no address of a stream"):
        camera.read(name.format(path), 48, 32)


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat"])
def test_a_playlist_from_elsewhere_opens_no_file(tmp_path, address, kind):
    path = save(tmp_path / "clip.mkv", smooth(2))
    lists = {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{path}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile file:{path}\n",
    }
    (tmp_path / f"list.{kind}").write_text(lists[kind])
    with pytest.raises(UserError, match="cannot be opened|no frames"):
        camera.read(f"{address}/list.{kind}", 48, 32)


def test_sources_are_told_apart():
    assert camera.is_camera("0") and camera.is_camera("12") and not camera.is_camera("0.mp4")
    assert camera.is_url("rtsp://host/path") and not camera.is_url("sample:bikes.mp4")
