"""Sources: every format, plain, compressed and from standard input; what is broken is reported in place."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgseek.errors import InvalidInput
from pgseek.sources import csv_rows, json_lines, read_sources
from pgseek.types import Located, Rejection

BOM = b"\xef\xbb\xbf"


@pytest.fixture
def write(tmp_path):
    """Write a file and return its path."""

    def made(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return made


def read(content: str | bytes, kind: str) -> list[Located | Rejection]:
    """Read from standard input."""
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return list(read_sources(["-"], kind, stream))


def records(content: str | bytes, kind: str) -> list[dict]:
    """Read what has no errors."""
    return [located.record for located in read(content, kind)]


# Text and Markdown: one file, one document.


def test_a_text_file_is_a_document_named_after_its_path(write):
    path = write("notes/a.txt", "Line one\nline two\n")
    (found,) = read_sources([path])
    assert found.record == {
        "id": path,
        "title": "a.txt",
        "text": "Line one\nline two\n",
        "format": "text",
        "metadata": {"path": path, "format": "text"},
    }
    assert (found.position, found.source) == (1, path)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Title\n\nbody", "Title"),
        ("intro\n\n## Second level\n\n# First", "Second level"),
        ("# Closed ##\n", "Closed"),
        ("# C#\n\nbody", "C#"),
        ("#\tTab\t\n", "Tab"),
        ("# Windows\r\n\r\nbody\r\n", "Windows"),
        ("# Überschrift 😀\n", "Überschrift 😀"),
        ("#hashtag\n\nno heading", "a.md"),
        ("####### seven\n", "a.md"),
        ("", "a.md"),
        ("```sh\n# a comment\n```\n\n# Real\n", "Real"),
    ],
)
def test_the_first_heading_is_the_title_of_markdown(write, text, title):
    (found,) = read_sources([write("a.md", text)])
    assert (found.record["title"], found.record["text"]) == (title, text)
    assert (found.record["format"], found.record["metadata"]["format"]) == ("markdown", "markdown")


def test_a_heading_means_nothing_in_plain_text(write):
    (found,) = read_sources([write("a.txt", "# not a title")])
    assert found.record["title"] == "a.txt"


@pytest.mark.parametrize("name", ["a.txt", "a.md"])
def test_a_byte_order_mark_is_no_text(write, name):
    (found,) = read_sources([write(name, BOM + b"# text")])
    assert found.record["text"] == "# text"


@pytest.mark.parametrize("name", ["a.txt", "a.md"])
def test_a_file_that_is_not_utf8_is_rejected_with_the_place(write, name):
    path = write(name, b"caf\xe9")
    assert list(read_sources([path])) == [Rejection(1, path, "not UTF-8: byte 0xe9 at offset 3", path)]


# JSON lines.


def test_json_lines_keep_their_line_numbers():
    content = '{"id": "1", "text": "a"}\n\n   \n{"id": "2", "text": "b"}'
    assert [(f.record["id"], f.position, f.source) for f in read(content, "jsonl")] == [
        ("1", 1, "-"),
        ("2", 4, "-"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "1", "text": }', "line 2 is not JSON: Expecting value, column 21"),
        (b"not json", "line 2 is not JSON: Expecting value, column 1"),
        (b'{"id": "1"', "line 2 is not JSON: Expecting ',' delimiter, column 11"),
        (b'{"id": "1"} {"id": "2"}', "line 2 is not JSON: Extra data, column 13"),
        (b'{"id": "caf\xe9"}', "not UTF-8: byte 0xe9 at offset 11"),
        (b"[1, 2]", "line 2 is a JSON list, not an object"),
        (b'"text"', "line 2 is a JSON str, not an object"),
        (b"null", "line 2 is a JSON NoneType, not an object"),
        (b"5", "line 2 is a JSON int, not an object"),
        (b"[" * 100_000, "line 2 is not JSON: nested too deeply"),
    ],
    ids=lambda value: None if isinstance(value, str) else value[:25].decode("latin-1"),
)
def test_a_bad_line_is_rejected_between_good_ones(line, reason):
    good = b'{"id": "%d", "text": "x"}'
    first, bad, last = read(b"\n".join([good % 1, line, good % 3]), "jsonl")
    assert bad == Rejection(2, None, reason, "-")
    assert [first.position, last.position] == [1, 3]
    assert [first.record["id"], last.record["id"]] == ["1", "3"]


def test_a_number_too_long_for_python_is_rejected_between_good_lines():
    good = '{"id": "%d", "text": "x"}'
    long = '{"id": "2", "text": "x", "n": ' + "1" * 5000 + "}"
    first, bad, last = read("\n".join([good % 1, long, good % 3]), "jsonl")
    assert isinstance(bad, Rejection)
    assert (bad.position, first.record["id"], last.record["id"]) == (2, "1", "3")


def test_a_byte_order_mark_before_json_lines_is_skipped():
    assert records(BOM + b'{"id": "1", "text": "a"}\r\n{"id": "2", "text": "b"}\r\n', "jsonl") == [
        {"id": "1", "text": "a"},
        {"id": "2", "text": "b"},
    ]


def test_a_beir_corpus_line_is_read_as_it_is():
    line = {"_id": "MED-10", "title": "Statins", "text": "Recent studies", "metadata": {}}
    assert records(json.dumps(line), "jsonl") == [line]


def test_fields_that_a_document_does_not_have_go_into_the_metadata():
    line = {
        "_id": "1",
        "text": "a",
        "url": "http://x",
        "year": 2020,
        "metadata": {"lang": "de", "year": 1999},
    }
    (found,) = records(json.dumps(line), "jsonl")
    assert found == {
        "_id": "1",
        "text": "a",
        "metadata": {"url": "http://x", "lang": "de", "year": 1999},
    }


def test_a_line_of_any_length_is_read():
    (found,) = records(json.dumps({"id": "1", "text": "x" * 1_000_000}), "jsonl")
    assert len(found["text"]) == 1_000_000


@pytest.mark.parametrize(("content", "good"), [(b"x" * 5000 + b"\n", 1), (b"x" * 5000, 0)])
def test_a_line_that_is_too_long_is_not_read_into_memory(monkeypatch, content, good):
    monkeypatch.setattr(json_lines, "MAX_LINE", 1000)
    bad, *rest = read(content + b'{"id": "2", "text": "b"}' * good, "jsonl")
    assert bad == Rejection(1, None, "line 1 is longer than 1,000 bytes", "-")
    assert [one.record["id"] for one in rest] == ["2"] * good


# CSV.


def test_csv_rows_become_documents():
    content = 'id,text,title,language,metadata,year\n1,"a, b",T,german,"{""k"": [1]}",2020\n2,c,,,,\n'
    assert records(content, "csv") == [
        {
            "id": "1",
            "text": "a, b",
            "title": "T",
            "language": "german",
            "metadata": {"year": "2020", "k": [1]},
        },
        {"id": "2", "text": "c", "title": "", "language": None, "metadata": {"year": ""}},
    ]


def test_csv_cells_may_hold_quotes_and_newlines():
    first, second = read('id,text\n1,"two\nlines, ""quoted"""\n2,b\n', "csv")
    assert first.record["text"] == 'two\nlines, "quoted"'
    assert (second.record["id"], second.position) == ("2", 4)


def test_csv_may_start_with_a_byte_order_mark_and_end_lines_as_windows_does():
    (found,) = records(BOM + b"id,text\r\n1,a\r\n", "csv")
    assert (found["id"], found["text"]) == ("1", "a")


def test_csv_may_be_a_beir_corpus():
    (found,) = records("_id,text\n7,a\n", "csv")
    assert found["id"] == "7"


def test_a_csv_cell_may_be_longer_than_the_csv_module_likes():
    (found,) = records(f"id,text\n1,{'x' * 200_000}\n", "csv")
    assert len(found["text"]) == 200_000


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        ("title,text", "'id'"),
        ("id,title", "'text'"),
        ("", "'id'"),
        ("id;text", "'id'"),
        ("id,_text", "'text'"),
    ],
)
def test_a_missing_csv_column_is_named(header, missing):
    (found,) = read(f"{header}\n1,a\n", "csv")
    assert isinstance(found, Rejection)
    columns = header.replace(",", ", ") or "none"
    assert found.reason == f"there is no column {missing}; there are: {columns}"


@pytest.mark.parametrize(
    ("row", "given_id", "reason"),
    [
        (b"2,a,b,c", "2", "line 3 has more cells than the header has names"),
        (b"2,a", "2", "line 3 has fewer cells than the header has names"),
        (b"2,caf\xe9,", None, "line 3 is not UTF-8"),
        (b"2,a,{oops}", "2", "the metadata in line 3 is not JSON: Expecting property name enclosed"),
    ],
)
def test_a_bad_csv_row_is_rejected_between_good_ones(row, given_id, reason):
    first, bad, last = read(b"id,text,metadata\n1,a,{}\n" + row + b"\n3,c,\n", "csv")
    assert (bad.position, bad.id, bad.source) == (3, given_id, "-")
    assert bad.reason.startswith(reason)
    assert [first.record["id"], last.record["id"]] == ["1", "3"]


@pytest.mark.parametrize(
    "metadata", ["[" * 100_000, '{""n"": ' + "1" * 5000 + "}"], ids=["deep", "long number"]
)
def test_csv_metadata_that_json_cannot_read_is_rejected_between_good_rows(metadata):
    first, bad, last = read(f'id,text,metadata\n1,a,\n2,b,"{metadata}"\n3,c,\n', "csv")
    assert isinstance(bad, Rejection)
    assert (bad.position, first.record["id"], last.record["id"]) == (3, "1", "3")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('2,"b"x', "line 3: not CSV: ',' expected after '\"'"),
        ('2,"He said "hi" to me"', "line 3: not CSV: ',' expected after '\"'"),
        ('2,"two\nlines"x', "lines 3 to 4: not CSV: "),
        ('"2"",""x"y,"z"', "line 3: not CSV: "),
    ],
)
def test_a_malformed_csv_row_whose_quotes_come_in_pairs_costs_itself_only(bad, reason):
    first, found, last = read(f'id,text\n1,a\n{bad}\n3,"b, c"\n', "csv")
    assert isinstance(found, Rejection)
    assert (found.position, found.source) == (3, "-")
    assert found.reason.startswith(reason)
    assert (first.record["id"], last.record) == ("1", {"id": "3", "text": "b, c"})


@pytest.mark.parametrize(
    "bad", ['2,"never closed\n3,c\n4,d', '2,"b"x"\n3,c', '2,"tis the season\n3,"fine"\n4,d']
)
def test_a_quote_that_is_left_open_ends_the_file_and_is_told(bad):
    first, found = read(f"id,text\n1,a\n{bad}\n", "csv")
    assert first.record["id"] == "1"
    assert found.position == 3
    assert found.reason.startswith("not CSV: ")
    assert found.reason.endswith("has a quote too many); the rest of the file was not read")


def test_a_quote_that_is_left_open_does_not_bring_the_file_into_memory(monkeypatch):
    monkeypatch.setattr(csv_rows, "MAX_ROW", 1000)
    endless = Endless(b'id,text\n1,"', b"and so on\n")
    (found,) = read_sources(["-"], "csv", io.BufferedReader(endless))
    assert "a row of more than 1,000 characters" in found.reason
    assert endless.taken < 100_000


@pytest.mark.parametrize("content", ['"id"x,text\n1,a\n', 'id,"text\n1,a\n'])
def test_a_broken_csv_header_is_a_rejection(content):
    (bad,) = read(content, "csv")
    assert bad.position == 1
    assert bad.reason.startswith("not CSV: ")


def test_a_column_that_is_there_twice_is_told():
    (bad,) = read("id,text,text\n1,a,b\n", "csv")
    assert bad.reason == "the header has the column 'text' more than once"


@given(st.lists(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), max_size=8)] * 2), max_size=8))
def test_whatever_csv_a_writer_writes_is_read_as_written(rows):
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["id", "text"])
    writer.writerows(rows)
    assert [(r["id"], r["text"]) for r in records(out.getvalue(), "csv")] == rows


def test_tsv_has_tabs():
    assert records('id\ttext\n1\ta, "b"\n', "tsv") == [{"id": "1", "text": 'a, "b"'}]


# Files, folders and compression.


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt.gz", "body"),
        ("a.md.gz", "body"),
        ("a.jsonl.gz", '{"id": "1", "text": "body"}'),
        ("a.ndjson.gz", '{"id": "1", "text": "body"}'),
        ("a.csv.gz", "id,text\n1,body\n"),
    ],
)
def test_every_format_may_be_compressed(write, name, content):
    (found,) = read_sources([write(name, gzip.compress(content.encode()))])
    assert found.record["text"] == "body"


@pytest.mark.parametrize("name", ["a.TXT", "a.text", "a.Markdown"])
def test_other_spellings_of_an_ending_are_known(write, name):
    (found,) = read_sources([write(name, "body")])
    assert found.record["text"] == "body"


def _cut(whole: bytes) -> bytes:
    return whole[:-6]


def _spoilt(whole: bytes) -> bytes:
    return whole[:10] + b"\xff" * 40


def _not_compressed(_: bytes) -> bytes:
    return b"plain"


@pytest.mark.parametrize("damage", [_cut, _spoilt, _not_compressed])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt"])
def test_a_damaged_file_is_reported_and_the_next_is_read(write, damage, kind):
    content = {"jsonl": b'{"id": "1", "text": "a"}\n', "csv": b"id,text\n1,a\n", "txt": b"a"}[kind]
    damaged = write(f"damaged.{kind}.gz", damage(gzip.compress(content)))
    *_, report, last = read_sources([damaged, write("good.txt", "fine")])
    assert (report.source, report.reason[:16]) == (damaged, "cannot be read: ")
    assert last.record["text"] == "fine"


def test_what_a_cut_file_still_holds_is_read(write):
    lines = b"".join(b'{"id": "%d", "text": "a"}\n' % i for i in range(3))
    found = list(read_sources([write("a.jsonl.gz", gzip.compress(lines)[:-4])]))
    assert [type(one) for one in found] == [Located, Located, Located, Rejection]


def test_a_folder_is_searched_to_its_bottom_in_order(write, tmp_path):
    for name in ("b.txt", "a.md", "sub/deep/c.jsonl", "sub/a.csv.gz", "skip.png", "skip", "sub/skip.gz"):
        content = b'{"id": "1", "text": "x"}' if name.endswith("jsonl") else b"id,text\n1,x\n"
        write(name, gzip.compress(content) if name.endswith("csv.gz") else content)
    (tmp_path / "folder.txt").mkdir()
    found = [Path(one.source).relative_to(tmp_path).as_posix() for one in read_sources([str(tmp_path)])]
    assert found == ["a.md", "b.txt", "sub/a.csv.gz", "sub/deep/c.jsonl"]


def test_paths_are_read_in_the_order_given(write):
    paths = [write("z.txt", "z"), write("a.txt", "a")]
    assert [one.source for one in read_sources(paths)] == paths


def test_a_folder_without_a_known_file_is_an_error(write, tmp_path):
    write("only.png", "x")
    with pytest.raises(InvalidInput, match=r"holds no file to read: .* ends in \.txt, .*\.jsonl.*\.csv"):
        read_sources([str(tmp_path)])


@pytest.mark.parametrize("name", ["a.png", "a", "a.gz", "a.txt.zip", ".jsonl"])
def test_an_unknown_ending_is_told_the_known_ones_and_the_option(write, name):
    with pytest.raises(InvalidInput) as caught:
        read_sources([write(name, "x")])
    for word in (name, ".txt", ".md", ".jsonl", ".csv", "say --format text, markdown, html,"):
        assert word in str(caught.value)


def test_a_given_format_overrides_the_ending(write):
    (found,) = read_sources([write("corpus.dump", '{"id": "1", "text": "a"}')], "jsonl")
    assert found.record == {"id": "1", "text": "a"}


def test_an_unknown_format_is_told_the_known_ones():
    with pytest.raises(InvalidInput, match=r"format is 'xml'.*text, markdown, html, .*jsonl, csv"):
        read_sources(["-"], "xml")


def test_a_missing_path_is_an_error_before_anything_is_read(write, tmp_path):
    class Untouched(io.RawIOBase):
        def readable(self):
            raise AssertionError("standard input was read")

    missing = tmp_path / "missing.txt"
    with pytest.raises(InvalidInput, match=r"there is no file .*missing\.txt"):
        read_sources(["-", write("a.txt", "x"), str(missing)], "text", Untouched())


# Standard input and streaming.


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("text", "body"),
        ("markdown", "body"),
        ("jsonl", '{"id": "1", "text": "body"}'),
        (None, '{"id": "1", "text": "body"}'),
        ("csv", "id,text\n1,body\n"),
    ],
)
def test_standard_input_has_every_format_and_is_json_lines_by_default(kind, content):
    (found,) = read(content, kind)
    assert (found.record["text"], found.source) == ("body", "-")


def test_standard_input_stays_open():
    stream = io.BytesIO(b"id,text\n1,a\n")
    assert len(list(read_sources(["-"], "csv", stream))) == 1
    assert not stream.closed


class Endless(io.RawIOBase):
    """A header, then rows for ever; counts the bytes that were taken."""

    def __init__(self, header: bytes, row: bytes):
        self.parts = itertools.chain([header], itertools.repeat(row))
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        part = next(self.parts)
        buffer[: len(part)] = part
        self.taken += len(part)
        return len(part)


@pytest.mark.parametrize(
    ("kind", "header", "row"),
    [("jsonl", b"\n", b'{"id": "1", "text": "a"}\n'), ("csv", b"id,text\n", b"1,a\n")],
)
def test_records_are_read_one_by_one(kind, header, row):
    endless = Endless(header, row)
    source = read_sources(["-"], kind, io.BufferedReader(endless))
    assert endless.taken == 0
    assert next(source).record["text"] == "a"
    # No more than the buffers of Python's own streams.
    assert endless.taken < 100_000
    source.close()
