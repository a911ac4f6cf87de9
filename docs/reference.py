"""Makes the API reference, as HTML, from the docstrings.

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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pdoc  # noqa: E402
import pdoc.doc  # noqa: E402
import pdoc.render  # noqa: E402

PACKAGE = "deepsteg_jax"


def module_names() -> list[str]:
    """Every module of the package, the package itself first."""
    files = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / PACKAGE).rglob("*.py")]
    parts = [path.parts[:-1] if path.name == "__init__" else path.parts for path in files]
    return sorted(".".join(part) for part in parts)


def walked(names: list[str]) -> list[str]:
    """Those of the modules that pdoc does not find by itself below another one."""
    open_packages = {name for name in names if not hasattr(importlib.import_module(name), "__all__")}
    return [name for name in names if name.rpartition(".")[0] not in open_packages]


def undocumented(namespace: pdoc.doc.Namespace) -> Iterator[str]:
    """The public classes, methods and functions in a module or class that have no docstring."""
    for member in namespace.own_members:
        if member.name.startswith("_") or isinstance(member, pdoc.doc.Variable):
            continue
        if not member.docstring.strip():
            yield member.fullname
        if isinstance(member, pdoc.doc.Class):
            yield from undocumented(member)


def build(output: Path) -> list[str]:
    """Writes the pages into `output`; returns what is wrong, one line each."""
    names = module_names()
    package = importlib.import_module(PACKAGE)
    for name in package.__all__:
        getattr(package, name)  # they are looked up when first used, pdoc looks once
    modules = [importlib.import_module(name) for name in names]
    pdoc.render.configure(
        docformat="google", show_source=True, footer_text=f"{PACKAGE} {package.__version__}"
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.pdoc(*walked(names), output_directory=output)
    problems = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    for module in modules:
        if not (module.__doc__ or "").strip():
            problems.append(f"{module.__name__} has no docstring")
        problems += [f"{name} has no docstring" for name in undocumented(pdoc.doc.Module(module))]
    return problems


def main() -> int:
    """Builds the reference; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/reference"), help="folder for the pages")
    output = parser.parse_args().output
    problems = build(output)
    for problem in problems:
        print(f"docs/reference.py: {' '.join(problem.split())}", file=sys.stderr)
    print(f"{output}/index.html")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
