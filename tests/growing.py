"""The rules that keep pgseek's tables shardable and its searches fit for a standby, each as a check of its own.

A check returns what breaks its rule, as text; nothing broken is an empty list. The checks of texts know no
more of SQL than they need: comments are taken out, parentheses counted.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from support import rows

SOURCE = Path(__file__).parents[1] / "src" / "pgseek"
# Small, read by every statement, and copied to every node: they name no document.
REFERENCE = ("collections", "embedding_spaces", "space_probes", "tenant_roles")

_CONSTRAINTS = """
SELECT t.relname AS table, c.conname AS name, c.contype AS kind, f.relname AS of_table, c.confdeltype, c.confupdtype,
       ARRAY(SELECT a.attname::text FROM unnest(c.conkey) k JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k)
         AS columns,
       ARRAY(SELECT a.attname::text FROM unnest(c.confkey) k JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k)
         AS of_columns
  FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid LEFT JOIN pg_class f ON f.oid = c.confrelid
 WHERE t.relnamespace = 'pgseek'::regnamespace AND c.contype IN ('p', 'u', 'x', 'f')
 ORDER BY 1, 2
"""
# Those of constraints among them.
_UNIQUE_INDEXES = """
SELECT t.relname AS table, x.relname AS name,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey) k JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k)
         AS columns
  FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
 WHERE t.relnamespace = 'pgseek'::regnamespace AND i.indisunique
 ORDER BY 1, 2
"""
_COLUMNS = """
SELECT t.relname AS table, a.attname::text AS column, a.atttypid::regtype::text AS type, a.attidentity <> '' AS counts_up
  FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid
 WHERE t.relnamespace = 'pgseek'::regnamespace AND t.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY 1, a.attnum
"""
_TRIGGERS = """
SELECT t.relname AS table, g.tgname AS name FROM pg_trigger g JOIN pg_class t ON t.oid = g.tgrelid
 WHERE t.relnamespace = 'pgseek'::regnamespace AND NOT g.tgisinternal ORDER BY 1, 2
"""
_FUNCTIONS = """
SELECT p.proname AS name, l.lanname AS language, coalesce(p.proconfig, '{}') AS settings
  FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
 WHERE p.pronamespace = 'pgseek'::regnamespace ORDER BY 1
"""


def keys(dsn):
    """Every key carries the columns that a table may be sharded by, so that a shard can keep it alone."""
    columns = _columns(dsn)
    problems = []
    for index in rows(dsn, _UNIQUE_INDEXES):
        missing = _sharding(columns, index["table"]) - set(index["columns"])
        if missing:
            problems.append(f"{index['table']}: {index['name']} is unique without {_names(missing)}")
    for found in rows(dsn, _CONSTRAINTS):
        missing = _sharding(columns, found["table"]) - set(found["columns"])
        if found["kind"] == "x":
            problems.append(f"{found['table']}: {found['name']} excludes rows of several shards")
        elif found["kind"] == "f":
            problems += _foreign_key(columns, found, missing)
    return problems


def _foreign_key(columns, found, missing):
    place = f"{found['table']}: {found['name']}"
    if found["confdeltype"] in "nd" or found["confupdtype"] in "ndc":
        yield f"{place} changes key columns of another shard"
    if found["of_table"] in REFERENCE:
        return
    if found["table"] in REFERENCE:
        yield f"{place} leads from a copied table to a sharded one"
    elif not _sharding(columns, found["of_table"]):
        yield f"{place} leads to {found['of_table']}, which is neither sharded nor copied"
    elif missing:
        yield f"{place} lacks {_names(missing)}"
    elif any(found["of_columns"][found["columns"].index(c)] != c for c in _sharding(columns, found["table"])):
        yield f"{place} matches a sharding column with another"


def types(dsn):
    """A column that tables are sharded by has one type in all of them, or their shards do not meet."""
    expected = {"collection_id": "integer", "document_id": "uuid"}
    return [
        f"{row['table']}.{row['column']} is {row['type']}"
        for row in rows(dsn, _COLUMNS)
        if expected.get(row["column"], row["type"]) != row["type"]
    ]


def counters(dsn):
    """No sharded table draws its keys from a sequence: each node would draw its own."""
    columns = _columns(dsn)
    return [
        f"{row['table']}.{row['column']} counts up"
        for row in rows(dsn, _COLUMNS)
        if row["counts_up"] and _sharding(columns, row["table"])
    ]


def triggers(dsn):
    """No trigger on a table of ours: it would run on one node and see that node's rows."""
    return [f"{row['table']}: trigger {row['name']}" for row in rows(dsn, _TRIGGERS)]


def functions(dsn):
    """PL/pgSQL plans with the values of its parameters; LANGUAGE sql is inlined with none."""
    problems = []
    for function in rows(dsn, _FUNCTIONS):
        if function["language"] != "plpgsql":
            problems.append(f"{function['name']} is LANGUAGE {function['language']}")
        problems += [
            f"{function['name']} has SET {setting}, which does not reach other nodes"
            for setting in function["settings"]
            if re.match(r"(hnsw|ivfflat)\.", setting)
        ]
    return problems


def queue(dsn):
    """The queue is a plain table: nothing leads from it, nothing to it."""
    return [
        f"{found['table']}: {found['name']}"
        for found in rows(dsn, _CONSTRAINTS)
        if found["kind"] == "f" and "ingest_queue" in {found["table"], found["of_table"]}
    ]


def _columns(dsn):
    found: dict[str, set[str]] = {}
    for row in rows(dsn, _COLUMNS):
        found.setdefault(row["table"], set()).add(row["column"])
    return found


def _sharding(columns, table):
    """The columns that a table may be sharded by; none for a table that is copied or stays where it is."""
    return set() if table in REFERENCE else {"collection_id", "document_id"} & columns[table]


def _names(columns):
    return " and ".join(sorted(columns))


def texts() -> Iterator[tuple[str, str]]:
    """Yield where it stands and the text of all SQL there is: the functions', and what Python sends."""
    for path in sorted((SOURCE / "db" / "sql").glob("*.sql")):
        yield path.name, without_comments(path.read_text())
    for path in sorted(SOURCE.rglob("*.py")):
        for number, text in strings(path.read_text()):
            if re.search(r"\b(SELECT|INSERT|UPDATE|DELETE|SET|CREATE|ALTER|DROP|COPY)\b", text):
                yield f"{path.relative_to(SOURCE)}:{number}", without_comments(text)


def strings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the strings of a Python source that are values, with their lines; what is put in is a {}."""
    tree = ast.parse(source)
    skipped = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            skipped.add(id(first.value))
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


def without_comments(text: str) -> str:
    return re.sub(r"--[^\n]*", "", text)


# What an expression may call that is the same on every node at every time.
_IMMUTABLE = {"coalesce", "greatest", "least", "nullif", "make_interval"}


def upserts(text: str) -> list[str]:
    """DO UPDATE uses excluded, constants and the row: the clock and the like differ from node to node."""
    problems = []
    for match in re.finditer(r"\bDO\s+UPDATE\s+SET\b", text, re.IGNORECASE):
        clause = re.split(r"\bRETURNING\b", _up_to_the_end(text[match.end() :]), flags=re.IGNORECASE)[0]
        called = {name.lower() for name in re.findall(r"([\w.]+)\s*\(", clause)} - _IMMUTABLE
        called -= {"set", "and", "or", "not", "where", "in", "any"}
        clocks = re.findall(r"\b(?:CURRENT|LOCAL)_?(?:TIMESTAMP|TIME|DATE)\b", clause, re.IGNORECASE)
        problems += [f"DO UPDATE calls {name}" for name in sorted(called | {c.lower() for c in clocks})]
    return problems


def settings(text: str) -> list[str]:
    """hnsw.* and ivfflat.* are set by SET LOCAL as written; nothing else is sent to other nodes."""
    problems = []
    for match in re.finditer(r"\b(?:hnsw|ivfflat)\.\w+", text):
        before = text[: match.start()]
        # Or it is read, or names what was read.
        kept = re.match(r"', coalesce\(current_setting\('", text[match.end() :])
        if not kept and not re.search(r"(\bSET LOCAL |current_setting\('|->> ')$", before):
            line = before.rsplit("\n", 1)[-1] + match.group()
            problems.append(f"not by SET LOCAL: {line.strip()}")
    return problems


# Beginnings of statements, so that columns such as updated_at and words such as "for update" in texts do not count.
_WRITES = re.compile(
    r"\b(INSERT\s+INTO|UPDATE\s+[\w.%{]+(\s+(AS\s+)?\w+)?\s+SET|DELETE\s+FROM|MERGE\s+INTO|TRUNCATE|COPY\s"
    r"|CREATE\s+(TEMP|TABLE|INDEX|UNLOGGED)|ALTER\s|DROP\s|SELECT\b[^;]*?\bINTO\s+TEMP|LOCK\s+TABLE"
    r"|FOR\s+(NO\s+KEY\s+)?UPDATE|FOR\s+(KEY\s+)?SHARE|pg_notify|NOTIFY\s|nextval|setval"
    r"|pg_advisory\w*|pg_temp\.)",
    re.IGNORECASE,
)


def writes(text: str) -> list[str]:
    """What a standby refuses: writes, temporary tables, locks of rows."""
    body = text.split("$function$")[1] if "$function$" in text else text
    return [" ".join(match.group().split()) for match in _WRITES.finditer(body)]


def legs(statement: str) -> list[str]:
    """Each leg limits by itself and gives places in a second step, and no vector leaves it.

    Then the limit is applied where the rows are, by the index that has their order, and keys and scores are
    all that travels.
    """
    named = dict(_with(without_comments(statement)))
    found = [name for name in ("dense", "lexical") if name in named]
    if not found:
        return ["no leg"]
    problems = []
    for name in found:
        body = named[name]
        if not re.search(r"\bORDER BY\b.*\bLIMIT\b", body, re.DOTALL):
            problems.append(f"{name} does not limit in its own order")
        if re.search(r"\bOVER\s*\(|row_number", body):
            problems.append(f"{name} gives places where it limits")
        ranked = [n for n, b in named.items() if "row_number()" in b and re.search(rf"\bFROM {name}\b", b)]
        if not ranked:
            problems.append(f"{name} is not given places by a second step")
    for name, body in named.items():
        # As an operand it is used up; anything else would carry it on.
        if re.search(r"\be\.(embedding\s*(,|AS\b|FROM\b|$)|\*)", _outputs(body)):
            problems.append(f"{name} carries the vectors themselves")
    return problems


def _outputs(body: str) -> str:
    match = re.match(r"\s*SELECT\b(.*?)\bFROM\b", body, re.DOTALL)
    return match.group(1) + " FROM" if match else body


def _with(statement: str) -> Iterator[tuple[str, str]]:
    """Yield the names and bodies of a WITH list."""
    place = re.search(r"\bWITH\b", statement)
    rest = statement[place.end() :] if place else ""
    while match := re.match(r"\s*(\w+)\s+AS\s+(?:(?:NOT\s+)?MATERIALIZED\s+)?\(", rest):
        body = _up_to_the_end(rest[match.end() :])
        yield match.group(1), body
        rest = re.sub(r"^\s*,", "", rest[match.end() + len(body) + 1 :])


def _up_to_the_end(text: str) -> str:
    """Return the text up to the parenthesis or semicolon that ends what it began in."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth < 0 or (sign == ";" and depth == 0):
            return text[:place]
    return text
