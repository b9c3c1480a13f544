"""What waits or has been left: the queue of documents, and the cache of vectors."""

from __future__ import annotations

from collections.abc import Iterator

from pgseek.health.facts import PAGE, SAMPLED_PAGES, Facts
from pgseek.health.finding import HealthFinding, command

# Whoever serves the queue has begun by then.
WAITED_SECONDS = 600.0
EXPIRED_SHARE = 0.3
EXPIRED_ROWS = 1000


def judge(facts: Facts) -> Iterator[HealthFinding]:
    """Yield documents that nobody embeds, and a cache that is mostly of the past."""
    for row in facts.queue:
        of = {"collection": row["name"], "tenant": row["tenant"]}
        if row["waiting"]:
            served = row["claimed"] > 0 or row["oldest"] < WAITED_SECONDS
            yield HealthFinding(
                "queue_waiting",
                "note" if served else "fail",
                f"queue of {row['name']}",
                f"{row['waiting']:,} documents wait for embeddings, the oldest for {row['oldest']:,.0f} s",
                "They are found by their words only" + ("" if served else ", and nobody serves the queue"),
                command(row["tenant"], "queue drain", row["name"]),
                {"waiting": row["waiting"], "claimed": row["claimed"], "oldest_seconds": row["oldest"]},
                **of,
            )
        if row["failed"]:
            yield HealthFinding(
                "queue_failed",
                "fail",
                f"queue of {row['name']}",
                f"{row['failed']:,} documents could not be embedded and were given up",
                "They are found by their words only; the queue keeps why",
                command(row["tenant"], "queue failed", row["name"])
                + "; then "
                + command(row["tenant"], "queue retry", row["name"]),
                {"failed": row["failed"]},
                **of,
            )
    sampled, expired = facts.cache["sampled"], facts.cache["expired"]
    pages = max(1, facts.tables["embedding_cache"]["bytes"] // PAGE)
    about = int(expired * max(1.0, pages / SAMPLED_PAGES))
    if about >= EXPIRED_ROWS and expired >= EXPIRED_SHARE * sampled:
        yield HealthFinding(
            "cache_expired",
            "note",
            "embedding_cache",
            f"about {about:,} of its vectors have expired, {expired / sampled:.0%}",
            "They are not used any more, and take room",
            command("", "cache prune"),
            {"expired": about, "share": expired / sampled},
        )
