import json

import numpy as np
import pytest

from tests.app.serving import need

need("gradio", "app")

from fastapi import FastAPI, WebSocket  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402

from deepsteg_jax import media  # noqa: E402
from deepsteg_jax.app.live import Camera  # noqa: E402
from tests.helpers import PlainScheme  # noqa: E402
from tests.synthetic import save, smooth  # noqa: E402

WIDTH, HEIGHT = 320, 240
PATH = f"/live/token?width={WIDTH}&height={HEIGHT}"


@pytest.fixture
def client(tmp_path):
    """A client of one camera; the secret lies where a desk keeps it."""
    (tmp_path / "desk" / "token").mkdir(parents=True)
    secret = save(tmp_path / "desk" / "token" / "secret.mkv", smooth(2, HEIGHT, WIDTH, seed=1) & 0xF0)
    camera, app = Camera(lambda: PlainScheme(2), {"token": secret}.get), FastAPI()

    @app.websocket("/live/{token}")
    async def live(connection: WebSocket, token: str, width: int, height: int):
        await camera.serve(connection, token, width, height)

    return TestClient(app)


def unpacked(message):
    size = int.from_bytes(message[:4], "big")
    head, pictures, begin = json.loads(message[4 : 4 + size]), [], 4 + size
    for length in head["sizes"]:
        pictures.append(media.decode_jpeg(message[begin : begin + length], (WIDTH, HEIGHT)))
        begin += length
    assert begin == len(message)
    return head, pictures


def test_a_group_is_answered_with_pictures_and_figures(client):
    covers, secrets = smooth(2, HEIGHT, WIDTH), smooth(2, HEIGHT, WIDTH, seed=1) & 0xF0
    with client.websocket_connect(PATH) as connection:
        assert connection.receive_json() == {"ready": 2}
        for cover in covers:
            connection.send_bytes(media.encode_jpeg(cover, 95))
        for cover, secret in zip(covers, secrets, strict=True):
            head, pictures = unpacked(connection.receive_bytes())
            assert head["secret_db"] == 100 and 25 < head["stego_db"] < 40
            for shown, sent in zip(pictures, (cover, cover, secret, secret), strict=True):
                assert np.abs(shown.astype(int) - sent).mean() < 10


@pytest.mark.parametrize("sent", [b"no picture", media.encode_jpeg(smooth(1, 24, 32)[0], 90)])
def test_other_frames_end_the_camera(client, sent):
    with client.websocket_connect(PATH) as connection:
        connection.receive_json()
        connection.send_bytes(sent)
        assert "start again" in connection.receive_json()["error"]


@pytest.mark.parametrize("path", ["/live/none?width=320&height=240", "/live/token?width=64&height=48"])
def test_without_a_secret_or_at_another_size_nothing_starts(client, path):
    with client.websocket_connect(path) as connection:
        assert connection.receive_json() == {"error": "Drop a secret first."}


def test_one_camera_at_a_time(client):
    with client.websocket_connect(PATH) as first:
        first.receive_json()
        with client.websocket_connect(PATH) as second:
            assert "Somebody else" in second.receive_json()["error"]
    with client.websocket_connect(PATH) as third:
        assert third.receive_json() == {"ready": 2}
