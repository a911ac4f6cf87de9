"""The folder of recordings: what an example is, that it belongs to its number, validation, errors."""

from contextlib import closing
from functools import partial
from itertools import islice

import numpy as np
import pytest
from ml_collections import ConfigDict

from deepsteg_jax.data import create_pairs, create_validation, has_validation
from deepsteg_jax.data.recordings import KINDS, read_recording
from deepsteg_jax.errors import UserError
from tests.recordings import write_pictures, write_symbols

BATCH = 4
SYMBOLS, PICTURES = ("frames", "symbols", "step", "count"), ("coded", "secret")


def _config(path, **changes) -> ConfigDict:
    fields = {"source": "recordings", "path": str(path), "validation_path": ""}
    return ConfigDict(fields | {"frames": 3, "height": 8, "width": 16} | changes)


@pytest.fixture
def folder(tmp_path):
    """Three recordings of symbols and two of pictures."""
    for number in range(3):
        write_symbols(tmp_path / "recordings", number)
    for number in range(2):
        write_pictures(tmp_path / "recordings", number)
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
        "frames": (np.float16, (BATCH, 3, 8, 16)),
        "symbols": (np.float32, (BATCH, 3, 1, 2, 2)),
        "step": (np.float32, (BATCH,)),
        "count": (np.int32, (BATCH,)),
        "coded": (np.uint8, (BATCH, 3, 8, 16, 3)),
        "secret": (np.uint8, (BATCH, 3, 8, 16, 3)),
    }
    assert all(isinstance(x, np.ndarray) for x in batch.values())


@pytest.mark.parametrize("frames, symbols", [(1, 1), (2, 3)])
def test_a_single_frame_keeps_its_axis(folder, frames, symbols):
    (batch,) = _take(_config(folder, frames=frames, height=24), 1)
    assert batch["frames"].shape == (BATCH, frames, 24, 16) and batch["step"].shape == (BATCH,)
    assert batch["symbols"].shape == (BATCH, frames, 3, 2, 2)


@pytest.mark.parametrize("write, names", [(write_symbols, SYMBOLS), (write_pictures, PICTURES)])
def test_a_kind_without_files_is_left_out(tmp_path, write, names):
    write(tmp_path, 0)
    assert set(_take(_config(tmp_path), 1)[0]) == set(names)
    assert set(_pass(_config(tmp_path))[0]) == {*names, "weight"}


def test_a_kind_gives_the_same_examples_with_the_other_and_without(folder, tmp_path):
    for number in range(2):
        write_pictures(tmp_path / "alone", number)
    both, alone = (_take(_config(path), 3) for path in (folder, tmp_path / "alone"))
    assert _same([{name: batch[name] for name in PICTURES} for batch in both], alone)


def test_examples_are_consecutive_parts_of_one_record_at_whole_blocks(tmp_path):
    """All entries of an example come from the same place, and every place comes."""
    shape = (6, 24, 32)
    frame, row, column = _maps(shape)
    place = np.stack(list(_maps((6, 3, 4))), axis=-1).astype(np.float32)
    for number in range(2):
        frames = (100 * number + 16 * frame + 4 * (row // 8) + column // 8).astype(np.float16)
        write_symbols(tmp_path, number, shape, step=0.0, frames=frames, symbols=place)
    pixels = np.stack([frame, row, column], axis=-1)
    write_pictures(tmp_path, 0, shape, coded=pixels, secret=pixels)
    found = {name: [] for name in (*SYMBOLS, *PICTURES)}
    for batch in _take(_config(tmp_path), 150):
        for name, x in batch.items():
            found[name].extend(x)
    seen = set()
    for frames, symbols, step in zip(*(found[name] for name in SYMBOLS[:3]), strict=True):
        first, y, x = symbols[0, 0, 0].astype(int)
        times, rows, columns = np.ogrid[first : first + 3, y : y + 1, x : x + 2]
        assert np.array_equal(symbols[..., 0], np.broadcast_to(times, (3, 1, 2)))
        assert np.array_equal(symbols[..., 1], np.broadcast_to(rows, (3, 1, 2)))
        assert np.array_equal(symbols[..., 2], np.broadcast_to(columns, (3, 1, 2)))
        wanted = 100 * step + 16 * times + 4 * rows + columns
        assert np.array_equal(frames, wanted.repeat(8, axis=1).repeat(8, axis=2))
        seen.add((int(step), first, y, x))
    assert seen == {(n, t, y, x) for n in range(2) for t in range(4) for y in range(3) for x in range(3)}
    seen = set()
    for coded, secret in zip(*(found[name] for name in PICTURES), strict=True):
        first, y, x = coded[0, 0, 0].tolist()
        assert np.array_equal(coded, secret)
        assert np.array_equal(coded, pixels[first : first + 3, y : y + 8, x : x + 16])
        seen.add((first, y, x))
    assert seen == {(t, y, x) for t in range(4) for y in (0, 8, 16) for x in (0, 8, 16)}


def test_every_epoch_visits_every_record_once_in_a_new_order(tmp_path):
    for number in range(7):
        write_symbols(tmp_path, number, (3 + 2 * number, 8, 16), step=0.0)
    orders = [batch["step"].tolist() for batch in _take(_config(tmp_path), 6, batch_size=7)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) > 3


def test_the_kinds_are_independent(tmp_path):
    """Record, first frame and column of one say nothing about those of the other."""
    frame, _, column = _maps((6, 8, 64))
    for number in range(8):
        write_symbols(tmp_path, number, (6, 8, 64), step=0.0, frames=np.float16(16 * frame + column // 8))
        pixels = np.stack([np.full_like(frame, number), frame, column], axis=-1)
        write_pictures(tmp_path, number, secret=pixels, coded=pixels)
    batches = _take(_config(tmp_path), 60)
    step, frames, secret = (
        np.concatenate([b[name] for b in batches]) for name in ("step", "frames", "secret")
    )
    first, column = np.divmod(frames[:, 0, 0, 0], 16)
    for a, b in zip((step, first, column), secret[:, 0, 0, 0].T, strict=True):
        assert np.ptp(a) > 0 and np.ptp(b) > 0 and abs(np.corrcoef(a, b)[0, 1]) < 0.25


def test_symbols_may_be_kept_in_16_bits(tmp_path):
    symbols = np.linspace(-0.5, 0.5, 2 * 16 * 2).reshape(2, 4, 4, 2).astype(np.float16)
    write_symbols(tmp_path, 0, (2, 32, 32), symbols=symbols, step=np.float64(50))
    (batch,) = _take(_config(tmp_path, frames=2, height=32, width=32), 1)
    assert batch["symbols"].dtype == batch["step"].dtype == np.float32
    assert np.array_equal(batch["symbols"][0], symbols) and batch["step"].tolist() == [50] * BATCH


# --- validation -----------------------------------------------------------------------------------


def test_validation_takes_the_first_frames_at_the_centre_of_every_record_once(folder):
    batches = _pass(_config(folder), batch_size=2)
    assert _same(batches, _pass(_config(folder), batch_size=2))
    assert [batch["weight"].tolist() for batch in batches] == [[1, 1], [1, 0]]
    assert all(batch["weight"].dtype == np.float32 for batch in batches)
    found = _joined([[batch] for batch in batches])[0]
    for i in range(3):
        recording = np.load(folder / f"symbols-{i:04}.npz")
        assert np.array_equal(found["frames"][i], recording["frames"][:3, 8:16, 8:24])
        assert np.array_equal(found["symbols"][i], recording["symbols"][:3, 1:2, 1:3])
        assert found["step"][i] == recording["step"]
        recording = np.load(folder / f"pictures-{i % 2:04}.npz")  # the first one comes again
        for name in PICTURES:
            assert np.array_equal(found[name][i], recording[name][:3, 8:16, 0:16])


def test_validation_has_a_folder_of_its_own(folder, tmp_path):
    write_symbols(tmp_path / "other", 70)
    config = _config(folder)
    assert not has_validation(config)
    config.validation_path = str(tmp_path / "other")
    assert has_validation(config)
    (batch,) = _pass(config)
    assert batch["weight"].tolist() == [1, 0, 0, 0] and batch["step"].tolist() == [110] * 4
    assert set(_take(config, 1)[0]) == {*SYMBOLS, *PICTURES} and config.path == str(folder)


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


def test_unusable_records_are_skipped_with_a_warning(folder, caplog):
    good = _take(_config(folder), 3)
    write_symbols(folder, 20, (2, 24, 32))  # too short
    write_symbols(folder, 21, (6, 24, 8))  # too small
    path = write_symbols(folder, 22)
    path.write_bytes(path.read_bytes()[:-200])
    (folder / "symbols-0023.npz").write_bytes(b"")
    (folder / "symbols-0024.npz").write_text("no recording")
    np.save(folder / "symbols-0025.npy", np.zeros(3))
    (folder / "symbols-0025.npy").rename(folder / "symbols-0025.npz")
    write_pictures(folder, 20, (5, 7, 20))
    (folder / "symbols-0026.npz").mkdir()
    (folder / "symbols-0027.part").write_text("not looked at")
    (folder / "others-0001.npz").write_text("not looked at")
    (folder / "symbols.npz").write_text("not looked at")
    assert _same(_take(_config(folder), 3), good)
    assert f"skipped 6 of 9 files in {folder}; the first is {folder}/symbols-0020.npz" in caplog.text
    assert f"skipped 1 of 3 files in {folder}; the first is {folder}/pictures-0020.npz" in caplog.text


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_damage_goes_unnoticed(tmp_path, save):
    """A changed byte costs the recording, or at least nothing of what is read; never more than one line."""
    good = write_pictures(tmp_path, 0, (3, 8, 16))
    content, bad = dict(np.load(good)), tmp_path / "bad.npz"
    save(bad, **content)
    whole = bad.read_bytes()
    places, unharmed = np.random.default_rng(0).integers(0, len(whole), 150), 0
    for place in (*range(200), *range(len(whole) - 200, len(whole)), *places):
        broken = bytearray(whole)
        broken[place] ^= 1 + place % 255
        bad.write_bytes(broken)
        try:
            found = read_recording(bad, KINDS["pictures"])
        except UserError as error:
            assert "\n" not in str(error)
            continue
        if found is not None:
            unharmed += 1
            assert all(np.array_equal(found[name], content[name]) for name in PICTURES)
    assert unharmed < 200  # flags, times and the like


def test_pickles_are_not_opened(tmp_path):
    write_symbols(tmp_path, 0, frames=np.array([{}, None], object))
    assert "none of the 1 files" in _complaint(tmp_path)


def test_nothing_to_read(tmp_path):
    assert "no folder" in _complaint(tmp_path / "absent")
    assert f"no symbols-*.npz and no pictures-*.npz in {tmp_path}" in _complaint(tmp_path)
    write_symbols(tmp_path, 3)
    (tmp_path / "pictures-0001.npz").write_bytes(b"")
    text = f"none of the 1 files in {tmp_path} can be used; the first is {tmp_path}/pictures-0001.npz"
    assert text in _complaint(tmp_path)  # not as if there were no pictures


@pytest.mark.parametrize("size", [{"height": 12}, {"width": 20}])
def test_crops_of_parts_of_blocks(folder, size):
    text = _complaint(folder, **size)
    assert "data.height and data.width must be multiples of 8" in text and str(*size.values()) in text


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"symbols": None}, "it has no 'symbols'"),
        (
            {"frames": np.zeros((6, 24, 32), np.uint8)},
            "'frames' is uint8 [6, 24, 32], not float16 [6, 24, 32]",
        ),
        ({"frames": np.zeros((24, 32))}, "'frames' is float16 [24, 32], not float16 [24, 32, 0]"),
        ({"frames": np.float16(0)}, "'frames' is float16 [], not float16 [0, 0, 0]"),
        ({"frames": np.zeros((6, 24, 20))}, "[6, 3, 4, 2], not float32 [6, 3, 2.5, any]"),
        ({"symbols": np.zeros((5, 3, 4, 2), np.float32)}, "[5, 3, 4, 2], not float32 [6, 3, 4, any]"),
        ({"symbols": np.zeros((6, 3, 4), np.float32)}, "[6, 3, 4], not float32 [6, 3, 4, any]"),
        ({"frames": np.full((6, 24, 32), np.inf)}, "'frames' has values that are not finite"),
        ({"symbols": np.full((6, 3, 4, 2), np.nan)}, "'symbols' has values that are not finite"),
        ({"step": np.zeros(1, np.float32)}, "'step' is float32 [1], not float32 []"),
        ({"symbols": np.zeros((6, 3, 4, 2), np.int8)}, "is int8 [6, 3, 4, 2], not float32 [6, 3, 4, any]"),
    ],
)
def test_records_of_something_else(tmp_path, changes, complaint):
    path = write_symbols(tmp_path, 0, **changes)
    text = _complaint(tmp_path)
    assert f"{path} is not a recording of its kind: " in text and complaint in text


def test_pictures_of_something_else(tmp_path):
    write_pictures(tmp_path, 0, coded=np.zeros((5, 28, 20), np.uint8))
    assert "'coded' is uint8 [5, 28, 20], not uint8 [5, 28, 20, 3]" in _complaint(tmp_path)
    write_pictures(tmp_path, 0, coded=np.zeros((5, 28, 24, 3), np.uint8))
    assert "'secret' is uint8 [5, 28, 20, 3], not uint8 [5, 28, 24, 3]" in _complaint(tmp_path)


def test_records_that_do_not_go_together(tmp_path):
    write_symbols(tmp_path, 0, count=2)
    path = write_symbols(tmp_path, 1, count=5)
    assert f"{path} and symbols-0000.npz have 5 and 2 symbols in a block" in _complaint(tmp_path)
