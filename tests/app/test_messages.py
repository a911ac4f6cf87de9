from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deepsteg_jax import pipeline, plan
from deepsteg_jax.app import messages
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.base import NOTHING

ROOT = Path("/tmp/deepsteg_app_x")
COVER = f"{ROOT}/DESK/TOKEN/my cover.mp4"


def complaint(frames, rates=(25, 25)):
    """What the pipeline says of a cover that is too short."""
    rates = [Fraction(rate) for rate in rates]
    clocks = [plan.clock(np.arange(n), 1 / rate, rate) for n, rate in zip(frames, rates, strict=True)]
    with pytest.raises(UserError) as caught:
        plan.schedule(*clocks, "time", False, COVER)
    return caught.value


@pytest.mark.parametrize("rates", [(25, 25), (25, 10)])
def test_a_cover_that_is_too_short(rates):
    said = messages.plain(complaint((5, 50), rates), ROOT)
    assert said.startswith("The cover my cover.mp4 is too short")
    assert "Tick “Repeat the cover”" in said
    assert "--" not in said and str(ROOT) not in said


def test_a_cover_that_turns_out_to_be_too_short():
    each = [SimpleNamespace(schedule=plan.Schedule(np.arange(9), 1))]
    with pytest.raises(UserError) as caught:
        pipeline._check_carried(SimpleNamespace(cover_path=COVER, each=each), 3)
    said = messages.plain(caught.value, ROOT)
    assert "Tick “Repeat the cover”" in said and "--" not in said and str(ROOT) not in said


def test_other_errors():
    assert messages.plain(UserError(NOTHING), ROOT) == messages.NOTHING_FOUND
    assert messages.plain(ValueError(f"in {COVER}"), ROOT) == messages.OUR_FAULT
    named = UserError(f"{COVER} is interlaced: deinterlace it first")
    assert messages.plain(named, ROOT) == "my cover.mp4 is interlaced: deinterlace it first."
    kept = UserError("holiday.mp4 is interlaced: deinterlace it first (ffmpeg -vf bwdif)")
    assert messages.plain(kept, ROOT) == f"H{str(kept)[1:]}."


def test_no_folder_is_told():
    for text in (
        f"{COVER} is bad",
        f"{ROOT}/tmpabc/a.mkv is bad",
        "/home/me/my/a.mkv is bad",
        "in “/etc/a” is bad",
    ):
        assert "/" not in messages.plain(UserError(text), ROOT)
    assert "https://x.y/z" in messages.plain(UserError("see https://x.y/z"), ROOT)
    told = [f"written to {COVER}", "the sound of my cover.mp4 is left out"]
    assert messages.notes(told, ROOT) == ["The sound of my cover.mp4 is left out."]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3599.9, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds, said):
    assert messages.duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(1, "1 kB"), (830_000, "830 kB"), (12_400_000, "12.4 MB"), (1.24e9, "1.2 GB")]
)
def test_sizes(count, said):
    assert messages.size(count) == said


@pytest.mark.parametrize(
    ("count", "said"), [(655_300_000, "660 MB"), (7_340_000, "7.3 MB"), (1.24e9, "1.2 GB"), (4, "1 kB")]
)
def test_rough_sizes(count, said):
    assert messages.roughly(count) == said
