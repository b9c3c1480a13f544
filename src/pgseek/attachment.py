"""A table that a collection follows: what is read of it, and the SQL that keeps the two in step.

Statement-level triggers hand the rows of a statement, from its transition tables, to ``pgseek.follow_rows``.
Rows become documents by way of ``to_jsonb``, under pinned settings, so that an id of any type is always the
same text. Everything is emitted for review and belongs to the table's owner; ``pgseek`` knows an attachment
again by the comment on its trigger function.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from psycopg.sql import Identifier, Literal

# Names are cut at this many bytes.
MAX_NAME = 63
MARK = "pgseek attach "
# Texts are cut just above what pgseek takes, so that one row cannot make a batch too large to be built.
MAX_TEXT = 8_000_001
BATCH = 500
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Attachment:
    """Which columns of a table make the documents of which collection.

    ``key`` is the unique index, in its order, that the back-fill walks along; ``base`` begins the names of
    what is made. Column names are as in the catalogue.
    """

    schema: str
    table: str
    collection: str
    id: tuple[str, ...]
    text: tuple[str, ...]
    key: tuple[str, ...]
    title: str | None = None
    metadata: tuple[str, ...] = ()
    language: str | None = None
    security_definer: bool = False
    base: str = ""
    # Of the collection: who writes to the table may work for another, or for none.
    tenant: str = ""

    def __post_init__(self) -> None:
        for name in ("id", "text", "key", "metadata"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.base:
            base = "_".join(("pgseek", self.table, self.collection, *self._of))
            object.__setattr__(self, "base", base)

    @property
    def _of(self) -> tuple[str, ...]:
        return (self.tenant,) if self.tenant else ()

    @property
    def comment(self) -> str:
        """What the trigger function's comment says: enough to make all of this again."""
        kept = {name: value for name, value in asdict(self).items() if name not in ("schema", "table", "key")}
        return MARK + json.dumps(kept, ensure_ascii=False)

    @property
    def full_name(self) -> str:
        """The table's quoted name with its schema."""
        return f"{self._schema}.{quoted(self.table)}"

    @property
    def function(self) -> str:
        """The trigger function's quoted name."""
        return f"{self._schema}.{quoted(cut(self.base))}"

    @property
    def document_function(self) -> str:
        """The quoted name of the function that makes a document of a row."""
        return f"{self._schema}.{quoted(cut(self.base, '_document'))}"

    @property
    def _schema(self) -> str:
        # The first of a name may not be a keyword.
        return "public" if self.schema == "public" else Identifier(self.schema).as_string()

    def trigger(self, event: str) -> str:
        """The quoted name of the trigger of an event; it is the table's, whatever that is called."""
        return quoted(cut("_".join(("pgseek", self.collection, *self._of)), f"_{event.lower()}"))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        rest = [name for name in (self.title, self.language) if name is not None]
        return tuple(dict.fromkeys([*self.id, *self.text, *self.metadata, *rest]))


def quoted(name: str) -> str:
    """Return a name as an SQL identifier, quoted where it must be after a dot: keywords need not be there."""
    return name if _PLAIN.fullmatch(name) else Identifier(name).as_string()


def literal(text: str) -> str:
    """Return a text as an SQL literal."""
    return Literal(text).as_string().strip()


def dollar_quoted(text: str, tag: str) -> str:
    """Return a text between dollar quotes that do not occur in it."""
    while f"${tag}$" in text:
        tag += "_"
    return f"${tag}${text}${tag}$"


def cut(name: str, suffix: str = "") -> str:
    """Return a name with its suffix, cut to what PostgreSQL takes; a cut one ends in a hash of the whole."""
    if len((name + suffix).encode()) <= MAX_NAME:
        return name + suffix
    ending = "_" + hashlib.sha256(name.encode()).hexdigest()[:8] + suffix
    return name.encode()[: MAX_NAME - len(ending.encode())].decode(errors="ignore") + ending


def attach_sql(attachment: Attachment) -> list[str]:
    """Return the statements that make functions and triggers. They may be executed again."""
    a = attachment
    security = " SECURITY DEFINER" if a.security_definer else ""
    new, old = (_rows_json(a.columns, name) for name in ("new_rows", "old_rows"))
    new_ids, old_ids = (name.join(_ids(a)) for name in ("new_rows", "old_rows"))
    make = a.document_function
    collection, tenant = literal(a.collection), literal(a.tenant)
    document = f"""
BEGIN
    -- The document that a row of {_in_comment(a.full_name)} is; the row comes as to_jsonb() has it.
    RETURN jsonb_build_object(
        {_fields(a)});
END
"""
    before, after = _ids(a)
    truncated = (
        f"{dollar_quoted(f'SELECT ARRAY({before}', 'query')} || TG_RELID::regclass || "
        f"{dollar_quoted(f'{after})', 'query')}"
    )
    function = f"""
DECLARE
    documents refcursor;
    gone text[];
    session_tenant CONSTANT text := coalesce(current_setting('pgseek.tenant', true), '');
BEGIN
    PERFORM set_config('pgseek.tenant', {tenant}, true);
    IF NOT EXISTS (SELECT FROM pgseek.collections c WHERE c.tenant = {tenant} AND c.name = {collection}) THEN
        RAISE WARNING 'pgseek: collection % is gone and follows table % no more; pgseek detach ends this',
            {collection}, TG_RELID::regclass;
        PERFORM set_config('pgseek.tenant', session_tenant, true);
        RETURN NULL;
    END IF;
    IF TG_OP = 'INSERT' THEN
        OPEN documents FOR
            SELECT {make}(n.source) AS document
              FROM ({new}) AS n
             ORDER BY pgseek.document_id({make}(n.source) ->> 'id');
    ELSIF TG_OP = 'UPDATE' THEN
        -- Rows whose columns are as they were, in whatever place, are none of our business.
        OPEN documents FOR
            SELECT {make}(n.source) AS document
              FROM ({new}
                    EXCEPT
                    {old}) AS n
             ORDER BY pgseek.document_id({make}(n.source) ->> 'id');
        gone := ARRAY({old_ids}
                      EXCEPT
                      {new_ids});
    ELSIF TG_OP = 'DELETE' THEN
        gone := ARRAY({old_ids});
    ELSE
        -- Before TRUNCATE: the rows are still there.
        EXECUTE {truncated}
           INTO gone;
    END IF;
    PERFORM pgseek.follow_rows({collection}, documents, gone);
    PERFORM set_config('pgseek.tenant', session_tenant, true);
    RETURN NULL;
END
"""
    functions = [
        f"""\
CREATE OR REPLACE FUNCTION {make}(source jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS {dollar_quoted(document, "pgseek")}""",
        f"""\
CREATE OR REPLACE FUNCTION {a.function}() RETURNS trigger
LANGUAGE plpgsql{security}
SET search_path = pg_catalog, pg_temp
-- What a value is as text must not depend on who writes it.
SET timezone = 'UTC'
SET bytea_output = 'hex'
SET intervalstyle = 'postgres'
SET extra_float_digits = 1
AS {dollar_quoted(function, "pgseek")}""",
    ]
    triggers = [
        f"CREATE OR REPLACE TRIGGER {a.trigger(event)} {when} {event} ON {a.full_name}\n"
        f"    {referencing}FOR EACH STATEMENT EXECUTE FUNCTION {a.function}()"
        for event, when, referencing in (
            ("INSERT", "AFTER", "REFERENCING NEW TABLE AS new_rows "),
            ("UPDATE", "AFTER", "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows "),
            ("DELETE", "AFTER", "REFERENCING OLD TABLE AS old_rows "),
            ("TRUNCATE", "BEFORE", ""),
        )
    ]
    comment = f"COMMENT ON FUNCTION {a.function}() IS {literal(a.comment)}"
    return [*functions, comment, *triggers]


def fill_sql(attachment: Attachment) -> str:
    """Return the statement that stores the rows there are, a commit per batch.

    It runs outside of a transaction, after the triggers were committed: whoever writes meanwhile is followed.
    """
    a = attachment
    variables = "\n".join(
        f"    {kind}_{n} {a.full_name}.{Identifier(column).as_string()}%TYPE;"
        for kind in ("after", "last")
        for n, column in enumerate(a.key, 1)
    )
    key = ", ".join(f"t.{quoted(column)}" for column in a.key)
    after, last = (", ".join(f"{kind}_{n}" for n in range(1, len(a.key) + 1)) for kind in ("after", "last"))
    backwards = ", ".join(f"t.{quoted(column)} DESC" for column in a.key)
    columns = ", ".join(f"t.{quoted(column)}" for column in a.columns)
    make = a.document_function
    steps = "".join(f"        after_{n} := last_{n};\n" for n in range(1, len(a.key) + 1))
    body = f"""
DECLARE
    first boolean := true;
{variables}
    documents refcursor;
BEGIN
    LOOP
        BEGIN
            -- As in the trigger function. Who waits for a lock for long gives way to others, before that is a
            -- deadlock, and comes again.
            PERFORM set_config('timezone', 'UTC', true), set_config('bytea_output', 'hex', true),
                    set_config('intervalstyle', 'postgres', true),
                    set_config('extra_float_digits', '1', true),
                    set_config('lock_timeout', '500ms', true),
                    set_config('plan_cache_mode', 'force_custom_plan', true),
                    set_config('pgseek.tenant', {literal(a.tenant)}, true);
            -- Locked rows change only after their documents are stored, and then the triggers see it.
            SELECT {key} INTO {last}
              FROM (SELECT {key} FROM {a.full_name} AS t
                     WHERE first OR ({key}) > ({after})
                     ORDER BY {key} LIMIT {BATCH} FOR SHARE) AS t
             ORDER BY {backwards} LIMIT 1;
            EXIT WHEN NOT FOUND;
            OPEN documents FOR
                SELECT {make}(n.source) AS document
                  FROM (SELECT to_jsonb(r) AS source
                          FROM (SELECT {columns} FROM {a.full_name} AS t
                                 WHERE (first OR ({key}) > ({after})) AND ({key}) <= ({last})) AS r) AS n
                 ORDER BY pgseek.document_id({make}(n.source) ->> 'id');
            PERFORM pgseek.follow_rows({literal(a.collection)}, documents, NULL);
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(0.2);
            CONTINUE;
        END;
        COMMIT;
        first := false;
{steps}    END LOOP;
END
"""
    return f"DO {dollar_quoted(body, 'pgseek')}"


def detach_sql(attachment: Attachment, *, delete_documents: bool = False) -> list[str]:
    """Return the statements that drop triggers and functions, and before that the table's documents."""
    a = attachment
    before, after = _ids(a)
    delete = (
        f"SELECT pgseek.delete_documents({literal(a.collection)}, array_agg(part.id))\n"
        f"  FROM (SELECT i.id, row_number() OVER () / 10000 AS number\n"
        f"          FROM ({before}{a.full_name}{after}) AS i (id)) AS part\n"
        f" GROUP BY part.number"
    )
    drops = [
        f"DROP TRIGGER IF EXISTS {a.trigger(event)} ON {a.full_name}"
        for event in ("INSERT", "UPDATE", "DELETE", "TRUNCATE")
    ]
    functions = [
        f"DROP FUNCTION IF EXISTS {a.function}()",
        f"DROP FUNCTION IF EXISTS {a.document_function}(jsonb)",
    ]
    told = f"SELECT set_config('pgseek.tenant', {literal(a.tenant)}, true)"
    return [*drops, *([told, delete] if delete_documents else []), *functions]


def _fields(a: Attachment) -> str:
    """Return the arguments of jsonb_build_object() that make a document of ``source``."""
    texts = [f"source ->> {literal(column)}" for column in a.text]
    text = texts[0] if len(texts) == 1 else _joined(texts)
    parts = [f"'id', {_id(a.id)}", f"'text', left({text}, {MAX_TEXT})"]
    if a.title is not None:
        parts.append(f"'title', source ->> {literal(a.title)}")
    if a.metadata:
        # A function has a hundred arguments at most.
        pairs = [f"{literal(column)}, source -> {literal(column)}" for column in a.metadata]
        objects = [f"jsonb_build_object({', '.join(pairs[n : n + 50])})" for n in range(0, len(pairs), 50)]
        parts.append(f"'metadata', {' || '.join(objects)}")
    if a.language is not None:
        parts.append(f"'language', source ->> {literal(a.language)}")
    return ",\n        ".join(parts)


def _joined(texts: Sequence[str]) -> str:
    return "concat_ws(E'\\n\\n', " + ", ".join(f"nullif({text}, '')" for text in texts) + ")"


def _id(columns: Sequence[str]) -> str:
    """Return the expression of a document's id: the value as text, of several their JSON array."""
    if len(columns) == 1:
        return f"source ->> {literal(columns[0])}"
    known = " AND ".join(f"source ->> {literal(column)} IS NOT NULL" for column in columns)
    values = ", ".join(f"source -> {literal(column)}" for column in columns)
    return f"CASE WHEN {known} THEN jsonb_build_array({values})::text END"


def _rows_json(columns: Sequence[str], source: str) -> str:
    read = ", ".join(f"t.{quoted(column)}" for column in columns)
    return f"SELECT to_jsonb(r) AS source FROM (SELECT {read} FROM {source} AS t) AS r"


def _ids(a: Attachment) -> tuple[str, str]:
    """Return what stands before and after a table's name in the query of the ids in it."""
    read = ", ".join(f"t.{quoted(column)}" for column in a.id)
    return (
        f"SELECT {_id(a.id)} FROM (SELECT to_jsonb(r) AS source FROM (SELECT {read} FROM ",
        " AS t) AS r) AS i",
    )


def _in_comment(text: str) -> str:
    return " ".join(text.split())
