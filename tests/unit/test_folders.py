"""Folders and patterns: what is read of them, in which order, and what is passed over."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgseek.errors import InvalidInput
from pgseek.sources import Files
from pgseek.types import Rejection


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Write files into an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def made(**files: str) -> None:
        write(Path(), files)

    return made


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def names(*paths, **options) -> list[str]:
    return [one.source for one in Files(*(paths or (".",)), **options)]


def test_a_folder_is_read_in_order_and_ids_are_paths_as_given(tree, tmp_path):
    tree(**{"d/b.md": "x", "d/a/z.txt": "x", "d/c.txt": "x", "e.txt": "x"})
    assert names() == ["d/a/z.txt", "d/b.md", "d/c.txt", "e.txt"]
    assert names("d") == names("d/") == names("./d") == ["d/a/z.txt", "d/b.md", "d/c.txt"]
    assert names(tmp_path / "d") == [f"{tmp_path}/d/{name}" for name in ("a/z.txt", "b.md", "c.txt")]
    assert names("../" + tmp_path.name + "/d/a") == [f"../{tmp_path.name}/d/a/z.txt"]
    assert [one.record["id"] for one in Files("d")] == names("d")


def test_hidden_files_are_passed_over_unless_asked_for(tree):
    tree(**{".x/a.txt": "x", ".b.txt": "x", "c.txt": "x", ".git/d.txt": "x", "sub/.git": "gitdir: x"})
    assert names() == ["c.txt"]
    assert names(hidden=True) == [".b.txt", ".x/a.txt", "c.txt"]
    assert names(".x", ".b.txt") == [".x/a.txt", ".b.txt"]


def test_files_with_other_endings_are_counted(tree):
    tree(**{"a.png": "x", "b/c.PNG": "x", "d": "x", "e.txt": "x", ".hidden.png": "x"})
    files = Files(".")
    for _ in range(2):
        assert [one.source for one in files] == ["e.txt"]
        assert files.skipped == {".png": 2, "": 1}


def test_files_may_be_read_twice(tree):
    tree(**{"a.txt": "x"})
    files = Files("a.txt")
    assert list(files) == list(files) != []


# .gitignore.


def test_gitignore_is_honoured(tree):
    tree(
        **{
            ".gitignore": "# a comment\n*.log.txt\n/build/\n!keep.log.txt\nsecret.md\n",
            "a.log.txt": "x",
            "keep.log.txt": "x",
            "build/a.txt": "x",
            "sub/build/a.txt": "x",
            "sub/secret.md": "x",
            "sub/.gitignore": "!secret.md\nown.txt\n",
            "sub/own.txt": "x",
            "own.txt": "x",
        }
    )
    assert names() == ["keep.log.txt", "own.txt", "sub/build/a.txt", "sub/secret.md"]
    assert names("a.log.txt") == ["a.log.txt"]
    assert len(names(gitignore=False)) == 7


def test_the_gitignore_of_the_work_tree_above_counts_and_that_beyond_it_does_not(tree):
    tree(
        **{
            ".gitignore": "*.md\n",
            "repo/.git/HEAD": "x",
            "repo/.gitignore": "/docs/draft.txt\nbuild/\n",
            "repo/docs/draft.txt": "x",
            "repo/docs/a.txt": "x",
            "repo/docs/b.md": "x",
            "repo/build/c.txt": "x",
        }
    )
    assert names("repo/docs") == ["repo/docs/a.txt", "repo/docs/b.md"]
    # What was asked for by name is read, though it is ignored.
    assert names("repo/build") == ["repo/build/c.txt"]
    assert names("repo") == ["repo/docs/a.txt", "repo/docs/b.md"]
    assert names("repo/docs", gitignore=False) == ["repo/docs/a.txt", "repo/docs/b.md", "repo/docs/draft.txt"]


def test_a_gitignore_that_is_no_text_does_not_stop_the_reading(tree):
    tree(**{"a.txt": "x"})
    Path(".gitignore").write_bytes(b"\xff\xfe\n!\n[\nb.txt\n")
    write(Path(), {"b.txt": "x"})
    assert names() == ["a.txt"]


PATTERN = st.lists(
    st.sampled_from(["*", "**", "a", "b", "a*", "?.txt", "*.txt", "a.txt", "b.md", "[ab]"]),
    min_size=1,
    max_size=3,
)


@pytest.mark.skipif(shutil.which("git") is None, reason="git itself is what it is compared with")
@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(["", "a/", "b/", "a/b/"]),
        st.lists(
            st.builds(
                lambda parts, start, end, no: f"{no}{start}{'/'.join(parts)}{end}",
                PATTERN,
                st.sampled_from(["", "/"]),
                st.sampled_from(["", "/"]),
                st.sampled_from(["", "", "!"]),
            ),
            min_size=1,
            max_size=3,
        ),
        max_size=3,
    )
)
def test_what_is_ignored_is_what_git_ignores(tmp_path_factory, ignored):
    root = tmp_path_factory.mktemp("git")
    every = [f"{f}{n}" for f in ("", "a/", "b/", "a/b/", "b/a/") for n in ("a.txt", "b.md", "c.txt")]
    write(root, dict.fromkeys(every, "x"))
    write(root, {f"{folder}.gitignore": "\n".join(lines) + "\n" for folder, lines in ignored.items()})
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", root, *arguments], capture_output=True, text=True, check=True, env=environment
        ).stdout

    git("init", "-q")
    listed = git("ls-files", "--others", "--exclude-standard").splitlines()
    expected = sorted(name for name in listed if not name.endswith(".gitignore"))
    try:
        found = sorted(Path(name).relative_to(root).as_posix() for name in names(root))
    except InvalidInput:
        found = []
    assert found == expected


# Patterns.


def test_include_and_exclude(tree):
    tree(**{"a.md": "x", "b.txt": "x", "docs/c.md": "x", "docs/old/d.md": "x", "e/docs/f.md": "x"})
    assert names(include=["*.md"]) == ["a.md", "docs/c.md", "docs/old/d.md", "e/docs/f.md"]
    assert names(include=["/docs/"]) == ["docs/c.md", "docs/old/d.md"]
    assert names(include=["docs/**/*.md", "*.txt"]) == ["b.txt", "docs/c.md", "docs/old/d.md"]
    assert names(exclude=["old", "*.txt"]) == ["a.md", "docs/c.md", "e/docs/f.md"]
    assert names(include=["*.md"], exclude=["docs/"]) == ["a.md"]
    assert names("a.md", exclude=["*.md"]) == ["a.md"]


def test_files_that_a_pattern_asks_for_may_have_any_ending_if_their_format_is_given(tree):
    tree(**{"a.log": "x", "b.dat": "x", "c.txt": "x"})
    assert names(format="text") == ["c.txt"]
    assert names(format="text", include=["*.log"]) == ["a.log"]
    assert names("*.log", format="text") == ["a.log"]
    with pytest.raises(InvalidInput, match="holds no file to read"):
        Files(".", include=["*.log"])


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.md", ["a.md"]),
        ("docs/*.md", ["docs/c.md"]),
        ("docs/**/*.md", ["docs/c.md", "docs/old/d.md"]),
        ("**/*.md", ["a.md", "docs/c.md", "docs/old/d.md"]),
        ("docs/*", ["docs/c.md", "docs/e.txt", "docs/old/d.md"]),
        ("./docs/?.md", ["docs/c.md"]),
        ("*/old/[a-d].md", ["docs/old/d.md"]),
    ],
)
def test_a_pattern_stands_for_the_files_it_fits(tree, pattern, found):
    tree(**{"a.md": "x", "docs/c.md": "x", "docs/old/d.md": "x", "docs/e.txt": "x", ".h/i.md": "x"})
    assert names(pattern) == found


def test_a_pattern_may_begin_at_the_root(tree, tmp_path):
    tree(**{"a.md": "x", "b/c.md": "x"})
    assert names(f"{tmp_path}/**/*.md") == [f"{tmp_path}/a.md", f"{tmp_path}/b/c.md"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tree):
    tree(**{"a[1].txt": "x", "a1.txt": "x"})
    assert names("a[1].txt") == ["a[1].txt"]


@pytest.mark.parametrize("pattern", ["*.xyz", "nowhere/*.md", "**/x.md", "*.png"])
def test_a_pattern_that_fits_nothing_is_an_error(tree, pattern):
    tree(**{"a.md": "x", "a.png": "x"})
    with pytest.raises(InvalidInput, match=r"pattern .* holds no file to read"):
        Files(pattern)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": "*.md"}, "lists of patterns"),
        ({"exclude": [""]}, "exclude is"),
        ({"include": [5]}, "include is"),
        ({"processes": -1}, "processes is -1"),
        ({"format": "xml"}, "format is 'xml'"),
    ],
)
def test_options_are_checked(tree, options, message):
    tree(**{"a.md": "x"})
    with pytest.raises(InvalidInput, match=message):
        Files(".", **options)


# What lies in folders besides files.


def test_links_to_folders_are_not_followed_and_links_to_files_are_read(tree):
    tree(**{"d/a.txt": "x", "outside/b.txt": "y"})
    Path("d/loop").symlink_to("..")
    Path("d/self").symlink_to("self")
    Path("d/folder.txt").symlink_to("../outside")
    Path("d/file.txt").symlink_to("../outside/b.txt")
    assert names("d") == ["d/a.txt", "d/file.txt"]
    Path("link").symlink_to("d")
    assert names("link") == ["link/a.txt", "link/file.txt"]


def test_a_link_that_leads_nowhere_is_told(tree):
    tree(**{"a.txt": "x"})
    Path("b.txt").symlink_to("nothing")
    _, found = Files(".")
    assert isinstance(found, Rejection)
    # With its id: what is stored of it is not taken for gone.
    assert (found.id, found.source, found.reason[:16]) == ("b.txt", "b.txt", "cannot be read: ")


def test_what_is_no_file_is_passed_over(tree):
    tree(**{"a.txt": "x"})
    os.mkfifo("b.txt")
    Path("c.txt").mkdir()
    assert names() == ["a.txt"]


def test_a_folder_that_cannot_be_read_is_told_and_the_rest_is_read(tree, monkeypatch):
    tree(**{"a.txt": "x", "b/c.txt": "x", "d.txt": "x"})
    scandir = os.scandir

    def refuse(folder):
        if os.fspath(folder).endswith("b"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    # Whoever runs as root may read everything.
    monkeypatch.setattr(os, "scandir", refuse)
    first, found, last = Files(".")
    assert isinstance(found, Rejection)
    assert (found.source, found.reason) == ("b", "cannot be read: [Errno 13] Permission denied: './b'")
    assert (first.source, last.source) == ("a.txt", "d.txt")


def test_a_name_that_is_not_utf8_is_told(tree):
    tree(**{"a.txt": "x"})
    Path(os.fsdecode(b"caf\xe9.txt")).write_text("x")
    _, found = Files(".")
    assert isinstance(found, Rejection)
    assert (found.id, found.source) == (None, "caf\\xe9.txt")
    found.source.encode()


def test_a_folder_deeper_than_python_calls(tree, tmp_path):
    tree(**{"a.txt": "x"})
    descriptor = os.open(".", os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    try:
        assert names() == ["a.txt"]
    finally:
        # Python's own removal, and so pytest's, calls itself per level.
        subprocess.run(["rm", "-rf", "d"], check=True)


def test_how_many_documents_to_expect(tmp_path):
    (tmp_path / "a.md").write_text("# One")
    (tmp_path / "b.jsonl").write_text('{"id": "1", "text": "x"}\n{"id": "2", "text": "y"}\n')
    (tmp_path / "c.csv").write_text("id,text\n3,z\n")
    (tmp_path / "d.unknown").write_text("?")
    files = Files(tmp_path)
    assert files.expected() == 4 == len(list(files))
    assert files.skipped == {".unknown": 1}
    with gzip.open(tmp_path / "e.jsonl.gz", "wt") as stream:
        stream.write('{"id": "4", "text": "x"}\n')
    assert Files(tmp_path).expected() is None
    assert Files("-", stdin=io.BytesIO()).expected() is None
