import pytest

from deepsteg_jax import media
from deepsteg_jax.media import formats


def test_each_suffix_has_one_row():
    assert len({row.suffix for row in formats.FORMATS}) == len(formats.FORMATS)


@pytest.mark.parametrize(
    "name, exact, playable, video, training",
    [
        ("a.mkv", True, False, True, False),
        ("A.WEBM", True, False, True, False),
        ("a.mp4", False, True, True, False),
        ("a.avi", False, False, True, False),
        ("a.PNG", True, False, False, True),
        ("a.tif", True, False, False, False),
        ("a.jpg", False, False, False, True),
        ("a.webp", True, False, False, True),
        ("a.gif", False, False, False, False),
        ("a.txt", False, False, False, False),
        ("a", False, False, False, False),
    ],
)
def test_what_a_name_stands_for(name, exact, playable, video, training):
    asked = (media.is_exact, media.is_playable, media.is_video, media.is_training_image)
    assert [ask(name) for ask in asked] == [exact, playable, video, training]
