"""HTML to Markdown: the main text without navigation, headers, footers and advertisements."""

from __future__ import annotations

import re
from typing import Any

from pgseek.sources.extra import required
from pgseek.sources.whole import Parsed, Unreadable, clean, first_heading

# Fenced blocks and code spans, in which a backslash is a backslash.
_CODE = re.compile(
    r"(^(?P<fence>`{3,})\n.*?^(?P=fence)$|(?<![\\`])(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))",
    re.MULTILINE | re.DOTALL,
)
_ESCAPED = re.compile(r"(\\+)(?=[*_`~\[\]<])")
_ESCAPED_START = re.compile(r"^( {0,3}(?:\d{1,9})?)\\(?=[-+>.)])", re.MULTILINE)


def parse_html(content: bytes) -> Parsed:
    """Return the main text of a page as Markdown, or all its text where no main text is found.

    The metadata has ``main_text: False`` then. Author, date, url, site and description are there as far
    as the page states them.

    Raises:
        Unreadable: the page has no text at all.
        MissingExtra: trafilatura is not installed.
    """
    (trafilatura,) = required("html")
    found = trafilatura.bare_extraction(
        content,
        with_metadata=True,
        include_formatting=True,
        include_comments=False,
        # A date that the page does not state is not guessed from its text: it would be one of many.
        date_extraction_params={"extensive_search": False, "original_date": True},
    )
    metadata: dict[str, Any] = {}
    text = _plain(clean(found.text or "")) if found is not None else ""
    if not text.strip():
        text = clean(trafilatura.html2txt(content))
        metadata["main_text"] = False
    if not text.strip():
        raise Unreadable("the HTML page has no text")
    title = ""
    if found is not None:
        title = clean(found.title or "")
        stated = {
            "author": found.author,
            "date": found.date,
            "url": found.url,
            "site": found.sitename,
            "description": found.description,
        }
        metadata |= {name: clean(value) for name, value in stated.items() if value}
    return Parsed(text, "markdown", title or first_heading(text), metadata)


def _plain(markdown: str) -> str:
    """Return Markdown without the backslashes that would make a renderer show a text as it is.

    Here it is searched, and lru_cache must not be stored as ``lru\\_cache``. A sign that would make a
    heading keeps its own.
    """
    parts: list[str] = []
    end = 0
    for code in _CODE.finditer(markdown):
        parts += [_unescaped(markdown[end : code.start()]), code.group()]
        end = code.end()
    return "".join([*parts, _unescaped(markdown[end:])])


def _unescaped(text: str) -> str:
    # A sign has twice the backslashes it had in the page, and one.
    text = _ESCAPED.sub(lambda found: found[1][: len(found[1]) // 2], text)
    return _ESCAPED_START.sub(r"\1", text)
