"""Runs experiments/tutorial.ipynb from its first cell to its last and writes its outputs into it.

python -m experiments.run_tutorial

Needs nbclient, nbformat and ipykernel. What comes out names no times and no paths of the machine.
"""

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parent / "tutorial.ipynb"


def execute(variant: str = "") -> nbformat.NotebookNode:
    """The notebook with its outputs; `variant` is empty, or `tiny` for a smoke test.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    )
    return client.execute(env={**os.environ, "DEEPSTEG_TUTORIAL": variant})


def main() -> None:
    """Runs it in full; it stays as it is if a cell fails."""
    nbformat.write(execute(), NOTEBOOK)


if __name__ == "__main__":
    main()
