"""The schema revisions this version knows, readable without loading Alembic.

A test holds this list against the migration scripts.
"""

from __future__ import annotations

KNOWN = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
HEAD = KNOWN[-1]
VERSION_TABLE = "alembic_version"
SCHEMA = "pgseek"
