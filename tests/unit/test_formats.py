"""Chunking by format: what holds for all of them, and where each divides and what it knows of a place."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from semantic_text_splitter import TextSplitter
from texts import PIECES, TEXTS, WHITE_SPACE

from pgseek.chunking import FORMATS, chunk_text, divide
from pgseek.chunking import code as code_module
from pgseek.chunking.code import LANGUAGES, load
from pgseek.chunking.layout import Layout, Part, joined, spans
from pgseek.chunking.markdown import headings
from pgseek.errors import InvalidInput

MARKS = [
    "# One",
    "## Two ##",
    "### `three` and more",
    "Under\n===",
    "lined\n---",
    "```python\n# no heading\n```",
    "~~~\n## none\n~~~",
    "    # code",
    "<!-- # none -->",
    "- item\n  # none",
    "> # none",
    "1. one\n2. two",
    "***",
    "| a | b |\n|---|---|",
    "[link](x) text",
    "A sentence. Another one, longer.",
    "```",
    "def f(x):\n    return x",
    "class A:\n    def m(self):\n        pass",
    "// comment",
    "function f() { return 1; }",
    "\f",
    "",
    *PIECES,
]
STRUCTURED = st.lists(st.sampled_from(MARKS), max_size=25).map("\n".join) | st.lists(
    st.sampled_from(MARKS), max_size=25
).map("\n\n".join)
EVERY = st.one_of(TEXTS, STRUCTURED)
FORMAT = st.sampled_from(FORMATS)


def spoken(text):
    return "".join(text.split()).strip(WHITE_SPACE)


# What holds for all.


@given(EVERY, FORMAT, st.integers(1, 80), st.integers(0, 400), st.data())
@settings(max_examples=300)
def test_every_format_keeps_offsets_sizes_and_every_word(text, form, size, more, data):
    section = size + more if more else 0
    chunks = chunk_text(text, size, 0, form, section)
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    end = 0
    for chunk in chunks:
        assert text[chunk.char_start : chunk.char_end] == chunk.text
        assert 1 <= len(chunk.text) <= size
        # The first line of Markdown and code keeps its indentation.
        assert chunk.text.rstrip(WHITE_SPACE) == chunk.text
        assert chunk.text[0] not in WHITE_SPACE or form not in {"", "text", "pages"}
        assert chunk.char_start >= end
        # Nothing but white space is left out.
        assert text[end : chunk.char_start].strip(WHITE_SPACE) == ""
        end = chunk.char_end
        lines = chunk.provenance.get("lines")
        if lines is not None:
            assert lines == [
                1 + text.count("\n", 0, chunk.char_start),
                1 + text.count("\n", 0, chunk.char_end - 1),
            ]
        assert (lines is not None) == (form not in {"", "pages"})
        assert chunk.provenance.get("heading", []) == list(chunk.heading)
        if more:
            start, stop = chunk.section
            assert start <= chunk.char_start < chunk.char_end <= stop
            assert stop - start <= section
        else:
            assert chunk.section is None
    assert text[end:].strip(WHITE_SPACE) == ""


@given(EVERY, FORMAT, st.integers(2, 60), st.data())
def test_every_format_shares_no_more_than_the_overlap(text, form, size, data):
    overlap = data.draw(st.integers(1, size - 1))
    chunks = chunk_text(text, size, overlap, form)
    for before, after in pairwise(chunks):
        # The indentation of a first line is not counted.
        assert len(text[after.char_start : before.char_end].strip(WHITE_SPACE)) <= overlap
        assert before.char_end < after.char_end
        assert text[before.char_end : after.char_start].strip(WHITE_SPACE) == ""


@given(EVERY, FORMAT, st.integers(1, 60), st.integers(1, 300))
def test_sections_are_disjoint_and_in_order(text, form, size, more):
    sections = list(dict.fromkeys(c.section for c in chunk_text(text, size, 0, form, size + more)))
    assert all(a[1] <= b[0] for a, b in pairwise(sections))


@given(EVERY, st.integers(1, 60))
def test_plain_text_is_what_the_splitter_makes_of_it(text, size):
    expected = TextSplitter(size).chunk_indices(text)
    assert [(c.char_start, c.text) for c in chunk_text(text, size)] == expected
    assert [(c.char_start, c.text) for c in chunk_text(text, size, 0, "text")] == expected


@given(EVERY, st.integers(1, 12), st.data())
def test_a_text_shown_in_windows_is_divided_as_a_whole(text, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    text = text * 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pgseek.chunking.layout.WINDOW", 1)
        found = spans(Layout(), text, (0, len(text)), size, overlap)
    whole = TextSplitter(size, overlap=overlap).chunk_indices(text)
    # A grapheme at a window's end may be cut otherwise: sizes and words are what counts there.
    if text.isascii():
        assert found == [(start, start + len(piece)) for start, piece in whole]
    assert spoken("".join(text[a:b] for a, b in found)) == spoken("".join(p for _, p in whole)) or overlap


@pytest.mark.parametrize("form", FORMATS)
def test_time_grows_with_the_length(form):
    block = "".join(
        f"\n\n# Part {n}\n\nSome words, a sentence. Another: {n}.\n\n```\nx = {n}\n```\n" for n in range(150)
    )

    def seconds(times):
        text = (block + "\f") * times
        started = time.process_time()
        chunk_text(text, 500, 0, form, 5000)
        return time.process_time() - started

    seconds(1)  # what is loaded once
    times = 10
    while seconds(times) < 0.05:
        times *= 2
    # Four times the text; a quadratic way takes sixteen times as long. (The processor may slow down for a while.)
    found = []
    for _ in range(4):
        found.append((seconds(times), seconds(4 * times)))
        short, long = map(min, zip(*found, strict=True))
        if long < 6 * short:
            return
    pytest.fail(f"processor seconds for {times} blocks and for four times as many: {found}")


@pytest.mark.parametrize("form", ["Markdown", "md", "pythn", " ", None, 3])
def test_an_unknown_format_is_told_with_those_there_are(form):
    with pytest.raises(InvalidInput, match="known are text, markdown, pages, python, javascript") as caught:
        chunk_text("text", 10, 0, form)
    assert repr(form) in str(caught.value)


def test_a_format_with_a_slip_is_guessed():
    with pytest.raises(InvalidInput, match="did you mean 'python'"):
        chunk_text("text", 10, 0, "pyton")


@pytest.mark.parametrize("section", [-1, 9, 1_000_001, 2.0, None, True])
def test_a_bad_section_size_is_told_with_its_range(section):
    with pytest.raises(InvalidInput, match="from the chunk size, 10, to 1,000,000 characters"):
        chunk_text("text", 10, 0, "", section)


# Sections and joining.


def test_children_know_their_parent():
    text = "# A\n\none. two.\n\n# B\n\n" + "three four. " * 20
    chunks = chunk_text(text, 40, 0, "markdown", 250)
    (first, *rest) = chunks
    assert text[slice(*first.section)] == "# A\n\none. two."
    assert {text[slice(*c.section)][:3] for c in rest} == {"# B"}
    assert len({c.section for c in rest}) == 1


def test_short_parts_join_the_next_unless_that_stands_higher():
    # Of 40 characters a quarter is 10.
    parts = [
        Part(0, 5, 2),
        Part(5, 20, 2),
        Part(20, 24, 2),
        Part(24, 60, 1),
        Part(60, 65, 1),
        Part(65, 110, 2),
    ]
    assert [(p.start, p.end) for p in joined(parts, 40)] == [(0, 20), (20, 24), (24, 60), (60, 65), (65, 110)]


# Markdown.

GUIDE = """---
title: no heading
---
Before all.

# Guide #

Welcome to the guide, which is about the installation of things on machines.

## Install

### Linux

```sh
# not a heading
apt install thing
```

Run it as root, or as somebody who may, and wait for a while until it is done.

### [Windows](win.md) `x64`

Click here and there until it says that everything has been done as it should be.

Use
---

Call it by its name, with two arguments or three, and look at what it answers you.
"""


def test_chunks_stand_under_their_headings():
    found = [(c.heading, c.provenance["lines"]) for c in chunk_text(GUIDE, 150, 0, "markdown")]
    assert found == [
        ((), [1, 4]),
        (("Guide",), [6, 8]),
        (("Guide", "Install"), [10, 19]),
        (("Guide", "Install", "Windows x64"), [21, 23]),
        (("Guide", "Use"), [25, 28]),
    ]


def test_a_section_that_fits_stays_whole():
    (before, guide) = chunk_text(GUIDE, 600, 0, "markdown")
    assert before.text.endswith("Before all.")
    assert guide.text.startswith("# Guide #")
    assert guide.heading == ("Guide",)


def test_an_edit_leaves_other_sections_alone():
    sections = [f"## Part {n}\n\n" + f"Sentence {n} of it. " * 20 + "\n\n" for n in range(12)]
    before = chunk_text("# All\n\n" + "".join(sections), 500, 0, "markdown")
    sections[3] = sections[3].replace("Sentence 3", "Another sentence, 3,")
    after = chunk_text("# All\n\n" + "".join(sections), 500, 0, "markdown")
    same = {c.text for c in before} & {c.text for c in after}
    assert len({c.text for c in before} - same) == 1


# What begins or ends a block next to a blank line; what runs on without one has rules of its own, below.
BLOCKS = st.lists(st.sampled_from([mark for mark in MARKS if mark != "```"]), max_size=25).map("\n\n".join)


@given(BLOCKS)
@settings(max_examples=400)
@example("Text\n# Heading\nText\n## Another\n---\n")
@example("Two lines\nunderlined\n===\n***\n- - -\n")
@example("> quoted\nruns on\n---\n")
@example("- item\n---\n# Heading\n")
@example("1. one\n   ```\n   # none\n   ```\n2. two\n\n# Heading")
@example("````\n```\n# none\n````\n# Heading\n")
@example("~~~ sh\n# none\n```\n# none\n~~~\n# Heading\n")
@example("```not`a fence\n# Heading\n")
@example("<!--\n# none\n\n# none -->\n# Heading\n")
@example("<pre>\n# none\n</pre>\n# Heading\n")
@example("#none\n\n#\n\n####### none\n\n   # Heading #\n")
@example("```\n# none, to the end\n")
def test_headings_are_those_of_commonmark(text):
    reader = MarkdownIt("commonmark")
    reader.core.ruler.enableOnly(["normalize", "block"])
    # Form feeds and other breaks are characters of a line here as there.
    text = text.replace("\u2028", "").replace("\r\n", "\n").replace("\f", "")
    starts = [0, *(n + 1 for n, letter in enumerate(text) if letter == "\n")]
    expected = [
        (starts[token.map[0]], int(token.tag[1]))
        for token in reader.parse(text)
        if token.type == "heading_open" and token.level == 0
    ]
    assert [(h.start, h.level) for h in headings(text)] == expected


def test_a_heading_as_long_as_a_page_is_cut():
    (heading,) = headings("# " + "word " * 1000)
    assert len(heading.text) == 201


# Pages.


def test_pages_are_counted_from_one():
    text = "First page, which is long enough to stand alone.\fSecond page, as long as the first was.\f\fFourth page ends here, and so does all."
    found = [(c.text[:6], c.provenance) for c in chunk_text(text, 60, 0, "pages")]
    assert found == [
        ("First ", {"page": 1, "last_page": 1}),
        ("Second", {"page": 2, "last_page": 2}),
        ("Fourth", {"page": 4, "last_page": 4}),
    ]


def test_a_sentence_that_runs_on_is_found_on_both_pages():
    (chunk,) = chunk_text("It begins on one page and\fends on the next.", 100, 0, "pages")
    assert chunk.provenance == {"page": 1, "last_page": 2}


def test_a_page_that_ends_with_a_sentence_ends_a_chunk():
    text = "A sentence of some length, that ends.\n\fAnother page of some length, too."
    assert len(chunk_text(text, 100, 0, "pages")) == 2


# Code.

PYTHON = '''"""A module."""

import os


# About what follows.
@decorator
def first(x):
    """Say ünicode."""
    return x + 1


class Thing(Base):
    """A thing."""

    def method(self):
        def inner():
            return 2
        return inner

    async def other(self):
        return await self.method()
'''


def named(text, size, form):
    return [(c.heading, c.text.splitlines()[0]) for c in chunk_text(text, size, 0, form)]


def test_code_stands_under_the_definitions_around_it():
    found = named(PYTHON, 120, "python")
    assert (("Thing", "other"), "async def other(self):") in found
    assert all(heading == ("Thing",) or heading[:1] != ("Thing",) or len(heading) > 1 for heading, _ in found)
    assert ((), '"""A module."""') in found


EXAMPLES = {
    "python": ("class A:\n    def f(self):\n        return 1\n", ["A", "f"]),
    "javascript": ("class A {\n  f() {\n    return 1;\n  }\n}\n", ["A", "f"]),
    "typescript": ("export class A {\n  f(): number {\n    return 1;\n  }\n}\n", ["A", "f"]),
    "tsx": ("class A {\n  f() {\n    return <b>1</b>;\n  }\n}\n", ["A", "f"]),
    "go": ("package p\n\nfunc (a A) F() int {\n\treturn 11111\n}\n", ["F"]),
    "rust": ("impl A {\n    fn f() -> i32 {\n        11111\n    }\n}\n", ["A", "f"]),
    "java": ("class A {\n  int f() {\n    return 1111;\n  }\n}\n", ["A", "f"]),
    "c": ("int f(int x) {\n  return x + 1;\n}\n", ["f(int x)", "f"]),
    "cpp": ("namespace n {\nclass A {\n  int f() { return 1111111111111; }\n};\n}\n", ["n", "A", "f"]),
    "csharp": ("class A {\n  int F() {\n    return 1111;\n  }\n}\n", ["A", "F"]),
    "ruby": ("module M\n  class A\n    def f\n      1111111\n    end\n  end\nend\n", ["M", "A", "f"]),
    "php": ("<?php\nclass A {\n  function f() {\n    return 1111;\n  }\n}\n", ["A", "f"]),
    "bash": ("f() {\n  echo one two three\n  echo four five\n}\n", ["f"]),
}


@pytest.mark.parametrize("form", LANGUAGES)
def test_every_language_has_its_grammar_and_names(form):
    assert load(form) is not None, f"the grammar of {form} is not installed: pip install 'pgseek[code]'"
    text, names = EXAMPLES[form]
    found = {name for c in chunk_text(text, 24, 0, form) for name in c.heading}
    assert found
    assert found <= set(names)


def test_without_a_grammar_code_is_divided_by_lines(monkeypatch):
    load.cache_clear()
    monkeypatch.setattr(code_module, "import_module", missing)
    try:
        chunks = chunk_text(PYTHON, 120, 0, "python")
    finally:
        load.cache_clear()
    assert len(chunks) > 2
    assert all(c.heading == () and set(c.provenance) == {"lines"} for c in chunks)
    assert all(c.char_start == 0 or PYTHON[: c.char_start].endswith(("\n", " ")) for c in chunks)


def missing(name):
    raise ImportError(name)


def test_a_comment_belongs_to_what_it_leads_to():
    text = PYTHON.replace("import os\n", "import " + ", ".join(f"module{n}" for n in range(9)) + "\n")
    assert (("first",), "# About what follows.") in named(text, 130, "python")


def test_code_that_does_not_parse_is_divided_all_the_same():
    chunks = chunk_text("class A(:\n  def ((\n" * 30, 100, 0, "python")
    assert sum(len(c.text) for c in chunks) > 400


# Pieces of a chunk that the model does not read whole.


@pytest.mark.parametrize("form", ["markdown", "pages", "text", "python"])
def test_pieces_know_their_own_lines_and_pages(form):
    text = "".join(f"line {n} of the text.\n" for n in range(30)) + "\fanother page."
    for chunk in chunk_text(text, 2000, 0, form):
        pieces = divide(chunk, 20, lambda piece: len(piece.split()))
        assert len(pieces) > 3 or len(chunk.text) < 20
        for piece in pieces:
            assert text[piece.char_start : piece.char_end] == piece.text
            if "lines" in piece.provenance:
                before = text.count("\n", 0, piece.char_start)
                assert piece.provenance["lines"] == [before + 1, before + 1 + piece.text.count("\n")]
            if "page" in piece.provenance:
                assert piece.provenance["page"] == 1 + text.count("\f", 0, piece.char_start)
