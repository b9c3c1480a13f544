"""Files that are one document: HTML, PDF, DOCX and source code, made here as their writers make them."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile

import docx
import pypdf
import pytest
from docx.oxml import parse_xml
from hypothesis import given
from hypothesis import strategies as st
from reportlab.pdfgen.canvas import Canvas

from pgseek.sources import FORMATS, Files, whole
from pgseek.sources.formats import ENDINGS, LANGUAGES
from pgseek.sources.whole import first_heading, read_stream
from pgseek.types import Located, Rejection

FILLER = "A cache keeps what was computed once, so that whoever asks next need not wait for it again. " * 6
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def read(content: bytes, kind: str, name: str = "a file") -> Located | Rejection:
    return read_stream(io.BytesIO(content), name, kind)


def record(content: bytes, kind: str) -> dict:
    found = read(content, kind)
    assert isinstance(found, Located), found
    return found.record


def reason(content: bytes, kind: str) -> str:
    found = read(content, kind)
    assert isinstance(found, Rejection), found
    return found.reason


# PDF.


def pdf(*pages: str, title: str = "", **options) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, **options)
    canvas.setTitle(title)
    canvas.setAuthor("Ada L.")
    for page in pages:
        for number, line in enumerate(page.splitlines()):
            canvas.drawString(72, 720 - 20 * number, line)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def test_the_pages_of_a_pdf_are_divided_by_form_feeds():
    found = record(pdf("Page one\nhas two lines", "", "The third", title="Three pages"), "pdf")
    assert found["text"].split("\f") == ["Page one\nhas two lines", "", "The third"]
    assert (found["format"], found["title"], found["id"]) == ("pages", "Three pages", "a file")
    metadata = found["metadata"]
    assert {"path": "a file", "format": "pdf", "pages": 3, "author": "Ada L."}.items() <= metadata.items()
    assert metadata["date"].startswith("20")
    assert "title" not in metadata


def test_a_form_feed_inside_a_page_is_no_new_page(monkeypatch):
    monkeypatch.setattr(pypdf.PageObject, "extract_text", lambda page: "one\ftwo\x00\ud800")
    assert record(pdf("a", "b"), "pdf")["text"] == "one\ntwo\ufffd\fone\ntwo\ufffd"


def test_a_pdf_without_a_title_has_the_name_of_its_file(tmp_path):
    path = tmp_path / "paper.pdf"
    path.write_bytes(pdf("words"))
    (found,) = Files(path)
    # The writer's own word for "none".
    assert found.record["title"] in {"paper.pdf", "untitled"}


def test_a_pdf_without_text_is_told_to_be_scanned():
    assert reason(pdf("", ""), "pdf") == (
        "the PDF has 2 pages and no text; it may be scanned images: run it through OCR first"
    )


def encrypted(user: str, algorithm: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf("secret words")))
    writer.encrypt(user, "owner", algorithm=algorithm)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_a_pdf_with_a_password_is_rejected(algorithm):
    assert reason(encrypted("hunter2", algorithm), "pdf") == (
        "the PDF is encrypted with a password; save it without one"
    )


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_a_pdf_that_only_its_owner_may_change_is_read(algorithm):
    assert record(encrypted("", algorithm), "pdf")["text"] == "secret words"


@pytest.mark.parametrize("content", [b"", b"no pdf at all", pdf("x")[:200], b"%PDF-1.7\n%%EOF"])
def test_a_damaged_pdf_is_rejected(content):
    assert reason(content, "pdf").startswith(("not a readable PDF: ", "cannot be read as pdf: "))


def test_a_page_that_cannot_be_read_costs_itself_only(monkeypatch):
    kept = pypdf.PageObject.extract_text

    def extract(page):
        text = kept(page)
        if text.strip() == "bad":
            raise KeyError("/Font")
        return text

    monkeypatch.setattr(pypdf.PageObject, "extract_text", extract)
    found = record(pdf("one", "bad", "three"), "pdf")
    assert found["text"] == "one\f\fthree"
    assert found["metadata"]["unreadable_pages"] == [2]
    assert reason(pdf("bad"), "pdf") == "none of the PDF's 1 pages can be read"


# HTML.


def page(body: str, head: str = "") -> bytes:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{head}</head>'
        f"<body><nav><ul><li><a href='/'>Navigation</a></ul></nav>{body}"
        "<footer>Footer, cookies and rights</footer></body></html>"
    ).encode()


def test_the_main_text_of_a_page_becomes_markdown():
    body = (
        f"<main><article><h1>How caches work</h1><p>{FILLER}</p><h2>Eviction</h2><p>{FILLER}</p>"
        "<ul><li>first</li><li>second</li></ul>"
        "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table></article></main>"
    )
    head = (
        "<title>How caches work</title><meta name='author' content='Ada Lovelace'>"
        "<meta property='article:published_time' content='2024-03-01T10:00:00Z'>"
        "<link rel='canonical' href='https://example.org/caches'>"
    )
    found = record(page(body, head), "html")
    lines = found["text"].splitlines()
    assert lines[0] == "# How caches work"
    assert {"## Eviction", "- first", "- second"} <= set(lines)
    assert any(line.startswith("| a | b |") for line in lines)
    assert "Navigation" not in found["text"]
    assert "Footer" not in found["text"]
    assert (found["format"], found["title"]) == ("markdown", "How caches work")
    assert {
        "format": "html",
        "author": "Ada Lovelace",
        "date": "2024-03-01",
        "url": "https://example.org/caches",
    }.items() <= found["metadata"].items()
    assert "main_text" not in found["metadata"]


def test_names_in_a_page_are_stored_as_they_are_written():
    body = (
        f"<article><h1>Names</h1><p>{FILLER}</p><p>Use functools.lru_cache, sys.argv[0] and a*b.</p>"
        f"<p># no heading</p><p><code>x\\_y</code></p><pre>def f_x(a):\n    return a[0]\n</pre><p>{FILLER}</p></article>"
    )
    text = record(page(body), "html")["text"]
    assert "Use functools.lru_cache, sys.argv[0] and a*b." in text
    assert "\\# no heading" in text
    assert "`x\\_y`" in text
    assert "```\ndef f_x(a):\n    return a[0]\n```" in text


def test_a_page_without_main_text_gives_all_its_text_and_says_so(monkeypatch):
    import trafilatura

    monkeypatch.setattr(trafilatura, "bare_extraction", lambda *_, **__: None)
    found = record(page("<p>Little to read.</p>"), "html")
    assert "Little to read." in found["text"]
    assert found["metadata"]["main_text"] is False
    assert found["title"] == "a file"


def test_a_short_page_is_not_lost():
    found = record(b"<html><body><h1>Hello</h1><p>One small line.</p></body></html>", "html")
    assert "One small line." in found["text"]


@pytest.mark.parametrize(
    "content",
    [b"", b"  ", b"<html></html>", b"<html><body><script>var x</script></body></html>", b"\x00\x01"],
)
def test_a_page_without_text_is_rejected(content):
    assert reason(content, "html") == "the HTML page has no text"


def test_a_page_says_how_it_is_encoded():
    body = f"<meta charset=latin-1><article><p>{FILLER}</p><p>Ein Café in Köln.</p></article>"
    content = f"<html><head><meta charset='iso-8859-1'></head><body>{body}</body></html>".encode("latin-1")
    assert "Ein Café in Köln." in record(content, "html")["text"]


# DOCX.


def docx_bytes(document) -> bytes:
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def test_a_word_document_becomes_markdown_in_order():
    document = docx.Document()
    document.core_properties.title = "The report"
    document.core_properties.author = "Ada L."
    document.add_heading("Report", 0)
    document.add_paragraph("An opening.")
    document.add_heading("Results", 1)
    document.add_paragraph("first", "List Bullet")
    document.add_paragraph("second", "List Number")
    table = document.add_table(2, 2)
    for cell, text in zip(
        (c for row in table.rows for c in row.cells), ["a", "b|c", "1", "2\n3"], strict=True
    ):
        cell.text = text
    document.add_heading("Deep", 7)
    document.add_paragraph("# not a heading\nnext line")
    found = record(docx_bytes(document), "docx")
    assert found["text"] == (
        "# Report\n\nAn opening.\n\n# Results\n- first\n- second\n\n| a | b\\|c |\n|---|---|\n| 1 | 2 3 |\n\n"
        "###### Deep\n\n\\# not a heading\nnext line\n"
    )
    assert (found["title"], found["format"]) == ("The report", "markdown")
    assert {"format": "docx", "author": "Ada L."}.items() <= found["metadata"].items()


def test_the_first_heading_is_the_title_of_a_document_without_one():
    document = docx.Document()
    document.add_heading("Chapter", 2)
    assert record(docx_bytes(document), "docx")["title"] == "Chapter"


def test_a_style_based_on_a_heading_is_one():
    document = docx.Document()
    style = document.styles.add_style("Own", docx.enum.style.WD_STYLE_TYPE.PARAGRAPH)
    style.base_style = document.styles["Heading 2"]
    document.add_paragraph("Mine", style)
    assert record(docx_bytes(document), "docx")["text"] == "## Mine\n"


@pytest.mark.parametrize(
    ("xml", "text"),
    [
        ("<w:p {W}><w:ins><w:r><w:t>inserted</w:t></w:r></w:ins></w:p>", "inserted"),
        (
            "<w:p {W}><w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:r><w:t>kept</w:t></w:r></w:p>",
            "kept",
        ),
        ("<w:p {W}><w:hyperlink><w:r><w:t>a link</w:t></w:r></w:hyperlink></w:p>", "a link"),
        (
            "<w:sdt {W}><w:sdtContent><w:p><w:r><w:t>controlled</w:t></w:r></w:p></w:sdtContent></w:sdt>",
            "controlled",
        ),
        ("<w:p {W}><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r></w:p>", "a\tb\nc"),
        (
            "<w:p {W}><w:r><w:t>around</w:t><w:pict><w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p>"
            "</w:txbxContent></w:pict></w:r></w:p>",
            "around\n\nboxed",
        ),
        (
            "<w:tbl {W}><w:tr><w:tc><w:p><w:r><w:t>outer</w:t></w:r></w:p><w:tbl><w:tr><w:tc><w:p><w:r>"
            "<w:t>inner</w:t></w:r></w:p></w:tc></w:tr></w:tbl></w:tc></w:tr></w:tbl>",
            "| outer inner |\n|---|",
        ),
    ],
    ids=["inserted", "deleted", "link", "control", "signs", "box", "table in a table"],
)
def test_all_that_word_shows_as_text_is_read(xml, text):
    document = docx.Document()
    document.element.body.insert(0, parse_xml(xml.replace("{W}", W)))
    assert record(docx_bytes(document), "docx")["text"] == f"{text}\n"


def test_an_encrypted_or_old_word_file_is_rejected():
    assert reason(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"x" * 500, "docx").startswith(
        "an encrypted DOCX or an old DOC"
    )


def other_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        package.writestr("a.txt", "x")
    return out.getvalue()


@pytest.mark.parametrize("content", [b"", b"PK", other_zip(), docx_bytes(docx.Document())[:-500]])
def test_a_damaged_word_file_is_rejected(content):
    assert reason(content, "docx").startswith(("not a DOCX file: ", "cannot be read as docx: "))


def test_a_word_file_without_text_is_rejected():
    assert reason(docx_bytes(docx.Document()), "docx") == "the docx file has no text"


def test_a_word_file_that_unpacks_to_too_much_is_rejected(monkeypatch):
    from pgseek.sources import docx as module

    monkeypatch.setattr(module, "MAX_FILE", 10_000)
    assert "at most 10,000 are allowed" in reason(docx_bytes(docx.Document()), "docx")


# Source code and text.


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("a.py", "python"),
        ("a.js", "javascript"),
        ("a.ts", "typescript"),
        ("a.tsx", "tsx"),
        ("a.go", "go"),
        ("a.rs", "rust"),
        ("a.java", "java"),
        ("a.c", "c"),
        ("a.h", "c"),
        ("a.cpp", "cpp"),
        ("a.rb", "ruby"),
        ("a.php", "php"),
        ("a.sh", "bash"),
        ("a.sql", "sql"),
        ("a.cs", "csharp"),
        ("a.kt", "kotlin"),
        ("a.swift", "swift"),
        ("A.PY", "python"),
        ("a.py.gz", "python"),
    ],
)
def test_source_code_has_its_language_as_format(tmp_path, name, language):
    path = tmp_path / name
    code = b"first line\n\n  second line\n"
    path.write_bytes(gzip.compress(code) if name.endswith("gz") else code)
    (found,) = Files(path)
    assert found.record == {
        "id": str(path),
        "title": name,
        "text": code.decode(),
        "format": language,
        "metadata": {"path": str(path), "format": language},
    }


def test_every_format_has_an_ending_and_every_ending_one_format(tmp_path):
    for ending in ENDINGS:
        (tmp_path / f"a{ending}").write_text("x")
    seen = {whole.Path(one.source).suffix for one in Files(tmp_path)}
    assert seen == set(ENDINGS)
    assert set(LANGUAGES) < set(FORMATS)


@pytest.mark.parametrize("kind", ["text", "markdown", "python"])
def test_a_binary_file_is_rejected(kind):
    assert reason(struct.pack("<4I", 1, 2, 3, 4), kind) == "not text: a NUL byte at character 1"
    assert reason(b"\x89PNG\r\n", kind) == "not UTF-8: byte 0x89 at offset 0"


@pytest.mark.parametrize("kind", ["text", "pdf", "html", "docx"])
def test_a_file_that_is_too_long_is_rejected_before_all_of_it_is_read(monkeypatch, kind):
    monkeypatch.setattr(whole, "MAX_FILE", 1000)
    stream = io.BytesIO(b"x" * 5000)
    found = read_stream(stream, "a file", kind)
    assert found.reason.startswith("the file is longer than 1,000 bytes")
    assert stream.tell() == 1001


@given(st.binary(max_size=300), st.sampled_from(["html", "pdf", "docx", "python"]))
def test_whatever_the_bytes_are_there_is_an_outcome_that_can_be_stored(content, kind):
    found = read(content, kind)
    if isinstance(found, Located):
        text = found.record["text"] + found.record["title"]
        text.encode()
        assert "\x00" not in text


def test_a_title_of_many_lines_is_one_line_and_an_endless_one_is_none():
    assert record(pdf("x", title="two\nlines"), "pdf")["title"] == "two lines"
    assert record(pdf("x", title="x" * 5000), "pdf")["title"] == "a file"


def test_a_heading_in_a_fence_is_none():
    assert first_heading("```\n# code\n```\n## Real") == "Real"
