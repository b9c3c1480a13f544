"""Proof that a database is whole: every document with its chunks and vectors, and nothing besides.

`examine` reads everything in one REPEATABLE READ transaction that writes nothing, so what others write
meanwhile makes no false alarm. `repair` deletes what nothing refers to and puts documents in the queue that
have to be chunked and embedded again.
"""

from __future__ import annotations

from pgseek.integrity.checks import RULES, Rule
from pgseek.integrity.examine import examine
from pgseek.integrity.repair import repair
from pgseek.integrity.report import Examination, Examined, Finding, Repaired

__all__ = ["RULES", "Examination", "Examined", "Finding", "Repaired", "Rule", "examine", "repair"]
