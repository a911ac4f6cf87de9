"""The folder of recordings: what an example is, that it belongs to its number, validation, errors."""

from contextlib import closing
from functools import partial
from itertools import islice

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.robust import get_config
from deepsteg_jax import models
from deepsteg_jax.data import create_pairs, create_validation, has_validation
from deepsteg_jax.data.recordings import KINDS, read_recording
from deepsteg_jax.errors import UserError
from tests.recordings import write_images, write_videos

BATCH = 4
IMAGES = ("luma", "symbols", "step")
VIDEOS = (*IMAGES, "cb", "cr")


def _config(path, **changes) -> ConfigDict:
    fields = {"source": "recordings", "path": str(path), "validation_path": ""}
    return ConfigDict(fields | {"frames": 3, "height": 16, "width": 32} | changes)


@pytest.fixture
def folder(tmp_path):
    """Three recordings of videos."""
    for number in range(3):
        write_videos(tmp_path / "recordings", number)
    return tmp_path / "recordings"


def _take(config, count, seed=1, batch_size=BATCH, **options):
    with closing(create_pairs(config, seed=seed, batch_size=batch_size, **options)) as batches:
        return list(islice(batches, count))


def _pass(config, batch_size=BATCH, **options):
    return list(create_validation(config, batch_size=batch_size, **options)())


def _same(a, b) -> bool:
    return len(a) == len(b) and all(
        x.keys() == y.keys() and np.array_equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in x
    )


def _joined(shares):
    """The batches of several shares, laid side by side step by step."""
    return [
        {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
        for parts in zip(*shares, strict=True)
    ]


def _maps(shape):
    """Frame, row and column of every pixel, uint8 [n, h, w]."""
    return (np.broadcast_to(x, shape).astype(np.uint8) for x in np.ogrid[: shape[0], : shape[1], : shape[2]])


# --- training -------------------------------------------------------------------------------------


def test_shapes_and_types(folder):
    (batch,) = _take(_config(folder), 1)
    assert {name: (x.dtype, x.shape) for name, x in batch.items()} == {
        "luma": (np.float16, (BATCH, 3, 16, 32)),
        "cb": (np.float16, (BATCH, 3, 8, 16)),
        "cr": (np.float16, (BATCH, 3, 8, 16)),
        "symbols": (np.float32, (BATCH, 3, 1, 2, 2)),
        "step": (np.float32, (BATCH,)),
    }
    assert all(isinstance(x, np.ndarray) for x in batch.values())


def test_a_single_frame_keeps_its_axis(folder):
    (batch,) = _take(_config(folder, frames=1, height=48), 1)
    assert batch["luma"].shape == (BATCH, 1, 48, 32) and batch["step"].shape == (BATCH,)
    assert batch["symbols"].shape == (BATCH, 1, 3, 2, 2) and batch["cr"].shape == (BATCH, 1, 24, 16)


@pytest.mark.parametrize("write, names", [(write_videos, VIDEOS), (write_images, IMAGES)])
def test_a_kind_gives_what_its_files_hold(tmp_path, write, names):
    write(tmp_path, 0)
    assert set(_take(_config(tmp_path), 1)[0]) == set(names)
    assert set(_pass(_config(tmp_path))[0]) == {*names, "weight"}


def test_examples_are_consecutive_parts_of_one_recording_at_whole_macroblocks(tmp_path):
    """All entries of an example come from the same place, and every place comes."""
    shape = (6, 48, 64)
    frame, row, column = _maps(shape)
    place = np.stack(list(_maps((6, 3, 4))), axis=-1).astype(np.float32)
    for number in range(2):
        luma = (100 * number + 16 * frame + 4 * (row // 16) + column // 16).astype(np.float16)
        half = luma[:, ::2, ::2]
        write_videos(tmp_path, number, shape, step=0.0, luma=luma, cb=half, cr=-half, symbols=place)
    found = {name: [] for name in VIDEOS}
    for batch in _take(_config(tmp_path), 100):
        for name, x in batch.items():
            found[name].extend(x)
    seen = set()
    for luma, symbols, step, cb, cr in zip(*(found[name] for name in VIDEOS), strict=True):
        first, y, x = symbols[0, 0, 0].astype(int)
        times, rows, columns = np.ogrid[first : first + 3, y : y + 1, x : x + 2]
        for i, wanted in enumerate((times, rows, columns)):
            assert np.array_equal(symbols[..., i], np.broadcast_to(wanted, (3, 1, 2)))
        wanted = 100 * step + 16 * times + 4 * rows + columns
        assert np.array_equal(luma, wanted.repeat(16, axis=1).repeat(16, axis=2))
        assert np.array_equal(cb, luma[:, ::2, ::2]) and np.array_equal(cr, -cb)
        seen.add((int(step), first, y, x))
    assert seen == {(n, t, y, x) for n in range(2) for t in range(4) for y in range(3) for x in range(3)}


def test_every_epoch_visits_every_recording_once_in_a_new_order(tmp_path):
    for number in range(7):
        write_videos(tmp_path, number, (3 + 2 * number, 16, 32), step=0.0)
    orders = [batch["step"].tolist() for batch in _take(_config(tmp_path), 6, batch_size=7)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) > 3


def test_symbols_may_be_kept_in_16_bits(tmp_path):
    symbols = np.linspace(-0.5, 0.5, 32).reshape(2, 2, 2, 4).astype(np.float16)
    write_videos(tmp_path, 0, (2, 32, 32), symbols=symbols, step=np.float64(50))
    (batch,) = _take(_config(tmp_path, frames=2, height=32, width=32), 1)
    assert batch["symbols"].dtype == batch["step"].dtype == np.float32
    assert np.array_equal(batch["symbols"][0], symbols) and batch["step"].tolist() == [50] * BATCH


@pytest.mark.parametrize(
    ("variant", "write", "count"), [("tiny", write_videos, 6), ("image", write_images, 4 * 17)]
)
def test_the_model_of_symbols_learns_from_examples(tmp_path, variant, write, count):
    config = get_config(variant)
    config.model.update(features=8, depth=1)
    write(tmp_path, 0, count=count)
    model, (batch,) = models.build(config.model), _take(_config(tmp_path), 1)
    loss, logs = jax.jit(model.loss)(jax.jit(model.init)(jax.random.key(0)), batch, None)
    assert np.isfinite(loss) and logs["bits_per_symbol"] < 1  # noise


# --- validation -----------------------------------------------------------------------------------


def test_validation_takes_the_first_frames_at_the_centre_of_every_recording_once(folder):
    batches = _pass(_config(folder), batch_size=2)
    assert _same(batches, _pass(_config(folder), batch_size=2))
    assert [batch["weight"].tolist() for batch in batches] == [[1, 1], [1, 0]]
    assert all(batch["weight"].dtype == np.float32 for batch in batches)
    found = _joined([[batch] for batch in batches])[0]
    for i in range(3):
        recording = np.load(folder / f"videos-{i:04}.npz")
        assert np.array_equal(found["luma"][i], recording["luma"][:3, 16:32, 16:48])
        assert np.array_equal(found["symbols"][i], recording["symbols"][:3, 1:2, 1:3])
        assert found["step"][i] == recording["step"]
        for name in ("cb", "cr"):
            assert np.array_equal(found[name][i], recording[name][:3, 8:16, 8:24])


def test_validation_has_a_folder_of_its_own(folder, tmp_path):
    write_videos(tmp_path / "other", 70)
    config = _config(folder)
    assert not has_validation(config)
    config.validation_path = str(tmp_path / "other")
    assert has_validation(config)
    (batch,) = _pass(config)
    assert batch["weight"].tolist() == [1, 0, 0, 0] and batch["step"].tolist() == [110] * 4
    assert 110 not in _take(config, 1)[0]["step"] and config.path == str(folder)


# --- bad input ------------------------------------------------------------------------------------


def _complaint(path, **changes) -> str:
    """What training and validation both say."""
    texts = set()
    for create in (partial(create_pairs, seed=0), create_validation):
        with pytest.raises(UserError) as caught:
            create(_config(path, **changes), batch_size=1)
        texts.add(str(caught.value))
    (text,) = texts
    assert "\n" not in text
    return text


def test_unusable_recordings_are_skipped_with_a_warning(folder, caplog):
    good = _take(_config(folder), 3)
    write_videos(folder, 20, (2, 48, 64))  # too short
    write_videos(folder, 21, (6, 48, 16))  # too small
    path = write_videos(folder, 22)
    path.write_bytes(path.read_bytes()[:-200])
    (folder / "videos-0023.npz").write_bytes(b"")
    (folder / "videos-0024.npz").write_text("no recording")
    np.save(folder / "videos-0025.npy", np.zeros(3))
    (folder / "videos-0025.npy").rename(folder / "videos-0025.npz")
    (folder / "videos-0026.npz").mkdir()
    (folder / "videos-0027.part").write_text("not looked at")
    (folder / "others-0001.npz").write_text("not looked at")
    (folder / "videos.npz").write_text("not looked at")
    assert _same(_take(_config(folder), 3), good)
    assert f"skipped 6 of 9 files in {folder}; the first is {folder}/videos-0020.npz" in caplog.text


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_damage_goes_unnoticed(tmp_path, save):
    """A changed byte costs the recording, or at least nothing of what is read; never more than one line."""
    good = write_videos(tmp_path, 0, (3, 16, 16))
    content, bad = dict(np.load(good)), tmp_path / "bad.npz"
    save(bad, **content)
    whole = bad.read_bytes()
    places, unharmed = np.random.default_rng(0).integers(0, len(whole), 150), 0
    for place in (*range(200), *range(len(whole) - 200, len(whole)), *places):
        broken = bytearray(whole)
        broken[place] ^= 1 + place % 255
        bad.write_bytes(broken)
        try:
            found = read_recording(bad, KINDS["videos"])
        except UserError as error:
            assert "\n" not in str(error)
            continue
        if found is not None:
            unharmed += 1
            assert all(np.array_equal(found[name], content[name]) for name in VIDEOS)
    assert unharmed < 200  # flags, times and the like


def test_pickles_are_not_opened(tmp_path):
    write_videos(tmp_path, 0, luma=np.array([{}, None], object))
    assert "none of the 1 files" in _complaint(tmp_path)


def test_nothing_to_read(tmp_path):
    assert "no folder" in _complaint(tmp_path / "absent")
    assert f"no videos-*.npz and no images-*.npz in {tmp_path}" in _complaint(tmp_path)
    write_images(tmp_path / "both", 0)
    write_videos(tmp_path / "both", 0)
    assert "has recordings of videos and images" in _complaint(tmp_path / "both")
    (tmp_path / "images-0001.npz").write_bytes(b"")
    text = f"none of the 1 files in {tmp_path} can be used; the first is {tmp_path}/images-0001.npz"
    assert text in _complaint(tmp_path)  # not as if there were none


@pytest.mark.parametrize("size", [{"height": 24}, {"width": 40}])
def test_crops_of_parts_of_macroblocks(folder, size):
    text = _complaint(folder, **size)
    assert "data.height and data.width must be multiples of 16" in text and str(*size.values()) in text


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"symbols": None}, "it has no 'symbols'"),
        ({"cb": None}, "it has no 'cb'"),
        (
            {"luma": np.zeros((6, 48, 64), np.uint8)},
            "'luma' is uint8 [6, 48, 64], not float16 [6, 48, 64]",
        ),
        ({"luma": np.zeros((48, 64))}, "'luma' is float16 [48, 64], not float16 [48, 64, 0]"),
        ({"luma": np.float16(0)}, "'luma' is float16 [], not float16 [0, 0, 0]"),
        ({"luma": np.zeros((6, 48, 40))}, "[6, 24, 32], not float16 [6, 24, 20]"),
        ({"cr": np.zeros((6, 48, 64))}, "'cr' is float16 [6, 48, 64], not float16 [6, 24, 32]"),
        ({"symbols": np.zeros((5, 3, 4, 2), np.float32)}, "[5, 3, 4, 2], not float32 [6, 3, 4, any]"),
        ({"symbols": np.zeros((6, 3, 4), np.float32)}, "[6, 3, 4], not float32 [6, 3, 4, any]"),
        ({"luma": np.full((6, 48, 64), np.inf)}, "'luma' has values that are not finite"),
        ({"symbols": np.full((6, 3, 4, 2), np.nan)}, "'symbols' has values that are not finite"),
        ({"step": np.zeros(1, np.float32)}, "'step' is float32 [1], not float32 []"),
        ({"symbols": np.zeros((6, 3, 4, 2), np.int8)}, "is int8 [6, 3, 4, 2], not float32 [6, 3, 4, any]"),
    ],
)
def test_recordings_of_something_else(tmp_path, changes, complaint):
    path = write_videos(tmp_path, 0, **changes)
    text = _complaint(tmp_path)
    assert f"{path} is not a recording of its kind: " in text and complaint in text


def test_sizes_of_parts_of_macroblocks(tmp_path):
    write_images(tmp_path, 0, luma=np.zeros((6, 48, 40)))
    assert "[6, 3, 4, 2], not float32 [6, 3, 2.5, any]" in _complaint(tmp_path)


def test_recordings_that_do_not_go_together(tmp_path):
    write_videos(tmp_path, 0, count=2)
    path = write_videos(tmp_path, 1, count=5)
    assert f"{path} and videos-0000.npz have 5 and 2 symbols in a block" in _complaint(tmp_path)
