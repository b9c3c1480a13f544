"""Whatever a user pastes finds its exact text first, among near misses in the same sentences."""

from __future__ import annotations

import pytest
from support import CountingEmbedder

from pgseek import Client

# The string, and what is near it. Every one is a document; the string is the query.
TABLE = {
    # Error codes and tickets.
    "E-4021": ["E-4022", "E 4021 x", "e4021", "F-4021", "err_4021"],
    "err_4021": ["err_4022", "err-4021", "err 4021", "errors_4021"],
    "ERR4021": ["ERR4022", "ERR 4021", "XERR4021"],
    "CVE-2024-3094": ["CVE-2024-3095", "CVE-2023-3094", "CVE 2024 3094", "2024-3094"],
    "HADOOP-17912": ["HADOOP-17913", "HDFS-17912", "HADOOP 17912", "17912"],
    "RFC-9562": ["RFC-9563", "RFC 9562 and others", "9562"],
    "ISO-8859-1": ["ISO-8859-15", "ISO-8859-2", "8859-1"],
    "ORA-00942": ["ORA-00943", "ORA 942", "00942"],
    "KB5034441": ["KB5034442", "5034441"],
    "0x80070005": ["0x80070006", "80070005"],
    "errno=13": ["errno=14", "errno 23"],
    # Versions and numbers.
    "v1.2.3-rc1": ["v1.2.3-rc2", "v1.2.3", "v1.2.4-rc1", "1.2.3-rc1"],
    "2.7.18": ["2.7.1", "2.7.8", "27.18", "2.7.18.1"],
    "3.14": ["3.14.1", "3.141", "31.4", "3 and 14"],
    "1e-05": ["1e-06", "1e05"],
    "10.5.3-alpha": ["10.5.3-beta", "10.5.3"],
    "2024-02-29": ["2024-02-28", "2023-02-29"],
    "192.168.0.1": ["192.168.0.10", "192.168.1.0", "192.168.0.11", "168.192.0.1"],
    "127.0.0.1:8080": ["127.0.0.1:8081", "127.0.0.1", "127.0.1.1:8080"],
    "fe80::1ff:fe23:4567:890a": ["fe80::1ff:fe23:4567:890b", "fe80::1ff"],
    # Names of code.
    "functools.lru_cache": ["functools.cache", "functools lru cache", "functools.lru_caches", "lru_cache"],
    "os.path.join": ["os.path.joins", "os.path", "os path join", "posix.path.join"],
    "java.lang.NullPointerException": ["java.lang.NumberFormatException", "java.lang.NullPointerExceptions"],
    "camelCaseName": ["camelCaseNames", "camelCase", "camel case name", "CamelCasedName"],
    "getUserById": ["getUsersById", "getUserByIds", "get user by id", "getUserByName"],
    "HTTPServerError": ["HTTPServerErrors", "HTTPServer", "HTTP server error", "HTTPClientError"],
    "snake_case_name": ["snake_case_names", "snake-case-name", "snake case name", "snake_case"],
    "__init__": ["init", "__init", "__initialize__", "_init_"],
    "_private": ["private", "__private"],
    "std::vector": ["std::vectors", "std vector", "std::vec"],
    "Foo::Bar::baz": ["Foo::Bar::bar", "Foo::Baz", "Foo Bar baz"],
    "HashMap$Node": ["HashMap.Node", "HashMap Node", "HashMap$Nodes"],
    "$HOME": ["HOME", "$HOMES", "$home_dir"],
    "@Override": ["Override", "@Overrides"],
    "#hashtag": ["hashtag", "#hashtags", "hash tag"],
    "--dry-run": ["--dry-runs", "dry run", "--dry"],
    "-Xmx4g": ["-Xmx8g", "-Xms4g", "Xmx"],
    "kebab-case-name": ["kebab-case-names", "kebab case name", "kebab_case_name"],
    "dfs.namenode.handler.count": [
        "dfs.datanode.handler.count",
        "dfs.namenode.handler",
        "dfs.namenode.handler.counts",
    ],
    "scikit-learn": ["scikit-image", "scikit learn", "scikit-learns"],
    "x86_64": ["x86", "x86-64", "x64_86"],
    "utf8mb4": ["utf8", "utf8mb3"],
    "SHA-256": ["SHA-512", "SHA 256 sums", "SHA-2"],
    # Languages and companies with signs.
    "C++": ["C", "C#", "C+", "C language"],
    "C#": ["C", "C++", "F#", "C sharp"],
    "F#": ["F", "C#", "F major"],
    ".NET": ["NET", "net income", "ASP.NET", "dot net"],
    "ASP.NET": ["ASP", ".NET", "asp net", "ASP.NETS"],
    "Node.js": ["Node", "Node.jsx", "js node", "Next.js"],
    "AT&T": ["AT T", "ATT", "T&T", "AT&T2"],
    "R&D": ["R D", "RD", "R&B"],
    "g++": ["g", "g+", "gcc"],
    "notepad++": ["notepad", "notepad+"],
    # Paths, addresses, URLs.
    "path/to/file.py": ["path/to/file.pyc", "path/to/files.py", "path/to/file", "path to file.py"],
    "/etc/passwd": ["/etc/password", "etc passwd", "/etc/shadow"],
    "~/.bashrc": [".bashrc_old", "~/.bash_profile", "bashrc"],
    ".gitignore": ["gitignore", ".gitignored", ".gitattributes"],
    "C:\\Windows\\System32\\drivers": ["C:\\Windows\\System\\drivers", "Windows System32 drivers"],
    "main.go:42": ["main.go:43", "main.go", "main go 42"],
    "foo@bar.com": ["foo@bar.org", "foos@bar.com", "bar.com", "foo bar com"],
    "https://example.com/docs/page.html": [
        "https://example.com/docs/page2.html",
        "https://example.com/docs",
        "https://example.org/docs/page.html",
    ],
    "sub.domain.example.org": ["domain.example.org", "sub.domain.example.com", "sub.domains.example.org"],
    "s3://bucket/key.parquet": ["s3://bucket/key.csv", "s3://buckets/key.parquet"],
    # Hashes and other long strings.
    "550e8400-e29b-41d4-a716-446655440000": [
        "550e8400-e29b-41d4-a716-446655440001",
        "550e8401-e29b-41d4-a716-446655440000",
    ],
    "d41d8cd98f00b204e9800998ecf8427e": ["d41d8cd98f00b204e9800998ecf8427f", "d41d8cd98f00b204"],
    "8e296a067a37563370ded05f5a3bf3ec": ["8e296a067a37563370ded05f5a3bf3ed", "8e296a06"],
    "3b18e512dba79e4c8300dd08aeb37f8e728b8dad": ["3b18e512dba79e4c8300dd08aeb37f8e728b8dae", "3b18e51"],
    "AKIAIOSFODNN7EXAMPLE": ["AKIAIOSFODNN8EXAMPLE", "AKIA EXAMPLE"],
    "naïve-Bayes": ["naïve-Bays", "naive bayesian", "Bayes"],
    "Größe_Feld": ["Größe_Felder", "Grösse Feld", "Größe"],
}
SENTENCE = "In the report of last week somebody wrote {} and asked what it means."


@pytest.fixture(scope="module")
def pasted(module_dsn):
    """The table as a collection with the offline embedder, so that the dense leg takes part."""
    with Client(module_dsn) as client:
        docs = client.create_collection("docs")
        texts = [text for exact, near in TABLE.items() for text in (exact, *near)]
        docs.ingest({"id": text, "text": SENTENCE.format(text)} for text in dict.fromkeys(texts))
        yield docs


def test_the_table_is_as_large_as_promised():
    assert len(TABLE) >= 60
    assert all(near for near in TABLE.values())


@pytest.mark.parametrize("wanted", TABLE)
@pytest.mark.parametrize("options", [{}, {"alpha": 0}], ids=["hybrid", "lexical"])
def test_the_exact_string_comes_first(pasted, wanted, options):
    first, *others = pasted.search(wanted, k=3, **options)
    assert first.id == wanted
    # Not by the luck of a tie.
    assert all(first.score > other.score for other in others)


@pytest.mark.parametrize("wanted", TABLE)
def test_in_another_case_it_is_found_too(pasted, wanted):
    assert wanted in [hit.id for hit in pasted.search(wanted.swapcase(), k=3, alpha=0)]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("lru cache", "functools.lru_cache"),
        ("case name", "camelCaseName"),
        ("user id", "getUserById"),
        ("server error", "HTTPServerError"),
        ("snake", "snake_case_name"),
        ("file.py", "path/to/file.py"),
        ("page.html", "https://example.com/docs/page.html"),
        ("bar.com", "foo@bar.com"),
        ("NullPointerException", "java.lang.NullPointerException"),
        ("namenode handler", "dfs.namenode.handler.count"),
        ("main.go", "main.go:42"),
        ("drivers", "C:\\Windows\\System32\\drivers"),
    ],
)
def test_a_name_is_found_by_its_parts(pasted, query, wanted):
    assert wanted in [hit.id for hit in pasted.search(query, k=10, alpha=0)]


@pytest.mark.parametrize(
    "wanted", ["functools.lru_cache", "path/to/file.py", "C++", ".NET", "camelCaseName", "E-4021"]
)
def test_a_name_is_marked_whole_in_the_snippet(pasted, wanted):
    hit = pasted.search(wanted, k=1, highlight=("[", "]"))[0]
    assert f"[{wanted}]" in hit.snippet


def test_a_name_in_a_question_is_found(pasted):
    hits = pasted.search("what does error E-4021 mean in the report", k=1, alpha=0)
    assert hits[0].id == "E-4021"


def test_the_c_of_c_plus_plus_is_not_the_word_c(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest(
        [
            {"id": "c", "text": "written in C long ago"},
            {"id": "c++", "text": "written in C++ long ago"},
            {"id": "c#", "text": "written in C# long ago"},
        ]
    )
    assert [hit.id for hit in docs.search("C", alpha=0)] == ["c"]
    assert [hit.id for hit in docs.search("c++", alpha=0)] == ["c++"]
    assert [hit.id for hit in docs.search("C#", alpha=0)] == ["c#"]
    assert docs.search("C++", alpha=0)[0].snippet == "written in <b>C++</b> long ago"
