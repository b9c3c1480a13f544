"""Sources: files of many formats, folders, and rows of tables to records.

Readers stream: one record at a time, each with the place it came from. What cannot be read becomes
a `Rejection` in its place, so that the rest goes in. What a format needs besides Python's own library
is in the extra ``files``, and loaded when a file of that format is read.
"""

from __future__ import annotations

from pgseek.sources.columns import Columns
from pgseek.sources.files import Files, read_sources
from pgseek.sources.formats import FORMATS, Format
from pgseek.sources.sql import sql_source

__all__ = ["FORMATS", "Columns", "Files", "Format", "read_sources", "sql_source"]
