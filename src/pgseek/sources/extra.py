"""The packages of the extra ``files``: loaded when a format needs them, else the command to install them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pgseek.errors import MissingExtra

# Per format: the package as pip knows it, and the modules that are used of it.
_PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "html": ("trafilatura", ("trafilatura",)),
    "pdf": ("pypdf", ("pypdf",)),
    "docx": ("python-docx", ("docx",)),
    "parquet": ("pyarrow", ("pyarrow", "pyarrow.parquet")),
    "patterns and .gitignore": ("pathspec", ("pathspec",)),
}


def required(what: str) -> list[Any]:
    """Return the modules that reading ``what`` needs.

    Raises:
        MissingExtra: one is not installed.
    """
    package, modules = _PACKAGES[what]
    try:
        return [import_module(name) for name in modules]
    except ImportError as error:
        raise _missing(what, package) from error


def check(what: str) -> None:
    """Raise `MissingExtra` if reading ``what`` needs a package that is not there; nothing is loaded."""
    if what in _PACKAGES:
        package, modules = _PACKAGES[what]
        if find_spec(modules[0]) is None:
            raise _missing(what, package)


def _missing(what: str, package: str) -> MissingExtra:
    return MissingExtra(f"{package}, which reads {what},", "files")
