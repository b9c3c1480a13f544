"""``pgseek demo``."""

from __future__ import annotations

import typer

from pgseek.cli.ingest import ingest_with_progress
from pgseek.cli.output import MARKS, out, print_hits, print_report
from pgseek.cli.state import state_of
from pgseek.demo.run import COLLECTION, QUERIES, collect


def demo(context: typer.Context) -> None:
    """Search the documentation strings of your Python's standard library.

    Starts the embedded PostgreSQL, stores thousands of documents (a second run finds them
    unchanged) and answers five queries of different kinds.
    """
    state = state_of(context)
    with state.client() as client:
        collection = client.create_collection(COLLECTION, exist_ok=True)
        out.print("[bold]Reading[/] the documentation strings of the standard library …")
        documents = collect()
        print_report(ingest_with_progress(collection, documents))
        for title, query, wanted in QUERIES:
            shown = f"  [dim]{wanted}[/]" if wanted else ""
            out.print(f"\n[bold cyan]{title}[/]  “{query}”{shown}")
            print_hits(collection.search(query, k=3, filter=wanted, highlight=MARKS))
    where = f" --data-dir {state.data_dir}" if state.data_dir else ""
    program = f"pgseek{where}"
    out.print("\n[bold]Try next[/] (in .venv/bin after `make demo`)")
    for command in (
        f'{program} search {COLLECTION} "read a file line by line" -k 5 --explain',
        f'{program} search {COLLECTION} "parse a date" --filter kind=method --json',
        f"{program} get {COLLECTION} functools.lru_cache",
        f"{program} collections show {COLLECTION}",
        f"{program} search {COLLECTION} 'merge two sorted lists' --alpha 0",
        f"{program} server stop",
    ):
        out.print(f"  {command}", markup=False, soft_wrap=True)
