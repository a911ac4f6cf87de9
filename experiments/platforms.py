"""Asks pip whether wheels of everything that the base install needs exist for other systems.

python -m experiments.platforms

Nothing is installed. pip reads markers such as `sys_platform` as of this machine.
"""

import itertools
import subprocess
import sys
import tempfile
import tomllib

from experiments import common

SYSTEMS = {
    "Linux x86-64": [f"manylinux_2_{minor}_x86_64" for minor in range(17, 29)] + ["manylinux2014_x86_64"],
    "macOS 14 arm64": ["macosx_14_0_arm64"],
    "Windows x86-64": ["win_amd64"],
}
VERSIONS = ("3.11", "3.12", "3.13")


def resolve(tags: list[str], version: str, packages: list[str]) -> str:
    """ "yes", or pip's reason why not."""
    with tempfile.TemporaryDirectory() as target:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--only-binary=:all:"]
        command += ["--target", target, "--python-version", version]
        command += [word for tag in tags for word in ("--platform", tag)]
        done = subprocess.run([*command, *packages], capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: No matching")]
    return "yes" if done.returncode == 0 else errors[-1] if errors else done.stderr.strip()


def main() -> int:
    """Prints a line for each system and version; the exit code is 1 if one of them cannot be served."""
    common.make_parser(__doc__).parse_args()
    project = tomllib.loads((common.ROOT / "pyproject.toml").read_text())["project"]
    found = []
    for (name, tags), version in itertools.product(SYSTEMS.items(), VERSIONS):
        found.append(resolve(tags, version, project["dependencies"]))
        print(f"{name}, Python {version}: {found[-1]}", flush=True)
    return int(set(found) != {"yes"})


if __name__ == "__main__":
    common.run(main)
