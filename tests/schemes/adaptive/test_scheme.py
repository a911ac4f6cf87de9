"""The scheme `adaptive`, file to file: nothing here looks at steganalysis."""

import logging
import re
import subprocess
from fractions import Fraction
from shutil import which

import av
import jax
import numpy as np
import pytest

from configs.adaptive import get_config
from deepsteg_jax import keys, loading, media, pipeline
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.schemes.adaptive import embedding, header
from deepsteg_jax.schemes.adaptive.scheme import AdaptiveScheme
from deepsteg_jax.schemes.base import NOTHING, Stego
from tests.helpers import names
from tests.schemes.adaptive.conftest import (
    FRAMES,
    KEY,
    SECRET,
    frames,
    hide,
    make_scheme,
    read_planes,
    reveal,
    write_planes,
)
from tests.synthetic import Sound, film, hiss, noise, save, smooth

CHUNK = 123  # bytes of the secret in a frame of the fixture `hidden`, its name among them


# --- bit for bit ----------------------------------------------------------------------------------


def differences(cover, stego):
    """The planes of two frames, as one array each, subtracted."""
    pairs = zip(
        *(frame if isinstance(frame, media.Planes) else (frame,) for frame in (stego, cover)), strict=True
    )
    return np.concatenate([(a.astype(int) - b).ravel() for a, b in pairs])


@pytest.mark.parametrize(
    ("pixel_format", "codec", "suffix", "rate"),
    [
        ("yuv420p", "libx264", ".mp4", 0.05),
        ("yuv420p", "libx264", ".webm", 0.4),
        ("yuv422p", "libx264", ".mp4", 0.2),
        ("yuv444p", "libx264", ".mp4", 0.2),
        ("yuv420p10le", "ffv1", ".mkv", 0.2),
        ("bgr0", "ffv1", ".mkv", 0.1),
    ],
)
def test_a_file_comes_back_bit_for_bit_from_the_cover_s_own_planes(
    tmp_path, pixel_format, codec, suffix, rate
):
    cover = film(tmp_path / "cover.mkv", frames(), codec=codec, pixel_format=pixel_format)
    scheme, info = make_scheme(rate), media.probe(cover)
    first = next(pipeline._reader(scheme, info)(cover)).frame
    samples, embedded = embedding.sample_count(first), len(embedding.free_of(first))
    secret = np.random.default_rng(0).bytes(
        scheme.room(samples, embedded, FRAMES) - len("secret")
    )  # all that fits
    (tmp_path / "secret").write_bytes(secret)
    assert scheme.holds(info, FRAMES, measured=first) == scheme.room(samples, embedded, FRAMES)
    report = hide(cover, tmp_path / "secret", tmp_path / f"stego{suffix}", scheme)
    assert float(re.search(r"([.\d]+) bit per sample", report.summary())[1]) == pytest.approx(
        rate, abs=1.5e-3
    )
    read = pipeline._reader(scheme, info)
    stego, cover = ([timed.frame for timed in read(path)] for path in (tmp_path / f"stego{suffix}", cover))
    changed = [np.count_nonzero(differences(*pair)) for pair in zip(cover, stego, strict=True)]
    assert all(set(np.abs(differences(*pair))) == {0, 1} for pair in zip(cover, stego, strict=True))
    assert max(changed[2:]) < 1.3 * min(changed[2:]) < 0.3 * samples  # alike, and few
    reveal(tmp_path / f"stego{suffix}", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == secret


@pytest.mark.parametrize("grey", [False, True])
def test_images(tmp_path, grey):
    cover = np.repeat(frames(1)[..., :1], 3, axis=3) if grey else frames(1)
    save(tmp_path / "cover.png", cover)
    (tmp_path / "secret.txt").write_bytes(SECRET[:60])
    hide(tmp_path / "cover.png", tmp_path / "secret.txt", tmp_path / "stego.png", make_scheme(0.3))
    stego = np.stack(list(media.read_frames(tmp_path / "stego.png")))
    assert set(np.abs(differences(cover, stego))) == {0, 1}
    assert (stego == stego[..., :1]).all() == grey
    reveal(tmp_path / "stego.png", f"{tmp_path}/out/")
    assert (tmp_path / "out/secret.txt").read_bytes() == SECRET[:60]


@pytest.mark.parametrize("value", [0, 255])
def test_saturated_frames(tmp_path, hidden, value):
    planes = [media.Planes(*(np.full_like(plane, value) for plane in frame)) for frame in hidden.cover]
    cover = write_planes(tmp_path / "cover.mkv", planes)
    hide(cover, hidden.secret, tmp_path / "stego.mkv")
    for frame in read_planes(tmp_path / "stego.mkv"):
        assert set(differences(planes[0], frame)) == {0, 1 if value == 0 else -1}
    reveal(tmp_path / "stego.mkv", tmp_path / "out.bin")
    assert (tmp_path / "out.bin").read_bytes() == SECRET


def test_an_empty_file_in_one_frame(tmp_path, hidden):
    cover = write_planes(tmp_path / "cover.mkv", hidden.cover[:1])
    (tmp_path / "nothing").touch()
    hide(cover, tmp_path / "nothing", tmp_path / "stego.mkv")
    reveal(tmp_path / "stego.mkv", f"{tmp_path}/out/")
    assert (tmp_path / "out/nothing").read_bytes() == b""


def test_times_sound_and_turned_frames_of_the_cover_are_kept(tmp_path, hidden):
    times = [0, 40, 50, 120, 200, 1000]
    cover = film(
        tmp_path / "cover.mkv",
        frames(),
        codec="libx264",
        pixel_format="yuv420p",
        times=times,
        time_base=Fraction(1, 1000),
        sounds=[Sound("libopus", hiss())],
    )
    hide(cover, hidden.secret, tmp_path / "stego.mkv")
    assert media.frame_times(tmp_path / "stego.mkv").tolist() == times
    assert media.probe(tmp_path / "stego.mkv").tracks == 1
    reveal(tmp_path / "stego.mkv", tmp_path / "out.bin")
    assert (tmp_path / "out.bin").read_bytes() == SECRET


# --- what happens on the way ----------------------------------------------------------------------


def test_a_remux_keeps_it(tmp_path, hidden):
    write_planes(tmp_path / "stego.mp4", hidden.stego)
    with av.open(str(tmp_path / "stego.mp4")) as source, av.open(str(tmp_path / "copy.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    reveal(tmp_path / "copy.mkv", tmp_path / "out.bin")
    assert (tmp_path / "out.bin").read_bytes() == SECRET


@pytest.mark.skipif(not which("ffmpeg"), reason="there is no program ffmpeg")
def test_a_copy_by_ffmpeg_keeps_it(tmp_path, hidden):
    command = ["ffmpeg", "-loglevel", "error", "-i", hidden.path, "-c", "copy", tmp_path / "copy.nut"]
    subprocess.run(command, check=True)
    reveal(tmp_path / "copy.nut", tmp_path / "out.bin")
    assert (tmp_path / "out.bin").read_bytes() == SECRET


def part(tmp_path, stego):
    """What a stego that is not whole gives, and the line about it."""
    path = write_planes(tmp_path / "bad.mkv", stego)
    with pytest.raises(PartialError) as caught:
        reveal(path, tmp_path / "out.bin")
    assert "\n" not in str(caught.value) and names(tmp_path) == ["bad.mkv", "out.bin"]
    return (tmp_path / "out.bin").read_bytes(), str(caught.value)


def start(number):
    """Where the chunk of a frame begins in SECRET, whose name lies before it."""
    return max(0, number * CHUNK - len("report.bin"))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_one_changed_sample_costs_its_chunk_and_is_named(tmp_path, hidden, number):
    """The header comes out of the other one of the first two frames."""
    stego = list(hidden.stego)
    stego[number] = stego[number]._replace(y=stego[number].y ^ (number < 2))  # there all, so the header also
    if number >= 2:
        stego[number].y.setflags(write=True)
        changed = stego[number].y.copy()
        changed[20, 30] ^= 1
        stego[number] = stego[number]._replace(y=changed)
    data, line = part(tmp_path, stego)
    expected = bytearray(SECRET)
    expected[start(number) : start(number + 1)] = bytes(start(number + 1) - start(number))
    assert data == expected and f"was changed in frame {number + 1}:" in line


@pytest.mark.parametrize(("first", "last", "named"), [(0, 0, "frame 1"), (2, 3, "frames 3-4")])
def test_missing_frames_cost_themselves(tmp_path, hidden, first, last, named):
    data, line = part(tmp_path, [*hidden.stego[:first], *hidden.stego[last + 1 :]])
    lost = slice(start(first), start(last + 1))
    assert data == SECRET[: lost.start] + bytes(lost.stop - lost.start) + SECRET[lost.stop :]
    assert f"was changed in {named}:" in line


def test_a_stego_that_is_cut_gives_what_arrived(tmp_path, hidden):
    data, line = part(tmp_path, hidden.stego[:3])
    assert data == SECRET[: start(3)]
    assert f"is cut short: {tmp_path}/out.bin has the first {start(3)} of 700 bytes" in line


def test_a_stego_that_is_cut_and_changed_says_both(tmp_path, hidden):
    stego = [hidden.stego[0], hidden.cover[1], hidden.stego[2]]
    data, line = part(tmp_path, stego)
    assert data == SECRET[: start(1)] + bytes(CHUNK) + SECRET[start(2) : start(3)]
    assert "is cut short and was changed in frame 2" in line


# --- nothing to find ------------------------------------------------------------------------------


def recoded(tmp_path, stego):
    """The same pictures, coded with loss."""
    return film(
        tmp_path / "recoded.mkv",
        [media.to_rgb(frame, "yuv420p") for frame in stego],
        codec="libx264",
        pixel_format="yuv420p",
    )


def test_one_line_for_all_that_opens_nothing(tmp_path, hidden):
    for stego, key in (
        (hidden.path, bytes(32)),
        (hidden.cover_path, KEY),
        (recoded(tmp_path, hidden.stego), KEY),
        (save(tmp_path / "tiny.png", smooth(1, 20, 20)), KEY),
    ):
        with pytest.raises(UserError) as caught:
            reveal(stego, f"{tmp_path}/out/", key)
        assert str(caught.value) == NOTHING
    assert names(tmp_path) == ["recoded.mkv", "tiny.png"]


@pytest.mark.parametrize(("stego", "most"), [("cover", 2), ("stego", 1), ("second", 3)])
def test_a_probe_derives_few_keys(hidden, stego, most):
    """Three only where the first frame is damaged and the second one opens."""
    shown = {"second": [hidden.cover[0], *hidden.stego[1:]]}.get(stego) or getattr(hidden, stego)
    deriver = keys.Deriver(KEY)
    found = make_scheme().probe(Stego(media.probe(hidden.path), lambda: iter(shown)), deriver)
    assert (found is None) == (stego == "cover") and deriver.count == most


@pytest.mark.parametrize(("kind", "most"), [("planes.mkv", 2), ("rgb.mkv", 4), ("picture.png", 2)])
def test_all_exact_schemes_together_derive_few_keys(tmp_path, hidden, monkeypatch, kind, most):
    """A wrong passphrase costs no more; `robust`, of which this leaves out the work, adds one."""
    counts = []
    monkeypatch.setattr(keys, "derive_key", lambda credential, salt: counts.append(salt) or bytes(32))
    path = hidden.path if kind == "planes.mkv" else save(tmp_path / kind, frames(1 if "png" in kind else 2))
    shipped, info = loading.Shipped(), media.probe(path)
    wanted = [name for name in shipped.for_stego(info, True) if not name.startswith("robust")]
    with pytest.raises(UserError, match=re.escape(NOTHING)):
        pipeline.find(map(shipped.scheme, wanted), "wrong", path, info, [])
    assert len(counts) == most


# --- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "words"),
    [((64, 63), "64x63, is too small: it needs 64x64"), ((8, 512), "8x512, is too small")],
)
def test_small_covers(tmp_path, hidden, size, words):
    cover = save(tmp_path / "cover.mkv", smooth(2, *size[::-1]))
    with pytest.raises(UserError, match=words):
        hide(cover, hidden.secret, tmp_path / "stego.mkv")


@pytest.mark.parametrize("rate", [0.2, 0.001])
def test_a_secret_that_does_not_fit_is_one_line(tmp_path, hidden, rate):
    (tmp_path / "secret.zip").write_bytes(bytes(2000))
    with pytest.raises(UserError, match=r"secret.zip has 2.0 kB and .* fit: take a longer") as caught:
        hide(hidden.cover_path, tmp_path / "secret.zip", tmp_path / "stego.mkv", make_scheme(rate))
    assert "\n" not in str(caught.value) and names(tmp_path) == ["secret.zip"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"payload.rate": 0.0}, "rate"),
        ({"payload.rate": 0.6}, "rate"),
        ({"model.height": 11}, "height"),
        ({"model.chroma": 0.0}, "chroma"),
    ],
)
def test_configs_that_make_no_sense(fields, words):
    config = get_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=words):
        AdaptiveScheme(config, None)


def test_a_secret_that_fits_nowhere_is_refused_before_the_work(tmp_path, hidden):
    with pytest.raises(UserError, match="at any quality"):
        hide(hidden.cover_path, save(tmp_path / "s.png", frames(1)), tmp_path / "t.mkv", make_scheme(0.02))


# --- coded to fit ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coded(tmp_path_factory, hidden):
    """A clip with sound that does not fit and is coded: its path, the stego, and what was announced."""
    folder, told = tmp_path_factory.mktemp("coded"), []
    secret = film(folder / "clip.mkv", smooth(8, 48, 64, 3), sounds=[Sound("libopus", hiss(0.32))])
    cover = write_planes(folder / "cover.mkv", hidden.cover * 5)

    def announce(line):
        assert not (folder / "stego.mkv").exists()
        told.append(line)

    report = hide(cover, secret, folder / "stego.mkv", announce=announce)
    return secret, folder / "stego.mkv", told, report


def test_a_clip_that_does_not_fit_is_coded_and_said_to_be(coded):
    secret, _, (told,), report = coded
    assert told.startswith("its file of ") and "does not fit into 4.1 kB, so it is coded: " in told
    assert any(told.startswith(f"{note}; ") for note in report.notes)


@pytest.mark.parametrize("output", ["out.mp4", "out.mkv", "out.nut"])
def test_a_coded_clip_comes_back_as_its_output_says(tmp_path, coded, output):
    secret, stego, _, _ = coded
    reveal(stego, tmp_path / output)
    info, wanted = media.probe(tmp_path / output), media.probe(secret)
    shown = np.stack(list(media.read_frames(tmp_path / output)))
    assert shown.shape == (8, 48, 64, 3) and info.tracks == 1 and info.rate == wanted.rate
    assert np.abs(shown.astype(int) - np.stack(list(media.read_frames(secret)))).mean() < 12
    assert names(tmp_path) == [output]


@pytest.mark.parametrize("output", ["out.png", "out.xyz"])
def test_a_coded_clip_that_its_output_cannot_hold_is_written_as_it_is(tmp_path, coded, output):
    _, stego, _, _ = coded
    report = reveal(stego, tmp_path / output)
    assert "it is a .mkv: its own name is clip.mkv" in report.notes
    (tmp_path / output).rename(tmp_path / "out.mkv")
    assert media.probe(tmp_path / "out.mkv").tracks == 1


def test_a_coded_clip_that_is_cut_shows_what_arrived(tmp_path, coded):
    _, stego, _, _ = coded
    cut = write_planes(tmp_path / "cut.mkv", read_planes(stego)[:20])
    with pytest.raises(PartialError, match="is cut short"):
        reveal(cut, f"{tmp_path}/out/")
    assert names(tmp_path / "out") == ["clip.mkv"]


def test_a_picture_comes_back_as_a_picture(tmp_path, hidden):
    secret = save(tmp_path / "secret.png", smooth(1, 90, 120))
    cover = write_planes(tmp_path / "cover.mkv", hidden.cover * 2)
    report = hide(cover, secret, tmp_path / "stego.mkv")
    assert "so it is coded" in report.summary()
    reveal(tmp_path / "stego.mkv", tmp_path / "out.png")
    shown = next(media.read_frames(tmp_path / "out.png"))
    assert shown.shape == (90, 120, 3)
    assert np.abs(shown.astype(int) - smooth(1, 90, 120)[0]).mean() < 10


# --- the work -------------------------------------------------------------------------------------


@pytest.fixture
def compiled(caplog):
    """The names of all that was compiled since, on any thread."""

    def found():
        lines = (re.match(r"Compiling jit\((\w+)\)", record.getMessage()) for record in caplog.records)
        return sorted(line[1] for line in lines if line)

    jax.config.update("jax_log_compiles", True)
    with caplog.at_level(logging.WARNING):
        yield found
    jax.config.update("jax_log_compiles", False)


def test_a_size_of_chunks_compiles_once(tmp_path, compiled):
    """At the ends also, where a frame has one neighbour; a second file compiles nothing."""
    (tmp_path / "secret").write_bytes(bytes(345))
    # Of a size that no other test has, for which nothing is compiled yet.
    wide = smooth(FRAMES, 64, 80) // 2 + noise(FRAMES, 64, 80, high=100)
    planes = [media.from_rgb(frame, "yuv420p") for frame in wide]
    cover = write_planes(tmp_path / "cover.mkv", planes)
    for _ in range(2):
        hide(cover, tmp_path / "secret", tmp_path / "stego.mkv")
        reveal(tmp_path / "stego.mkv", tmp_path / "out")
        assert [name for name in compiled() if name in ("_embed", "_extract")] == ["_embed", "_extract"]


def test_every_frame_carries_as_much(tmp_path, hidden):
    """So that nothing tells where the secret ends: a short one fills all frames as well."""
    (tmp_path / "short").write_bytes(SECRET[:100])
    hide(hidden.cover_path, tmp_path / "short", tmp_path / "stego.mkv")
    changed = [
        np.count_nonzero(differences(*pair))
        for pair in zip(hidden.cover, read_planes(tmp_path / "stego.mkv"), strict=True)
    ]
    assert min(changed[2:]) > 20 and max(changed[2:]) < 2 * min(changed[2:])


def test_two_stegos_of_one_secret_differ_and_salts_are_new(tmp_path, hidden):
    hide(hidden.cover_path, hidden.secret, tmp_path / "again.mkv")
    again = read_planes(tmp_path / "again.mkv")
    assert all((a.y != b.y).any() for a, b in zip(hidden.stego, again, strict=True))


def test_a_cover_with_too_many_forbidden_samples_is_one_line(tmp_path, monkeypatch, hidden):
    monkeypatch.setattr("deepsteg_jax.schemes.adaptive.embedding.embed", lambda *_: None)
    with pytest.raises(UserError, match="frame 1 of the cover has too few samples"):
        hide(hidden.cover_path, hidden.secret, tmp_path / "stego.mkv")
    assert names(tmp_path) == []


def test_the_room_is_what_the_line_about_a_cover_says():
    info = media.Info(64, 64, FRAMES, Fraction(25), False, pixel_format="yuv420p")
    assert make_scheme(0.2).room(6144, 6144, FRAMES) == FRAMES * (153 - header.TAG_BYTES)
    said = make_scheme(0.2).capacity(info, FRAMES)
    assert said.startswith("any file of up to 0.8 kB, at 0.2 bit per sample, found in about 67 % of frames")


def test_a_tiny_cover_has_no_room():
    info = media.Info(20, 20, 1, Fraction(25), True)
    assert make_scheme(0.2).capacity(info, 1).startswith("any file of up to 0.0 kB")


def test_the_key_is_not_asked_for_where_a_file_does_not_fit(tmp_path, hidden):
    cover = write_planes(tmp_path / "cover.mkv", hidden.cover)
    (tmp_path / "large.bin").write_bytes(bytes(range(256)) * 400)
    with pytest.raises(UserError, match="large.bin has 102.4 kB and "):
        hide(cover, tmp_path / "large.bin", tmp_path / "stego.mkv", key=pytest.fail)


def test_a_file_is_written_through_a_link_and_said_before(tmp_path, hidden):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.bin").symlink_to("folder/target.bin")
    told = []
    pipeline.reveal([make_scheme()], KEY, hidden.path, tmp_path / "link.bin", abs, told.append)
    assert told == ["found a file of 0.7 kB"] and (tmp_path / "link.bin").is_symlink()
    assert (tmp_path / "folder" / "target.bin").read_bytes() == SECRET
    assert names(tmp_path / "folder") == ["target.bin"]
