import threading
from fractions import Fraction
from typing import NamedTuple

import av
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from deepsteg_jax import keys, metrics, models
from deepsteg_jax.errors import UserError
from deepsteg_jax.steganography import Codec
from deepsteg_jax.training import checkpoints
from deepsteg_jax.video import io, pipeline, sideinfo
from tests.synthetic import noise, save, smooth, tone

GROUP = 4  # frames
STEP = 4
PASSPHRASE = "correct horse battery staple"


def quiet(frames):
    pass


def saturated(count=6, height=32, width=48):
    """Grey with black and white areas."""
    frames = np.full((count, height, width, 3), 128, np.uint8)
    frames[:, : height // 2, : width // 2] = 0
    frames[:, height // 2 :, width // 3 :] = 255
    return frames


def load(path):
    return np.stack(list(io.read_frames(path)))


def cut(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def psnr(a, b):
    assert len(a) == len(b)
    return np.mean([metrics.psnr(x, y) for x, y in zip(a, b, strict=True)])


@pytest.fixture(scope="module")
def side():
    """Both sides of an untrained block_dct."""
    shuffle = ConfigDict({"moves": "cover", "block_size": 8})
    config = ConfigDict(
        {"name": "block_dct", "step": STEP, "frames": GROUP, "classes": 8, "features": 8, "layers": 1}
    )
    model = models.build(config)
    params = model.init(jax.random.key(0))
    codec = Codec(model, shuffle, GROUP)
    fingerprint = checkpoints.fingerprint(params["reveal"])
    hider = pipeline.Side(codec, params["hide"], model.step, fingerprint)
    return hider, hider._replace(params=params["reveal"])


class Call(NamedTuple):
    what: str
    blank_key: bool  # no key yet: compiling
    first_frame: int
    frames: int


class PlainCodec:
    """Stands in for a compiled model: the stego is the cover, and revealed is the stego."""

    def __init__(self, frames=GROUP):
        self.frames, self.calls = frames, []

    def _note(self, what, key, first_frame, count):
        assert count % self.frames == 0 or count < self.frames
        self.calls.append(Call(what, not key.any(), first_frame, count))

    def hide(self, params, key, first_frame, cover, secret):
        assert cover.shape == secret.shape and cover.dtype == secret.dtype == np.uint8
        self._note("hide", key, first_frame, len(cover))
        return cover

    def reveal(self, params, key, first_frame, stego):
        self._note("reveal", key, first_frame, len(stego))
        return stego


def plain(frames=GROUP):
    return pipeline.Side(PlainCodec(frames), None, STEP, b"12345678")


# --- pieces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "count, group, lengths",
    [
        (0, 4, []),
        (1, 1, [1]),
        (10, 1, [4, 4, 2]),
        (7, 2, [4, 2, 1]),
        (8, 2, [4, 4]),
        (7, 3, [3, 3, 1]),
        (10, 4, [4, 4, 2]),
        (8, 4, [4, 4]),
        (3, 4, [3]),
        (13, 6, [6, 6, 1]),
    ],
)
def test_chunks(count, group, lengths):
    found = list(pipeline.chunks(iter(range(count)), group))
    assert [len(chunk) for chunk in found] == lengths
    assert sum(found, []) == list(range(count))


def test_chunks_reads_no_further_than_it_must():
    taken = []
    stream = pipeline.chunks((taken.append(i) or i for i in range(100)), 4)
    assert next(stream) == [0, 1, 2, 3]
    assert taken == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "secret, cover, fitted",
    [
        ((48, 32), (48, 32), (48, 32)),
        ((20, 10), (48, 32), (20, 10)),
        ((96, 64), (48, 32), (48, 32)),
        ((96, 32), (48, 32), (48, 16)),
        ((10, 64), (48, 32), (5, 32)),
        ((1000, 1), (10, 10), (10, 1)),
    ],
)
def test_fitted_size(secret, cover, fitted):
    info = io.Info(*secret, None, Fraction(25), False)
    assert pipeline.fitted_size(info, *cover) == fitted


# --- through files, with a model ------------------------------------------------------------------


@pytest.mark.parametrize(
    "cover, secret, stego_db, secret_db",  # both about 1 dB below what was measured
    [
        (smooth(5), smooth(5, seed=1), 45, 41.5),
        (noise(10), smooth(5, seed=2), 45, 41.5),  # the cover goes on
        (saturated(5), smooth(5, seed=3), 42.5, 40),
        (smooth(1), smooth(1, seed=4), 43.5, 39),
        (saturated(3, 37, 45), smooth(3, 37, 45, seed=5), 42.5, 42),
        (smooth(6), smooth(4, 20, 30, seed=6), 45, 42),
        (smooth(6), saturated(4, 32, 7), 45, 60),
    ],
    ids=["same", "longer cover", "saturated cover", "one frame", "odd", "small secret", "narrow secret"],
)
def test_round_trip(side, tmp_path, cover, secret, stego_db, secret_db):
    hider, revealer = side
    cover_path = save(tmp_path / "cover.mkv", cover, Fraction(30000, 1001))
    secret_path = save(tmp_path / "secret.mkv", secret, 12)
    stego_path, revealed_path = tmp_path / "stego.mkv", tmp_path / "revealed.mkv"
    progress = []
    report = pipeline.hide(hider, PASSPHRASE, cover_path, secret_path, stego_path, progress.append)
    assert report[:4] == (len(secret), *cover.shape[2:0:-1], Fraction(30000, 1001))
    assert report.fps == pytest.approx(len(secret) / report.seconds) and report.seconds > 0
    assert sum(progress) == len(secret)

    stego = load(stego_path)
    assert stego.shape == cover.shape
    assert io.probe(stego_path).rate == Fraction(30000, 1001)
    np.testing.assert_array_equal(stego[len(secret) :], cover[len(secret) :])
    change = np.abs(stego.astype(int) - cover)
    assert change[1:].max(initial=0) < STEP and change[0].max() < 2 * STEP
    assert psnr(stego[: len(secret)], cover[: len(secret)]) > stego_db
    assert all(change[i].any() for i in range(len(secret)))

    progress = []
    shown = pipeline.reveal(revealer, PASSPHRASE, stego_path, revealed_path, progress.append)
    assert shown[:4] == (len(secret), *secret.shape[2:0:-1], Fraction(12))
    assert sum(progress) == len(secret)
    revealed = load(revealed_path)
    assert revealed.shape == secret.shape
    assert io.probe(revealed_path).rate == 12
    assert psnr(revealed, secret) > secret_db
    assert names(tmp_path) == ["cover.mkv", "revealed.mkv", "secret.mkv", "stego.mkv"]


def test_larger_secret_is_scaled_down(side, tmp_path):
    cover = save(tmp_path / "cover.mkv", noise(4))
    secret = save(tmp_path / "secret.mkv", smooth(4, 40, 96, seed=7))
    pipeline.hide(side[0], PASSPHRASE, cover, secret, tmp_path / "stego.mkv", quiet)
    pipeline.reveal(side[1], PASSPHRASE, tmp_path / "stego.mkv", tmp_path / "revealed.mkv", quiet)
    revealed = load(tmp_path / "revealed.mkv")
    assert revealed.shape == (4, 20, 48, 3)
    fitted = np.stack([io.resize(frame, 48, 20) for frame in load(secret)])
    assert psnr(revealed, fitted) > 40


def test_images(side, tmp_path):
    cover = save(tmp_path / "cover.png", noise(1))
    secret = save(tmp_path / "secret.bmp", smooth(1, 30, 41, seed=8))
    pipeline.hide(side[0], PASSPHRASE, cover, secret, tmp_path / "stego.png", quiet)
    assert load(tmp_path / "stego.png").shape == (1, 32, 48, 3)
    pipeline.reveal(side[1], PASSPHRASE, tmp_path / "stego.png", tmp_path / "revealed.png", quiet)
    assert io.probe(tmp_path / "revealed.png").is_image
    assert psnr(load(tmp_path / "revealed.png"), load(secret)) > 39


def test_wrong_key_shows_nothing_of_the_secret(side, tmp_path):
    """Somebody who knows the side information but not the key sees noise."""
    secret = smooth(4, seed=9)
    cover_path, secret_path = save(tmp_path / "c.mkv", noise(4)), save(tmp_path / "s.mkv", secret)
    pipeline.hide(side[0], PASSPHRASE, cover_path, secret_path, tmp_path / "stego.mkv", quiet)
    words = keys.key_words(bytes(range(32)))
    revealed = np.asarray(side[1].codec.reveal(side[1].params, words, 0, load(tmp_path / "stego.mkv")))
    assert psnr(revealed, secret) < 15


def test_every_hide_uses_its_own_key(side, tmp_path):
    cover, secret = save(tmp_path / "c.mkv", noise(4)), save(tmp_path / "s.mkv", smooth(4, seed=10))
    for name in ("a.mkv", "b.mkv"):
        pipeline.hide(side[0], PASSPHRASE, cover, secret, tmp_path / name, quiet)
    a, b = load(tmp_path / "a.mkv"), load(tmp_path / "b.mkv")
    assert all((x != y).mean() > 0.3 for x, y in zip(a, b, strict=True))


def test_same_input_same_key_same_stego(side, tmp_path, monkeypatch):
    cover, secret = save(tmp_path / "c.mkv", noise(5)), save(tmp_path / "s.mkv", smooth(5, seed=10))
    monkeypatch.setattr(keys, "random_key", lambda: bytes(range(32)))
    for name in ("a.mkv", "b.mkv"):
        pipeline.hide(side[0], PASSPHRASE, cover, secret, tmp_path / name, quiet)
    np.testing.assert_array_equal(load(tmp_path / "a.mkv"), load(tmp_path / "b.mkv"))


def test_recoded_stego(side, tmp_path):
    cover, secret = save(tmp_path / "c.mkv", noise(4)), save(tmp_path / "s.mkv", smooth(4))
    pipeline.hide(side[0], PASSPHRASE, cover, secret, tmp_path / "stego.mkv", quiet)
    with av.open(str(tmp_path / "recoded.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, width=48, height=32, pix_fmt="yuv420p")
        for frame in load(tmp_path / "stego.mkv"):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    before = names(tmp_path)
    with pytest.raises(UserError, match="recoded"):
        pipeline.reveal(side[1], PASSPHRASE, tmp_path / "recoded.mkv", tmp_path / "revealed.mkv", quiet)
    assert names(tmp_path) == before


# --- through files, with a stand-in for the model -------------------------------------------------


@pytest.mark.parametrize("group, count", [(1, 7), (2, 7), (3, 7), (4, 7), (4, 3), (4, 8), (6, 13)])
def test_frames_are_numbered_and_compilation_comes_first(tmp_path, group, count):
    one = plain(group)
    cover, secret = save(tmp_path / "c.mkv", noise(count + 2)), save(tmp_path / "s.mkv", noise(count))
    pipeline.hide(one, PASSPHRASE, cover, secret, tmp_path / "stego.mkv", quiet)
    pipeline.reveal(one, PASSPHRASE, tmp_path / "stego.mkv", tmp_path / "revealed.mkv", quiet)
    for what in ("hide", "reveal"):
        calls = [call for call in one.codec.calls if call.what == what]
        compiled = {call.frames for call in calls if call.blank_key}
        work = [call for call in calls if not call.blank_key]
        assert compiled == {call.frames for call in work}
        numbers = [i for call in work for i in range(call.first_frame, call.first_frame + call.frames)]
        assert numbers == list(range(count))
    np.testing.assert_array_equal(load(tmp_path / "revealed.mkv"), load(tmp_path / "stego.mkv")[:count])


def test_only_the_first_frame_carries_side_information(tmp_path):
    cover, secret = noise(6), save(tmp_path / "s.mkv", noise(5))
    pipeline.hide(plain(), PASSPHRASE, save(tmp_path / "c.mkv", cover), secret, tmp_path / "stego.mkv", quiet)
    stego = load(tmp_path / "stego.mkv")
    np.testing.assert_array_equal(stego[1:], cover[1:])
    assert 100 < np.count_nonzero(stego[0] != cover[0]) < 400  # of 512 bits


def sound_of(path):
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        packets = [p for p in container.demux(audio=0) if p.size]
        return container.streams.audio[0].codec_context.name, [bytes(p) for p in packets]


@pytest.mark.parametrize("codec", ["pcm_s16le", "libopus"])
@pytest.mark.parametrize("length", [2, 6])
def test_the_sound_of_the_cover_is_kept_and_that_of_the_secret_is_not(tmp_path, codec, length):
    cover = tone(tmp_path / "cover.mkv", codec)
    before = sound_of(cover)
    assert len(before[1]) > 5
    secret = tone(tmp_path / "secret.mkv", "pcm_s16le", length)
    pipeline.hide(plain(), PASSPHRASE, cover, secret, tmp_path / "stego.mkv", quiet)
    assert sound_of(tmp_path / "stego.mkv") == before
    np.testing.assert_array_equal(load(tmp_path / "stego.mkv")[1:], load(cover)[1:])
    pipeline.reveal(plain(), PASSPHRASE, tmp_path / "stego.mkv", tmp_path / "revealed.mkv", quiet)
    assert sound_of(tmp_path / "revealed.mkv") is None


class Folder(NamedTuple):
    path: object
    cover: object
    secret: object
    stego: object
    output: object


@pytest.fixture
def folder(tmp_path):
    """A cover of 9 frames, a secret of 6 and the stego of the two, by the stand-in."""
    cover, secret = save(tmp_path / "c.mkv", noise(9)), save(tmp_path / "s.mkv", noise(6, seed=1))
    pipeline.hide(plain(), PASSPHRASE, cover, secret, tmp_path / "stego.mkv", quiet)
    return Folder(tmp_path, cover, secret, tmp_path / "stego.mkv", tmp_path / "out.mkv")


def fails(folder, match, run, *args):
    """One line, nothing written, no thread left running."""
    before, threads = names(folder.path), threading.active_count()
    with pytest.raises(UserError, match=match) as caught:
        run(*args, quiet)
    line = str(caught.value)
    del caught  # its traceback keeps the frames of the streams alive
    assert "\n" not in line and PASSPHRASE not in line
    assert names(folder.path) == before
    assert threading.active_count() == threads


def hide_fails(folder, match, output=None, one=None):
    args = (PASSPHRASE, folder.cover, folder.secret, output or folder.output)
    fails(folder, match, pipeline.hide, one or plain(), *args)


def reveal_fails(folder, match, passphrase=PASSPHRASE, one=None, output=None):
    args = (passphrase, folder.stego, output or folder.output)
    fails(folder, match, pipeline.reveal, one or plain(), *args)


def test_cover_shorter_than_the_secret(folder):
    for count in (1, 4, 5):
        save(folder.cover, noise(count))
        hide_fails(folder, f"the cover has {count} frames")


def test_cut_files(folder):
    whole = folder.cover.read_bytes()
    for share in (0.95, 0.3):  # after and before the secret's end
        folder.cover.write_bytes(whole)
        cut(folder.cover, share)
        hide_fails(folder, "c.mkv is cut short")
    folder.cover.write_bytes(whole)
    cut(folder.secret)
    hide_fails(folder, "s.mkv is cut short")
    cut(folder.stego, 0.5)
    reveal_fails(folder, "stego.mkv is cut short")


def test_stego_with_frames_missing(folder):
    save(folder.stego, load(folder.stego)[:5])
    reveal_fails(folder, "ends after frame 5 of 6")


def test_stego_without_its_tail_is_enough(folder):
    save(folder.stego, load(folder.stego)[:6])
    pipeline.reveal(plain(), PASSPHRASE, folder.stego, folder.output, quiet)
    assert len(load(folder.output)) == 6


def test_damaged_stego(folder):
    data = bytearray(folder.stego.read_bytes())
    data[len(data) // 2] ^= 1
    folder.stego.write_bytes(data)
    reveal_fails(folder, "stego.mkv is damaged")


def test_wrong_passphrase_or_nothing_hidden(folder):
    for passphrase in (PASSPHRASE + " ", PASSPHRASE.upper(), "x"):
        reveal_fails(folder, "no hidden video for this passphrase", passphrase)
    reveal_fails(folder._replace(stego=folder.cover), "no hidden video for this passphrase")
    save(folder.stego, np.zeros((2, 5, 5, 3), np.uint8))
    reveal_fails(folder, "too small")


def test_another_checkpoint(folder):
    reveal_fails(folder, "another checkpoint", one=plain()._replace(fingerprint=b"87654321"))


def test_stego_whose_first_frame_is_another(folder):
    save(folder.stego, load(folder.stego)[1:])
    reveal_fails(folder, "no hidden video")


def test_frames_too_small_for_side_information(folder):
    save(folder.cover, noise(6, 13, 13))
    hide_fails(folder, "at least 171 pixels")


def test_outputs_that_cannot_be(folder):
    for match, output in {
        "also an input": folder.cover,
        "also an input|": folder.secret,
        "is a folder": folder.path,
        "coded with loss": folder.path / "out.mp4",
        "still images": folder.path / "out.png",
        "not a known": folder.path / "out.xyz",
        "does not exist": folder.path / "no" / "out.mkv",
    }.items():
        hide_fails(folder, match, output)
    reveal_fails(folder, "also an input", output=folder.stego)


def test_older_output_survives_a_failure(folder):
    folder.output.write_text("old")
    hide_fails(folder._replace(secret=cut(folder.secret)), "cut short")
    save(folder.secret, noise(12))
    hide_fails(folder, "the cover has 9 frames")
    reveal_fails(folder, "passphrase", "x")
    assert folder.output.read_text() == "old"


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_exception_of_the_model_leaves_nothing(folder, at):
    """Also what a signal raises: at the first, second or tail chunk of hide and of reveal."""

    class Breaking(PlainCodec):
        def _note(self, what, key, first_frame, count):
            super()._note(what, key, first_frame, count)
            if first_frame == 4 * at and key.any():
                raise KeyboardInterrupt

    one = plain()._replace(codec=Breaking())
    save(folder.secret, noise(9))
    pipeline.hide(plain(), PASSPHRASE, folder.cover, folder.secret, folder.stego, quiet)
    before, threads = names(folder.path), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        pipeline.hide(one, PASSPHRASE, folder.cover, folder.secret, folder.output, quiet)
    with pytest.raises(KeyboardInterrupt):
        pipeline.reveal(one, PASSPHRASE, folder.stego, folder.output, quiet)
    assert names(folder.path) == before
    assert threading.active_count() == threads


def test_an_exception_of_progress_leaves_nothing(folder):
    def progress(frames):
        raise OSError("no terminal")

    before = names(folder.path)
    with pytest.raises(OSError, match="terminal"):
        pipeline.hide(plain(), PASSPHRASE, folder.cover, folder.secret, folder.output, progress)
    assert names(folder.path) == before


def test_memory_does_not_grow_with_the_length(tmp_path, monkeypatch):
    """While the writer is stuck the reader gets stuck too, a few chunks ahead."""
    count = 60
    cover = save(tmp_path / "c.mkv", np.repeat(noise(1), count, axis=0))
    read, ahead = [], []
    read_frames, write = io.read_frames, io.Writer.write

    def counted(path, **kwargs):
        for frame in read_frames(path, **kwargs):
            read.append(None)
            yield frame

    def stuck(self, frame):
        while not ahead or ahead[-1] != len(read):  # once, until nothing more is read
            ahead.append(len(read))
            threading.Event().wait(0.3)
        monkeypatch.setattr(io.Writer, "write", write)
        write(self, frame)

    monkeypatch.setattr(io, "read_frames", counted)
    monkeypatch.setattr(io.Writer, "write", stuck)
    pipeline.hide(plain(), PASSPHRASE, cover, cover, tmp_path / "stego.mkv", quiet)
    assert len(read) == 2 * count  # cover and secret
    # Two chunks wait to be hidden and two to be written; the reader and the writer hold one, the model two.
    assert ahead[-1] <= 2 * GROUP * 8


def test_side_information_names_the_secret(folder):
    """What a receiver finds in the first frame is what hide was given."""
    head = load(folder.stego)[0]
    key = keys.derive_key(PASSPHRASE, sideinfo.read_salt(head, STEP))
    info = sideinfo.extract(head, key, STEP)
    assert info == sideinfo.SideInfo(48, 32, 6, Fraction(25), b"12345678")
