"""Clips with all that a file can have, and how they are written, for several tests."""

from fractions import Fraction

import av
import numpy as np

from deepsteg_jax import media
from tests.synthetic import Sound, film, heard, hiss, noise

LOSSY = media.Lossy()
SRT = "1\n00:00:00,040 --> 00:00:00,120\nhello\n\n2\n00:00:00,160 --> 00:00:00,200\nbye\n\n"

MATRICES = {  # of what is shown, and the same by NumPy: all eight ways
    "as it is": ((1, 0, 0, 1), lambda a: a),
    "mirrored": ((-1, 0, 0, 1), lambda a: a[:, ::-1]),
    "turned 180": ((-1, 0, 0, -1), lambda a: a[::-1, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda a: a[::-1]),
    "transposed": ((0, 1, 1, 0), lambda a: a.swapaxes(0, 1)),
    "turned right": ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),
    "transposed, turned 180": ((0, -1, -1, 0), lambda a: np.rot90(a, 2).swapaxes(0, 1)),
    "turned left": ((0, -1, 1, 0), lambda a: np.rot90(a)),
}


def shown_by(case):
    """What notes a display matrix of MATRICES in a stream."""
    a, b, c, d = (number * 2**16 for number in MATRICES[case][0])
    return lambda stream: stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 2**30])


def write(path, frames, rate=25, times=None, **given):
    """Writes a clip through `Writer`; returns the path."""
    with media.Writer(path, rate, **given) as writer:
        for i, frame in enumerate(frames):
            writer.write(frame, None if times is None else times[i])
    return path


def packets_at(path, kind="video"):
    """(content, position of its block) of every packet of the first track of a kind."""
    with av.open(str(path)) as container:
        return [(bytes(packet), packet.pos) for packet in container.demux(**{kind: 0}) if packet.size]


def stereo(path, codec, samples, rate=48000, layout="stereo"):
    """A clip of 12 frames with a sound in all channels, float [n]; returns the path."""
    channels = av.AudioLayout(layout).nb_channels
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25, width=48, height=32, pix_fmt="yuv420p")
        audio = container.add_stream(codec, rate=rate, layout=layout, options={"strict": "-2"})
        for picture in noise(12):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        for start in range(0, len(samples), 1024):
            all_of_them = np.tile(samples[start : start + 1024].astype(np.float32), (channels, 1))
            frame = av.AudioFrame.from_ndarray(all_of_them, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path


def click(at, seconds=0.48):
    """Silence and a short tone, which begins after `at` seconds."""
    samples = np.zeros(round(48000 * seconds))
    begin = round(48000 * at)
    samples[begin : begin + 960] = 0.8 * np.sin(0.2 * np.arange(len(samples[begin : begin + 960])))
    return samples


def onset(path):
    """When the tone is first heard, in seconds after the first frame."""
    return np.flatnonzero(np.abs(heard(path)) > 0.2)[0] / 48000


def rich(path, frames=6, **changes):
    """A film with two tracks of sound, subtitles, chapters and tags."""
    given = {
        "sounds": [
            Sound("libopus", hiss(), tags={"language": "eng", "title": "Original"}),
            Sound("flac", hiss(seed=5), 480, {"language": "deu", "title": "Ton"}),
        ],
        "subtitles": SRT,
        "subtitle_tags": {"language": "fra", "title": "Texte"},
        "chapters": [(0, 120, "one"), (120, 240, "two")],
        "tags": {"title": "A film", "artist": "Somebody"},
    }
    return film(path, noise(frames), **{**given, **changes})


def movie_with_text(path):
    """An mp4 with a subtitle."""
    style = (
        "[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize, "
        "PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, "
        "ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, "
        "Encoding\r\nStyle: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,9,9,9,1"
        "\r\n\r\n[Events]\r\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, "
        "Text\r\n"
    )
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25, width=48, height=32, pix_fmt="yuv420p")
        text = container.add_stream("mov_text")
        text.codec_context.subtitle_header = style.encode()
        text.codec_context.time_base = Fraction(1, 1000)
        for picture in noise(3):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        packet = av.Packet(b"\0\5hello")
        packet.pts, packet.dts, packet.duration, packet.time_base = 40, 40, 80, Fraction(1, 1000)
        packet.stream = text
        container.mux(packet)
    return path
