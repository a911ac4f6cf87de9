"""Lists of files: a row of a CSV file for each, hidden or revealed in processes of their own.

    work = partial(batch.hide, purpose="file")
    files = batch.read("list.csv", batch.HIDE)
    for row in batch.run(files, work, workers=2): ...

Key files are named in a list and read by the worker that needs them: neither keys nor passphrases leave it.
"""

import csv
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from deepsteg_jax import api, cluster, keys, media
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.pipeline import Report

HIDE = ("cover", "secret", "output", "key_file")
REVEAL = ("stego", "output", "key_file")
RESULTS = ("settings", "status", "bytes", "seconds", "message")
"""The columns of a file of results after those of the list."""

OK, PARTIAL, FAILED = "ok", "partial", "failed"
_SHOWN = 3  # faults of a list
_DELIMITERS = ",;\t"  # spreadsheets write the first or the second, by language


class Job(NamedTuple):
    """A row of a list."""

    line: int  # of the list
    row: dict[str, str]  # as written there, by column
    paths: dict[str, str]  # the same, absolute

    @property
    def output(self) -> Path:
        """The file to write."""
        return Path(self.paths["output"])

    @property
    def inputs(self) -> list[str]:
        """The files to read."""
        return [path for name, path in self.paths.items() if name != "output"]

    @property
    def folder(self) -> Path:
        """The folder for unfinished files, which is removed once the job has ended, however it did."""
        return self.output.with_name(f".{sha256(self.output.name.encode()).hexdigest()[:8]}.part")


# --- the list -------------------------------------------------------------------------------------


def read(path: str | Path, columns: Sequence[str], key_file: str | None = None) -> list[Job]:
    """Read a list: a CSV file in UTF-8 whose first line names its columns.

    Args:
        path: of the list, to whose folder the paths in it are relative.
        columns: `HIDE` or `REVEAL`.
        key_file: for rows that name none.

    Raises:
        UserError: it cannot be read or used; the first faults in one line.
    """
    given = {"key_file": str(Path(key_file).absolute())} if key_file else {}
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = _rows(file, columns, given)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the list {path}: {reason}; it must be a CSV file in UTF-8") from None
    except UserError as error:
        raise UserError(f"the list {path} {error}") from None
    folder = Path(path).absolute().parent
    jobs = [
        Job(line, row, {name: os.path.join(folder, value) for name, value in row.items() if value})  # noqa: PTH118
        for line, row in rows
    ]
    if faults := [*_faults(jobs, columns)]:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise UserError(f"nothing was done, the list {path} has faults: {'; '.join(faults[:_SHOWN])}{more}")
    return jobs


def _rows(file: Any, columns: Sequence[str], given: Mapping[str, str]) -> list[tuple[int, dict[str, str]]]:
    """Return (line, row) of every row that is not empty."""
    first = file.readline()
    delimiter = next((sign for sign in _DELIMITERS if sign in first), ",")
    names = [_column(name) for name in next(csv.reader([first], delimiter=delimiter), [])]
    missing = [name for name in columns if name not in names and name not in given]
    unknown = [name for name in names if name not in columns]
    if missing or unknown or len(set(names)) < len(names):
        reason = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(unknown) or 'one twice'}"
        raise UserError(f"must have the columns {', '.join(columns)} in its first line, and {reason}")
    reader = csv.reader(file, delimiter=delimiter)
    rows = [(reader.line_num + 1, [value.strip() for value in values]) for values in reader]
    rows = [(line, values) for line, values in rows if any(values)]
    if not rows:
        raise UserError("has no rows: give one line for each file")
    if wrong := [line for line, values in rows if len(values) != len(names)]:
        raise UserError(f"has another number of values than of columns in line {wrong[0]}")
    named = [(line, dict(zip(names, values, strict=True))) for line, values in rows]
    return [(line, {name: row.get(name) or given.get(name, "") for name in columns}) for line, row in named]


def _column(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _faults(jobs: Sequence[Job], columns: Sequence[str]) -> Iterator[str]:
    """Yield every reason, with its line, for which a row cannot be done."""
    outputs: dict[str, int] = {}
    inputs = {os.path.realpath(path): job.line for job in jobs for path in job.inputs}
    for job in jobs:
        if absent := [name for name in columns if not job.row[name]]:
            yield f"line {job.line} has no {absent[0]}"
            continue
        output = os.path.realpath(job.output)
        if output in outputs:
            yield f"lines {outputs[output]} and {job.line} have the same output, {job.row['output']}"
        elif output in inputs:
            yield f"the output of line {job.line}, {job.row['output']}, is an input of line {inputs[output]}"
        outputs.setdefault(output, job.line)
        try:
            _check(job)
        except UserError as error:
            yield f"line {job.line}: {error}"


def _check(job: Job) -> None:
    """Raise UserError unless the files of a job can be read and written."""
    for path in job.inputs:
        media.check_readable(path)
    with suppress(OSError):
        if Path(job.paths["key_file"]).stat().st_size != keys.KEY_BYTES:
            raise UserError(f"{job.row['key_file']} is no key file: make one with deepsteg keygen")
    if media.is_sequence(job.paths["output"]):
        raise UserError(f"the output {job.row['output']} is a folder: give the name of a file")
    info = media.probe(job.inputs[0], [])
    if "cover" in job.paths:
        media.check_stego(job.output, job.inputs, info)
    else:
        media.check_place(job.output, job.inputs)


# --- a job, where a worker does it ----------------------------------------------------------------


def hide(paths: Mapping[str, str], **choices: Any) -> Report:
    """Hide as `api.hide_file` does, with its choices."""
    key = keys.read_key_file(paths["key_file"])
    return api.hide_file(paths["cover"], paths["secret"], paths["output"], key, **choices)


def reveal(paths: Mapping[str, str]) -> Report:
    """Reveal as `api.reveal_file` does."""
    return api.reveal_file(paths["stego"], paths["output"], keys.read_key_file(paths["key_file"]))


def _carry_out(work: Callable[[Mapping[str, str]], Report], job: Job) -> dict[str, Any]:
    """Do a job in a folder of its own and move the file to its place; return columns of its results."""
    start, size = time.monotonic(), 0
    job.folder.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=job.folder) as folder:  # a worker that was given up may be at it, too
        made = Path(folder) / job.output.name
        try:
            status, message = OK, "; ".join(work({**job.paths, "output": str(made)}).notes)
        except PartialError as error:
            status, message = PARTIAL, str(error)
        except UserError as error:
            status, message = FAILED, str(error)
        if status != FAILED:
            size = made.stat().st_size
            made.replace(media.destination(job.output))
    message = message.replace(str(made), job.row["output"])
    return _columns(status, message, size, f"{time.monotonic() - start:.1f}")


def _columns(status: str, message: str, size: int = 0, seconds: str = "") -> dict[str, Any]:
    return {"status": status, "bytes": size, "seconds": seconds, "message": " ".join(message.split())}


def _row(outcome: cluster.Outcome) -> dict[str, Any]:
    """Return the columns of the results of a job's outcome."""
    error = outcome.error
    if error is None:
        return outcome.result
    kind = "" if isinstance(error, cluster.LostError) else f"{type(error).__name__}: "
    return _columns(FAILED, f"{kind}{error}")


# --- the whole list -------------------------------------------------------------------------------


class Results:
    """The file of results: a row for each file of a list, added as soon as it has ended."""

    def __init__(self, path: str | Path, jobs: Sequence[Job], settings: Mapping[str, Any]):
        """Take over the rows of an earlier run whose output is there as it was made.

        Args:
            path: of the file, CSV.
            jobs: of the list.
            settings: of the work; other ones do not make the same outputs.
        """
        self._path, self._jobs = Path(path), {job.row["output"]: job for job in jobs}
        self._columns = (*jobs[0].row, *RESULTS)
        chosen = {name: value for name, value in settings.items() if value}
        self._settings = json.dumps(chosen, sort_keys=True, default=str) if chosen else ""
        self._rows = {row["output"]: row for row in self._read() if self._is_whole(row)}
        self.write()

    def _read(self) -> Iterator[dict[str, str]]:
        with (
            suppress(OSError, UnicodeDecodeError, csv.Error),
            self._path.open(encoding="utf-8", newline="") as file,
        ):
            yield from csv.DictReader(file)

    def _is_whole(self, row: Mapping[str, str]) -> bool:
        """Return whether a row is of this list, and its output is there."""
        job = self._jobs.get(row.get("output"))
        if job is None or row.get("status") != OK or row.get("settings") != self._settings:
            return False
        with suppress(OSError):
            return job.row.items() <= row.items() and str(job.output.stat().st_size) == row["bytes"]
        return False

    @property
    def left(self) -> list[Job]:
        """The jobs that are still to be done."""
        return [job for output, job in self._jobs.items() if output not in self._rows]

    def summary(self) -> str:
        """Say in one line that every file is whole.

        Raises:
            UserError: some failed.
            PartialError: none failed, but some are there in part.
        """
        states = [self._rows[output]["status"] for output in self._jobs if output in self._rows]
        whole, count = states.count(OK), len(self._jobs)
        if whole == count:
            return f"all {count} files are whole"
        parts = f", {states.count(PARTIAL)} in part" if PARTIAL in states else ""
        line = f"{whole} of {count} files are whole{parts}: {self._path} says why the others are not"
        raise UserError(line) if whole + states.count(PARTIAL) < count else PartialError(line)

    def add(self, job: Job, row: Mapping[str, Any]) -> dict[str, Any]:
        """Add the row of a job so that nothing can take it away; return it whole."""
        whole = self._rows[job.row["output"]] = {**job.row, "settings": self._settings, **row}
        self._put("a", [whole])
        return whole

    def write(self) -> None:
        """Write the rows in the order of the list, in place of those that came as they ended."""
        path, self._path = self._path, self._path.with_name(f"{self._path.name}.part")
        try:
            self._put("w", [dict(zip(self._columns, self._columns, strict=True))])
            self._put("a", [self._rows[output] for output in self._jobs if output in self._rows])
            self._path.replace(path)
        except OSError as error:
            self._path.unlink(missing_ok=True)
            raise UserError(f"cannot write the results {path}: {error.strerror}") from None
        finally:
            self._path = path

    def _put(self, mode: str, rows: Sequence[Mapping[str, Any]]) -> None:
        private = partial(os.open, mode=0o600)  # it tells which file hides which
        try:
            with open(self._path, mode, encoding="utf-8", newline="", opener=private) as file:
                csv.DictWriter(file, self._columns).writerows(rows)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write the results {self._path}: {error.strerror}") from None


def run(
    jobs: Sequence[Job],
    work: Callable[[Mapping[str, str]], Report],
    results: Results,
    workers: int,
    scheduler: str | None = None,
    announce: Callable[[str], Any] = lambda line: None,
) -> Iterator[dict[str, Any]]:
    """Do jobs and yield the row of each as it ends, once it is in the file of results.

    Args:
        jobs: such as `Results.left`.
        work: takes the absolute paths by column and makes the output, such as `hide` with choices bound. It
            must be importable where the workers are.
        results: takes the rows.
        workers: see `cluster.run`.
        scheduler: the same.
        announce: the same.

    Raises:
        UserError: the workers or the file of results are out of reach.
    """
    try:
        with closing(cluster.run(partial(_carry_out, work), jobs, workers, scheduler, announce)) as outcomes:
            for outcome in outcomes:
                job = jobs[outcome.number]
                shutil.rmtree(job.folder, ignore_errors=True)
                yield results.add(job, _row(outcome))
    finally:
        for job in jobs:
            shutil.rmtree(job.folder, ignore_errors=True)
        results.write()


def fitting_workers(jobs: Sequence[Job], **choices: Any) -> int:
    """Return the number of processes that suit this machine's cores, and its memory by the largest job.

    Args:
        jobs: of a list.
        choices: of `hide`.
    """
    peaks = [
        api.hiding_memory(job.paths["cover"], job.output, **choices)
        if "cover" in job.paths
        else api.revealing_memory(job.paths["stego"])
        for job in jobs
    ]
    return cluster.fitting(max(peaks))
