"""Putting a secret together from the chunks of it that frames carry."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

from deepsteg_jax.schemes.base import Metadata, Receiver, ranges


class ChunkedFile(Protocol):
    """The part of a header that says how a file was cut into chunks."""

    coded: bool  # the secret was coded to fit; else it is its own file
    name_bytes: int  # of the secret's name, which lies before it
    chunk_bytes: int
    size: int  # bytes of the secret, with its name
    digest: bytes  # SHA-256 of these; empty: not known


class ChunkReceiver(Receiver):
    """Reveals bytes, chunk by chunk; lost ones are zeros."""

    def __init__(self, metadata: Metadata, header: ChunkedFile):
        """Take what a probe found."""
        self.metadata, self._header = metadata, header
        self._digest = hashlib.sha256()
        self._at, self._lost = 0, []  # number of the next chunk; of those that did not arrive
        self._left, self._name = header.size, b""
        self.coded = header.coded
        self.notes = ("coded to fit by the sender" if self.coded else "the secret's own file, bit for bit",)
        self.announcement = f"found a file of {(header.size - header.name_bytes) / 1000:,.1f} kB"

    @property
    def complete(self) -> bool:
        """Whether all chunks with something of the secret have come."""
        return not self._left

    def _take(self, number: int, chunk: bytes | None) -> list[bytes]:
        """Take chunk `number`, None if it is lost, and all lost ones before it; return the file's part."""
        missing = [self._next(None) for _ in range(self._at, number)]
        data = b"".join([*missing, self._next(chunk)])
        return [data] if data else []

    def _next(self, chunk: bytes | None) -> bytes:
        if chunk is None:
            self._lost.append(self._at)
            chunk = bytes(min(self._header.chunk_bytes, self._left))
        self._at += 1
        chunk = chunk[: self._left]
        self._left -= len(chunk)
        self._digest.update(chunk)
        in_name = self._header.name_bytes - len(self._name)
        self._name += chunk[:in_name]
        if len(self._name) == self._header.name_bytes:
            self.file_name = self._name.decode("utf-8", "ignore")
        self.written += len(chunk[in_name:])
        return chunk[in_name:]

    def finish(self) -> list[bytes]:
        """See `Receiver.finish`."""
        return []

    def _changes(self) -> str:
        """Say which frames were changed."""
        return f"in frame{'s' if len(self._lost) > 1 else ''} {ranges([number + 1 for number in self._lost])}"

    def complaint(self, stego: str, output: str, damaged: Sequence[int]) -> str | None:
        """See `Receiver.complaint`."""
        changed = self._lost and f"was changed {self._changes()}"
        if self._left:
            whole = self._header.size - self._header.name_bytes
            also = f" and {changed}, of which it has zeros" if changed else ""
            return (
                f"{stego} is cut short{also}: {output} has the first {self.written:,} of {whole:,} bytes; "
                "get a complete copy of it"
            )
        if changed:
            return f"{stego} {changed}: {output} has zeros for what was in there; get an intact copy of it"
        if self._header.digest not in (b"", self._digest.digest()):
            return f"{output} is not what was hidden: get an intact copy of {stego}"
        return None
