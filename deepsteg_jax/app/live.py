"""The Live tab's connection: frames of the browser's camera in, cover, stego, secret and revealed out.

Everything goes through one WebSocket and memory; no frame is written to a file. Frames travel to the browser
and back as JPEGs; figures are computed before that.
"""

import asyncio
import json
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from fastapi import WebSocket, WebSocketDisconnect

from deepsteg_jax import media
from deepsteg_jax.app import messages
from deepsteg_jax.errors import UserError
from deepsteg_jax.live import Session, Shown
from deepsteg_jax.metrics import psnr
from deepsteg_jax.schemes.base import Scheme

SIZES = ((320, 240), (640, 480))  # that the page offers
_QUALITY = 90  # of the JPEGs that are shown
_BUSY = "Somebody else is using the camera tab right now: try again when that has ended."


class Camera:
    """Serves one camera at a time."""

    def __init__(self, load: Callable[[], Scheme]):
        """Take `load`, which gives the scheme that hides."""
        self._load, self._busy = load, False

    async def serve(self, connection: WebSocket, secret: Path | None, width: int, height: int) -> None:
        """Talk to one browser until it leaves; `secret`: what is hidden, if there is anything.

        It sends JPEGs of width x height. Each answer is a JSON text, `{"ready": frames in a group}`,
        `{"error": text}`, or for a frame one binary message, see `packed`.
        """
        await connection.accept()
        if secret is None or (width, height) not in SIZES:
            await self._refuse(connection, "Drop a secret first.")
        elif self._busy:
            await self._refuse(connection, _BUSY)
        else:
            self._busy = True
            try:
                await self._talk(connection, secret, width, height)
            except WebSocketDisconnect:
                pass
            except UserError as error:
                await self._refuse(connection, messages.plain(error, secret.parent.parent.parent))
            except Exception as error:  # noqa: BLE001, the page shows that there is one
                traceback.print_exception(error)
                await self._refuse(connection, messages.OUR_FAULT)
            finally:
                self._busy = False

    async def _refuse(self, connection: WebSocket, reason: str) -> None:
        with suppress(RuntimeError, WebSocketDisconnect):
            await connection.send_json({"error": reason})
            await connection.close()

    async def _talk(self, connection: WebSocket, secret: Path, width: int, height: int) -> None:
        session = await asyncio.to_thread(lambda: Session(self._load(), str(secret), width, height))
        with closing(session):
            await connection.send_json({"ready": session.group})
            while True:
                coded = await connection.receive_bytes()
                for answer in await asyncio.to_thread(_answers, session, coded):
                    await connection.send_bytes(answer)


def _answers(session: Session, coded: bytes) -> list[bytes]:
    """Hide and reveal in one frame of the camera; return the answers, once a group is full.

    Raises:
        UserError: the frame is no JPEG of the session's size.
    """
    try:
        frame = media.decode_image(coded, (session.width, session.height))
    except UserError as error:
        raise UserError(f"the camera's frame cannot be used, {error}: start again") from None
    return [packed(shown, session.fps, session.latency_ms) for shown in session.push(frame)]


def packed(shown: Shown, fps: float, latency_ms: float) -> bytes:
    """Pack one message: the length of the JSON (4 bytes, big-endian), the JSON, the four JPEGs in a row.

    The JSON has `fps`, `latency_ms`, `stego_db`, `secret_db` and `sizes`, the JPEGs' bytes.
    """
    pictures = [
        media.encode_jpeg(frame, _QUALITY)
        for frame in (shown.cover, shown.stego, shown.secret, shown.revealed)
    ]
    header = {
        "fps": fps,
        "latency_ms": latency_ms,
        "stego_db": psnr(shown.cover, shown.stego),
        "secret_db": psnr(shown.secret, shown.revealed),
        "sizes": [len(picture) for picture in pictures],
    }
    text = json.dumps(header).encode()
    return b"".join([len(text).to_bytes(4, "big"), text, *pictures])
