"""``python -m pgseek`` is the command line."""

from __future__ import annotations

from pgseek.cli.main import main

main()
