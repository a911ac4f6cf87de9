"""Packets of one length and size: in step, and silent where there are none."""

import numpy as np
import pytest

from deepsteg_jax import media
from tests.helpers import refused
from tests.media.clips import click, onset, write
from tests.synthetic import Sound, film, heard, hiss, noise, packets

RATES = (6_000, 16_000)


def split(data, rate):
    """Packets that lie one after the other."""
    size = media.packet_bytes(RATES[rate])
    return [data[i : i + size] for i in range(0, len(data), size)]


def written(path, *puts):
    """Writes (number, packets) beside pictures; returns the path."""
    writer = media.PacketWriter()
    for put in puts:
        writer.put(*put)
    with media.Writer(path, 25) as output:
        for frame in noise(25):
            output.write(frame)
        output.add_sound(writer.finish())
    writer.close()
    return path


@pytest.mark.parametrize("rate", [0, 1])
@pytest.mark.parametrize("codec", ["pcm_s16le", "aac"])
@pytest.mark.parametrize("start", [-4800, 0, 7000])
def test_packets_are_in_step_with_the_pictures(tmp_path, codec, start, rate):
    source = film(tmp_path / "a.mkv", noise(25), sounds=[Sound(codec, click(0.43, 1.0), start)])
    reader = media.encode_packets(source, RATES, 1.0)
    output = written(tmp_path / "b.mkv", (0, split(reader.read(rate, 0, 17), rate)))
    reader.close()
    assert onset(output) == pytest.approx(0.43 + start / 48000, abs=5e-3)


def test_missing_packets_are_silence_of_their_length(tmp_path):
    source = film(tmp_path / "a.mkv", noise(25), sounds=[Sound("pcm_s16le", hiss(1.5))])
    reader = media.encode_packets(source, RATES, 1.5)
    data = split(reader.read(0, 0, 25), 0)
    assert len(data) == 25 and len(set(map(len, data))) == 1
    again = (16, data[16:20])  # that come twice are heard once
    output = written(tmp_path / "b.mkv", (0, data[:5]), (15, data[15:18]), again)
    assert len(packets(output)) == 20
    played = heard(output)
    sounding, silent, later = (
        played[round(48000 * a) : round(48000 * b)] for a, b in ((0.1, 0.29), (0.36, 0.88), (0.95, 1.1))
    )
    assert np.abs(silent).max() < 1e-3 < 1e-2 < min(np.std(sounding), np.std(later))


def test_silence_is_known(tmp_path):
    samples = np.concatenate([click(0.2, 0.3), np.zeros(48000)])
    reader = media.encode_packets(
        film(tmp_path / "a.mkv", noise(6), sounds=[Sound("flac", samples)]), RATES, 9
    )
    assert [reader.is_silent(n, 1) for n in range(8)] == [True] * 3 + [False] + [True] * 4
    assert not reader.is_silent(0, 22) and reader.is_silent(4, 18)
    assert len(reader.read(1, 20, 9)) == 2 * media.packet_bytes(16_000)  # the sound ends there
    reader.close()


def test_nothing_to_hear(tmp_path):
    assert media.encode_packets(write(tmp_path / "a.mkv", noise(2)), RATES, 1.0) is None
    assert media.encode_packets(f"{tmp_path}/", RATES, 1.0) is None
    writer = media.PacketWriter()
    assert writer.finish() is None
    writer.close()


def test_damaged_sound_is_refused(tmp_path):
    path = film(tmp_path / "a.mkv", noise(12), sounds=[Sound("flac", hiss(0.48))])
    data, content = path.read_bytes(), packets(path)[2][0]
    path.write_bytes(data.replace(content, bytes(len(content))))
    refused(path, "sound of .* cannot be read", lambda p: media.encode_packets(p, RATES, 1.0))
