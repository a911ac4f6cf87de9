"""Sound and subtitle tracks on their way from one file into another, in step with its video."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from deepsteg_jax.errors import UserError
from deepsteg_jax.media.codecs import encoder_tag
from deepsteg_jax.media.container import open_input, video_stream
from deepsteg_jax.media.damage import ERRORS
from deepsteg_jax.media.formats import TrackRules
from deepsteg_jax.media.images import is_pictures, shown
from deepsteg_jax.media.sound import SOUND_RATE, Sound

_JITTER = 1024  # samples by which times may be off: containers round them
_BIT_RATE = 96_000  # of a channel


class Loop(NamedTuple):
    """The repetitions of the tracks of a file."""

    passes: int
    seconds: Fraction  # of one pass
    end: Fraction  # seconds, of the last pass


class Tracks:
    """The sound and subtitle packets of a file, handed to an output container in step with its video."""

    def __init__(
        self,
        path: Path,
        loop: Loop | None,
        output: "av.container.OutputContainer",
        video: "av.VideoStream",
        rules: TrackRules,
    ):
        """Add the file's tracks, tags and chapters to `output`; raise UserError if `rules` allow no such."""
        self._path, self._loop, self._output = path, loop or Loop(1, Fraction(0), None), output
        self._rules = rules
        self._map, self._next_packet, self._input = {}, None, None
        self._packets = iter(())
        if is_pictures(path):
            return
        self._input = open_input(path)
        wanted = [*self._input.streams.audio, *self._input.streams.subtitles]
        for track in wanted:
            try:
                copy = self._copy_of(track)
            except ValueError as error:
                self.close()
                raise UserError(self.refusal()) from error
            copy.stream.disposition = track.disposition
            copy.stream.metadata.update(_tags(track.metadata, coded_anew=isinstance(copy, _Recoded)))
            self._map[track.index] = copy
        output.metadata.update(_tags(self._input.metadata))
        with suppress(ValueError):
            output.set_chapters(self._input.chapters())
        source = video_stream(self._input)
        if source is not None:
            video.metadata.update(_tags(source.metadata))
        if wanted:
            self._packets = self._all_passes(wanted)

    def _copy_of(self, track: "av.stream.Stream") -> "_Copy | _Recoded":
        name = track.codec_context and track.codec_context.codec.canonical_name
        if track.type != "audio" or not name or name in (self._rules.sounds or (name,)):
            return _Copy(track, self._output)
        return _Recoded(track, self._output, self._rules.encoder)

    def refusal(self) -> str:
        """Return the line for the user about tracks that the container cannot hold."""
        return (
            f"a sound or subtitle track of {shown(self._path)} does not fit into such a file: "
            f"convert it first, for example with ffmpeg -i IN -c copy -c:s {self._rules.subtitles}, "
            "or remove it"
        )

    def copy_until(self, end: Fraction | None) -> None:
        """Copy the packets that start before `end` seconds; None: all that are left."""
        while (packet := self._peek()) is not None:
            if end is not None and packet.dts * packet.time_base >= end:
                return
            self._next_packet = None
            track = self._map[packet.stream.index]
            with self._complaining():
                coded = track.take(packet)
            self._output.mux(coded)
        if end is None:
            for track in self._map.values():
                self._output.mux(track.finish())

    def close(self) -> None:
        """Close the input."""
        if self._input is not None:
            self._input.close()
            self._input = None

    def _peek(self) -> "av.Packet | None":
        while self._next_packet is None:
            with self._complaining():
                self._next_packet = next(self._packets, None)
            if self._next_packet is None:
                return None
        return self._next_packet

    @contextmanager
    def _complaining(self):
        try:
            yield
        except ERRORS as error:
            raise UserError(
                f"a sound or subtitle track of {shown(self._path)} is damaged: remove it first"
            ) from error

    def _all_passes(self, wanted) -> Iterator["av.Packet"]:
        for number in range(self._loop.passes):
            if number:
                self._input.close()
                self._input = open_input(self._path)
                wanted = [self._input.streams[track] for track in self._map]
            last = number == self._loop.passes - 1
            end = self._loop.end if last else self._loop.seconds
            for packet in self._input.demux(wanted):
                if packet.dts is None:  # the empty packet at the end of a track
                    continue
                if end is not None and packet.dts * packet.time_base >= end:
                    continue
                shift = round(number * self._loop.seconds / packet.time_base)
                packet.dts += shift
                packet.pts = packet.dts if packet.pts is None else packet.pts + shift
                yield packet


class _Copy:
    """A track whose packets go into the output as they are."""

    def __init__(self, track: "av.stream.Stream", output: "av.container.OutputContainer"):
        self.stream = output.add_stream_from_template(track)

    def take(self, packet: "av.Packet") -> "list[av.Packet]":
        """Return the packets to write for a packet of the track."""
        packet.stream = self.stream
        return [packet]

    def finish(self) -> "list[av.Packet]":
        """Return the remaining packets."""
        return []


class _Recoded:
    """A sound track that is coded anew; more than two channels are mixed down to two."""

    def __init__(self, track: "av.AudioStream", output: "av.container.OutputContainer", encoder: str):
        context = track.codec_context
        self._layout = "mono" if context.layout.nb_channels == 1 else "stereo"
        fits = context.sample_rate in av.Codec(encoder, "w").audio_rates
        self._rate = context.sample_rate if fits else SOUND_RATE
        self.stream = output.add_stream(encoder, rate=self._rate, layout=self._layout)
        self.stream.bit_rate = _BIT_RATE * (1 if self._layout == "mono" else 2)
        self.stream.metadata["encoder"] = encoder_tag(encoder)
        self._resampler = av.AudioResampler("fltp", self._layout, self._rate)
        self._next = None  # number of the next sample

    def take(self, packet: "av.Packet") -> "list[av.Packet]":
        """Return the packets to write for a packet of the track."""
        pieces = [piece for frame in packet.decode() for piece in self._resampler.resample(frame)]
        return [coded for piece in pieces for coded in self._add(piece)]

    def finish(self) -> "list[av.Packet]":
        """Return the remaining packets."""
        if self._next is None:
            return []
        pieces = [piece for piece in self._resampler.resample(None) if piece is not None]
        return [coded for piece in pieces for coded in self._add(piece)] + self.stream.encode(None)

    def _add(self, piece: "av.AudioFrame") -> "list[av.Packet]":
        """Encode samples at their time: after silence where there is a gap, cut where they overlap."""
        samples, coded = piece.to_ndarray(), []
        time = None if piece.pts is None else round(piece.pts * piece.time_base * self._rate)
        if self._next is None:
            self._next = time or 0
        gap = 0 if time is None else time - self._next
        if gap < -_JITTER:
            samples = samples[:, -gap:]
        while gap > _JITTER:
            silence = np.zeros((len(samples), min(gap, self._rate)), np.float32)
            coded += self._encode(silence)
            gap -= silence.shape[1]
        return coded + self._encode(samples)

    def _encode(self, samples: np.ndarray) -> "list[av.Packet]":
        if not samples.size:
            return []
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), self._next
        self._next += samples.shape[1]
        return self.stream.encode(frame)  # which cuts frames of the encoder's size


def _tags(metadata: dict[str, str], coded_anew: bool = True) -> dict[str, str]:
    """Return the tags that the ffmpeg program would copy."""
    dropped = ("duration", "creation_time", "company_name", "product_name", "product_version")
    dropped += ("encoder",) * coded_anew
    return {name: text for name, text in metadata.items() if name.lower() not in dropped}


class SoundTrack:
    """The packets of a `Sound`, handed to an output container in step with its video."""

    def __init__(self, sound: Sound, output: "av.container.OutputContainer"):
        self._start, self._output = sound.start, output
        self._input = av.open(sound.file, format="ogg")
        self._source = self._input.streams.audio[0]
        self._stream = output.add_stream_from_template(self._source)
        self._packets = iter(self._input.demux(self._source))
        self._next_packet = None

    def __enter__(self) -> "SoundTrack":
        """Return itself."""
        return self

    def __exit__(self, *exception) -> None:
        """Close the Ogg file."""
        self._input.close()

    def copy_until(self, end: Fraction | None) -> None:
        """Copy the packets that start before `end` seconds; None: all that are left."""
        while (packet := self._next_packet or next(self._packets, None)) is not None:
            self._next_packet = packet
            if packet.dts is None:
                self._next_packet = None
                continue
            if end is not None and (packet.pts + self._start) * packet.time_base >= end:
                return
            packet.pts += self._start
            packet.dts = packet.pts
            packet.stream, self._next_packet = self._stream, None
            self._output.mux(packet)
