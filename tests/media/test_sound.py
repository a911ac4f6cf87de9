import av
import numpy as np
import pytest

from deepsteg_jax import media
from deepsteg_jax.errors import UserError
from deepsteg_jax.media.sound import Recoder
from tests.helpers import names, read_stack, refused
from tests.media.clips import click, onset, stereo, write
from tests.synthetic import Sound, film, hiss, noise, packets, smooth


@pytest.mark.parametrize("codec", ["pcm_s16le", "aac", "libopus"])
@pytest.mark.parametrize("start", [-4800, 0, 4800])
@pytest.mark.parametrize("name", ["out.mkv", "out.nut", "out.webm"])
@pytest.mark.parametrize("seconds", [0.48, 2.0])
def test_sound_comes_back_in_step(tmp_path, codec, start, name, seconds):
    """Also where it takes several pages of the Ogg file, which have times of their own."""
    source = film(tmp_path / "a.mkv", noise(12), sounds=[Sound(codec, click(0.2, seconds), start)])
    sound = media.encode_sound(source, 32_000)
    assert sound.start == pytest.approx(start, abs=100)
    with media.Writer(tmp_path / name, 25) as writer:
        for frame in noise(12):
            writer.write(frame)
        writer.add_sound(sound)
    sound.file.close()
    assert onset(tmp_path / name) == pytest.approx(0.2 + start / 48000, abs=3e-3)
    np.testing.assert_array_equal(read_stack(tmp_path / name), noise(12))
    assert names(tmp_path) == ["a.mkv", name]


@pytest.mark.parametrize("codec", ["aac", "libopus"])
@pytest.mark.parametrize("start", [0, 4800])
def test_sound_of_an_mp4_is_in_step(tmp_path, codec, start):
    """Its edit list hides the priming of the encoder."""
    pictures = {"codec": "mpeg4", "pixel_format": "yuv420p"}
    source = film(tmp_path / "a.mp4", smooth(12), sounds=[Sound(codec, click(0.2, 2), start)], **pictures)
    sound = media.encode_sound(source, 32_000)
    with media.Writer(tmp_path / "out.mkv", 25) as writer:
        for frame in noise(12):
            writer.write(frame)
        writer.add_sound(sound)
    sound.file.close()
    copy = write(tmp_path / "copy.mkv", noise(12), tracks_from=source)
    assert onset(tmp_path / "out.mkv") == pytest.approx(onset(source), abs=2e-3)
    assert onset(copy) == pytest.approx(onset(source), abs=2e-3)
    assert onset(source) == pytest.approx(0.2 + start / 48000, abs=2e-3)


@pytest.mark.parametrize("name", ["out.mp4", "out.m4v", "out.mov"])
@pytest.mark.parametrize("start", [-4800, 0, 4800])
def test_phones_get_aac_in_step(tmp_path, name, start):
    source = film(tmp_path / "a.mkv", noise(12), sounds=[Sound("libopus", click(0.2, 2.0), start)])
    sound = media.encode_sound(source, 64_000)
    with media.Writer(tmp_path / name, 25, lossy=media.Lossy()) as writer:
        for frame in smooth(12):
            writer.write(frame)
        writer.add_sound(sound)
    sound.file.close()
    with av.open(str(tmp_path / name)) as container:
        codecs = [stream.codec_context.name for stream in container.streams]
        assert codecs == ["h264", "aac"] and container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    assert onset(tmp_path / name) == pytest.approx(0.2 + start / 48000, abs=3e-3)
    assert len(read_stack(tmp_path / name)) == 12


def test_frames_of_one_time_follow_one_another(tmp_path):
    """RealMedia has one time for a block of them."""
    source = film(tmp_path / "a.mkv", noise(12), sounds=[Sound("pcm_s16le", click(0.2))])
    with av.open(str(source)) as read, av.open(str(tmp_path / "b.mkv"), "w") as written:
        recoder = Recoder(read.streams.audio[0], written, "pcm_f32le")
        for packet in read.demux(audio=0):
            if packet.size:
                packet.pts = packet.dts = 0
                written.mux(recoder.take(packet))
        written.mux(recoder.finish())
    with av.open(str(tmp_path / "b.mkv")) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    np.testing.assert_allclose(samples, click(0.2), atol=1e-4)


def test_a_pause_of_hours_is_refused_before_it_is_filled(tmp_path):
    source = film(tmp_path / "a.mkv", noise(12), sounds=[Sound("flac", hiss(0.2))])
    with av.open(str(source)) as read, av.open(str(tmp_path / "b.mkv"), "w") as written:
        recoder = Recoder(read.streams.audio[0], written, "libopus")
        first, second = [packet for packet in read.demux(audio=0) if packet.size][:2]
        second.pts = second.dts = 10_000_000_000  # ms
        written.mux(recoder.take(first))
        with pytest.raises(UserError, match="a pause of 2778 hours: repair or cut it first"):
            recoder.take(second)


def ogg_packets(sound):
    sound.file.seek(0)
    with av.open(sound.file, format="ogg") as container:
        found = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
        return found, container.streams.audio[0].codec_context.layout.name


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.webm"])
def test_opus_is_copied(tmp_path, name):
    pictures = {"codec": "libvpx" if name == "a.webm" else "mpeg4", "pixel_format": "yuv420p"}
    source = film(tmp_path / name, smooth(6), sounds=[Sound("libopus", hiss())], **pictures)
    with media.encode_sound(source, 6_000).file as file:
        sound = media.Sound(file, 0, 0)
        assert ogg_packets(sound)[0] == [data for data, _ in packets(source)]


def test_bit_rate_and_channels_of_sound(tmp_path):
    source = film(tmp_path / "a.mkv", noise(6), sounds=[Sound("flac", hiss(0.4))])
    sizes = []
    for bit_rate in (8_000, 32_000, 96_000):
        sound = media.encode_sound(source, bit_rate)
        data = sound.file.read()
        assert sound.size == len(data) and data[:4] == b"OggS"
        assert ogg_packets(sound)[1] == "mono" and media.is_sound(sound)
        assert sound.file.tell() == 0
        sizes.append(sound.size)
        sound.file.close()
    assert sizes == sorted(sizes) and sizes[2] > 2 * sizes[0]
    with media.encode_sound(stereo(tmp_path / "b.mkv", "flac", hiss(0.1)), 32_000).file as file:
        assert ogg_packets(media.Sound(file, 0, 0))[1] == "stereo"


def test_no_sound(tmp_path):
    media.write_frames(tmp_path / "a.png", noise(1))
    write(f"{tmp_path}/images/", noise(2))
    for path in (write(tmp_path / "a.mkv", noise(2)), tmp_path / "a.png", tmp_path / "images"):
        assert media.encode_sound(path, 32_000) is None


def test_damaged_sound_is_refused(tmp_path):
    path = film(tmp_path / "a.mkv", noise(12), sounds=[Sound("flac", hiss(0.48))])
    data, content = path.read_bytes(), packets(path)[2][0]
    path.write_bytes(data.replace(content, bytes(len(content))))
    refused(path, "sound of .* cannot be read", lambda p: media.encode_sound(p, 32_000))


def test_rubbish_is_no_sound(tmp_path):
    source = film(tmp_path / "a.mkv", noise(6), sounds=[Sound("flac", hiss(4))])
    with media.encode_sound(source, 32_000).file as file:
        whole = file.read()
    cases = [(whole, True), (bytes(100), False), (b"", False), (whole[100:], False)]
    for data, wanted in [*cases, (whole[: len(whole) // 2], True)]:
        with (tmp_path / "x").open("w+b") as file:
            file.write(data)
            assert media.is_sound(media.Sound(file, len(data), 0)) == wanted
            assert file.tell() == 0
