"""The page, served by a process of its own."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = float(os.environ.get("PATIENCE_S", 120))  # before a test gives up


def need(package, extra):
    """Skip what follows where `package` is not installed; pytest.importorskip takes seconds to import it."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the extra {extra}", allow_module_level=True)


@contextlib.contextmanager
def serving(folder, *arguments, config="configs/video.py"):
    """Serve the page as a user does; yield (its address, its process, the file of what it printed)."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    said = folder / "said.txt"
    command = [sys.executable, str(ROOT / "main.py"), f"--config={ROOT / config}", "--mode=app", "--port=0"]
    env = {name: text for name, text in os.environ.items() if not name.startswith("GRADIO")}
    env |= {"JAX_PLATFORMS": "cpu", "TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    env |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}  # a camera does not wait
    with said.open("w") as file:
        process = subprocess.Popen([*command, *arguments], stdout=file, stderr=file, env=env)
    try:
        wait_for(lambda: "http://" in said.read_text() or process.poll() is not None)
        assert process.poll() is None, said.read_text()
        yield said.read_text().split("page is at ")[1].split()[0], process, said
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_for(condition, seconds=PATIENCE_S):
    """Wait until something is true and return it."""
    end = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
