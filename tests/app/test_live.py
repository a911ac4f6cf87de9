import json

import numpy as np
import pytest

from tests.app.serving import Visitor, need, served, stand_ins, wait_for

need("fastapi", "app")

from websockets.sync.client import connect  # noqa: E402

from deepsteg_jax import media  # noqa: E402
from tests.helpers import PlainScheme  # noqa: E402
from tests.synthetic import save, smooth  # noqa: E402

WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page whose camera tab hides by a plain scheme."""
    with (
        pytest.MonkeyPatch.context() as patch,
        served(stand_ins(patch), tmp_path_factory.mktemp("t")) as page,
    ):
        page.app.state.page._camera._load = lambda: PlainScheme(2)
        yield page


@pytest.fixture
def start(page, tmp_path):
    """Connects the camera of a visitor who dropped a secret."""
    visitor = Visitor(page)
    secret = save(tmp_path / "secret.mkv", smooth(2, HEIGHT, WIDTH, seed=1) & 0xF0)
    assert visitor.put("live", secret)[0] == 200
    address = page.address.replace("http", "ws")

    def connected(token=visitor.token, width=WIDTH, height=HEIGHT):
        return connect(f"{address}/live?session={token}&width={width}&height={height}", max_size=None)

    yield connected
    wait_for(lambda: not page.app.state.page._camera._busy)  # before the next visitor comes


def told(connection):
    return json.loads(connection.recv())


def unpacked(message):
    size = int.from_bytes(message[:4], "big")
    head, pictures, begin = json.loads(message[4 : 4 + size]), [], 4 + size
    for length in head["sizes"]:
        pictures.append(media.decode_image(message[begin : begin + length], (WIDTH, HEIGHT)))
        begin += length
    assert begin == len(message)
    return head, pictures


def test_a_group_is_answered_with_pictures_and_figures(start):
    covers, secrets = smooth(2, HEIGHT, WIDTH), smooth(2, HEIGHT, WIDTH, seed=1) & 0xF0
    with start() as connection:
        assert told(connection) == {"ready": 2}
        for cover in covers:
            connection.send(media.encode_jpeg(cover, 95))
        for cover, secret in zip(covers, secrets, strict=True):
            head, pictures = unpacked(connection.recv())
            assert head["secret_db"] == 100 and 25 < head["stego_db"] < 40
            for shown, sent in zip(pictures, (cover, cover, secret, secret), strict=True):
                assert np.abs(shown.astype(int) - sent).mean() < 10


@pytest.mark.parametrize("sent", [b"no picture", media.encode_jpeg(smooth(1, 24, 32)[0], 90)])
def test_other_frames_end_the_camera(start, sent):
    with start() as connection:
        told(connection)
        connection.send(sent)
        assert "start again" in told(connection)["error"]


@pytest.mark.parametrize("given", [{"token": "none"}, {"width": 64, "height": 48}])
def test_without_a_secret_or_at_another_size_nothing_starts(start, given):
    with start(**given) as connection:
        assert told(connection) == {"error": "Drop a secret first."}


def test_one_camera_at_a_time(page, start):
    with start() as first:
        told(first)
        with start() as second:
            assert "Somebody else" in told(second)["error"]
    wait_for(lambda: not page.app.state.page._camera._busy)
    with start() as third:
        assert told(third) == {"ready": 2}
