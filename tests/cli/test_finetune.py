"""``pgseek finetune``: what it refuses before anything is loaded. Training itself is in tests/heavy."""

from __future__ import annotations

import pytest
from support import CORPUS, CountingEmbedder

from pgseek import Client


@pytest.fixture
def pgseek(commands, dsn):
    with Client(dsn) as client:
        client.create_collection("docs", embedder=CountingEmbedder()).ingest(CORPUS)

    def run(*arguments):
        done = commands.run("--dsn", dsn, "finetune", "docs", *map(str, arguments))
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


def test_wrong_use_is_told(pgseek, tmp_path):
    output = ("--output", tmp_path / "model")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        '{"query": "a", "document": "lru_cache"}\n{"query": "b", "document": "reduce", "score": 2}\n'
    )
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    (beir / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n7\treduce\t1\n")
    (beir / "queries.jsonl").write_text('{"_id": "1", "text": "only this one"}\n')
    for arguments, message in (
        (output, "give one of --examples, --beir and --titles; given: none"),
        ((*output, "--titles", "--beir", beir), "given: --beir, --titles"),
        ((*output, "--examples", tmp_path / "none.jsonl"), "cannot read examples from"),
        ((*output, "--examples", pairs), "pairs.jsonl:2: score is 2, but must lie in 0..1"),
        ((*output, "--beir", beir), "a split needs the texts of its own queries"),
        ((*output, "--beir", beir, "--split", "dev"), "judged splits there: train"),
        ((*output, "--titles", "--window", "3"), "--window is '3', but must be two ranks"),
        ((*output, "--titles", "--window", "9,3"), "window is (9, 3)"),
        ((*output, "--titles", "--matryoshka", "a"), "--matryoshka is 'a', but must be whole numbers"),
        ((*output, "--titles", "--loss", "mse"), "loss is 'mse', but must be one of"),
        ((*output, "--titles", "--measure", "nDCG10"), "nDCG10"),
        ((*output, "--titles", "--plot", tmp_path / "losses.gif"), "ends in none of .png, .svg, .pdf"),
        ((*output, "--titles", "--dev", 0.9), "dev is 0.9"),
    ):
        code, out, err = pgseek(*arguments)
        assert (code, out, message in err) == (2, "", True), err
        assert "Traceback" not in err
    assert not (tmp_path / "model").exists()
