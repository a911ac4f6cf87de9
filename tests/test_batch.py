"""Lists of files: reading them, their results, and many files of which a worker is killed."""

import csv
import pickle
import stat
from functools import partial

import pytest

from deepsteg_jax import batch, cluster, keys, pipeline
from deepsteg_jax.errors import PartialError, UserError
from tests import jobs
from tests.helpers import PlaneScheme, names, needs_dask
from tests.synthetic import film, noise

HEAD = "cover,secret,output,key_file\n"


@pytest.fixture
def folder(tmp_path):
    """A folder with a cover, secrets and a key."""
    film(tmp_path / "cover.mkv", noise(3, 16, 16), codec="ffv1", pixel_format="yuv420p")
    keys.write_key_file(tmp_path / "my.key")
    for name in ("a", "b", "cut"):
        (tmp_path / name).write_bytes(name.encode() * 4)
    (tmp_path / "large").write_bytes(bytes(999))
    return tmp_path


def write(folder, *rows, head=HEAD, **how):
    path = folder / "list.csv"
    path.write_text(head + "\n".join(rows) + "\n", **how)
    return path


def listed(folder, *secrets):
    """The jobs of a list that hides each secret in the cover."""
    return batch.read(write(folder, *(f"cover.mkv,{x},{x}.mkv,my.key" for x in secrets)), batch.HIDE)


def results_of(folder, jobs, **settings):
    return batch.Results(folder / "results.csv", jobs, settings)


def read_results(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def whole(folder, *secrets):
    """Asserts that the stegos open, and that nothing unfinished lies beside them."""
    key = keys.read_key_file(folder / "my.key")
    for name in secrets:
        revealed = folder / "revealed"
        pipeline.reveal([PlaneScheme()], key, folder / f"{name}.mkv", revealed, lambda frames: None)
        assert revealed.read_bytes() == (folder / name).read_bytes()
        revealed.unlink()
    assert not [name for name in names(folder) if name.endswith(".part")]


# --- the list -------------------------------------------------------------------------------------


def test_a_list_as_spreadsheets_write_it(folder, monkeypatch):
    monkeypatch.setattr(keys, "read_key_file", None)  # a key is read where it is used
    head = '\ufeffKey File;OUTPUT;" cover";Secret\n'
    path = write(folder, "my.key;stego ä.mkv;cover.mkv;a", ";;;", f";b.mkv;cover.mkv;{folder}/b", head=head)
    first, second = batch.read(path, batch.HIDE, key_file=folder / "my.key")
    assert first.line == 2 and second.line == 4
    assert first.row == {"cover": "cover.mkv", "secret": "a", "output": "stego ä.mkv", "key_file": "my.key"}
    assert first.paths["output"] == str(folder / "stego ä.mkv") and second.paths["secret"] == f"{folder}/b"
    assert second.paths["key_file"] == str(folder / "my.key")


@pytest.mark.parametrize(
    ("rows", "head", "message"),
    [
        ([], HEAD, "has no rows"),
        (["cover.mkv,a,o.mkv"], "cover,secret,output\n", "lacks key_file"),
        (["cover.mkv,a,o.mkv,x"], "cover,secret,output,passphrase\n", "lacks key_file"),
        (["cover.mkv,a,o.mkv,my.key,x"], "cover,secret,output,key_file,passphrase\n", "has passphrase"),
        (["cover.mkv,a,o.mkv,my.key,x"], "cover,secret,output,key_file,secret\n", "has one twice"),
        (["cover.mkv,a,o.mkv"], HEAD, "in line 2"),
        (["cover.mkv,a,o.mkv,my.key", "cover.mkv,b,./o.mkv,my.key"], HEAD, "lines 2 and 3 have the same"),
        (["cover.mkv,a,o.mkv,my.key", "o.mkv,b,cover.mkv,my.key"], HEAD, "is an input of line 2"),
        (["none.mkv,a,o.mkv,my.key"], HEAD, "line 2: .*none.mkv does not exist"),
        (["cover.mkv,none,o.mkv,my.key"], HEAD, "line 2: .*none does not exist"),
        (["cover.mkv,a,o.mkv,none"], HEAD, "line 2: .*none does not exist"),
        (["cover.mkv,a,o.mkv,a"], HEAD, "a is no key file"),
        (["cover.mkv,a,,my.key"], HEAD, "line 2 has no output"),
        (["cover.mkv,a,none/o.mkv,my.key"], HEAD, "none does not exist"),
        (["cover.mkv,a,o.png,my.key"], HEAD, "the result is a video"),
        (["cover.mkv,a,new/,my.key"], HEAD, "is a folder"),
        (["none,a,o.mkv,my.key"] * 9, HEAD, "; and 14 more$"),
    ],
)
def test_the_faults_of_a_list_come_before_the_work(folder, rows, head, message):
    with pytest.raises(UserError, match=message) as caught:
        batch.read(write(folder, *rows, head=head), batch.HIDE)
    assert "\n" not in str(caught.value) and "list.csv" in str(caught.value)


def test_files_that_are_no_list(folder):
    for name, content in (("none.csv", None), ("a.csv", b"\xff\xfe,\n"), ("b.csv", b"")):
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            batch.read(folder / name, batch.REVEAL)


# --- results --------------------------------------------------------------------------------------


def test_every_file_has_one_row_whatever_becomes_of_it(folder):
    files = listed(folder, "a", "large", "cut", "b")
    results = results_of(folder, files)
    given = [row["status"] for row in batch.run(results.left, jobs.hide, results, workers=0)]
    rows = read_results(folder)
    assert [row["status"] for row in rows] == given == ["ok", "failed", "partial", "ok"]
    assert [row["secret"] for row in rows] == ["a", "large", "cut", "b"]
    assert rows[0]["message"] == "a note" and int(rows[0]["bytes"]) == (folder / "a.mkv").stat().st_size
    assert rows[1]["message"].startswith("AssertionError:") and not (folder / "large.mkv").exists()
    assert rows[2]["message"] == "cut.mkv is cut short" and (folder / "cut.mkv").exists()
    assert stat.S_IMODE((folder / "results.csv").stat().st_mode) == 0o600
    with pytest.raises(UserError, match="2 of 4 files are whole, 1 in part: .*results.csv says why"):
        results.summary()
    whole(folder, "a", "b")


def test_results_that_cannot_be_written_leave_what_is_there(folder):
    jobs_of_list = listed(folder, "a")
    (folder / "results.csv").mkdir()
    with pytest.raises(UserError, match="cannot write the results"):
        results_of(folder, jobs_of_list)
    assert "results.csv.part" not in names(folder)


@pytest.mark.parametrize(("secrets", "error"), [(["a", "b"], None), (["a", "cut"], PartialError)])
def test_the_last_line(folder, secrets, error):
    results = results_of(folder, listed(folder, *secrets))
    list(batch.run(results.left, jobs.hide, results, workers=0))
    if error is None:
        assert results.summary() == "all 2 files are whole"
    else:
        with pytest.raises(error, match="1 of 2 files are whole, 1 in part"):
            results.summary()


def test_what_was_interrupted_goes_on(folder):
    files = listed(folder, "a", "b")
    results = results_of(folder, files)
    rows = batch.run(results.left, jobs.hide, results, workers=0)
    next(rows)
    left = (folder / "results.csv").read_text() + "cover.mkv,b,b.mkv,my.key,,ok"  # half a row
    rows.close()
    assert [row["secret"] for row in read_results(folder)] == ["a"]
    (folder / "results.csv").write_text(left)  # as a process that is killed leaves it
    files[1].folder.mkdir()
    again = results_of(folder, files)
    assert [job.row["secret"] for job in again.left] == ["b"]
    list(batch.run(again.left, jobs.hide, again, workers=0))
    assert again.summary() and results_of(folder, files).left == []
    assert [row["secret"] for row in read_results(folder)] == ["a", "b"]
    whole(folder, "a", "b")


def test_a_file_is_made_anew_where_its_row_no_longer_holds(folder):
    files = listed(folder, "a", "b")
    results = results_of(folder, files, changes={"rate": 1})
    list(batch.run(results.left, jobs.hide, results, workers=0))
    before = (folder / "results.csv").read_bytes()
    assert results_of(folder, files, changes={"rate": 1}).left == []
    assert results_of(folder, listed(folder, "b", "a"), changes={"rate": 1}).left == []
    for change in (
        lambda: results_of(folder, files, changes={"rate": 2}),
        lambda: results_of(folder, [files[0], _with(files[1], secret="a")], changes={"rate": 1}),
        lambda: (folder / "b.mkv").write_bytes(b"short") and results_of(folder, files, changes={"rate": 1}),
    ):
        (folder / "results.csv").write_bytes(before)
        assert change().left[-1].row["output"] == "b.mkv"


def _with(job, **row):
    return job._replace(row=job.row | row)


# --- with workers -----------------------------------------------------------------------------------


@needs_dask
@pytest.mark.slow
def test_many_files_of_which_a_worker_is_killed(folder, monkeypatch):
    """And again; of the keys, workers alone see more than the paths."""
    key = (folder / "my.key").read_bytes()
    secrets = [f"{number:02}" for number in range(29)]
    secrets.insert(10, "lethal")
    for name in secrets:
        (folder / name).write_text(f"secret {name}")
    files = listed(folder, *secrets)
    results = results_of(folder, files)
    assert key not in pickle.dumps((partial(jobs.hide), files))
    with monkeypatch.context() as here:
        here.setattr(keys, "read_key_file", None)
        ended = [row["output"] for row in batch.run(results.left, jobs.hide, results, workers=2)]
    assert sorted(ended) == sorted(job.row["output"] for job in files)
    assert (folder / "lethal.killed").exists()
    rows = read_results(folder)
    assert [row["secret"] for row in rows] == secrets and {row["status"] for row in rows} == {"ok"}
    assert all(job.output.stat().st_size == int(row["bytes"]) for job, row in zip(files, rows, strict=True))
    whole(folder, *secrets[:16:5])  # the lethal one, too
    stegos = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mkv")}
    written = (folder / "results.csv").read_bytes()
    monkeypatch.setattr(cluster, "_client", None)
    again = results_of(folder, files)
    assert list(batch.run(again.left, jobs.hide, again, workers=2)) == []
    assert stegos == {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mkv")}
    assert (folder / "results.csv").read_bytes() == written
    assert again.summary() == "all 30 files are whole"
