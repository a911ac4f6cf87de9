"""The Live tab's connection: frames of the browser's camera in, cover, stego, secret and revealed out.

Everything goes through one WebSocket and memory; no frame is written to a file. For the way to the browser
and back frames are JPEGs; what is measured is measured before that.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import WebSocket, WebSocketDisconnect
from ml_collections import ConfigDict
from PIL import Image

from deepsteg_jax.app import messages
from deepsteg_jax.errors import UserError

SIZES = ((320, 240), (640, 480))  # that the page offers
_QUALITY = 90  # of the JPEGs that are shown
_BUSY = "Somebody else is using the camera tab right now: try again when that has ended."


class Camera:
    """Serves one camera at a time."""

    def __init__(self, config: ConfigDict, secret_of: Callable[[str], Path | None]):
        """`secret_of` says which secret belongs to a token that the page gave out."""
        self._config, self._secret_of, self._busy = config, secret_of, False

    async def serve(self, connection: WebSocket, token: str, width: int, height: int) -> None:
        """Talks to one browser until it goes.

        It sends JPEGs of width x height. Each answer is a JSON text, `{"ready": frames in a group}`,
        `{"error": words}`, or for a frame one binary message, see `packed`.
        """
        await connection.accept()
        secret = self._secret_of(token)
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
            finally:
                self._busy = False

    async def _refuse(self, connection: WebSocket, reason: str) -> None:
        with suppress(RuntimeError, WebSocketDisconnect):
            await connection.send_json({"error": reason})
            await connection.close()

    async def _talk(self, connection: WebSocket, secret: Path, width: int, height: int) -> None:
        from deepsteg_jax.live import Session

        session = await asyncio.to_thread(Session, self._config, str(secret), width, height, None)
        with closing(session):
            await connection.send_json({"ready": self._config.model.frames})
            while True:
                coded = await connection.receive_bytes()
                for answer in await asyncio.to_thread(_step, session, coded, (width, height)):
                    await connection.send_bytes(answer)


def _step(session: Any, coded: bytes, size: tuple[int, int]) -> list[bytes]:
    """Hides and reveals in one frame of the camera; what to answer, once a group is full.

    Raises:
        UserError: what came is no picture of that size.
    """
    try:
        with Image.open(BytesIO(coded), formats=["JPEG"]) as picture:
            if picture.size != size:
                raise UserError("the camera sent a picture of another size: start again")
            frame = np.asarray(picture.convert("RGB"))
    except OSError:
        raise UserError("the camera sent something that is no picture: start again") from None
    shown = session.push(frame)
    return [packed(one, session.fps, session.latency_ms) for one in shown]


def packed(shown: Any, fps: float, latency_ms: float) -> bytes:
    """One message: the length of the JSON (4 bytes, big-endian), the JSON, the four JPEGs in a row.

    The JSON has `fps`, `latency_ms`, `stego_db`, `secret_db` and `sizes`, the JPEGs' bytes.
    """
    from deepsteg_jax.metrics import psnr

    pictures = [_jpeg(frame) for frame in (shown.cover, shown.stego, shown.secret, shown.revealed)]
    head = {
        "fps": fps,
        "latency_ms": latency_ms,
        "stego_db": psnr(shown.cover, shown.stego),
        "secret_db": psnr(shown.secret, shown.revealed),
        "sizes": [len(picture) for picture in pictures],
    }
    text = json.dumps(head).encode()
    return b"".join([len(text).to_bytes(4, "big"), text, *pictures])


def _jpeg(frame: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
