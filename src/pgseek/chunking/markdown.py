"""Markdown: sections by headings, and each chunk with the path of headings it stands under.

Headings are those of CommonMark at the top level: with number signs or underlined, outside of fenced and
indented code, HTML blocks that keep their text (comments, pre, script, style), lists and quotations. Metadata
between two lines of hyphens at the very beginning is none. A line at a time, in time linear to the text.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import lru_cache

from semantic_text_splitter import MarkdownSplitter

from pgseek.chunking.layout import Lines, Part, Place, Span, Splitter, joined

# A heading is read before every chunk under it: of one as long as a page, the beginning is enough.
LONGEST_HEADING = 200
# What stands before the first heading of a span has no section under it.
DEEPEST = 7

LINE = re.compile(r"[^\n]*\n?")
ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
FENCE = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,})")
RULE = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$")
LIST_ITEM = re.compile(r"[ \t]*(?:[-+*]|\d{1,9}[.)])(?:[ \t]+|$)")
# Only of what a paragraph can be: these begin something else.
FIRST_ITEM = re.compile(r" {0,3}(?:[-+*][ \t]+\S|1[.)][ \t]+\S)")
QUOTE = re.compile(r" {0,3}>")
HTML = (
    (
        re.compile(r" {0,3}<(?:pre|script|style|textarea)(?:[\s>]|$)", re.IGNORECASE),
        re.compile(r"</(?:pre|script|style|textarea)>", re.IGNORECASE),
    ),
    (re.compile(r" {0,3}<!--"), re.compile(r"-->")),
    (re.compile(r" {0,3}<\?"), re.compile(r"\?>")),
    (re.compile(r" {0,3}<!\[CDATA\["), re.compile(r"\]\]>")),
)
METADATA = re.compile(r"---[ \t]*\r?\n(?:.*\n)*?---[ \t]*\r?(?:\n|$)")
LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()]*\)|\[[^\[\]]*\])")
ATTRIBUTES = re.compile(r"[ \t]*\{[^{}]*\}$")


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of ``level`` 1..6 whose first line begins at the character ``start``."""

    start: int
    level: int
    text: str


class Markdown(Lines):
    """The sections of a text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._headings = headings(text)
        self._starts = [heading.start for heading in self._headings]
        self._paths: list[tuple[str, ...]] = []
        # For each heading, the next one that is not under it.
        self._next = [len(self._headings)] * len(self._headings)
        above: list[int] = []
        for n, heading in enumerate(self._headings):
            while above and self._headings[above[-1]].level >= heading.level:
                self._next[above.pop()] = n
            above.append(n)
            self._paths.append(tuple(self._headings[i].text for i in above if self._headings[i].text))

    def splitter(self, size: int, overlap: int) -> Splitter:
        """Return the splitter of blocks, then of sentences."""
        return _splitter(size, overlap)

    def parts(self, span: Span, size: int) -> list[Part]:
        """Return the largest sections that fit; of one that does not, what precedes its first subsection."""
        first, last = span
        n = bisect_left(self._starts, first)
        stop = bisect_left(self._starts, last)
        made = [Part(first, self._starts[n] if n < stop else last, DEEPEST)]
        while n < stop:
            start, after = self._starts[n], self._next[n]
            if self._end(after, stop, last) - start > size:
                after = n + 1
            made.append(Part(start, self._end(after, stop, last), self._headings[n].level))
            n = after
        return joined([part for part in made if part.start < part.end], size)

    def _end(self, heading: int, stop: int, last: int) -> int:
        return self._starts[heading] if heading < stop else last

    def place(self, start: int, end: int) -> Place:
        """Return the headings above and at the beginning of a chunk, and its lines."""
        n = bisect_right(self._starts, start) - 1
        path = self._paths[n] if n >= 0 else ()
        lines = {"lines": self.lines(start, end)}
        return path, {"heading": list(path), **lines} if path else lines


@lru_cache(maxsize=16)
def _splitter(size: int, overlap: int) -> Splitter:
    made: Splitter = MarkdownSplitter(size, overlap=overlap)
    return made


def headings(text: str) -> list[Heading]:
    """Return the headings of a Markdown text in their order."""
    return _Reader(text).read()


class _Reader:
    """Reads a text line by line, and knows what a line is part of."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: list[Heading] = []
        # What ends the fenced code or the HTML block that the line stands in.
        self._fence: str | None = None
        self._html: re.Pattern[str] | None = None
        self._in_list = False
        # Where the paragraph began that the line before belongs to.
        self._paragraph: int | None = None
        self._quoted = False

    def read(self) -> list[Heading]:
        metadata = METADATA.match(self._text)
        after_blank = True
        for match in LINE.finditer(self._text, metadata.end() if metadata is not None else 0):
            line = match[0].rstrip("\r\n")
            if self._within(line):
                continue
            blank = not line.strip()
            if blank:
                self._paragraph, self._quoted = None, False
            elif not self._opens(line, after_blank):
                self._read(line, match.start())
            after_blank = blank
        return self._found

    def _within(self, line: str) -> bool:
        """Whether the line belongs to fenced code or to a block of HTML."""
        if self._html is not None:
            self._html = None if self._html.search(line) else self._html
            return True
        if self._fence is not None:
            opened = FENCE.match(line)
            if opened and opened[1].startswith(self._fence) and not line.strip().strip(self._fence[0]):
                self._fence = None
            return True
        return False

    def _opens(self, line: str, after_blank: bool) -> bool:
        """Whether the line begins such a block, or is indented: code, or part of a list."""
        deep = line.startswith(("    ", "\t"))
        indented = line[0] in " \t"
        if self._in_list and after_blank and not indented and not LIST_ITEM.match(line):
            self._in_list = False
        if deep and self._paragraph is None and not self._in_list:
            return True
        fence = FENCE.match(line)
        if fence is not None and (self._in_list or not deep):
            self._fence, self._paragraph = fence[1], None
            return True
        if self._in_list and indented:
            return True
        html = next((end for begin, end in HTML if begin.match(line)), None)
        if html is not None:
            self._html, self._paragraph = None if html.search(line) else html, None
        return html is not None

    def _read(self, line: str, start: int) -> None:
        """Take a line of text: a heading, or what tells whether the next line underlines one."""
        underlined = self._paragraph
        if heading := ATX.match(line):
            self._found.append(Heading(start, len(heading[1]), plain(heading[2] or "")))
            self._paragraph, self._in_list = None, False
        elif underlined is not None and (mark := UNDERLINE.match(line)):
            level = 1 if mark[1][0] == "=" else 2
            self._found.append(Heading(underlined, level, plain(self._text[underlined:start])))
            self._paragraph = None
        elif RULE.match(line):
            self._paragraph, self._in_list = None, False
        elif QUOTE.match(line):
            self._paragraph, self._quoted = None, True
        elif (LIST_ITEM if underlined is None else FIRST_ITEM).match(line):
            self._paragraph, self._in_list = None, True
        elif underlined is None and not self._in_list and not self._quoted:
            # After a quotation the line would go on with it.
            self._paragraph = start


def plain(heading: str) -> str:
    """Return the words of a heading without its marks, on one line."""
    words = " ".join(LINK.sub(r"\1", ATTRIBUTES.sub("", heading)).replace("`", "").replace("**", "").split())
    return words if len(words) <= LONGEST_HEADING else words[:LONGEST_HEADING] + "…"
