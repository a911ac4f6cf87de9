"""What is left when something fails in the middle of the work: kills, full disks, damaged inputs, races."""

import resource
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

from deepsteg_jax import media, pipeline
from deepsteg_jax.errors import PartialError, UserError
from tests.children import CONTEXT
from tests.helpers import PlainScheme
from tests.synthetic import noise, save, smooth, tone

KEY = bytes(range(32))
OLDER = b"an older file of this name"
KILLS = 5
LONG = 250  # frames


def plain():
    return PlainScheme()


def run(mode, *files_and_progress):
    """Hides or reveals."""
    if mode == "hide":
        return pipeline.hide(plain(), KEY, *files_and_progress)
    return pipeline.reveal([plain()], KEY, *files_and_progress)


def quiet(frames):
    pass


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def load(path):
    return np.stack(list(media.read_frames(path)))


def reveal(stego, folder):
    """The frames that a stego reveals."""
    output = folder / "checked.mkv"
    pipeline.reveal([plain()], KEY, stego, output, quiet)
    frames = load(output)
    output.unlink()
    return frames


class Files(NamedTuple):
    """Inputs and what an undisturbed run makes of them."""

    cover: Path
    secret: Path
    stego: Path
    revealed: Path

    def of(self, mode):
        """(inputs, undisturbed output) of a mode."""
        return ([self.cover, self.secret], self.stego) if mode == "hide" else ([self.stego], self.revealed)


def make_files(folder, cover, secret, suffix=".mkv"):
    files = Files(cover, secret, folder / f"stego{suffix}", folder / f"revealed{suffix}")
    pipeline.hide(plain(), KEY, cover, secret, files.stego, quiet)
    pipeline.reveal([plain()], KEY, files.stego, files.revealed, quiet)
    return files


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Clips that take long enough to be killed in the middle."""
    folder = tmp_path_factory.mktemp("long")
    cover = save(folder / "cover.mkv", noise(LONG))
    return make_files(folder, cover, save(folder / "secret.mkv", smooth(LONG)))


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Clips of 20 frames with sound, which travels in packets of every frame."""
    folder = tmp_path_factory.mktemp("short")
    cover = save(folder / "cover.mkv", noise(20, 64, 96))
    return make_files(folder, cover, tone(folder / "secret.mkv", "pcm_s16le", frames=20, seconds=0.8))


def work(connection, mode, files, limit):
    """Hides or reveals in a process of its own, with a limit on the size of files."""
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    connection.send("ready")
    connection.recv()
    try:
        run(mode, *files, connection.send)
        connection.send((0, ""))
    except (UserError, PartialError) as error:
        connection.send((1 if isinstance(error, UserError) else 3, str(error)))


class Driver:
    """A process that waits before its work begins."""

    def __init__(self, mode, *files, limit=0):
        self.connection, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=work, args=(theirs, mode, [*map(str, files)], limit))
        self.process.start()
        theirs.close()
        assert self.connection.recv() == "ready"

    def begin(self):
        """Lets the work begin."""
        self.connection.send("go")

    def finish(self):
        """(exit code, message); after an exception or a signal that of the process."""
        said = None
        with suppress(EOFError, ConnectionResetError):
            while True:
                said = self.connection.recv()
        self.process.join()
        return said if isinstance(said, tuple) else (self.process.exitcode or None, "")


def drive(mode, *files, limit=0):
    driver = Driver(mode, *files, limit=limit)
    driver.begin()
    return driver.finish()


# --- kills ----------------------------------------------------------------------------------------


def kill(mode, files, folder, delay, older):
    """Kills a run after so many seconds; returns whether that was in the middle."""
    folder.mkdir()
    inputs, whole = files.of(mode)
    output = folder / "out.mkv"
    if older:
        output.write_bytes(OLDER)
    driver = Driver(mode, *inputs, output)
    driver.begin()
    time.sleep(delay)
    driver.process.kill()
    code, _ = driver.finish()
    if output.exists() and output.read_bytes() != OLDER:
        if mode == "hide":
            assert len(reveal(output, folder)) == LONG
        else:
            np.testing.assert_array_equal(load(output), load(whole))
    else:
        assert output.exists() == older and code != 0
    return code != 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hide", "reveal"])
def test_kills(long, tmp_path, mode):
    inputs, _ = long.of(mode)
    driver, start = Driver(mode, *inputs, tmp_path / "first.mkv"), time.monotonic()
    driver.begin()
    assert driver.finish()[0] == 0
    delays = np.random.default_rng(0).uniform(0, 1.1 * (time.monotonic() - start), KILLS)
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(kill, mode, long, tmp_path / str(i), delay, i % 2 == 1)
            for i, delay in enumerate(delays)
        ]
        killed = [job.result() for job in jobs]
    assert any(killed)


@pytest.mark.slow
def test_a_killed_run_is_not_in_the_way_of_the_next(long, tmp_path):
    output = tmp_path / "out.mkv"
    driver = Driver("hide", long.cover, long.secret, output)
    driver.begin()
    assert driver.connection.recv() == 4
    driver.process.kill()
    driver.finish()
    assert not output.exists()
    assert drive("hide", long.cover, long.secret, output)[0] == 0
    assert len(reveal(output, tmp_path)) == LONG


# --- full disks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["hide", "reveal"])
@pytest.mark.parametrize("suffix", [".mkv", ".nut"])
def test_file_size_limit(short, tmp_path, mode, suffix):
    inputs, whole = short.of(mode)
    output = tmp_path / f"out{suffix}"
    size = whole.stat().st_size

    def attempt(limit):
        folder = tmp_path / str(limit)
        folder.mkdir()
        (folder / output.name).write_bytes(OLDER)
        return folder, *drive(mode, *inputs, folder / output.name, limit=limit)

    with ThreadPoolExecutor(2) as pool:
        for folder, code, told in pool.map(attempt, (1, 1000, size // 3, size - 2000)):
            assert code == 1 and "cannot be written" in told
            assert names(folder) == [output.name]
            assert (folder / output.name).read_bytes() == OLDER


@pytest.mark.parametrize("output", ["out/", "frame_%03d.png"])
def test_file_size_limit_of_images(long, tmp_path, output):
    target = f"{tmp_path}/new/{output}" if "%" in output else f"{tmp_path}/{output}"
    code, told = drive("hide", long.cover, long.secret, target, limit=3000)
    assert code == 1 and "cannot be written" in told
    assert names(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("mode", ["hide", "reveal"])
@pytest.mark.parametrize("output", ["out.mkv", "out.nut", "out/"])
def test_full_disk(long, small_disk, mode, output):
    (small_disk / "older.mkv").write_bytes(OLDER)
    inputs, _ = long.of(mode)
    with pytest.raises(UserError, match="cannot be written: No space left"):
        run(mode, *inputs, f"{small_disk}/{output}", quiet)
    assert names(small_disk) == ["older.mkv"]


# --- damaged inputs -------------------------------------------------------------------------------


PLACES = np.random.default_rng(1).uniform(0.001, 0.999, 10)


def truncated(path, folder, share):
    data = path.read_bytes()
    target = folder / f"cut{path.suffix}"
    target.write_bytes(data[: int(share * len(data))])
    return target


@pytest.mark.parametrize("which", ["cover", "secret"])
def test_truncated_while_hiding(short, tmp_path, which):
    for share in PLACES:
        files = short._replace(**{which: truncated(getattr(short, which), tmp_path, share)})
        with pytest.raises(UserError):
            pipeline.hide(plain(), KEY, files.cover, files.secret, tmp_path / "out.mkv", quiet)
        assert names(tmp_path) == ["cut.mkv"]


@pytest.mark.parametrize("suffix", [".mkv", ".nut"])
def test_truncated_while_revealing(short, tmp_path, suffix):
    stego, output = tmp_path / f"stego{suffix}", tmp_path / "out.mkv"
    pipeline.hide(plain(), KEY, short.cover, short.secret, stego, quiet)
    partial = 0
    pipeline.reveal([plain()], KEY, stego, output, quiet)
    whole = load(output)
    output.unlink()
    for share in PLACES:
        cut = truncated(stego, tmp_path, share)
        try:
            pipeline.reveal([plain()], KEY, cut, output, quiet)
        except UserError:
            assert names(tmp_path) == sorted([cut.name, stego.name])
            continue
        except PartialError as error:
            frames = load(output)
            stated = "all 20" if len(frames) == 20 else f"the first {len(frames)} of 20 frames"
            assert stated in str(error)
            np.testing.assert_array_equal(frames, whole[: len(frames)])
            partial += 1
        else:  # only the index at the very end is missing
            np.testing.assert_array_equal(load(output), whole)
        assert names(tmp_path) == sorted([cut.name, output.name, stego.name])
        output.unlink()
    assert partial > 4


def packet_places(path):
    """Where the coded frames lie in a file."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("frame", [1, 2, 11, 19])
def test_flipped_bit(short, tmp_path, frame):
    position, size = packet_places(short.stego)[frame]
    data = bytearray(short.stego.read_bytes())
    data[position + size // 2] ^= 8
    (tmp_path / "stego.mkv").write_bytes(data)
    with pytest.raises(PartialError, match=rf"damaged in frame {frame + 1}: .* all 20 frames"):
        pipeline.reveal([plain()], KEY, tmp_path / "stego.mkv", tmp_path / "out.mkv", quiet)
    revealed, whole = load(tmp_path / "out.mkv"), load(short.revealed)
    np.testing.assert_array_equal(np.delete(revealed, frame, 0), np.delete(whole, frame, 0))


def test_changed_frame(short, tmp_path):
    frames = load(short.stego)
    frames[7] = noise(1, 64, 96, seed=9)
    save(tmp_path / "stego.mkv", frames)
    with pytest.raises(PartialError, match="damaged in frame 8: .* all 20 frames"):
        pipeline.reveal([plain()], KEY, tmp_path / "stego.mkv", tmp_path / "out.mkv", quiet)
    assert len(load(tmp_path / "out.mkv")) == 20


# --- folders and races ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["hide", "reveal"])
@pytest.mark.parametrize("output", ["out.mkv", "images/"])
def test_output_folder_vanishes(short, tmp_path, mode, output):
    folder = tmp_path / "folder"
    folder.mkdir()
    inputs, _ = short.of(mode)
    done = []

    def progress(frames):
        done.append(frames)
        if len(done) == 3:
            folder.rename(tmp_path / "gone")
            shutil.rmtree(tmp_path / "gone", ignore_errors=True)

    with pytest.raises(UserError, match="cannot be written"):
        run(mode, *inputs, f"{folder}/{output}", progress)
    shutil.rmtree(tmp_path / "gone", ignore_errors=True)  # a file that was written during the first one
    assert names(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("output", ["out.mkv", "out/"])
def test_two_processes_with_one_output(tmp_path, output):
    covers = [noise(100, seed=seed) for seed in range(2)]
    secret = save(tmp_path / "secret.mkv", smooth(100))
    folder = tmp_path / "folder"
    folder.mkdir()
    drivers = [
        Driver("hide", save(tmp_path / f"{i}.mkv", cover), secret, f"{folder}/{output}")
        for i, cover in enumerate(covers)
    ]
    for driver in drivers:
        driver.begin()
    ends = [driver.finish() for driver in drivers]
    assert sorted(code for code, _ in ends) in ([0, 0], [0, 1])
    assert [path.name for path in folder.iterdir()] == [output.rstrip("/")]
    stego = load(folder / output)
    near = [np.abs(stego[2:].astype(int) - cover[2:]).max() for cover in covers]  # without the headers
    assert len(stego) == 100 and min(near) < 16 < max(near)
    np.testing.assert_array_equal(reveal(folder / output, tmp_path), smooth(100) & 0xF0)
