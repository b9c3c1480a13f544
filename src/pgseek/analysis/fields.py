"""A field of documents' metadata, set or taken out by what an analysis found."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from pgseek.steps import Row, Script, fetch

_CHANGED = """
SELECT d.document_id, g.value IS NULL AS cleared
  FROM unnest(%(documents)s::uuid[], %(values)s::text[]) AS g (document_id, value)
  JOIN pgseek.documents d
    ON d.collection_id = %(collection)s AND d.document_id = ANY (%(documents)s)
   AND d.document_id = g.document_id
 WHERE d.metadata -> %(name)s IS DISTINCT FROM g.value::jsonb
 ORDER BY d.document_id
"""
_UPDATE = """
UPDATE pgseek.documents d SET updated_at = now(),
       metadata = CASE WHEN g.value IS NULL THEN d.metadata - %(name)s::text
                       ELSE d.metadata || jsonb_build_object(%(name)s::text, g.value::jsonb) END
  FROM unnest(%(documents)s::uuid[], %(values)s::text[]) AS g (document_id, value)
 WHERE d.collection_id = %(collection)s AND d.document_id = g.document_id
   AND d.document_id = ANY (%(changed)s)
"""


def differing(collection_id: int, name: str, values: Mapping[UUID, Any]) -> Script[list[Row]]:
    """Return which documents have another value of a field, and whether they would lose it (``cleared``).

    None stands for no field.
    """
    return (yield from fetch(_CHANGED, _parameters(collection_id, name, values)))


def setting(collection_id: int, name: str, values: Mapping[UUID, Any]) -> Callable[[], Script[list[Row]]]:
    """Return what sets a field, or takes it out, in a transaction of its own; it returns as `differing`.

    Nothing is embedded anew, and documents that have the value already are not touched.
    """
    parameters = _parameters(collection_id, name, values)

    def script() -> Script[list[Row]]:
        # Locked in the order in which all writers of documents lock them.
        rows = yield from fetch(_CHANGED + " FOR NO KEY UPDATE OF d", parameters)
        ids = [row["document_id"] for row in rows]
        if ids:
            yield from fetch(_UPDATE, {**parameters, "changed": ids})
            yield from fetch("SELECT pgseek.mirror_documents(%s, %s)", [collection_id, ids])
        return rows

    return script


def _parameters(collection_id: int, name: str, values: Mapping[UUID, Any]) -> dict[str, Any]:
    return {
        "collection": collection_id,
        "documents": list(values),
        "values": [None if one is None else json.dumps(one) for one in values.values()],
        "name": name,
    }
