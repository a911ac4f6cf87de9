import numpy as np
import pytest

from configs import video
from deepsteg_jax import media
from deepsteg_jax.commands import Options
from deepsteg_jax.commands.enhance import run
from deepsteg_jax.commands.settings import ENHANCE
from deepsteg_jax.enhance import denoise
from deepsteg_jax.errors import UserError
from tests.synthetic import save, smooth

pytest.importorskip("cv2", reason="needs OpenCV")


def test_a_video_is_denoised_as_the_settings_say(tmp_path, capsys):
    path, output = save(tmp_path / "clip.mkv", smooth(3)), tmp_path / "done.mkv"
    run(video.get_config(), Options("", input=str(path), output=str(output)))
    expected = list(denoise(smooth(3), ENHANCE.strength))
    np.testing.assert_array_equal(list(media.read_frames(output)), expected)
    assert "3 frames of 48x32; denoise" in capsys.readouterr().out


def test_an_image_comes_as_jpeg_too(tmp_path):
    path, output = save(tmp_path / "picture.png", smooth(1)), tmp_path / "done.jpg"
    run(video.get_config(), Options("", input=str(path), output=str(output)))
    assert next(media.read_frames(output)).shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"input": "none.mkv"}, "does not exist"),
        ({"output": "done.avi"}, "cannot be the output"),
        ({"output": "clip.mkv"}, "is also an input"),
        ({"output": "none/done.mkv"}, "does not exist"),
    ],
)
def test_bad_files_are_refused(tmp_path, monkeypatch, change, said):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "clip.mkv", smooth(3))
    with pytest.raises(UserError, match=said):
        run(video.get_config(), Options("", input="clip.mkv", output="done.mkv")._replace(**change))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mkv"]
