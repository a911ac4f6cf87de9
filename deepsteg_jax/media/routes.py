"""Which tracks of a file go beside new pictures, and how: the muxer itself is asked.

A container's table of codecs leaves out some that it holds, and names some that nobody can decode in it. So a
beginning of each track is put into a file in memory, read back and compared.
"""

from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av

from deepsteg_jax.errors import UserError
from deepsteg_jax.media import formats
from deepsteg_jax.media.container import first_sound, is_picture, open_bytes, open_input, video_stream
from deepsteg_jax.media.damage import ERRORS
from deepsteg_jax.media.formats import Format
from deepsteg_jax.media.images import is_pictures, is_sequence, shown
from deepsteg_jax.media.memory import Clip

_TRIED = 20  # packets
COPY, CODE, ATTACH, _UNFIT = "copy", "code anew", "attach", "does not fit"
_CALLED = {"video": "a second video", "audio": "sound", "subtitle": "subtitles", "attachment": "a file"}


class Routes(NamedTuple):
    """How the tracks of a file, by their number in it, go into another."""

    ways: dict[int, str]  # COPY, CODE or ATTACH
    left_out: tuple[str, ...]  # descriptions of the others


def routes(path: str | Path | Clip, row: Format | None) -> Routes:
    """Find the ways of a file's tracks into a format; None for one without tracks.

    Raises:
        UserError: subtitles do not fit, and the line says what to do.
    """
    ways, left_out = {}, []
    if isinstance(path, Clip) or is_pictures(Path(path)):
        return Routes(ways, ())
    with open_input(Path(path)) as container:
        pictures = video_stream(container)
        for stream in container.streams:
            if stream is not pictures:
                way = None if row is None else _way(stream, Path(path), row)
                if way:
                    ways[stream.index] = way
                else:
                    left_out.append(_described(stream))
        unfit = [stream for stream in container.streams if ways.get(stream.index) == _UNFIT]
        if unfit:
            maps = [pictures.index] + [index for index, way in ways.items() if way in (COPY, CODE)]
            raise UserError(_refusal(Path(path), row, unfit, maps))
    return Routes(ways, tuple(left_out))


def check_tracks(path: str | Path | Clip, output: str | Path | Clip) -> None:
    """Raise UserError if a video of that name cannot hold the subtitles of a file."""
    _routes_into(path, output)


def left_out(path: str | Path | Clip, output: str | Path | Clip) -> str:
    """List the tracks of a file that do not go into an output of that name, for the user."""
    return ", ".join(_routes_into(path, output).left_out)


def _routes_into(path: str | Path | Clip, output: str | Path | Clip) -> Routes:
    video = not isinstance(output, Clip) and not is_sequence(output) and formats.is_video(output)
    return routes(path, formats.find(output) if video else None)


def unsent(path: str | Path | Clip, sound: bool) -> str:
    """List the tracks of a secret, for the user, that do not travel with its pictures, and perhaps sound."""
    if isinstance(path, Clip) or is_pictures(Path(path)):
        return ""
    with open_input(Path(path)) as container:
        travel = [video_stream(container), first_sound(container) if sound else None]
        return ", ".join(_described(stream) for stream in container.streams if stream not in travel)


def _way(stream: "av.stream.Stream", path: Path, row: Format) -> str | None:
    if stream.type == "attachment":
        said = {name.lower() for name in stream.metadata}
        return ATTACH if row.name == "matroska" and {"filename", "mimetype"} <= said else None
    if stream.codec_context is None or stream.type not in ("audio", "subtitle"):
        return None
    if stream.type == "subtitle":
        return COPY if _is_held(stream, path, row) else _UNFIT
    if not (stream.codec_context.sample_rate and stream.codec_context.layout.nb_channels):
        return None  # announced, without a sample
    wanted = row.tracks.sounds is None or stream.codec_context.codec.canonical_name in row.tracks.sounds
    return COPY if wanted and _is_held(stream, path, row) else CODE


def _refusal(path: Path, row: Format, unfit: "list[av.stream.Stream]", maps: list[int]) -> str:
    """Return the line about subtitles that the container cannot hold, with a command that works."""
    matroska = formats.find("a.mkv")
    instead = "write .mkv, or " if all(_is_held(stream, path, matroska) for stream in unfit) else ""
    names = " and ".join(f"{stream.index} ({stream.codec_context.name})" for stream in unfit)
    texts = [stream.index for stream in unfit if stream.codec_context.codec.text_sub]
    what = "convert it first" if texts else "leave it out"
    options = f"{' '.join(f'-map 0:{index}' for index in sorted(maps + texts))} -c copy"
    goal = f"-c:s {row.tracks.subtitles}" if texts else "OUT.mkv"
    return (
        f"subtitle track {names} of {shown(path)} does not fit into {row.suffix}: {instead}{what} "
        f"with ffmpeg -i IN {options} {goal}"
    )


def _described(stream: "av.stream.Stream") -> str:
    name = stream.metadata.get("filename") or (stream.codec_context and stream.codec_context.name)
    called = "a picture" if is_picture(stream) else _CALLED.get(stream.type, stream.type)
    known = "" if stream.type in ("attachment", "data") else "that no decoder is known for"
    return f"track {stream.index}: {called} {f'({name})' if name else known}".strip()


def add_copy(stream: "av.stream.Stream", output: "av.container.OutputContainer") -> "av.stream.Stream":
    """Add a stream like another one to an output, whose muxer says later whether it fits."""
    with av.open("none", "w", format="null") as blank:  # takes all, and forgets the codec's tag
        template = blank.add_stream_from_template(stream)
        copy = output.add_mux_stream(output.default_audio_codec)  # of any codec: it is replaced
        av.BitStreamFilterContext("null", template, copy)
    copy.time_base = stream.time_base
    return copy


def _is_held(stream: "av.stream.Stream", path: Path, row: Format) -> bool:
    """Return whether a container takes a stream, and gives back sound that sounds the same."""
    packets, sound = _beginning(stream, path) if stream.type == "audio" else ([], b"")
    file = BytesIO()
    try:
        with av.open(file, "w", format=row.name) as output:
            copy = add_copy(stream, output)
            output.start_encoding()
            for packet in packets:
                packet.stream = copy
                output.mux(packet)
    except (*ERRORS, ValueError):
        return False
    if not sound:
        return True  # nothing to compare
    file.seek(0)
    copied = b""
    with suppress(*ERRORS), open_bytes(file) as container:
        track = container.streams.audio[0]
        if track.codec_context and track.codec_context.name == stream.codec_context.name:
            copied = _samples(container.demux(track))
    # One of the two may lack samples that prime the decoder.
    return bool(copied) and (copied in sound or sound in copied)


def _beginning(stream: "av.stream.Stream", path: Path) -> "tuple[list[av.Packet], bytes]":
    """Return the first packets of a track of sound, and their samples as far as they can be decoded."""
    packets = []
    with open_input(path) as container, suppress(*ERRORS):
        track = container.streams[stream.index]
        packets += islice((packet for packet in container.demux(track) if packet.dts is not None), _TRIED)
        return packets, _samples(packets)
    return packets, b""


def _samples(packets: "Iterable[av.Packet]") -> bytes:
    """Decode packets of sound, up to the first one that is damaged."""
    samples = []
    with suppress(*ERRORS):
        for packet in packets:
            samples += [frame.to_ndarray().T.tobytes() for frame in packet.decode()]
    return b"".join(samples)
