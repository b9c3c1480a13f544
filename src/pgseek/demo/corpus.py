"""Every documentation string of the standard library, as JSON lines.

``python -m pgseek.demo.corpus`` imports the public modules of this interpreter's standard library
and prints one document per public module, class, function, method and property that has a
docstring. The demo runs it as a process of its own, because importing everything has side effects.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import os
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any, TextIO

# They open a browser, print a poem, start a window, or are the interpreter's own test suite.
SKIPPED = frozenset(
    {"antigravity", "this", "idlelib", "turtledemo", "turtle", "test", "lib2to3", "ensurepip", "tkinter"}
)
_PARTS_SKIPPED = frozenset({"__main__", "tests", "test"})


def documents() -> Iterator[dict[str, Any]]:
    """Yield documents in the order of their module: id, title, text and metadata."""
    seen: set[str] = set()
    for module in modules():
        for qualified, kind, text in described(module):
            if qualified not in seen:
                seen.add(qualified)
                yield {
                    "id": qualified,
                    "title": qualified,
                    "text": text,
                    "metadata": {"module": module.__name__, "kind": kind, "qualified_name": qualified},
                }


def modules() -> Iterator[ModuleType]:
    """Import and yield the public modules that can be imported here, by name."""
    for name in sorted(sys.stdlib_module_names):
        if not name.startswith("_") and name not in SKIPPED:
            yield from _with_submodules(name)


def _with_submodules(name: str) -> Iterator[ModuleType]:
    try:
        module = importlib.import_module(name)
    except BaseException:
        return
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not found.name.startswith("_") and found.name not in _PARTS_SKIPPED:
            yield from _with_submodules(f"{name}.{found.name}")


def described(module: ModuleType) -> Iterator[tuple[str, str, str]]:
    """Yield (qualified name, kind, docstring) of a module and of its public members."""
    if text := _doc(module):
        yield module.__name__, "module", text
    exported = set(getattr(module, "__all__", ()))
    for name, member in sorted(vars(module).items()):
        own = getattr(member, "__module__", None) == module.__name__
        if name.startswith("_") or not (own or name in exported):
            continue
        qualified = f"{module.__name__}.{name}"
        if inspect.isclass(member):
            kind = "exception" if issubclass(member, BaseException) else "class"
            if text := _doc(member):
                yield qualified, kind, text
            yield from _members(qualified, member)
        elif inspect.isroutine(member) and (text := _doc(member)):
            yield qualified, "function", text


def _members(qualified: str, owner: type) -> Iterator[tuple[str, str, str]]:
    for name, member in sorted(vars(owner).items()):
        if name.startswith("_"):
            continue
        plain = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        is_property = isinstance(plain, property) or inspect.isdatadescriptor(plain)
        if (inspect.isroutine(plain) or is_property) and (text := _doc(plain)):
            yield f"{qualified}.{name}", "property" if is_property else "method", text


def _doc(thing: object) -> str:
    text = getattr(thing, "__doc__", None)
    return inspect.cleandoc(text).strip() if isinstance(text, str) else ""


def write(out: TextIO) -> None:
    """Write all documents to ``out``, whatever the imported modules print themselves."""
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        for document in documents():
            out.write(json.dumps(document, ensure_ascii=True) + "\n")
    out.flush()


if __name__ == "__main__":
    write(sys.stdout)
    # Imported modules may have left threads or exit handlers behind.
    os._exit(0)
