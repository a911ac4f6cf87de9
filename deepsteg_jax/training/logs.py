"""What a training writes: JSON lines, TensorBoard, and a progress bar on a terminal."""

import json
import sys
from pathlib import Path

import numpy as np
from flax.metrics import tensorboard
from tqdm import tqdm

JSON_LINES = "training.jsonl"


class TrainingLog:
    """Writes scalars to `training.jsonl` and TensorBoard, pictures to TensorBoard. Close it after use."""

    def __init__(self, workdir: Path, first_step: int, num_steps: int):
        self._json = (workdir / JSON_LINES).open("a", encoding="utf-8")
        self._board = tensorboard.SummaryWriter(str(workdir / "tensorboard"))
        self._bar = tqdm(initial=first_step, total=num_steps, unit="step", disable=not sys.stderr.isatty())

    def advance(self) -> None:
        """Moves the progress bar by one step."""
        self._bar.update()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Appends one JSON line and TensorBoard scalars."""
        self._json.write(json.dumps({"step": step, **values}) + "\n")
        self._json.flush()
        for name, value in values.items():
            self._board.scalar(name, value, step)
        shown = ("loss", "stego_psnr_db", "secret_psnr_db")
        line = " ".join(f"{name}={values[name]:.4g}" for name in shown)
        if self._bar.disable:
            print(f"step {step}: {line}", flush=True)
        else:
            self._bar.set_postfix_str(line)

    def picture(self, step: int, grid: np.ndarray) -> None:
        """Adds a picture, uint8 [h, w, 3], to TensorBoard."""
        self._board.image("cover | stego | secret | revealed", grid, step)

    def close(self) -> None:
        """Flushes and closes everything."""
        self._bar.close()
        self._board.close()
        self._json.close()
