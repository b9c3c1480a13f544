"""PDF to text by pages: a form feed between two of them, none inside."""

from __future__ import annotations

import io
from typing import Any

from pgseek.sources.extra import required
from pgseek.sources.whole import Parsed, Unreadable, clean


def parse_pdf(content: bytes) -> Parsed:
    """Return the text of a PDF file; page n has n - 1 form feeds before it.

    Raises:
        Unreadable: encrypted, damaged, or without any text.
        MissingExtra: pypdf is not installed.
    """
    (pypdf,) = required("pdf")
    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        _decrypt(pypdf, reader)
        pages, bad = _pages(reader)
        metadata: dict[str, Any] = {"pages": len(pages), **_properties(pypdf, reader)}
    except pypdf.errors.DependencyError as error:
        raise Unreadable(f"the PDF is encrypted, and what reads such files is missing: {error}") from error
    except pypdf.errors.PyPdfError as error:
        raise Unreadable(f"not a readable PDF: {error}") from error
    text = "\f".join(pages)
    if bad:
        metadata["unreadable_pages"] = bad
    if not text.strip():
        if bad:
            raise Unreadable(f"none of the PDF's {len(pages)} pages can be read")
        raise Unreadable(
            f"the PDF has {len(pages)} pages and no text; it may be scanned images: run it through OCR first"
        )
    return Parsed(text, "pages", metadata.pop("title", ""), metadata)


def _decrypt(pypdf: Any, reader: Any) -> None:
    """Open a file that only its owner may change: its user's password is empty."""
    if reader.is_encrypted and reader.decrypt("") == pypdf.PasswordType.NOT_DECRYPTED:
        raise Unreadable("the PDF is encrypted with a password; save it without one")


def _pages(reader: Any) -> tuple[list[str], list[int]]:
    """Return the texts of all pages, and the numbers of those that cannot be read."""
    texts: list[str] = []
    bad: list[int] = []
    for number, page in enumerate(reader.pages, 1):
        try:
            text = page.extract_text()
        except Exception:
            # Whatever a damaged page raises, the other pages are none the worse.
            bad.append(number)
            text = ""
        texts.append(clean(text).replace("\f", "\n").rstrip())
    return texts, bad


def _properties(pypdf: Any, reader: Any) -> dict[str, str]:
    """Return title, author and date as far as the file has them."""
    properties: dict[str, Any] = {}
    try:
        if (found := reader.metadata) is not None:
            properties = {"title": found.title, "author": found.author, "date": found.creation_date}
    except (pypdf.errors.PyPdfError, ValueError, TypeError, KeyError):
        # Properties say something about the text; damaged ones do not stop it.
        return {}
    return {
        name: value.isoformat() if name == "date" else clean(str(value)).strip()
        for name, value in properties.items()
        if value and str(value).strip()
    }
