"""The logs of a training: JSON lines, TensorBoard, and a progress bar on a terminal."""

import json
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

JSON_LINES = "training.jsonl"
SHOWN = ("loss", "stego_psnr_db", "secret_psnr_db", "bits_per_symbol", "images_per_s")  # and of validation


class Log:
    """The log that a training reports to; this one keeps nothing, as all processes but the first have it."""

    def say(self, line: str) -> None:
        """Take a line for whoever watches."""

    def advance(self) -> None:
        """Move on by one step."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Take figures of a step."""

    def picture(self, step: int, grid: np.ndarray) -> None:
        """Take a picture, uint8 [h, w, 3]."""

    def close(self) -> None:
        """Flush and close everything."""


class TrainingLog(Log):
    """Writes scalars to `training.jsonl` and TensorBoard, pictures to TensorBoard. Close it after use."""

    def __init__(self, workdir: Path, first_step: int, num_steps: int):
        path = workdir / JSON_LINES
        half = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
        self._json = path.open("a", encoding="utf-8")
        if half:  # a line, which a killed run left
            self._json.write("\n")
        self._board = SummaryWriter(str(workdir / "tensorboard"))
        self._bar = tqdm(initial=first_step, total=num_steps, unit="step", disable=not sys.stderr.isatty())
        self._total, self._step, self._timed = num_steps, first_step, None

    def say(self, line: str) -> None:
        """Print a line, above the progress bar if there is one."""
        with tqdm.external_write_mode(sys.stdout):
            print(line, flush=True)

    def advance(self) -> None:
        """Move the progress bar by one step."""
        self._step += 1
        self._timed = self._timed or (self._step, time.monotonic())  # compiled by now
        self._bar.update()

    def _left(self) -> str:
        """Return the time that the steps to come will take, as those since the first took; "" at first."""
        if not self._timed or self._timed[0] == self._step or self._step == self._total:
            return ""
        first, start = self._timed
        seconds = (time.monotonic() - start) / (self._step - first) * (self._total - self._step)
        return f", {tqdm.format_interval(seconds)} left"

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Append one JSON line and TensorBoard scalars."""
        self._json.write(json.dumps({"step": step, **values}) + "\n")
        self._json.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        names = (name for name in values if name.endswith(SHOWN))
        line = " ".join(f"{name}={values[name]:.4g}" for name in names)
        if self._bar.disable:
            print(f"step {step:,} of {self._total:,}: {line}{self._left()}", flush=True)
        else:
            self._bar.set_postfix_str(line)

    def picture(self, step: int, grid: np.ndarray) -> None:
        """Add a picture to TensorBoard."""
        self._board.add_image("cover_stego_secret_revealed", grid, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close everything."""
        self._bar.close()
        self._board.close()
        self._json.close()


def read_log(workdir: Path) -> list[dict[str, float]]:
    """Read the figures of `training.jsonl`, one dictionary for each step that has any, in order.

    Of a step that was logged again after a resume the newer figures count; half a line, left by a process
    that was killed, does not.
    """
    by_step: dict[int, dict] = {}
    path = workdir / JSON_LINES
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            line = json.loads(text)
            by_step.setdefault(line["step"], {}).update(line)  # validation has lines of its own
    return [by_step[step] for step in sorted(by_step)]


class Stopwatch:
    """Times the loop between two lines of the log."""

    def __init__(self, step: int):
        self._step, self._start, self._parts = step, time.monotonic(), Counter()

    @contextmanager
    def __call__(self, part: str):
        """Count the time inside for `part`: data, save or validation."""
        start = time.monotonic()
        yield
        self._parts[part] += time.monotonic() - start

    def lap(self, step: int, images_per_step: int) -> dict[str, float]:
        """Start again and return the times since the last time, validation left out.

        Returns:
            `images_per_s`, and the shares of the time in which the host waited for data (`data_wait`, at
            least the share in which the devices did) and for a save to begin (`save_wait`).
        """
        now, parts, steps = time.monotonic(), self._parts, step - self._step
        seconds = now - self._start - parts["validation"]
        self._step, self._start, self._parts = step, now, Counter()
        shares = {f"{name}_wait": parts[name] / seconds for name in ("data", "save")}
        return {"images_per_s": steps * images_per_step / seconds} | shares
