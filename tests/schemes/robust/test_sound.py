"""The secret's sound: where it fits, in sync through real codecs, silent where segments are lost."""

from fractions import Fraction

import numpy as np
import pytest

from configs.robust import get_config
from deepsteg_jax import media, pipeline
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.base import Settings
from deepsteg_jax.schemes.robust import secret_codec, sound
from deepsteg_jax.schemes.robust.scheme import RobustScheme
from deepsteg_jax.schemes.robust.sound import BIT_RATES, Packets, SecretSound
from tests.media.clips import click, onset
from tests.schemes.robust.conftest import KEY, load_scheme, no_params
from tests.synthetic import Sound, film, heard, hiss, noise, packets, save, smooth

SYNC = 0.04  # seconds


def clip(path, samples, frames=25, rate=25, start=0):
    """A secret with sound; returns the path."""
    return film(path, smooth(frames, 20, 30), rate, sounds=[Sound("pcm_s16le", samples, start)])


def beeps(*times, seconds=2.0):
    """Short tones at these times."""
    return np.sum([click(time, seconds) for time in times], axis=0)


def round_trip(robust, folder, secret, settings=pipeline.DEFAULTS, frames=25, rate=25):
    """Hide and reveal through files; returns (report of hiding, revealed)."""
    cover, stego, output = (
        save(folder / "cover.mkv", smooth(frames), rate),
        folder / "stego.mkv",
        folder / "out.mkv",
    )
    report = pipeline.hide(robust, KEY, cover, secret, stego, lambda n: None, settings)
    pipeline.reveal([robust], KEY, stego, output, lambda n: None)
    return report, output


# --- in a message ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", range(len(BIT_RATES)))
def test_packets_and_pictures_of_a_message_come_apart_again(rate):
    data = np.random.default_rng(rate).bytes(3 * media.packet_bytes(BIT_RATES[rate]))
    size = len(data) // 3
    block = Packets(rate, 77, tuple(data[i : i + size] for i in range(0, len(data), size)))
    for message in b"\0pictures", b"\1", b"\2more":
        joined = sound.attach(block, message)
        assert len(joined) == len(message) + sound.size_of(block)
        assert sound.split([message, joined, None]) == (block, [message, message, None])


def test_no_sound_takes_nothing():
    assert sound.size_of(None) == 0 and sound.attach(None, b"\1abc") == b"\1abc"
    assert sound.split([b"\1abc", None, b""]) == (None, [b"\1abc", None, b""])
    assert sound.attach(Packets(0, 0, (b"x" * 45,)), b"") == b""  # without pictures there is no layer


@pytest.mark.parametrize("begin", [Fraction(0), Fraction(32, 25), Fraction(32 * 1001, 30000)])
def test_a_packet_finds_its_number_though_clocks_differ_a_little(begin):
    offset = int((-(begin / media.PACKET) % 1) * 256)
    for late in (-0.002, 0.0, 0.002):
        number = Packets(0, offset, ()).number(begin + Fraction(late))
        assert number == -(-begin // media.PACKET)


# --- where it fits --------------------------------------------------------------------------------


@pytest.fixture
def sounding(tmp_path):
    """Makes the sound of a secret of 2 s, which is silent in the second of two segments."""
    made = []

    def make(share=0.5, most=16_000):
        config, reader = get_config(), None
        config.sound_share = share
        rates = [rate for rate in BIT_RATES if rate <= most]
        reader = media.encode_packets(clip(tmp_path / "s.mkv", beeps(0.2)), rates, 2.0)
        made.append(SecretSound(reader, np.array([0.0, 1.2, 2.0]), config, most))
        return made[-1]

    yield make
    for each in made:
        each.close()


ROOM = [3 + 20 * media.packet_bytes(rate) for rate in BIT_RATES]  # of 1.2 s


@pytest.mark.parametrize(
    ("capacities", "rates"),
    [
        ([0, 2 * ROOM[0], 0, 0], [None, 0, None, None]),
        ([0, 2 * ROOM[0] - 1, 0, 0], [None] * 4),
        ([0, 2 * ROOM[1] - 1, 0, 0], [None, 0, None, None]),
        ([0, 2 * ROOM[1], 2 * ROOM[1], 99999], [None, 1, None, 3]),  # again where it is better
        ([9999, 9999, 9999, 9999], [3, None, None, None]),
    ],
)
def test_the_rate_falls_where_the_layer_is_small(sounding, capacities, rates):
    secret_sound = sounding()
    blocks = secret_sound.blocks(0, capacities)
    assert [block and block.rate for block in blocks] == rates
    assert all(len(block.packets) == 20 for block in blocks if block)
    assert len(secret_sound.notes) == (rates[:3] == [None] * 3)


def test_the_sender_limits_the_rate(sounding):
    (block, *_) = sounding(most=8_000).blocks(0, [9999] * 4)
    assert block.rate == 1


def test_silence_takes_no_byte(sounding):
    secret_sound = sounding()
    assert secret_sound.blocks(1, [9999] * 4) == [None] * 4 and secret_sound.notes == ()


def test_what_is_left_out_is_said_once(sounding):
    secret_sound = sounding()
    for segment in (0, 1, 2):  # the last one is the first one again
        secret_sound.blocks(segment, [0, 0, 0, 99999])
    secret_sound.blocks(0, [0, 0, 0])  # of a stego whose coding erases the last layer
    (note,) = secret_sound.notes
    assert note.startswith("the secret's sound is left out of 1.2 of 2.0 s, where it does not fit")


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_shares_that_make_no_sense(share):
    config = get_config()
    config.sound_share = share
    with pytest.raises(UserError, match=r"config\.sound_share must be"):
        RobustScheme(config, no_params)


# --- through files, with stand-ins for segments ---------------------------------------------------


@pytest.mark.parametrize("rate, start", [(25, 0), (Fraction(30000, 1001), 9600), (10, 0)])
def test_in_sync_at_any_rate(robust, tmp_path, rate, start):
    """Every segment lies at its time: none drifts."""
    frames = round(2 * rate)
    secret = clip(tmp_path / "secret.mkv", beeps(0.43, 1.5), frames, rate, start)
    report, output = round_trip(robust, tmp_path, secret, frames=frames, rate=rate)
    assert report.notes == ()
    played = np.flatnonzero(np.abs(heard(output)) > 0.2) / 48000 - start / 48000
    assert played[0] == pytest.approx(0.43, abs=SYNC)
    assert played[played > 1][0] == pytest.approx(1.5, abs=SYNC)


def test_a_slower_secret_is_in_sync_too(robust, tmp_path):
    secret = clip(tmp_path / "secret.mkv", beeps(0.43), 20, 10)
    assert onset(round_trip(robust, tmp_path, secret, frames=50)[1]) == pytest.approx(0.43, abs=SYNC)


def test_a_lost_segment_is_silent_for_its_length(wire, robust, tmp_path):
    cover, secret = save(tmp_path / "cover.mkv", smooth(50)), clip(tmp_path / "secret.mkv", hiss(2.0), 50)
    pipeline.hide(robust, KEY, cover, secret, tmp_path / "stego.mkv", lambda n: None)
    wire.lost = {3, 4}  # 0.48 to 0.8 s
    with pytest.raises(pipeline.PartialError, match="stands still"):
        pipeline.reveal([robust], KEY, tmp_path / "stego.mkv", tmp_path / "out.mkv", lambda n: None)
    played = np.abs(heard(tmp_path / "out.mkv"))
    levels = played[: 48 * 1800].reshape(-1, 960).max(axis=1)  # by 20 ms
    silent = 0.02 * np.flatnonzero(levels < 0.02)
    assert silent[0] == pytest.approx(0.48, abs=0.07) and silent[-1] == pytest.approx(0.78, abs=0.07)
    assert 0.02 * len(silent) == pytest.approx(6 * float(media.PACKET), abs=0.03)


@pytest.mark.parametrize("bit_rate, share", [(0, 0.25), (16_000, 0.0)])
def test_switched_off_it_is_said(wire, tmp_path, bit_rate, share):
    config = get_config("tiny")
    config.sound_share = share
    secret = clip(tmp_path / "secret.mkv", beeps(0.2, seconds=1.0))
    robust = RobustScheme(config, no_params)
    report, output = round_trip(robust, tmp_path, secret, Settings(sound_bit_rate=bit_rate))
    assert report.notes == ("left out of the secret: track 1: sound (pcm_s16le)",)
    assert media.probe(output).tracks == 0 and set(wire.sounds.values()) == {None}


def test_a_rate_below_opus_is_refused(robust, tmp_path):
    secret = clip(tmp_path / "secret.mkv", beeps(0.2, seconds=1.0))
    with pytest.raises(UserError, match="sound_bit_rate must be 6000"):
        round_trip(robust, tmp_path, secret, Settings(sound_bit_rate=5_000))


# --- with the shipped network ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(
    not (media.has_encoder("libx264") and secret_codec.has_encoder()),
    reason="this build of FFmpeg lacks x264 or an encoder of secrets",
)
def test_in_sync_behind_x264(tmp_path):
    cover = (smooth(20, 192, 288) // 2 + 60 + noise(20, 192, 288, high=16)).astype(np.uint8)
    secret, config = clip(tmp_path / "secret.mkv", click(0.43, 0.8), 20), get_config()
    config.secret_layers, config.growth = (("01", 1.0, "CRF25"),), 0.0
    config.model.spacing, config.sound_share = 76.0, 0.6
    robust, stego, again = load_scheme(config), tmp_path / "stego.mp4", tmp_path / "again.mp4"
    pipeline.hide(robust, KEY, save(tmp_path / "cover.mkv", cover), secret, stego, lambda n: None)
    with media.Writer(again, 25, lossy=media.Lossy(crf=23)) as writer:
        for frame in media.read_frames(stego):
            writer.write(frame)
    pipeline.reveal([robust], KEY, again, tmp_path / "out.mkv", lambda n: None)
    assert (
        onset(tmp_path / "out.mkv") == pytest.approx(0.43, abs=SYNC)
        and len(packets(tmp_path / "out.mkv")) >= 8
    )
