"""Source code: parts by the definitions of a tree-sitter grammar, where one is installed, else by lines.

The extra ``code`` brings the grammars, a package each: they hold their parser, and nothing is fetched later.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from itertools import pairwise
from typing import Any

from semantic_text_splitter import CodeSplitter

from pgseek.chunking.layout import Lines, Part, Place, Span, Splitter, joined


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar's module, its function that makes the language, and what it calls definitions.

    ``definitions`` are nodes with a field "name"; ``patterns`` are others, with captures @of and @name.
    """

    module: str
    function: str
    definitions: tuple[str, ...]
    patterns: str = ""

    @property
    def query(self) -> str:
        """The query that finds definitions, whole and by name."""
        return " ".join(f"({node} name: (_) @name) @of" for node in self.definitions) + " " + self.patterns


_SCRIPT = (
    "class_declaration",
    "function_declaration",
    "generator_function_declaration",
    "method_definition",
)
_TYPED = (
    *_SCRIPT,
    "abstract_class_declaration",
    "interface_declaration",
    "enum_declaration",
    "type_alias_declaration",
    "internal_module",
)
_EXPORTED = "(export_statement declaration: (_ name: (_) @name)) @of"
_C_FUNCTIONS = """
(function_definition declarator: (function_declarator declarator: (_) @name)) @of
(function_definition
  declarator: (pointer_declarator declarator: (function_declarator declarator: (_) @name))) @of
"""
_CLASS = ("class_declaration", "interface_declaration", "enum_declaration", "method_declaration")

LANGUAGES: dict[str, Grammar] = {
    "python": Grammar(
        "tree_sitter_python",
        "language",
        ("class_definition", "function_definition"),
        "(decorated_definition definition: (_ name: (_) @name)) @of",
    ),
    "javascript": Grammar("tree_sitter_javascript", "language", _SCRIPT, _EXPORTED),
    "typescript": Grammar("tree_sitter_typescript", "language_typescript", _TYPED, _EXPORTED),
    "tsx": Grammar("tree_sitter_typescript", "language_tsx", _TYPED, _EXPORTED),
    "go": Grammar(
        "tree_sitter_go",
        "language",
        ("function_declaration", "method_declaration"),
        "(type_declaration (type_spec name: (_) @name)) @of",
    ),
    "rust": Grammar(
        "tree_sitter_rust",
        "language",
        (
            "struct_item",
            "enum_item",
            "union_item",
            "trait_item",
            "mod_item",
            "function_item",
            "macro_definition",
        ),
        "(impl_item type: (_) @name) @of",
    ),
    "java": Grammar(
        "tree_sitter_java", "language", (*_CLASS, "constructor_declaration", "record_declaration")
    ),
    "c": Grammar("tree_sitter_c", "language", ("struct_specifier", "enum_specifier"), _C_FUNCTIONS),
    "cpp": Grammar(
        "tree_sitter_cpp",
        "language",
        ("class_specifier", "struct_specifier", "enum_specifier", "namespace_definition"),
        _C_FUNCTIONS,
    ),
    "csharp": Grammar(
        "tree_sitter_c_sharp",
        "language",
        (
            *_CLASS,
            "namespace_declaration",
            "struct_declaration",
            "record_declaration",
            "constructor_declaration",
        ),
    ),
    "ruby": Grammar("tree_sitter_ruby", "language", ("class", "module", "method", "singleton_method")),
    "php": Grammar("tree_sitter_php", "language_php", (*_CLASS, "trait_declaration", "function_definition")),
    "bash": Grammar("tree_sitter_bash", "language", ("function_definition",)),
}
# What stands before a definition and belongs to it.
LEADING = frozenset({"comment", "line_comment", "block_comment", "attribute_item", "decorator"})


@dataclass(frozen=True, slots=True)
class Definition:
    """A named piece of code, in characters; ``parent`` is the place of the one around it, -1 for none."""

    start: int
    end: int
    name: str
    parent: int


@dataclass(frozen=True, slots=True)
class Parser:
    """What is loaded of a language: the grammar for the splitter, a parser, and the query for definitions."""

    language: Any
    parser: Any
    query: Any


class Code(Lines):
    """The outline of a source file. Chunks stand under the definitions that hold the whole of them."""

    def __init__(self, text: str, parser: Parser) -> None:
        super().__init__(text)
        self._language = parser.language
        content = text.encode()
        root = parser.parser.parse(content).root_node
        nodes = [(n.start_byte, n.end_byte, n.type in LEADING) for n in root.children]
        borders: list[int] = []
        # Where a definition begins, with what leads to it.
        led: dict[int, int] = {}
        lead: int | None = None
        for start, _, leading in nodes:
            borders += [start] if lead is None else []
            lead = start if lead is None else lead
            if not leading:
                led[start] = lead
                lead = None
        named = [
            (led.get(of.start_byte, of.start_byte), of.end_byte, found["name"][0])
            for _, found in parser.query(root)
            for of in found["of"]
        ]
        named.sort(key=lambda d: (d[0], -d[1]))
        places = (byte for start, end, name in named for byte in (start, end, name.start_byte, name.end_byte))
        character = _characters(content, [*borders, *places])
        self._borders = [character[byte] for byte in borders]
        self._definitions: list[Definition] = []
        around: list[int] = []
        known: set[int] = set()
        for start_byte, end_byte, name in named:
            if name.start_byte in known:
                # A decorated or exported definition, again without what leads to it.
                continue
            known.add(name.start_byte)
            start, end = character[start_byte], character[end_byte]
            while around and self._definitions[around[-1]].end < end:
                around.pop()
            words = " ".join(text[character[name.start_byte] : character[name.end_byte]].split())[:200]
            self._definitions.append(Definition(start, end, words, around[-1] if around else -1))
            around.append(len(self._definitions) - 1)
        self._starts = [definition.start for definition in self._definitions]

    def splitter(self, size: int, overlap: int) -> Splitter:
        """Return the splitter that prefers the borders of the syntax tree."""
        made: Splitter = CodeSplitter(self._language, size, overlap=overlap)
        return made

    def parts(self, span: Span, size: int) -> list[Part]:
        """Return what stands at the top level, comments with what follows them, short ones together."""
        first, last = span
        begin, stop = bisect_right(self._borders, first), bisect_right(self._borders, last - 1)
        edges = [first, *self._borders[begin:stop], last]
        return joined([Part(a, b) for a, b in pairwise(edges) if a < b], size)

    def place(self, start: int, end: int) -> Place:
        """Return the names of the definitions around a chunk, outermost first, and its lines."""
        n = bisect_right(self._starts, start) - 1
        path: list[str] = []
        while n >= 0:
            definition = self._definitions[n]
            if definition.end >= end:
                path.insert(0, definition.name)
            n = definition.parent
        lines = {"lines": self.lines(start, end)}
        return tuple(path), {"heading": path, **lines} if path else lines


def outline(language: str, text: str) -> Lines:
    """Return the outline of a source file; without the language's grammar only its lines are known."""
    parser = load(language)
    return Lines(text) if parser is None else Code(text, parser)


@lru_cache
def load(language: str) -> Parser | None:
    """Return the parser of a language, None if the extra ``code`` is not installed."""
    grammar = LANGUAGES[language]
    try:
        tree_sitter = import_module("tree_sitter")
        capsule = getattr(import_module(grammar.module), grammar.function)()
    except ImportError:
        return None
    made = tree_sitter.Language(capsule)
    query = tree_sitter.Query(made, grammar.query)
    return Parser(
        capsule, tree_sitter.Parser(made), lambda node: tree_sitter.QueryCursor(query).matches(node)
    )


def _characters(content: bytes, places: Iterable[int]) -> dict[int, int]:
    """Return the character that stands at each of these bytes."""
    if content.isascii():
        return {byte: byte for byte in places}
    found: dict[int, int] = {}
    before = characters = 0
    for byte in sorted(set(places)):
        characters += len(content[before:byte].decode())
        before = byte
        found[byte] = characters
    return found
