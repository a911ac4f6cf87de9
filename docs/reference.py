"""Make the API reference, as HTML, from the docstrings.

    pip install "pdoc>=16,<17"
    python docs/reference.py --output runs/reference

Every module of the package gets a page. The exit code is 1, and every reason is printed, if pdoc warns about
something or if a public module, class, method or function has no docstring.
"""

import argparse
import importlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pdoc  # noqa: E402
import pdoc.doc  # noqa: E402
import pdoc.render  # noqa: E402

PACKAGE = "deepsteg_jax"


def package() -> ModuleType:
    """Return the package with its public names, which are looked up when first used: pdoc looks once."""
    found = importlib.import_module(PACKAGE)
    for name in found.__all__:
        getattr(found, name)
    return found


def module_names() -> list[str]:
    """List every module of the package, the package itself first."""
    files = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / PACKAGE).rglob("*.py")]
    parts = [path.parts[:-1] if path.name == "__init__" else path.parts for path in files]
    return sorted(".".join(part) for part in parts)


def walked(names: list[str]) -> list[str]:
    """Return those of the modules that pdoc does not find by itself below another one."""
    open_packages = {name for name in names if not hasattr(importlib.import_module(name), "__all__")}
    return [name for name in names if name.rpartition(".")[0] not in open_packages]


def undocumented(namespace: pdoc.doc.Namespace) -> Iterator[str]:
    """Yield the public classes, methods and functions in a module or class that have no docstring."""
    fields = getattr(namespace.obj, "__annotations__", {})  # some of which have functions as defaults
    for member in namespace.own_members:
        if member.name.startswith("_") or isinstance(member, pdoc.doc.Variable) or member.name in fields:
            continue
        if not member.docstring.strip():
            yield member.fullname
        if isinstance(member, pdoc.doc.Class):
            yield from undocumented(member)


def render(output: Path, names: list[str]) -> list[str]:
    """Write the pages of modules into `output`; return pdoc's warnings."""
    footer = f"{PACKAGE} {package().__version__}"
    pdoc.render.configure(docformat="google", show_source=True, footer_text=footer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.pdoc(*walked(names), output_directory=output)
    return [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]


def holes(names: list[str]) -> Iterator[str]:
    """Yield a line for every module, and everything public in it, that has no docstring."""
    package()
    for module in map(importlib.import_module, names):
        if not (module.__doc__ or "").strip():
            yield f"{module.__name__} has no docstring"
        yield from (f"{name} has no docstring" for name in undocumented(pdoc.doc.Module(module)))


def main() -> int:
    """Build the reference; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/reference"), help="folder for the pages")
    output, names = parser.parse_args().output, module_names()
    problems = [*render(output, names), *holes(names)]
    for problem in problems:
        print(f"docs/reference.py: {' '.join(problem.split())}", file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
