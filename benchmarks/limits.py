"""A provider's limits kept and used: ingest through a service that answers after 20 ms, against what its limits allow.

    python benchmarks/limits.py [--documents 20000] [--requests 3000] [--tokens 1000000] [--inputs 6] [--faults 0.1]

The service is on this machine and speaks OpenAI's protocol; the client library is OpenAI's own. The first run is bound by
requests a minute, the second by tokens a minute. Printed: the share of the limit that was used, the most that any sliding
minute held over the limit, and whether every text was answered once.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

import openai
from common import database

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from providers import Fault, ProviderServer

from pgseek import Client, Limits
from pgseek.embedders.openai import OpenAIEmbedder

LATENCY = 0.02


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--documents", type=int, default=20_000)
    arguments.add_argument("--requests", type=int, default=3000, help="a minute")
    arguments.add_argument("--tokens", type=int, default=1_000_000, help="a minute")
    arguments.add_argument("--inputs", type=int, default=6, help="texts in a request of the first run")
    arguments.add_argument("--faults", type=float, default=0.0, help="share of requests that fail")
    given = arguments.parse_args()
    rng = random.Random(1)
    texts = [
        " ".join(f"w{rng.randrange(9000)}" for _ in range(30)) + f" n{n}" for n in range(given.documents)
    ]
    measure("requests", texts, Limits(given.requests, None), given.inputs, given.faults)
    measure("tokens", texts, Limits(None, given.tokens), 2048, given.faults)


def measure(bound: str, texts: list[str], limits: Limits, inputs: int, faults: float) -> None:
    """Ingest the texts in a database of their own and print how the limit was used."""
    rng = random.Random(2)
    kinds = [Fault(429, retry_after_ms=20), Fault(500), Fault(503), Fault(cut="before"), Fault(cut="body")]
    with ProviderServer(native={"text-embedding-3-small": 1536}) as server, database() as dsn:
        server.latency = LATENCY
        client = openai.OpenAI(api_key="key", base_url=server.base_url + "/v1")
        embedder = OpenAIEmbedder("text-embedding-3-small", 64, client=client, limits=limits)
        embedder.max_inputs = inputs
        with Client(dsn) as pgseek:
            docs = pgseek.create_collection("docs", embedder=embedder)
            server.reset()
            server.faults = lambda _: rng.choice(kinds) if rng.random() < faults else None
            started = time.perf_counter()
            report = docs.ingest({"id": str(n), "text": text} for n, text in enumerate(texts))
            seconds = time.perf_counter() - started
    assert report.new == len(texts), report
    spans = [request.started for request in server.requests]
    sending = max(spans) - min(spans)
    if bound == "requests":
        limit, used = limits.requests_per_minute, len(server.requests)
        most = server.most_in(60)
    else:
        limit, used = limits.tokens_per_minute, sum(request.tokens for request in server.requests)
        most = server.tokens_in(60)
    allowed = limit * sending / 60
    once = set(server.answered.values()) == {1} and len(server.answered) == len(texts)
    print(
        f"{bound:<9}{used:>10,} of {allowed:>12,.0f} allowed in {sending:.1f} s: {used / allowed:.3f}; "
        f"most in a minute {most / limit:.3f}; {len(server.requests):,} requests, ingest {seconds:.1f} s, every text answered once: {once}"
    )


if __name__ == "__main__":
    main()
