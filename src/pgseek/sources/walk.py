"""Folders to files: recursive, in order, without what .gitignore, patterns and dots leave out.

Symbolic links to files are read, those to folders are not followed, as git has it: no loop is possible.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgseek.errors import InvalidInput
from pgseek.sources.extra import required
from pgseek.types import Rejection

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Patterns:
    """Which files of a folder are taken; the patterns are written as in .gitignore.

    A file must match one pattern of ``include``, if there are any, and none of ``exclude``. ``hidden``
    takes files and folders whose names begin with a dot, too.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    gitignore: bool = True
    hidden: bool = False

    def __post_init__(self) -> None:
        for name, patterns in (("include", self.include), ("exclude", self.exclude)):
            if not isinstance(patterns, tuple) or not all(isinstance(p, str) and p for p in patterns):
                raise InvalidInput(f"{name} is {patterns!r}, but must be patterns such as '*.md'")


@dataclass(frozen=True, slots=True)
class _Ignore:
    """A .gitignore file: what it says of the entries below its folder, in the order of its lines.

    A path below the folder that is walked becomes one below the file's own folder: ``above`` is put before
    it, or its first ``cut`` characters are taken off.
    """

    lines: tuple[tuple[re.Pattern[str], bool], ...]
    above: str = ""
    cut: int = 0

    def says(self, path: str) -> bool | None:
        """True if the last line that fits leaves ``path`` out, False if it is a negated one, None without.

        A line fits an entry, not what lies in it: folders that are left out are not entered.
        """
        own = self.above + path[self.cut :]
        for regex, negative in reversed(self.lines):
            found = regex.match(own)
            if found and found.end() == len(own):
                return not negative
        return None


def is_pattern(path: str) -> bool:
    """Whether a path that does not exist may be meant as a pattern."""
    return _MAGIC.search(path) is not None


def walk_pattern(pattern: str, patterns: Patterns) -> Iterator[Path | Rejection]:
    """Yield what `walk` would of the files that a path with ``*``, ``?``, ``[…]`` or ``**`` fits.

    A folder that it fits stands for all that is in it.
    """
    parts = Path(pattern).parts
    fixed = next(n for n, part in enumerate(parts) if _MAGIC.search(part))
    base = Path(*parts[:fixed])
    if not base.is_dir():
        return
    yield from walk(base, patterns, _compiled(["/" + "/".join(parts[fixed:])]))


def walk(root: Path, patterns: Patterns, fits: Any = None) -> Iterator[Path | Rejection]:
    """Yield the files below ``root``, each folder's entries by name; a folder that cannot be read is told.

    Raises:
        MissingExtra: there are patterns or a .gitignore, and pathspec is not installed.
    """
    include = _compiled(patterns.include) if patterns.include else None
    exclude = _compiled(patterns.exclude) if patterns.exclude else None
    outer = _outer(root) if patterns.gitignore else ()
    # A stack of its own: folders may lie deeper than Python calls.
    stack: list[tuple[Iterator[os.DirEntry[str] | Rejection], tuple[_Ignore, ...]]] = []
    prefix = os.path.join(root, "")  # noqa: PTH118 (as scandir joins it)

    def enter(folder: str, ignored: tuple[_Ignore, ...]) -> None:
        if patterns.gitignore:
            own = _gitignore(folder, cut=max(0, len(folder) + 1 - len(prefix)))
            # The nearest file has the first word.
            ignored = (own, *ignored) if own else ignored
        stack.append((iter(_entries(folder)), ignored))

    enter(os.fspath(root), outer)
    while stack:
        entries, ignored = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        if isinstance(entry, Rejection):
            yield entry
            continue
        if entry.name == ".git" or (entry.name.startswith(".") and not patterns.hidden):
            continue
        folder = entry.is_dir(follow_symlinks=False)
        path = entry.path[len(prefix) :] + ("/" if folder else "")
        if _ignored(path, ignored) or (exclude is not None and exclude.match_file(path)):
            continue
        if folder:
            enter(entry.path, ignored)
        elif (
            (include is None or include.match_file(path))
            and (fits is None or fits.match_file(path))
            and _may_be_opened(entry)
        ):
            yield root / path


def _entries(folder: str) -> list[os.DirEntry[str] | Rejection]:
    try:
        with os.scandir(folder) as found:
            return [*sorted(found, key=lambda entry: entry.name)]
    except OSError as error:
        return [Rejection(0, None, f"cannot be read: {error}", Path(folder).as_posix())]


def _may_be_opened(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link that leads nowhere: that one is told when it is opened."""
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:
        return True


def _ignored(path: str, ignored: tuple[_Ignore, ...]) -> bool:
    for spec in ignored:
        said = spec.says(path)
        if said is not None:
            return said
    return False


def _outer(root: Path) -> tuple[_Ignore, ...]:
    """Return the .gitignore files above a folder in its work tree, nearest first.

    A folder that they leave out was asked for by name: for it they do not count.
    """
    full = Path(os.path.realpath(root))
    tree = next((folder for folder in (full, *full.parents) if (folder / ".git").exists()), full)
    above = [folder for folder in full.parents if folder == tree or tree in folder.parents]
    found = (
        _gitignore(os.fspath(folder), above=f"{full.relative_to(folder).as_posix()}/") for folder in above
    )
    specs = tuple(spec for spec in found if spec is not None)
    return () if _ignored("", specs) else specs


def _gitignore(folder: str, *, above: str = "", cut: int = 0) -> _Ignore | None:
    """Read a folder's .gitignore; None where there is none, or nothing in it. Raises `MissingExtra`."""
    try:
        lines = Path(folder, ".gitignore").read_text("utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    compiled: list[tuple[re.Pattern[str], bool]] = []
    for line in lines:
        if line.strip() and not line.startswith("#"):
            # Everything in a folder, but not the folder: an entry at any depth.
            one = re.sub(r"(^|/)\*\*(/?)$", r"\1**/*\2", line.rstrip())
            try:
                compiled += [(_whole(p.regex), not p.include) for p in _compiled([one]).patterns if p.regex]
            except InvalidInput:
                # git passes over what it does not understand.
                continue
    return _Ignore(tuple(compiled), above, cut) if compiled else None


def _whole(regex: re.Pattern[str]) -> re.Pattern[str]:
    """Return an expression that fits all of an entry's path, in place of pathspec's short forms."""
    if regex.pattern.startswith("^"):
        return regex
    return re.compile(".*" if regex.search("a") else ".*/", re.DOTALL)


def _compiled(lines: tuple[str, ...] | list[str]) -> Any:
    (pathspec,) = required("patterns and .gitignore")
    try:
        return pathspec.GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise InvalidInput(f"{', '.join(lines)}: not patterns as .gitignore has them: {error}") from error
