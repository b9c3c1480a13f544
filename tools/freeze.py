"""Copy the SQL functions at head that differ from their newest frozen copy into a revision's folder.

    python tools/freeze.py 0003

Only for a revision that has not landed: a landed one is never edited.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEAD = ROOT / "src" / "pgseek" / "db" / "sql"
FROZEN = ROOT / "migrations" / "sql"


def main(revision: str) -> None:
    """Freeze what changed, and remove copies of the revision that head no longer has."""
    target = FROZEN / revision
    target.mkdir(exist_ok=True)
    earlier = sorted((folder for folder in FROZEN.iterdir() if folder.name < revision), reverse=True)
    for path in sorted(HEAD.glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        newest = next((f / path.name for f in earlier if (f / path.name).is_file()), None)
        if newest is None or newest.read_text(encoding="utf-8") != text:
            (target / path.name).write_text(text, encoding="utf-8")
        else:
            (target / path.name).unlink(missing_ok=True)
    for copy in target.glob("*.sql"):
        if not (HEAD / copy.name).is_file():
            copy.unlink()


if __name__ == "__main__":
    main(sys.argv[1])
