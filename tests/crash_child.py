"""A process for the crash tests to kill: it waits for a line, then does one piece of work.

    python crash_child.py DSN ingest FILE [sync] [unkilled] | delete IDS… | drain | work | fill

It prints a line of JSON when it is ready, after each batch, and at its end: ``done`` or the pgseek error.
Any other error is a bug and ends it with a traceback.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pgseek import Client, IngestReport, PgseekError, QueuePolicy, collections, copies, embedding

BATCH_SIZE = 50
LEASE = 1.0
POLICY = QueuePolicy(lease=LEASE, attempts=1000)


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def progress(report: IngestReport) -> None:
    tell(stored=report.new + report.changed + report.metadata_changed + report.unchanged)


def records(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def main(dsn: str, action: str, *arguments: str) -> int:
    if "unkilled" not in arguments:
        # What a killed process was embedding is nobody else's for so long: twenty seconds are too long for a
        # test. Where nobody is killed, a busy machine must not make claims run out.
        embedding.CLAIM_SECONDS, embedding.RENEW_SECONDS = 1.0, 0.3
    with Client(dsn) as client:
        docs = client.collection("docs")
        if action != "fill":
            docs._own_embedder()
        tell(ready=True)
        sys.stdin.readline()
        try:
            if action == "ingest":
                documents = records(arguments[0])
                sync = "sync" in arguments
                # Few may be stored when the other version comes: all of them may go.
                docs.ingest(documents, batch_size=BATCH_SIZE, progress=progress, sync=sync, max_removed=1.0)
            elif action == "delete":
                for first in range(0, len(arguments), 5):
                    docs.delete(arguments[first : first + 5])
            elif action == "drain":
                docs.drain_queue(policy=POLICY)
            elif action == "work":
                docs.work(once=True, policy=POLICY)
            elif action == "fill":
                copies.BATCH_SIZE = BATCH_SIZE
                copy = client._run(collections.find_copy(docs._info))
                client._run(copies.fill(copy, progress=lambda seen, _: tell(stored=seen)))
            else:
                raise ValueError(action)
        except PgseekError as error:
            tell(error=type(error).__name__, message=str(error))
            return 1
    tell(done=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
