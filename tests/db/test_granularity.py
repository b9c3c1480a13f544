"""What is searched besides plain chunks: headings, sections, whole documents, questions and summaries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import openai
import pytest
from providers import ProviderServer
from support import CORPUS, CountingEmbedder, rows

from pgseek import (
    AsyncClient,
    CallableGenerator,
    Client,
    CostLimitReached,
    GeneratorError,
    InvalidInput,
    Limits,
)
from pgseek.generators.chat import ChatGenerator

GUIDE = """# Guide

Welcome to all who want to install the thing on machines of their own.

## Install

### Linux

Fetch the archive with curl, unpack it below the folder opt, and start it.

### Windows

Click on the icon, and wait until the assistant says that it is done.

## Remove

Delete the folder again, and forget about it all as fast as you can.
"""
FORMED = {"id": "guide", "title": "Guide", "text": GUIDE, "format": "markdown"}


class Writer:
    """A generator that remembers what it was asked, and may fail."""

    def __init__(self, identity="tests:writer", after=None, refuse=None) -> None:
        self.identity = identity
        self.asked: list[tuple[str, str]] = []
        self.after = after
        self.refuse = refuse

    def generate(self, kind, text, title, count):
        if self.after is not None and len(self.asked) >= self.after:
            raise RuntimeError("out of ink")
        self.asked.append((kind, text))
        words = text.split()
        if kind == "summary":
            return [f"Abstract: {' '.join(words[:3])}"]
        return [f"Wherefore {' '.join(words[:4])} variant{n}?" for n in range(count)]


def stored(dsn, columns="ordinal, kind, title, text, of_ordinal", where="true"):
    return [
        tuple(row.values())
        for row in rows(
            dsn, f"SELECT {columns} FROM pgseek.chunks WHERE {where} ORDER BY document_id, ordinal"
        )
    ]


# Headings and places.


def test_headings_are_read_before_the_chunks_under_them(client, dsn):
    embedder = CountingEmbedder()
    docs = client.create_collection("docs", embedder=embedder, chunk_size=100)
    docs.ingest([FORMED])
    titles = [title for (title,) in stored(dsn, "title")]
    # The first heading is the document's title: it is not read twice.
    assert titles == ["Guide", "Guide › Install", "Guide › Install › Windows", "Guide › Remove"]
    assert any(text.startswith("Guide › Install › Windows\n\n### Windows") for text in embedder.documents)
    (hit, *_) = docs.search("assistant windows", alpha=0)
    assert (hit.title, hit.kind, hit.matched_text, hit.section) == ("Guide", "chunk", None, None)
    assert hit.provenance == {"heading": ["Guide", "Install", "Windows"], "lines": [11, 13]}
    # Words of headings are found, and weigh as those of a title.
    assert {h.ordinal for h in docs.search("install", alpha=0, k=2)} <= {1, 2}


def test_headings_may_be_left_out(client, dsn):
    docs = client.create_collection(
        "docs", embedder=CountingEmbedder(), chunk_size=100, heading_context=False
    )
    docs.ingest([FORMED])
    assert {title for (title,) in stored(dsn, "title")} == {"Guide"}
    assert docs.search("windows", alpha=0)[0].provenance["heading"] == ["Guide", "Install", "Windows"]


def test_a_collection_made_before_reads_no_headings(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    new = "{heading_context,section_size,document_vectors,questions,summaries,generator,collapse}"
    rows(dsn, f"UPDATE pgseek.collections SET settings = settings - '{new}'::text[]")
    docs = client.collection("docs", embedder=CountingEmbedder())
    docs.ingest([FORMED, *CORPUS])
    assert ("Guide",) in stored(dsn, "title")
    assert {kind for (kind,) in stored(dsn, "kind")} == {"chunk"}
    assert docs.search("windows")[0].kind == "chunk"


def test_pages_are_told(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), chunk_size=40)
    text = "The first page is about apples.\fThe second page is about pears."
    docs.ingest([{"id": "1", "text": text, "format": "pages"}])
    assert docs.search("pears", alpha=0)[0].provenance == {"page": 2, "last_page": 2}


def test_an_unknown_format_is_rejected(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    report = docs.ingest([{"id": "1", "text": "text", "format": "markdwon"}, {"id": "2", "text": "text"}])
    assert report.new == 1
    assert "did you mean 'markdown'?" in report.rejected[0].reason
    rows(dsn, "SELECT pgseek.put_document('docs', 'sql', 'a text', format => 'docx')")
    (rejection,) = docs.drain_queue().rejected
    assert rejection.id == "sql"
    assert "format 'docx' is unknown" in rejection.reason


def test_small_chunks_are_found_and_their_sections_read(client, dsn):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), chunk_size=80, section_size=300)
    docs.ingest([FORMED])
    (hit, *_) = docs.search("curl archive", alpha=0)
    assert "curl" in hit.text
    assert len(hit.text) <= 80
    assert hit.text in hit.section
    assert hit.section.startswith("## Install")
    assert "assistant" in hit.section
    assert hit.section in GUIDE
    with pytest.raises(InvalidInput, match="section size is 79"):
        client.create_collection("other", embedder=CountingEmbedder(), chunk_size=80, section_size=79)


# Whole documents.


def test_a_whole_document_has_the_mean_of_its_chunks_and_no_words(client, dsn):
    embedder = CountingEmbedder()
    docs = client.create_collection("docs", embedder=embedder, chunk_size=100, document_vectors=True)
    report = docs.ingest([FORMED, {"id": "short", "text": "one chunk"}])
    assert report.chunks == 4 + 1 + 1 + 1
    # No text is embedded for it.
    assert report.embedded == len(embedder.documents) == 5
    whole = stored(dsn, "kind, text, title, length(lexemes), char_start, char_end", "kind = 'document'")
    assert sorted(whole) == [("document", "", "", 0, 0, 9), ("document", "", "", 0, 0, len(GUIDE))]
    texts = [text for text in embedder.documents if text != "one chunk"]
    lengths = [len(text.partition("\n\n")[2]) for text in texts]
    mean = np.average([embedder.embed_query(text) for text in texts], axis=0, weights=lengths)
    (hit,) = [
        h
        for h in docs.search(
            "?", model=str(docs.info().identity), query_embedding=mean, alpha=1, collapse=False
        )
        if h.kind == "document"
    ][:1]
    assert hit.dense_score == pytest.approx(1, abs=1e-6)
    assert (hit.id, hit.text, hit.title) == ("guide", GUIDE[:2000], "Guide")
    # By itself the collection gives each document once.
    assert Counter(
        h.id for h in docs.search("?", model=str(docs.info().identity), query_embedding=mean, alpha=1)
    ) == {"guide": 1, "short": 1}
    assert docs.info().chunks == 5


def test_whole_documents_do_not_count_in_the_statistics(client, dsn):
    made = [{"id": str(n), "text": f"common words and number{n} " * (n % 5 + 1)} for n in range(60)]
    for name, whole in (("plain", False), ("whole", True)):
        docs = client.create_collection(name, embedder=CountingEmbedder(), document_vectors=whole)
        docs.ingest(made)
    statistics = rows(
        dsn,
        "SELECT weighting, chunks, average_length, shares FROM pgseek.collection_statistics ORDER BY collection_id",
    )
    assert statistics[0] == statistics[1]
    assert statistics[0]["chunks"] == 60
    # Nothing is refreshed again for rows that do not count.
    before = rows(dsn, "SELECT refreshed_at FROM pgseek.collection_statistics")
    docs.ingest(made)
    assert rows(dsn, "SELECT refreshed_at FROM pgseek.collection_statistics") == before
    for name in ("plain", "whole"):
        rows(dsn, f"SELECT pgseek.reweigh('{name}', k1 => 1.0)")
    hits = [
        [
            (h.id, h.score)
            for h in client.collection(name, embedder=CountingEmbedder()).search(
                "number7 common", alpha=0, k=60
            )
        ]
        for name in ("plain", "whole")
    ]
    assert hits[0] == hits[1]


def test_a_whole_document_is_not_found_where_words_are_demanded_or_shut_out(client):
    embedder = CountingEmbedder()
    docs = client.create_collection("docs", embedder=embedder, document_vectors=True, collapse=False)
    docs.ingest(CORPUS)
    assert "document" in {h.kind for h in docs.search("cache", k=20)}
    assert {h.kind for h in docs.search("cache -decorator", k=20)} == {"chunk"}
    assert not any("decorator" in h.text for h in docs.search("cache -decorator", k=20))
    assert {h.kind for h in docs.search("+cache", k=20)} == {"chunk"}


# Questions and summaries.


def test_questions_and_summaries_are_rows_that_show_their_chunk(client, dsn):
    writer = Writer()
    docs = client.create_collection(
        "docs", embedder=CountingEmbedder(), chunk_size=100, questions=2, summaries=True, generator=writer
    )
    report = docs.ingest([FORMED])
    assert report.generated == len(writer.asked) == 8
    assert report.chunks == 4 + 4 * 3
    kinds = stored(dsn, "ordinal, kind, title, of_ordinal")
    assert kinds[:4] == [
        (n, "chunk", t, None)
        for n, t in enumerate(["Guide", "Guide › Install", "Guide › Install › Windows", "Guide › Remove"])
    ]
    assert kinds[4:7] == [(4, "question", "", 0), (5, "question", "", 0), (6, "summary", "", 0)]
    (hit,) = docs.search("wherefore variant1 windows", alpha=0, k=1)
    assert (hit.kind, hit.ordinal, hit.id) == ("question", 2, "guide")
    assert hit.matched_text == "Wherefore ### Windows Click on variant1?"
    assert hit.text.startswith("### Windows")
    assert GUIDE[hit.char_start : hit.char_end] == hit.text
    assert hit.provenance["lines"] == [11, 13]
    assert {m.lexeme for m in hit.matched} >= {"wherefor", "variant1"}
    (found,) = docs.search("abstract remove", alpha=0, k=1)
    assert (found.kind, found.matched_text) == ("summary", "Abstract: ## Remove Delete")
    # Found by meaning as well, by the text of the question alone.
    vector = CountingEmbedder().embed_query(hit.matched_text)
    (dense,) = docs.search("?", model=str(docs.info().identity), query_embedding=vector, alpha=1, k=1)
    assert (dense.kind, dense.dense_score) == ("question", pytest.approx(1, abs=1e-6))


def test_the_same_text_is_asked_for_once_and_never_again(client, dsn):
    writer = Writer()
    docs = client.create_collection("docs", embedder=CountingEmbedder(), questions=1, generator=writer)
    report = docs.ingest([{"id": str(n), "text": f"text {n % 3}"} for n in range(30)], batch_size=7)
    assert (len(writer.asked), report.generated) == (3, 3)
    assert docs.ingest([{"id": str(n), "text": f"text {n % 3}"} for n in range(60)]).generated == 0
    other = client.create_collection("other", embedder=CountingEmbedder(), questions=1, generator=writer)
    assert other.ingest([{"id": "1", "text": "text 1"}]).generated == 0
    assert len(writer.asked) == 3
    # Another number of questions, another generator: other texts.
    third = client.create_collection("third", embedder=CountingEmbedder(), questions=2, generator=writer)
    third.ingest([{"id": "1", "text": "text 1"}])
    assert len(writer.asked) == 4
    mine = Writer("tests:another")
    client.collection("docs", embedder=CountingEmbedder(), generator=mine).ingest(
        [{"id": "x", "text": "text 0"}]
    )
    assert len(mine.asked) == 1


def test_what_was_written_before_a_failure_is_not_asked_for_again(client, dsn):
    made = [{"id": str(n), "text": f"passage {n}"} for n in range(40)]
    docs = client.create_collection(
        "docs", embedder=CountingEmbedder(), questions=1, generator=Writer(after=25)
    )
    with pytest.raises(GeneratorError, match="tests:writer failed: out of ink"):
        docs.ingest(made, batch_size=10)
    # The batches before it are stored.
    assert docs.count() == 20
    assert rows(dsn, "SELECT count(*) AS n FROM pgseek.generated_texts") == [{"n": 25}]
    writer = Writer()
    assert client.collection("docs", embedder=CountingEmbedder(), generator=writer).ingest(made).new == 20
    assert len(writer.asked) == 15


KILLED = """
import sys, time
from pgseek import CallableGenerator, Client
from support import CountingEmbedder

def ask(text, title, count):
    time.sleep(0.02)
    with open({log!r}, "a") as log:
        log.write(text + "\\n")
    return [text + "?"]

with Client({dsn!r}) as client:
    docs = client.collection("docs", embedder=CountingEmbedder(), generator=CallableGenerator(model="slow", questions=ask))
    docs.ingest([{{"id": str(n), "text": f"passage {{n}}"}} for n in range(300)])
"""


def test_a_killed_ingest_does_not_pay_again(client, dsn, tmp_path):
    log = tmp_path / "asked"
    slow = CallableGenerator(model="slow", questions=lambda text, title, count: [text + "?"])
    client.create_collection("docs", embedder=CountingEmbedder(), questions=1, generator=slow)
    code = KILLED.format(log=str(log), dsn=dsn)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 60
    known = 0
    while known < 50 and time.monotonic() < deadline:
        time.sleep(0.05)
        (known,) = rows(dsn, "SELECT count(*) AS n FROM pgseek.generated_texts")[0].values()
    process.send_signal(signal.SIGKILL)
    process.wait()
    asked = len(log.read_text().splitlines())
    assert 50 <= asked < 300
    (known,) = rows(dsn, "SELECT count(*) AS n FROM pgseek.generated_texts")[0].values()
    # What was written in the last half second is lost, and no more.
    assert asked - known <= 40
    calls = []
    again = CallableGenerator(
        model="slow", questions=lambda text, title, count: calls.append(text) or [text + "?"]
    )
    report = client.collection("docs", embedder=CountingEmbedder(), generator=again).ingest(
        [{"id": str(n), "text": f"passage {n}"} for n in range(300)]
    )
    assert (report.new, len(calls)) == (300, 300 - known)


def test_a_document_whose_text_is_refused_is_rejected_alone(client, dsn):
    with ProviderServer() as server, chat(server) as generator:
        server.bad_text = "secret"
        embedder = CountingEmbedder()
        docs = client.create_collection(
            "docs", embedder=embedder, chunk_size=30, questions=2, generator=generator
        )
        texts = [
            "a harmless text",
            "one harmless thing here.\n\nthe secret of it is this.",
            "another harmless text",
        ]
        report = docs.ingest([{"id": str(n), "text": text} for n, text in enumerate(texts)])
        (rejection,) = report.rejected
        assert (report.new, rejection.id) == (2, "1")
        assert rejection.reason.startswith("openai:gpt-4.1-mini did not write 2 questions for chunk 1: ")
        assert "flagged" in rejection.reason
        # Nothing of it was embedded; it is asked for again next time, the rest is not.
        assert not any("secret" in text for text in embedder.documents)
        server.bad_text = None
        server.reset()
        assert docs.ingest([{"id": "1", "text": texts[1]}]).new == 1
        assert len(server.requests) == 1


@contextlib.contextmanager
def chat(server, **options):
    with (
        openai.DefaultHttpxClient(verify=False) as plain,
        openai.OpenAI(api_key="key", base_url=server.base_url + "/v1", http_client=plain) as made,
    ):
        options.setdefault("limits", Limits(concurrency=4))
        yield ChatGenerator("gpt-4.1-mini", client=made, **options)


def test_a_plan_tells_what_writing_costs_and_ingest_keeps_to_it(client, dsn):
    made = [{"id": str(n), "text": f"this is the passage with number {n} " * 5} for n in range(50)]
    with ProviderServer() as server, chat(server) as generator:
        docs = client.create_collection(
            "docs", embedder=CountingEmbedder(), questions=3, summaries=True, generator=generator
        )
        plan = docs.plan(made)
        assert (plan.requests, plan.written, plan.new) == (100, 0, 50)
        assert plan.output_tokens == 50 * (3 * 20 + 80)
        assert plan.chunks == 50 * 5
        expected = (plan.input_tokens * 0.4 + plan.output_tokens * 1.6) / 1e6
        assert plan.generation_cost == plan.cost == pytest.approx(expected)
        assert server.requests == []
        with pytest.raises(CostLimitReached):
            docs.ingest(made, max_cost=plan.cost / 4)
        paid = len(server.requests)
        assert 5 < paid < 60
        plan = docs.plan(made)
        assert (plan.requests, plan.written) == (100 - paid, paid)
        report = docs.ingest(made, max_cost=1.0)
        assert report.new == 50
        assert report.generated == 100 - paid
        assert report.cost > 0
        assert len(server.requests) == 100
        assert docs.plan(made).requests == 0


def test_a_bound_needs_a_known_price(client):
    with ProviderServer() as server, chat(server) as generator:
        generator.price = None
        docs = client.create_collection("docs", embedder=CountingEmbedder(), questions=1, generator=generator)
        with pytest.raises(InvalidInput, match=r"nothing is known of what openai:gpt-4\.1-mini costs"):
            docs.ingest(CORPUS, max_cost=1.0)
        assert docs.plan(CORPUS).generation_cost is None
        assert server.requests == []


def test_a_generator_is_needed_where_texts_are_to_be_written(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), questions=1, generator=Writer())
    docs.ingest(CORPUS)
    other = client.collection("docs", embedder=CountingEmbedder())
    assert other.search("cache")
    for call in (lambda: other.ingest(CORPUS), lambda: other.plan(CORPUS), other.drain_queue):
        with pytest.raises(InvalidInput, match=r"pass the same one: client\.collection\(name, generator="):
            call()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"questions": 1}, "need somebody to write them"),
        ({"summaries": True}, "need somebody to write them"),
        ({"questions": 21, "generator": Writer()}, "questions is 21, but must be from 0 to 20"),
        ({"questions": True, "generator": Writer()}, "questions is True"),
        ({"generator": Writer()}, "nothing for it to write"),
        ({"questions": 1, "generator": "gemini:x"}, "provider 'gemini' is unknown"),
        ({"questions": 1, "generator": len}, "must be a string such as"),
        ({"document_vectors": 1}, "document_vectors is 1"),
        ({"heading_context": "yes"}, "heading_context is 'yes'"),
        ({"collapse": "no"}, "collapse is 'no'"),
    ],
)
def test_bad_settings_are_told(client, given, message):
    with pytest.raises(InvalidInput, match=message):
        client.create_collection("docs", embedder=CountingEmbedder(), **given)


def test_a_generator_named_by_a_string_is_made_again(client, monkeypatch):
    with ProviderServer() as server:
        for name, value in (
            ("OPENAI_API_KEY", "key"),
            ("OPENAI_BASE_URL", server.base_url + "/v1"),
            ("NO_PROXY", "127.0.0.1"),
        ):
            monkeypatch.setenv(name, value)
        client.create_collection(
            "docs", embedder=CountingEmbedder(), summaries=True, generator="openai-compatible:llama3.2"
        )
        docs = client.collection("docs", embedder=CountingEmbedder())
        assert docs.info().settings["generator"] == "openai-compatible:llama3.2"
        assert docs.ingest(CORPUS).generated == len(CORPUS)
        assert {request.model for request in server.requests} == {"llama3.2"}


def test_a_question_is_not_found_where_its_chunk_is_shut_out(client):
    docs = client.create_collection(
        "docs", embedder=CountingEmbedder(), questions=1, generator=Writer(), collapse=False
    )
    docs.ingest(
        [{"id": "1", "text": "one two three four hidden"}, {"id": "2", "text": "one two three four five"}]
    )
    for alpha in (0, 0.5, 1):
        for lexical in ("bm25", "ts_rank_cd"):
            found = docs.search("wherefore one -hidden", alpha=alpha, lexical=lexical, k=10)
            assert {h.id for h in found} == {"2"}, (alpha, lexical)
            assert {h.kind for h in found} == ({"chunk", "question"})
    assert {h.id for h in docs.search("+wherefore +hidden", k=10)} == set()


def test_documents_put_through_sql_get_all_their_rows(client, dsn):
    docs = client.create_collection(
        "docs",
        embedder=CountingEmbedder(),
        questions=1,
        summaries=True,
        document_vectors=True,
        generator=Writer(),
    )
    rows(dsn, "SELECT pgseek.put_document('docs', 'sql', %s, format => 'markdown')", [GUIDE])
    report = docs.drain_queue()
    assert (report.changed, report.generated) == (1, 2)
    assert [kind for (kind,) in stored(dsn, "kind")] == ["chunk", "question", "summary", "document"]


def test_documents_put_through_sql_wait_for_a_generator_that_works(client, dsn):
    docs = client.create_collection(
        "docs", embedder=CountingEmbedder(), questions=1, generator=Writer(after=1)
    )
    for n in range(3):
        rows(dsn, f"SELECT pgseek.put_document('docs', '{n}', 'the text {n}')")
    with pytest.raises(GeneratorError, match="out of ink"):
        docs.drain_queue()
    assert docs.info().queued == 3
    other = client.collection("docs", embedder=CountingEmbedder(), generator=Writer())
    report = other.drain_queue()
    assert (report.changed, report.generated, report.rejected) == (3, 2, ())


def test_the_asynchronous_client_does_the_same(dsn):
    async def work():
        async with AsyncClient(dsn) as client:
            docs = await client.create_collection(
                "docs", embedder=CountingEmbedder(), questions=1, document_vectors=True, generator=Writer()
            )
            report = await docs.ingest(CORPUS)
            (hit,) = await docs.search("wherefore cache decorator", alpha=0, k=1)
            return report, hit, await docs.plan(CORPUS)

    report, hit, plan = asyncio.run(work())
    assert (report.generated, report.chunks) == (6, 18)
    assert (hit.kind, hit.id, plan.requests) == ("question", "lru_cache", 0)


# What an edit leaves as it was.


@pytest.mark.parametrize("dimensions", [8, 2500])
def test_an_edit_embeds_what_changed_even_without_the_cache(client, dsn, dimensions):
    embedder = CountingEmbedder(dimensions)
    docs = client.create_collection("docs", embedder=embedder, chunk_size=100, document_vectors=True)
    docs.ingest([FORMED])
    before = rows(
        dsn,
        "SELECT c.text, e.embedding::text AS v FROM pgseek.chunks c JOIN pgseek.embeddings_1 e USING (document_id, ordinal) WHERE kind = 'chunk'",
    )
    client.clear_cache()
    embedder.documents.clear()
    edited = {**FORMED, "text": GUIDE.replace("Click on the icon", "Press the button")}
    plan = docs.plan([edited])
    assert (plan.texts, plan.reused, plan.cached) == (1, 3, 0)
    report = docs.ingest([edited])
    assert (report.changed, report.embedded, report.reused, report.cached) == (1, 1, 3, 0)
    assert [text.startswith("Guide › Install › Windows") for text in embedder.documents] == [True]
    after = rows(
        dsn,
        "SELECT c.text, e.embedding::text AS v FROM pgseek.chunks c JOIN pgseek.embeddings_1 e USING (document_id, ordinal) WHERE kind = 'chunk'",
    )
    assert len({(r["text"], r["v"]) for r in before} & {(r["text"], r["v"]) for r in after}) == 3


def test_without_a_cache_of_documents_an_edit_embeds_what_changed(client):
    embedder = CountingEmbedder()
    embedder.cache_documents = False
    docs = client.create_collection("docs", embedder=embedder, chunk_size=100)
    docs.ingest([FORMED, {"id": "other", "text": "other"}])
    embedder.documents.clear()
    report = docs.ingest([{**FORMED, "text": GUIDE + "\nAnd so on."}])
    assert (len(embedder.documents), report.embedded, report.reused) == (1, 1, 3)
    # A vector is taken over from the same document only: nobody looks through all.
    assert docs.ingest([{"id": "third", "text": "other"}]).reused == 0


def test_a_text_that_was_read_in_parts_is_taken_over_whole(client):
    class Reader(CountingEmbedder):
        exact_tokens = True
        max_tokens = 12

        def count_tokens(self, texts):
            return [len(text.split()) for text in texts]

    embedder = Reader()
    docs = client.create_collection("docs", embedder=embedder, chunk_size=120)
    long = " ".join(f"word{n}." for n in range(14))
    docs.ingest([{"id": "1", "text": f"{long}\n\nfew words at the end of it, and no more."}])
    client.clear_cache()
    embedder.documents.clear()
    report = docs.ingest([{"id": "1", "text": f"{long}\n\nother words at the end of it, and no more."}])
    assert (report.rejected, report.reused) == ((), 1)
    assert embedder.documents == ["other words at the end of it, and no more."]


# One row for each document.


@pytest.fixture(scope="module")
def granular(module_dsn):
    """A collection with rows of every kind, of documents of one chunk to twelve."""
    rng = np.random.default_rng(5)
    with Client(module_dsn) as client:
        docs = client.create_collection(
            "docs",
            embedder=CountingEmbedder(),
            chunk_size=60,
            questions=2,
            document_vectors=True,
            generator=Writer(),
        )
        words = [f"word{n}" for n in range(60)]
        docs.ingest(
            {
                "id": str(n),
                "text": "\n\n".join(" ".join(rng.choice(words, 6)) for _ in range(int(rng.integers(1, 13)))),
                "metadata": {"even": n % 2 == 0},
            }
            for n in range(80)
        )
        yield docs


ARGUMENTS = [
    {},
    {"alpha": 0},
    {"alpha": 1},
    {"alpha": 0.3, "normalization": "max"},
    {"alpha": 0, "lexical": "ts_rank_cd"},
    {"filter": {"even": True}},
    {"query": "word1 word2 -word3"},
    {"query": "+word1 word2"},
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("k", [1, 7, 40])
def test_a_collapsed_search_is_the_best_row_of_each_document(granular, arguments, k):
    query = arguments.get("query", "word1 word2 word3")
    given = {name: value for name, value in arguments.items() if name != "query"}
    # Every row there is, so that nothing depends on how many candidates were taken.
    every = granular.search(query, k=10_000, candidates=10_000, collapse=False, **given)
    best = {}
    for hit in every:
        best.setdefault(hit.id, hit)
    expected = list(best.values())[:k]
    found = granular.search(query, k=k, candidates=10_000, **given)
    assert [(h.id, h.ordinal, h.kind, h.matched_text) for h in found] == [
        (h.id, h.ordinal, h.kind, h.matched_text) for h in expected
    ]
    assert [h.score for h in found] == pytest.approx([h.score for h in expected], abs=1e-9)
    assert [(h.dense_rank, h.lexical_rank) for h in found] == [
        (h.dense_rank, h.lexical_rank) for h in expected
    ]
    assert [h.rank for h in found] == list(range(1, len(found) + 1))
    if {"alpha", "filter", "query"}.isdisjoint(arguments):
        assert len(found) == k


@pytest.mark.parametrize("fusion", ["weighted", "rrf"])
def test_candidates_are_taken_until_there_are_enough_documents(granular, fusion):
    # 800 rows and more, and the first candidates are of a few documents only.
    found = granular.search("word1", k=80, candidates=10, fusion=fusion)
    assert len({h.id for h in found}) == len(found) == 80
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    # No more than there are.
    assert len(granular.search("word1", k=500, fusion=fusion)) == 80


def test_collapsed_scores_of_rrf_are_those_of_its_rows(granular):
    every = granular.search("word1 word2", k=10_000, candidates=10_000, collapse=False, fusion="rrf")
    best = {}
    for hit in every:
        best.setdefault(hit.id, hit)
    found = granular.search("word1 word2", k=10, candidates=10_000, fusion="rrf")
    assert [(h.id, h.score) for h in found] == [(h.id, h.score) for h in list(best.values())[:10]]


def test_a_few_documents_that_fill_the_candidates_hide_no_other(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), chunk_size=17, candidates=20)
    docs.ingest(
        [
            {"id": "long", "text": "\n\n".join("apple apple apple" for n in range(400))},
            *(
                {"id": f"other{n}", "text": f"an apple among many other words that are longer than that, {n}"}
                for n in range(5)
            ),
        ]
    )
    assert {h.id for h in docs.search("apple", k=5, alpha=0)} == {"long"}
    for alpha in (0, 0.5, 1):
        assert len({h.id for h in docs.search("apple", k=6, alpha=alpha, collapse=True)}) == 6, alpha


def test_settings_of_the_session_stay_as_they_were(granular, module_dsn):
    from pgseek.db.connection import connect

    with connect(module_dsn) as connection:
        connection.execute("SET hnsw.ef_search = 55")
        connection.execute(
            "SELECT * FROM pgseek.search('docs', 'word1', k => 80, candidates => 10, query_embedding => %s::vector, space_id => 1)",
            [str([0.1] * 8)],
        )
        assert connection.execute("SHOW hnsw.ef_search").fetchone() == {"hnsw.ef_search": "55"}


def test_evaluation_ranks_documents_of_a_granular_collection(granular):
    from pgseek.evaluation import Mode, run_mode

    found = run_mode(granular, Mode("hybrid", {}), {"q": "word1 word2"}, depth=50)
    ranking = [document for document, _ in found.run["q"]]
    assert len(ranking) == len(set(ranking)) == 50
