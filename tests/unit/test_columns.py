"""Columns: which become the id, the text, the title and the metadata, in every kind of table."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgseek import Columns, Files, InvalidInput
from pgseek.collections import Languages
from pgseek.prepare import prepare
from pgseek.sources import parquet
from pgseek.sources.columns import layout
from pgseek.sources.values import json_value, text_value
from pgseek.types import Located, Rejection

MAPPED = Columns(id="pk", text=("title", "body"), title="title", language="lang", metadata=("year",))


def read(content: bytes | str, kind: str, columns: Columns | None = None) -> list[Located | Rejection]:
    content = content.encode() if isinstance(content, str) else content
    return list(Files("-", format=kind, columns=columns, stdin=io.BytesIO(content)))


def table(rows: list[dict], schema: pa.Schema | None = None, **options) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), out, **options)
    return out.getvalue()


# Mapping, the same in every kind of table.

ROWS = [
    {"pk": "1", "title": "A title", "body": "A body", "lang": "german", "year": "1999", "other": "x"},
    {"pk": "2", "title": "", "body": "Only a body", "lang": "", "year": "2000", "other": "y"},
]


def as_csv(delimiter: str) -> str:
    return "".join(f"{delimiter.join(line)}\n" for line in [ROWS[0].keys(), *(row.values() for row in ROWS)])


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("csv", as_csv(",")),
        ("tsv", as_csv("\t")),
        ("jsonl", "".join(json.dumps(row) + "\n" for row in ROWS)),
        ("parquet", table(ROWS)),
    ],
)
def test_columns_are_mapped(kind, content):
    assert [one.record for one in read(content, kind, MAPPED)] == [
        {
            "id": "1",
            "text": "A title\n\nA body",
            "title": "A title",
            "language": "german",
            "metadata": {"year": "1999"},
        },
        {"id": "2", "text": "Only a body", "title": "", "language": None, "metadata": {"year": "2000"}},
    ]


def test_all_other_columns_are_the_metadata_by_default():
    (found,) = read("key,body,a,b\n1,x,2,3\n", "csv", Columns(id="key", text="body"))
    assert found.record == {"id": "1", "text": "x", "metadata": {"a": "2", "b": "3"}}
    (found,) = read("key,body,a,b\n1,x,2,3\n", "csv", Columns(id="key", text="body", metadata=()))
    assert found.record == {"id": "1", "text": "x"}


def test_a_title_that_is_part_of_the_text_is_the_title_only_if_it_is_said():
    content = "id,title,body\n1,T,B\n"
    (found,) = read(content, "csv", Columns(text=("title", "body")))
    assert found.record == {"id": "1", "text": "T\n\nB"}
    (found,) = read(content, "csv", Columns(text="body"))
    assert found.record == {"id": "1", "text": "B", "title": "T"}
    (found,) = read(content, "csv", Columns(text="body", title=""))
    assert found.record == {"id": "1", "text": "B", "metadata": {"title": "T"}}


def test_what_the_texts_are_written_in_may_be_said():
    (found,) = read("id,text\n1,# T\n", "csv", Columns(text_format="markdown"))
    assert found.record["format"] == "markdown"
    (found,) = read("id,text,format\n1,# T,markdown\n", "csv")
    assert found.record == {"id": "1", "text": "# T", "format": "markdown"}


@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        (Columns(), "id"),
        (Columns(id="a"), "text"),
        (Columns(id="a", text=("b", "nope")), "nope"),
        (Columns(id="a", text="b", title="heading"), "heading"),
        (Columns(id="a", text="b", language="lang"), "lang"),
        (Columns(id="a", text="b", metadata=("c", "d")), "d"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_missing_column_is_told_with_those_there_are(kind, columns, missing):
    content = "a,b,c\n1,2,3\n" if kind == "csv" else table([{"a": "1", "b": "2", "c": "3"}])
    assert read(content, kind, columns) == [
        Rejection(1, None, f"there is no column {missing!r}; there are: a, b, c", "-")
    ]


def test_json_lines_need_not_have_every_field():
    columns = Columns(id="pk", text=("summary", "body"), title="heading", metadata=("year",))
    content = (
        '{"pk": 1, "body": "only", "year": 1999, "more": 0}\n'
        '{"pk": 2, "summary": null, "body": "b", "heading": "T"}\n'
        '{"pk": 3, "heading": "nothing to read"}\n'
        '{"body": "no id"}\n'
        '{"pk": 5, "body": ["a", "list"]}\n'
        '{"pk": 6, "summary": "s", "body": 7.5, "metadata": 3}\n'
    )
    found = read(content, "jsonl", columns)
    assert [one.record for one in found if isinstance(one, Located)] == [
        {"id": 1, "text": "only", "metadata": {"year": 1999}},
        {"id": 2, "text": "b", "title": "T"},
        {"id": 6, "text": "s\n\n7.5"},
    ]
    assert [(one.position, one.reason) for one in found if isinstance(one, Rejection)] == [
        (3, "line 3: there is no column 'summary'; there are: pk, heading"),
        (4, "line 4: there is no column 'pk'; there are: body"),
        (5, "line 5: column 'body' is a list, not text"),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"id": ""}, "every document needs an id"),
        ({"text": ()}, "text names no column"),
        ({"text": ""}, "must be names of columns"),
        ({"text": ("a", 5)}, "must be names of columns"),
        ({"metadata": ("",)}, "must be names of columns"),
        ({"metadata": 5}, "must be names of columns"),
    ],
)
def test_columns_are_checked(given, message):
    with pytest.raises(InvalidInput, match=message):
        Columns(**given)


def test_a_list_of_names_will_do_and_one_name():
    assert Columns(text=["a", "b"], metadata="c") == Columns(text=("a", "b"), metadata=("c",))


@given(st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=8, unique=True))
def test_every_column_goes_to_exactly_one_place(names):
    first, second, *_ = names
    found = layout(Columns(id=first, text=second, title="", language=""), names)
    places = [found.id, *found.texts, *found.metadata]
    assert sorted([*places, *([found.format] if found.format else [])]) == sorted(names)


# Values.


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2**70, 2**70),
        (1.5, 1.5),
        (math.nan, None),
        (math.inf, None),
        (Decimal("10.00"), 10),
        (Decimal("0.1"), 0.1),
        (Decimal("0.12345678901234567890"), Decimal("0.12345678901234567890")),
        (Decimal(2) ** 60 + 1, Decimal(1152921504606846977)),
        (Decimal("1e400"), Decimal("1e400")),
        (Decimal("NaN"), None),
        (dt.date(2024, 2, 29), "2024-02-29"),
        (dt.datetime(2024, 2, 29, 1, 2, 3, tzinfo=dt.UTC), "2024-02-29T01:02:03+00:00"),
        (dt.time(1, 2), "01:02:00"),
        (dt.timedelta(minutes=1, milliseconds=500), 60.5),
        (b"caf\xc3\xa9", "café"),
        (b"\xff\x00", "/wA="),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        ({"a": [dt.date(2024, 1, 1), {"b": Decimal(3)}], 5: (1,)}, {"a": ["2024-01-01", {"b": 3}], "5": [1]}),
        ({3, 1, 2}, [1, 2, 3]),
    ],
)
def test_typed_values_become_json(value, expected):
    made = json_value(value)
    assert made == expected
    assert type(made) is type(expected)
    prepared = prepare(
        {"id": "1", "text": "x", "metadata": {"k": made}}, 1, "english", Languages(["english"])
    )
    stored = json.loads(prepared.metadata, parse_float=Decimal)["k"]
    assert (float(stored) if isinstance(made, float) else stored) == expected


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_no_decimal_loses_a_digit(value):
    made = json_value(value)
    assert (Decimal(repr(made)) if isinstance(made, float) else Decimal(made)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), ("x", "x"), (5, "5"), (Decimal("1.50"), "1.5"), (True, "True"), (b"x", "x"), (math.nan, "")],
)
def test_values_that_are_texts(value, text):
    assert text_value("a", value) == text


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, b"\xff"])
def test_values_that_are_no_texts(value):
    with pytest.raises(InvalidInput, match="column 'a' is "):
        text_value("a", value)


# Parquet.


def test_typed_columns_of_parquet():
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("text", pa.large_string()),
            ("day", pa.date32()),
            ("at", pa.timestamp("ns", "UTC")),
            ("took", pa.duration("ns")),
            ("price", pa.decimal128(10, 2)),
            ("tags", pa.list_(pa.string())),
            ("nested", pa.struct([("a", pa.list_(pa.int8()))])),
            ("kind", pa.dictionary(pa.int8(), pa.string())),
            ("score", pa.float32()),
        ]
    )
    row = {
        "id": 7,
        "text": "body",
        "day": dt.date(2024, 1, 2),
        "at": 1_700_000_000_123_456_789,
        "took": 1_500_000_001,
        "price": Decimal("9.99"),
        "tags": ["a", None],
        "nested": {"a": [1, 2]},
        "kind": "k",
        "score": None,
    }
    (found,) = read(table([row], schema), "parquet")
    assert found.record == {
        "id": 7,
        "text": "body",
        "metadata": {
            "day": "2024-01-02",
            "at": "2023-11-14T22:13:20.123456+00:00",
            "took": 1.5,
            "price": 9.99,
            "tags": ["a", None],
            "nested": {"a": [1, 2]},
            "kind": "k",
            "score": None,
        },
    }


def test_rows_of_all_row_groups_are_numbered_through():
    rows = [{"id": str(n), "text": f"text {n}"} for n in range(2500)]
    found = read(table(rows, row_group_size=700), "parquet")
    assert [one.record["id"] for one in found] == [str(n) for n in range(2500)]
    assert [one.position for one in found] == list(range(1, 2501))


def test_a_parquet_file_may_be_a_path_and_compressed(tmp_path):
    import gzip

    content = table([{"id": "1", "text": "x"}])
    (tmp_path / "a.parquet").write_bytes(content)
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress(content))
    assert [one.record["id"] for one in Files(tmp_path)] == ["1", "1"]


@pytest.mark.parametrize("content", [b"", b"no parquet", table([{"id": "1", "text": "x"}])[:-20]])
def test_a_damaged_parquet_file_is_rejected(content):
    (found,) = read(content, "parquet")
    assert found.reason.startswith("not Parquet: ")


def test_a_row_group_that_is_damaged_costs_itself_only():
    rows = [{"id": str(n), "text": "text " * 50} for n in range(30)]
    content = bytearray(table(rows, row_group_size=10, compression="snappy", use_dictionary=False))
    group = pq.ParquetFile(io.BytesIO(bytes(content))).metadata.row_group(1)
    start = group.column(1).data_page_offset
    content[start : start + 60] = b"\xff" * 60
    found = read(bytes(content), "parquet")
    good = [one.record["id"] for one in found if isinstance(one, Located)]
    assert good == [str(n) for n in (*range(10), *range(20, 30))]
    (bad,) = (one for one in found if isinstance(one, Rejection))
    assert bad.position == 11
    assert bad.reason.startswith("row group 2 cannot be read from row 11 on: ")


def test_a_row_that_python_cannot_hold_is_rejected_between_good_ones():
    texts = pa.array([b"a", b"caf\xe9", b"c"], pa.binary()).view(pa.string())
    days = pa.array([0, 0, 10**8], pa.int32()).view(pa.date32())
    out = io.BytesIO()
    pq.write_table(pa.table({"id": ["1", "2", "3"], "text": texts, "day": days}), out)
    first, bad, last = read(out.getvalue(), "parquet")
    assert first.record == {"id": "1", "text": "a", "metadata": {"day": "1970-01-01"}}
    assert bad.reason.startswith("row 2 cannot be read: ")
    assert last.reason.startswith("row 3 cannot be read: ")


def test_columns_that_are_not_asked_for_are_not_read(monkeypatch):
    asked = []
    kept = pq.ParquetFile.iter_batches

    def watched(self, *arguments, **options):
        asked.append(options["columns"])
        return kept(self, *arguments, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    content = table([{"id": "1", "text": "x", "picture": b"x" * 1000, "year": 1}])
    (found,) = read(content, "parquet", Columns(metadata=("year",)))
    assert found.record["metadata"] == {"year": 1}
    assert asked == [["id", "text", "year"]]


def test_rows_that_are_large_come_in_small_batches(monkeypatch):
    sizes = []
    kept = parquet._located

    def watched(arrow, batch, *rest):
        sizes.append(batch.num_rows)
        return kept(arrow, batch, *rest)

    monkeypatch.setattr(parquet, "_located", watched)
    rows = [{"id": str(n), "text": f"{n}" + "x" * 1_000_000} for n in range(20)]
    assert len(read(table(rows, use_dictionary=False, compression="none"), "parquet")) == 20
    assert max(sizes) <= 8
