"""Attaching a table: checked against the database, and written down for Alembic or psql.

Nothing is changed unless asked for: what comes out is the text of an Alembic revision, or plain SQL.
"""

from __future__ import annotations

import difflib
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pgseek import collections
from pgseek.attachment import MARK, Attachment, attach_sql, detach_sql, fill_sql
from pgseek.errors import InvalidInput
from pgseek.steps import Script, fetch, fetch_one, transact

_TABLE = """
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
       (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = to_regclass(%s)
"""

# Columns of the unique indexes that hold for all rows at once, the primary key first.
_UNIQUE = """
SELECT array_agg(a.attname::text ORDER BY k.place) AS columns
  FROM pg_catalog.pg_index i, unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
  JOIN pg_catalog.pg_attribute a ON a.attnum = k.attnum
 WHERE i.indrelid = %s AND a.attrelid = i.indrelid AND k.place <= i.indnkeyatts
   AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
 GROUP BY i.indexrelid, i.indisprimary ORDER BY i.indisprimary DESC, i.indexrelid
"""

_ATTACHED = """
SELECT DISTINCT obj_description(t.tgfoid, 'pg_proc') AS comment
  FROM pg_catalog.pg_trigger t
 WHERE t.tgrelid = %s AND NOT t.tgisinternal
   AND starts_with(obj_description(t.tgfoid, 'pg_proc'), %s)
"""

_KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Statements that do something and that undo it; a fill comes after, outside of a transaction."""

    message: str
    up: tuple[str, ...]
    down: tuple[str, ...]
    fill_up: str | None = None
    fill_down: str | None = None


def plan_attach(
    table: str,
    collection: str,
    id: str | Iterable[str],  # noqa: A002 (the field's word)
    text: str | Iterable[str],
    title: str | None,
    metadata: str | Iterable[str],
    language: str | None,
    security_definer: bool,
) -> Script[Plan]:
    """Check against the database what shall be attached, and return how.

    Raises:
        InvalidInput: no such table or column, it is not a table, its id is not unique, or it is attached.
        CollectionNotFound: with the nearest name.
    """
    found = yield from _table(table)
    info = yield from collections.find(collection)
    given = Attachment(
        found["schema"],
        found["name"],
        collection,
        _names("id", id),
        _names("text", text),
        (),
        title,
        _names("metadata", metadata, empty=True),
        language,
        security_definer,
        tenant=info.tenant,
    )
    for column in given.columns:
        if column not in found["columns"]:
            near = difflib.get_close_matches(column, found["columns"], 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(found['columns'])}"
            raise InvalidInput(f"table {given.full_name} has no column {column!r}; {hint}")
    key = yield from _key(found["oid"], given)
    for other in (yield from _attached(found)):
        if (other.tenant, other.collection) == (info.tenant, collection):
            raise InvalidInput(
                f"table {given.full_name} is attached to {collection!r} already; pgseek detach it first"
            )
    made = replace(given, key=key)
    return Plan(
        f"keep collection {collection} in step with {made.full_name}",
        tuple(attach_sql(made)),
        tuple(detach_sql(made)),
        fill_up=fill_sql(made),
    )


def plan_detach(table: str, collection: str | None, delete_documents: bool) -> Script[Plan]:
    """Find what was attached, and return how to undo it.

    Raises:
        InvalidInput: no such table, nothing of that collection attached, or several to choose from.
    """
    found = yield from _table(table)
    row = yield from fetch_one("SELECT pgseek.tenant() AS tenant")
    attached = [a for a in (yield from _attached(found)) if row is not None and a.tenant == row["tenant"]]
    chosen = [a for a in attached if collection is None or a.collection == collection]
    full_name = Attachment(found["schema"], found["name"], "", (), (), ()).full_name
    if len(chosen) != 1:
        names = ", ".join(sorted(a.collection for a in attached)) or "no collection"
        which = "; say which with --collection" if len(chosen) > 1 else ""
        raise InvalidInput(f"table {full_name} is attached to {names}{which}")
    (a,) = chosen
    key = yield from _key(found["oid"], a)
    a = replace(a, key=key)
    return Plan(
        f"let collection {a.collection} follow {a.full_name} no more",
        tuple(detach_sql(a, delete_documents=delete_documents)),
        tuple(attach_sql(a)),
        fill_down=fill_sql(a),
    )


def apply(plan: Plan) -> Script[None]:
    """Do at once what a plan says."""

    def write() -> Script[None]:
        for statement in plan.up:
            made: Any = statement
            yield from fetch(made)

    yield from transact(write)
    if plan.fill_up is not None:
        fill: Any = plan.fill_up
        yield from fetch(fill)


def as_sql(plan: Plan) -> str:
    """Return a plan as plain SQL, for psql without ``--single-transaction``."""
    lines = [f"-- {plan.message}. Written by pgseek.", "BEGIN;", *(f"{s};" for s in plan.up), "COMMIT;"]
    if plan.fill_up is not None:
        lines += ["-- The rows there are, a commit per batch.", f"{plan.fill_up};"]
    return "\n\n".join(lines) + "\n"


def as_revision(plan: Plan, revision: str, down_revision: str | None, message: str | None = None) -> str:
    """Return a plan as an Alembic revision."""
    title = " ".join((message or plan.message).split()).replace("\\", "/").replace('"', "'")
    return (
        f'''"""{title}

Revision ID: {revision}
Revises: {down_revision or ""}
Create Date: {datetime.now(UTC):%Y-%m-%d %H:%M:%S}

Written by pgseek for review. Nothing here is known to your models: autogenerate does not see it.
"""

from alembic import op

revision = {revision!r}
down_revision = {down_revision!r}
branch_labels = None
depends_on = None

UP = [{_listed(plan.up)}]

DOWN = [{_listed(plan.down)}]
{_constant("FILL", plan.fill_up or plan.fill_down)}

def upgrade() -> None:
    for statement in UP:
        op.execute(statement)
{_fill(plan.fill_up)}

def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
{_fill(plan.fill_down)}'''.rstrip()
        + "\n"
    )


def new_revision() -> str:
    """Return an id for a revision, as Alembic makes them."""
    return secrets.token_hex(6)


def file_name(revision: str, message: str) -> str:
    """Return the file's name that Alembic would choose by default."""
    slug = "_".join(re.findall(r"\w+", message.lower()))[:40].rstrip("_")
    return f"{revision}_{slug}.py"


def head_of(directory: Path) -> str | None:
    """Return the newest revision in a folder of Alembic's: its versions, or the folder above with env.py.

    Raises:
        InvalidInput: it is no such folder, or has several heads.
    """
    home = next((place for place in (directory, directory.parent) if (place / "env.py").is_file()), None)
    if home is None:
        raise InvalidInput(
            f"{directory} is no folder of Alembic's: neither it nor the one above has an env.py; "
            "give the revision that comes before with --down-revision ('base': none)"
        )
    from alembic.script import ScriptDirectory  # noqa: PLC0415 (Alembic takes a while to load)

    heads = ScriptDirectory(str(home), version_locations=[str(versions_of(directory))]).get_heads()
    if len(heads) > 1:
        raise InvalidInput(
            f"{directory} has several heads ({', '.join(sorted(heads))}); say with --down-revision which one "
            "this comes after, or merge them"
        )
    return heads[0] if heads else None


def versions_of(directory: Path) -> Path:
    """Return the folder that revisions go into."""
    return directory / "versions" if (directory / "env.py").is_file() else directory


def _table(table: str) -> Script[dict[str, Any]]:
    if not isinstance(table, str) or not table.strip():
        raise InvalidInput(f"table is {table!r}, but must be a table's name, such as public.products")
    row = yield from fetch_one(_TABLE, [table])
    if row is None:
        raise InvalidInput(
            f"there is no table {table}; write it as in SQL: with its schema where that is not on the search "
            "path, and in double quotes where it has capitals"
        )
    if row["kind"] not in ("r", "p"):
        raise InvalidInput(f"{table} is {_KINDS.get(row['kind'], 'no table')}: only tables tell what changes")
    if row["schema"] == "pgseek":
        raise InvalidInput(f"{table} is pgseek's own")
    return row


def _key(oid: int, attachment: Attachment) -> Script[tuple[str, ...]]:
    """Return the columns of a unique index that the id holds."""
    rows = yield from fetch(_UNIQUE, [oid])
    for row in rows:
        if set(row["columns"]) <= set(attachment.id):
            return tuple(row["columns"])
    unique = " or ".join("--id " + ",".join(row["columns"]) for row in rows)
    way_out = f"use {unique}, or " if unique else ""
    raise InvalidInput(
        f"the id ({', '.join(attachment.id)}) may occur twice in {attachment.full_name}: no unique index "
        f"(not partial, not deferrable) is on it; {way_out}make one: "
        f"CREATE UNIQUE INDEX ON {attachment.full_name} ({', '.join(attachment.id)})"
    )


def _attached(found: dict[str, Any]) -> Script[list[Attachment]]:
    rows = yield from fetch(_ATTACHED, [found["oid"], MARK])
    return [
        Attachment(found["schema"], found["name"], key=(), **json.loads(row["comment"].removeprefix(MARK)))
        for row in rows
    ]


def _names(what: str, given: str | Iterable[str], *, empty: bool = False) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names and not empty:
        raise InvalidInput(f"{what} names no column")
    for name in names:
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"{what} is {given!r}, but must be a column's name or several")
    return names


def _listed(statements: Sequence[str]) -> str:
    return "".join(f"\n    {_python(statement)}," for statement in statements) + "\n"


def _constant(name: str, statement: str | None) -> str:
    return "" if statement is None else f"\n{name} = {_python(statement)}\n"


def _fill(statement: str | None) -> str:
    if statement is None:
        return ""
    return """    # A commit per batch: the table can be written to, and what is written is followed already.
    with op.get_context().autocommit_block():
        op.execute(FILL)
"""


def _python(statement: str) -> str:
    """Return a statement as Python text that `op.execute` takes for what it is."""
    # SQLAlchemy takes a colon before a name for a parameter, and a backslash before a colon away; neither
    # where another colon follows.
    escaped = re.sub(r"(?<=\\):(?=\w*(?![:\w]))|(?<![:\w]):(?=\w+(?![:\w]))", r"\\:", statement)
    if '"""' in escaped or escaped.endswith(('"', "\\")):
        return repr(escaped)
    return f'r"""\n{escaped}"""' if "\\" in escaped else f'"""\n{escaped}"""'
