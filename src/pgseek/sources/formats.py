"""The formats a source may have, and the endings they are known by."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal, get_args

from pgseek.errors import InvalidInput

# Programming languages have the names that tree-sitter's grammars are published under.
Language = Literal[
    "bash",
    "c",
    "clojure",
    "cpp",
    "csharp",
    "css",
    "dart",
    "elixir",
    "erlang",
    "go",
    "haskell",
    "java",
    "javascript",
    "julia",
    "kotlin",
    "lua",
    "perl",
    "php",
    "python",
    "r",
    "ruby",
    "rust",
    "scala",
    "sql",
    "swift",
    "tsx",
    "typescript",
    "zig",
]
Format = Literal["text", "markdown", "html", "pdf", "docx", "jsonl", "csv", "tsv", "parquet"] | Language
LANGUAGES: tuple[Language, ...] = get_args(Language)
FORMATS: tuple[Format, ...] = (
    "text",
    "markdown",
    "html",
    "pdf",
    "docx",
    "jsonl",
    "csv",
    "tsv",
    "parquet",
    *LANGUAGES,
)
# Files of these hold many documents, a record each; a file of any other is one document.
ROWS: tuple[Format, ...] = ("jsonl", "csv", "tsv", "parquet")
# Reading these takes a processor longer than anything else done with them.
PARSED: tuple[Format, ...] = ("html", "pdf", "docx")

_ENDINGS: dict[Format, str] = {
    "text": ".txt .text .rst",
    "markdown": ".md .markdown .mdx",
    "html": ".html .htm .xhtml",
    "pdf": ".pdf",
    "docx": ".docx",
    "jsonl": ".jsonl .ndjson",
    "csv": ".csv",
    "tsv": ".tsv",
    "parquet": ".parquet",
    "bash": ".sh .bash",
    "c": ".c .h",
    "clojure": ".clj .cljs .cljc",
    "cpp": ".cpp .cc .cxx .hpp .hh .hxx",
    "csharp": ".cs",
    "css": ".css",
    "dart": ".dart",
    "elixir": ".ex .exs",
    "erlang": ".erl .hrl",
    "go": ".go",
    "haskell": ".hs",
    "java": ".java",
    "javascript": ".js .mjs .cjs .jsx",
    "julia": ".jl",
    "kotlin": ".kt .kts",
    "lua": ".lua",
    "perl": ".pl .pm",
    "php": ".php",
    "python": ".py .pyi",
    "r": ".r",
    "ruby": ".rb",
    "rust": ".rs",
    "scala": ".scala",
    "sql": ".sql",
    "swift": ".swift",
    "tsx": ".tsx",
    "typescript": ".ts .mts .cts",
    "zig": ".zig",
}
_OF: dict[str, Format] = {ending: name for name, all_ in _ENDINGS.items() for ending in all_.split()}
ENDINGS = tuple(_OF)
# What a message lists: the endings of code are many, and known to who writes it.
TOLD = f"{', '.join(e for e in ENDINGS if _OF[e] not in LANGUAGES)}, and those of source code (.py, .js, …)"
TOLD_FORMATS = f"{', '.join(f for f in FORMATS if f not in LANGUAGES)}, or a language such as python"


def ending_of(path: PurePath) -> str:
    """Return the ending that tells the format, in lower case; ``.gz`` is looked through."""
    return PurePath(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()


def format_of(path: PurePath) -> Format | None:
    """Return the format that a file's ending implies, None for an unknown ending."""
    return _OF.get(ending_of(path))


def check_format(given: str | None) -> None:
    """Raise `InvalidInput` unless ``given`` is None or a format."""
    if given is not None and given not in FORMATS:
        raise InvalidInput(f"format is {given!r}, but must be one of {TOLD_FORMATS}")
