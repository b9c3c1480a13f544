"""The catalogue of models: its data, looking a model up, and which one is recommended for what."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgseek.embedders import recommend as recommending
from pgseek.embedders.catalog import (
    Benchmark,
    FusionDefaults,
    Model,
    catalogue,
    find_model,
    fusion_defaults,
    lookup,
    models,
    parse_catalogue,
    served_model,
)
from pgseek.embedders.recommend import Needs, costs, excluded, index_bytes, recommend, vector_bytes
from pgseek.errors import ConfigurationError, InvalidInput
from pgseek.types import EmbedderIdentity
from pgseek.vectors import INDEXED_UP_TO, storage_for

ALL = len(models())
BGE = "Represent this sentence for searching relevant passages: "
QWEN = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
ST = "sentence-transformers"

# The data.


@pytest.mark.parametrize("model", models(), ids=lambda model: model.spec)
def test_every_entry_makes_sense(model):
    assert model.provider in {"openai", "cohere", ST, "wordllama"}
    assert 64 <= model.dimensions <= 4096
    assert model.max_tokens is None or 100 <= model.max_tokens <= 128_000
    assert model.allowed_dimensions()[-1] == model.dimensions
    assert list(model.allowed_dimensions()) == sorted(set(model.allowed_dimensions()))
    assert model.local is (model.provider in {ST, "wordllama"})
    if model.local:
        assert (model.price, model.price_read) == (0, None)
        assert 1 <= model.parameters <= 10_000
    else:
        assert 0.01 <= model.price <= 1
        assert date(2023, 1, 1) <= model.price_read <= date.today()
        assert model.parameters is None
    for value, benchmark, source in (
        (model.quality, model.quality_benchmark, model.quality_source),
        (model.multilingual_quality, model.multilingual_benchmark, model.multilingual_source),
    ):
        if value is not None:
            assert 30 <= value <= 80
            assert benchmark in catalogue().benchmarks
            assert "https://" in source
    assert model.languages in {"english", "multilingual"}
    if model.languages == "english":
        assert model.multilingual_quality is None


def test_no_model_is_there_twice():
    assert len({model.spec.lower() for model in models()}) == ALL
    assert ALL >= 36


@pytest.mark.parametrize(
    ("name", "query", "document"),
    [
        ("BAAI/bge-small-en-v1.5", BGE, ""),
        ("BAAI/bge-base-en-v1.5", BGE, ""),
        ("BAAI/bge-large-en-v1.5", BGE, ""),
        ("BAAI/bge-m3", "", ""),
        ("intfloat/e5-small-v2", "query: ", "passage: "),
        ("intfloat/e5-base-v2", "query: ", "passage: "),
        ("intfloat/e5-large-v2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-small", "query: ", "passage: "),
        ("intfloat/multilingual-e5-base", "query: ", "passage: "),
        ("intfloat/multilingual-e5-large", "query: ", "passage: "),
        ("intfloat/multilingual-e5-large-instruct", f"{QWEN} ", ""),
        ("thenlper/gte-small", "", ""),
        ("thenlper/gte-base", "", ""),
        ("thenlper/gte-large", "", ""),
        ("Alibaba-NLP/gte-modernbert-base", "", ""),
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: ", "search_document: "),
        ("mixedbread-ai/mxbai-embed-large-v1", BGE, ""),
        ("Snowflake/snowflake-arctic-embed-m-v1.5", BGE, ""),
        ("Snowflake/snowflake-arctic-embed-m-v2.0", "query: ", ""),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", "query: ", ""),
        ("Qwen/Qwen3-Embedding-0.6B", QWEN, ""),
        ("Qwen/Qwen3-Embedding-4B", QWEN, ""),
        ("Qwen/Qwen3-Embedding-8B", QWEN, ""),
        ("google/embeddinggemma-300m", "task: search result | query: ", "title: none | text: "),
        ("all-MiniLM-L6-v2", "", ""),
        ("all-MiniLM-L12-v2", "", ""),
        ("all-mpnet-base-v2", "", ""),
    ],
)
def test_prompts_are_those_of_the_model_cards(name, query, document):
    found = find_model(ST, name)
    assert (found.query_prompt, found.document_prompt) == (query, document)


def test_the_prompts_of_every_local_transformer_are_tested_above():
    prompts = test_prompts_are_those_of_the_model_cards.pytestmark[0].args[1]
    assert {name for name, _, _ in prompts} == {m.model for m in models() if m.provider == ST}
    assert not [m.spec for m in models() if m.provider != ST and (m.query_prompt or m.document_prompt)]


@pytest.mark.parametrize(
    ("spec", "native", "price", "tokens"),
    [
        ("openai:text-embedding-3-small", 1536, 0.02, 8191),
        ("openai:text-embedding-3-large", 3072, 0.13, 8191),
        ("openai:text-embedding-ada-002", 1536, 0.10, 8191),
        ("cohere:embed-english-v3.0", 1024, 0.10, 512),
        ("cohere:embed-multilingual-v3.0", 1024, 0.10, 512),
        ("cohere:embed-english-light-v3.0", 384, 0.10, 512),
        ("cohere:embed-multilingual-light-v3.0", 384, 0.10, 512),
        ("cohere:embed-v4.0", 1536, 0.12, 128_000),
    ],
)
def test_services(spec, native, price, tokens):
    model, dimensions = lookup(spec)
    assert (model.spec, dimensions, model.price, model.max_tokens) == (spec, native, price, tokens)


# The sizes a model gives.


@pytest.mark.parametrize(
    ("spec", "sizes", "gives", "refuses"),
    [
        ("openai:text-embedding-3-small", "1 to 1536", [1, 512, 1536], [0, 1537, -1]),
        ("openai:text-embedding-ada-002", "only 1536", [1536], [512, 1]),
        ("cohere:embed-v4.0", "256, 512, 1024, 1536", [256, 1536], [255, 768]),
        ("wordllama:l2_supercat", "64, 128, 256", [64, 128, 256], [32, 100, 512]),
        ("sentence-transformers:Qwen/Qwen3-Embedding-0.6B", "32 to 1024", [32, 1000, 1024], [31, 1025]),
        ("sentence-transformers:BAAI/bge-m3", "only 1024", [1024], [512]),
    ],
)
def test_sizes(spec, sizes, gives, refuses):
    model = lookup(spec)[0]
    assert model.sizes == sizes
    assert [size for size in gives + refuses if model.reduces_to(size)] == gives
    for size in gives:
        assert lookup(f"{spec}@{size}") == (model, size)
    for size in refuses:
        with pytest.raises(InvalidInput, match=rf"{model.model} gives {sizes} dimensions, not {size}$"):
            model.check_dimensions(size)
    assert model.check_dimensions(None) == model.dimensions


# Looking up.


@pytest.mark.parametrize(
    "name",
    [
        "all-MiniLM-L6-v2",
        "sentence-transformers/all-MiniLM-L6-v2",
        "ALL-minilm-l6-V2",
        "Sentence-Transformers/all-minilm-l6-v2",
    ],
)
def test_a_name_is_found_with_or_without_its_organisation_and_in_any_case(name):
    assert find_model(ST, name).model == "all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        (ST, "minilm-l6-v2"),
        (ST, "/models/all-MiniLM-L6-v2"),
        (ST, "./BAAI/bge-m3"),
        (ST, "bge-m3"),
        (ST, ""),
        (ST, "text-embedding-3-small"),
        ("openai", "Text-Embedding-3-Small"),
        ("openai", ""),
        ("nobody", "text-embedding-3-small"),
        ("wordllama", "l3_supercat"),
    ],
)
def test_what_is_not_in_the_catalogue_is_none(provider, name):
    assert find_model(provider, name) is None


def test_a_local_folder_is_no_model_of_the_catalogue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model(ST, "BAAI/bge-m3") is not None
    (tmp_path / "BAAI" / "bge-m3").mkdir(parents=True)
    assert find_model(ST, "BAAI/bge-m3") is None


def test_azure_serves_the_models_of_openai():
    assert find_model("azure-openai", "text-embedding-3-large") is find_model(
        "openai", "text-embedding-3-large"
    )
    assert lookup("azure-openai:text-embedding-3-large@256")[1] == 256


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            "openai:text-embeding-3-large",
            ["'openai:text-embeding-3-large' is not in", "did you mean openai:text-embedding-3-large"],
        ),
        ("bge-small-en-v1.5", ["did you mean sentence-transformers:BAAI/bge-small-en-v1.5"]),
        (
            "openai",
            ["text-embedding-3-small or openai:text-embedding-3-large or openai:text-embedding-ada-002?"],
        ),
        ("cohere:", ["cohere:embed-v4.0"]),
        ("zzzz", ["'zzzz' is not in the catalogue; pgseek models list"]),
        ("", ["pgseek models list"]),
        ("wordllama@", ["'' after '@' is not a number"]),
        ("wordllama@²", ["'²' after '@' is not a number"]),
        ("wordllama@100", ["gives 64, 128, 256 dimensions, not 100"]),
    ],
)
def test_a_specification_that_names_no_model_is_told_what_would_do(spec, words):
    with pytest.raises(InvalidInput) as caught:
        lookup(spec)
    for word in words:
        assert word in str(caught.value)


def test_the_only_model_of_a_provider_need_not_be_named():
    assert lookup("wordllama@64") == (find_model("wordllama", "l2_supercat"), 64)


@pytest.mark.parametrize(
    ("provider", "name", "expected"),
    [
        ("wordllama", "l2_supercat", FusionDefaults(0.3, "max")),
        ("wordllama", "anything\nelse", FusionDefaults(0.3, "max")),
        (ST, "all-MiniLM-L6-v2", FusionDefaults(0.4, "max")),
        (ST, "sentence-transformers/all-MiniLM-L12-v2", FusionDefaults(0.4, "max")),
        (ST, "/folder/of/all_MiniLM_L6_v2/weights", FusionDefaults(0.4, "max")),
        (ST, "all-MiniLM-L3-v2", FusionDefaults(0.4, "minmax")),
        (ST, "BAAI/bge-m3", FusionDefaults(0.4, "minmax")),
        ("openai", "text-embedding-3-small", FusionDefaults(0.4, "minmax")),
        ("mine", "all-MiniLM-L6-v2", FusionDefaults(0.4, "minmax")),
    ],
)
def test_fusion_defaults_are_those_that_were_measured(provider, name, expected):
    assert fusion_defaults(EmbedderIdentity(provider, name, 384, normalized=True)) == expected


# A catalogue that is wrong.

GOOD = """
[[benchmark]]
name = "B"
about = "a test"
good = 50
best = 60
low = 40
high = 70

[[model]]
provider = "p"
model = "m"
dimensions = 8
reductions = [2, 4]
price = 0.5
price_read = 2025-01-01
speed = "api"
languages = ["de", "fr"]
licence = "L"
normalized = true
quality = 55
quality_benchmark = "B"
quality_source = "somewhere"
"""


def test_a_good_catalogue_is_read():
    read = parse_catalogue(GOOD)
    assert read.benchmarks == {"B": Benchmark("B", "a test", 50, 60, 40, 70)}
    (model,) = read.models
    assert (model.spec, model.reductions, model.languages) == ("p:m", (2, 4), ("de", "fr"))
    assert model.price_read == date(2025, 1, 1)
    assert [code for code in ("en", "de", "fr") if model.covers(code)] == ["de", "fr"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("dimensions = 8", "", "dimensions"),
        ("dimensions = 8", 'dimensions = "8"', ""),
        ("dimensions = 8", "dimensions = 0", "dimensions"),
        ("dimensions = 8", "dimensions = true", "dimensions"),
        ("dimensions = 8", "dimensions = 8\ndims = 8", "dims"),
        ("[2, 4]", "[4, 2]", "reductions"),
        ("[2, 4]", "[2, 8]", "reductions"),
        ("[2, 4]", "[2, 2]", "reductions"),
        ("[2, 4]", "[]", "reductions"),
        ("[2, 4]", "[0, 2]", "reductions"),
        ("[2, 4]", '"some"', "reductions"),
        ("[2, 4]", '"any"\nsmallest = 9', "smallest"),
        ("price = 0.5", "price = -1", "price"),
        ("price = 0.5", "price = inf", "price"),
        ("price = 0.5", "price = nan", "price"),
        ("price = 0.5", "price = 0", "price"),
        ("price_read = 2025-01-01", "", "price_read"),
        ("2025-01-01", '"2025-01-01"', "price_read"),
        ('speed = "api"', 'speed = "fast"', "speed"),
        ('speed = "api"', 'speed = "base"', "price"),
        ('["de", "fr"]', '"german"', "languages"),
        ('["de", "fr"]', '["German"]', "languages"),
        ('["de", "fr"]', "[]", "languages"),
        ("normalized = true", 'normalized = "yes"', "normalized"),
        ("quality = 55", "quality = 155", "quality"),
        ("quality = 55", "", "quality"),
        ('quality_source = "somewhere"', "", "quality"),
        ('quality_benchmark = "B"', 'quality_benchmark = "C"', "benchmark 'C'"),
        ('licence = "L"', 'licence = " "', "licence"),
        ('licence = "L"', 'licence = "L"\nalpha = 0.5', "alpha"),
        ('licence = "L"', 'licence = "L"\nalpha = 1.5\nnormalization = "max"\ncopies = "x"', "alpha"),
        ('licence = "L"', 'licence = "L"\nalpha = 0.5\nnormalization = "min"\ncopies = "x"', "normalization"),
        ('licence = "L"', 'licence = "L"\nparameters = 3', "parameters"),
        ('licence = "L"', 'licence = "L"\nmax_tokens = 0', "max_tokens"),
        ('licence = "L"', 'licence = "L"\nquery_prompt = 3', "prompts"),
    ],
)
def test_a_malformed_model_is_an_error_that_names_it(old, new, words):
    assert old in GOOD
    with pytest.raises(ConfigurationError, match="model 1, p:m") as caught:
        parse_catalogue(GOOD.replace(old, new))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("good = 50", "good = 60"), "benchmark B"),
        (GOOD.replace("high = 70", ""), "benchmark B"),
        (GOOD + GOOD.partition("[[model]]")[1] + GOOD.partition("[[model]]")[2], "model 2, p:m.*twice"),
        ("[[model", "not TOML"),
    ],
)
def test_a_malformed_catalogue_is_an_error_that_says_where(text, words):
    with pytest.raises(ConfigurationError, match=f"(?s){words}"):
        parse_catalogue(text)


# Needs.


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"documents": 0}, "documents is 0, but must be a whole number of 1 or more"),
        ({"documents": 1.5}, "documents is 1.5"),
        ({"documents": True}, "documents is True"),
        ({"mean_tokens": 0}, "mean_tokens is 0"),
        ({"monthly_documents": -1}, "monthly_documents is -1, but must be a whole number of 0 or more"),
        ({"queries": -1}, "queries is -1"),
        ({"network": "no"}, "network is 'no', but must be True or False"),
        ({"code": None}, "code is None"),
        ({"gpu": 1}, "gpu is 1"),
        ({"languages": ()}, "languages is ()"),
        ({"languages": "de"}, "languages is 'de'"),
        ({"languages": ("German",)}, "ISO 639 codes, such as ('en', 'de')"),
        ({"budget": -0.01}, "budget is -0.01, but must be 0 or more US dollars a month"),
        ({"budget": math.inf}, "budget is inf"),
        ({"budget": math.nan}, "budget is nan"),
        ({"budget": "1"}, "budget is '1'"),
        ({"accuracy": "great"}, "accuracy is 'great', but must be one of basic, good, best"),
    ],
)
def test_needs_out_of_range_are_named(changed, words):
    with pytest.raises(InvalidInput) as caught:
        Needs(**{"documents": 10, "mean_tokens": 10, **changed})
    assert words in str(caught.value)


def test_a_limit_below_one_is_refused():
    with pytest.raises(InvalidInput, match="limit is 0"):
        recommend(NEEDS, 0)


# Recommending.

NEEDS = Needs(documents=1_000_000, mean_tokens=400)


def specs(needs, limit=ALL):
    return [each.model.spec for each in recommend(needs, limit)]


def found(needs, spec):
    return next(each for each in recommend(needs, ALL) if each.model.spec == spec)


def test_what_is_not_recommended_is_excluded_with_a_reason():
    for needs in (NEEDS, replace(NEEDS, network=False, languages=("de", "ja"), code=True, budget=0)):
        assert set(specs(needs)) | set(excluded(needs)) == {model.spec for model in models()}
        assert not set(specs(needs)) & set(excluded(needs))
        assert all(excluded(needs).values())


def test_private_texts_stay_on_the_machine():
    needs = replace(NEEDS, network=False)
    assert {model.spec for model in models() if not model.local} <= set(excluded(needs))
    assert excluded(needs)["openai:text-embedding-3-small"] == "texts would leave the network"
    assert "openai:text-embedding-3-small" in specs(NEEDS)


def test_every_language_must_be_covered():
    german = replace(NEEDS, languages=("en", "de"))
    assert excluded(german)["cohere:embed-english-v3.0"] == "not made for de"
    assert "cohere:embed-multilingual-v3.0" in specs(german)
    assert "cohere:embed-english-v3.0" in specs(NEEDS)
    assert all(each.model.languages == "multilingual" for each in recommend(german, ALL))


def test_code_needs_a_model_made_for_it():
    needs = replace(NEEDS, code=True)
    assert excluded(needs)["sentence-transformers:BAAI/bge-m3"] == "not made for code"
    assert all(each.model.code for each in recommend(needs, ALL))
    assert "sentence-transformers:Alibaba-NLP/gte-modernbert-base" in specs(needs)


def test_billions_of_parameters_need_a_gpu():
    eight = "sentence-transformers:Qwen/Qwen3-Embedding-8B"
    assert excluded(NEEDS)[eight] == "7,570 million parameters need a GPU"
    assert eight in specs(replace(NEEDS, gpu=True))


def test_costs_are_those_worked_out_by_hand():
    # 1,000,000 * 400 = 400 million tokens; a month 100,000 * 400 + 500,000 * 20 = 50 million.
    needs = replace(NEEDS, queries=500_000)
    large = find_model("openai", "text-embedding-3-large")
    assert costs(large, needs) == pytest.approx((52.0, 6.5))
    each = found(needs, large.spec)
    assert (each.first_cost, each.monthly_cost) == pytest.approx((52.0, 6.5))
    assert "$52.00 to embed every document once, then $6.50 a month" in each.reasons
    assert costs(large, replace(needs, monthly_documents=0)) == pytest.approx((52.0, 1.3))
    assert costs(large, replace(needs, documents=11, queries=0))[1] == pytest.approx(2 * 400 * 0.13e-6)
    assert costs(find_model(ST, "BAAI/bge-m3"), needs) == (0, 0)


def test_the_budget_bounds_the_first_month():
    large = "openai:text-embedding-3-large"
    # 52 dollars once and 5.20 for the month's changes.
    assert large in specs(replace(NEEDS, budget=57.21))
    tight = replace(NEEDS, budget=57.19)
    assert excluded(tight)[large] == "the first month costs $57.20, above the budget of $57.19"
    assert all(each.model.local for each in recommend(replace(NEEDS, budget=0), ALL))


def test_long_documents_are_a_caution_not_an_obstacle():
    twelve = f"{ST}:all-MiniLM-L12-v2"
    each = found(NEEDS, twelve)
    assert any("reads 128 tokens" in said and "--chunk-size 384 or less" in said for said in each.cautions)
    # ceil(400 / 128) chunks; a model that reads 512 tokens takes such a document whole.
    assert each.vectors_per_document == 4
    assert each.vector_bytes == vector_bytes(384, 4_000_000)
    assert found(NEEDS, f"{ST}:BAAI/bge-small-en-v1.5").vectors_per_document == 1
    short = found(replace(NEEDS, mean_tokens=128), twelve)
    assert not any("chunk" in said for said in short.cautions)
    assert found(replace(NEEDS, mean_tokens=501), "wordllama:l2_supercat").vectors_per_document == 2


def test_models_without_a_published_quality_come_last_and_say_so():
    for needs in (NEEDS, replace(NEEDS, accuracy="basic"), replace(NEEDS, languages=("de",), gpu=True)):
        ranked = recommend(needs, ALL)
        quality = [e.model.quality if needs.english else e.model.multilingual_quality for e in ranked]
        known = [value is not None for value in quality]
        assert known == sorted(known, reverse=True)
        assert {True, False} == set(known)
        for each, has in zip(ranked, known, strict=True):
            assert any("no published quality" in said for said in each.cautions) is not has
    assert "no published quality is known" in " ".join(found(NEEDS, "wordllama:l2_supercat").cautions)
    base = found(replace(NEEDS, languages=("de",)), f"{ST}:intfloat/multilingual-e5-base")
    assert "48.88 on BEIR is for English" in " ".join(base.cautions)


@pytest.mark.parametrize(("accuracy", "beir", "english2"), [("good", 49, 50), ("best", 54, 57)])
def test_models_that_meet_the_accuracy_come_before_those_that_do_not(accuracy, beir, english2):
    least = {"BEIR": beir, "MTEB English v2 retrieval": english2}
    ranked = [
        each
        for each in recommend(replace(NEEDS, accuracy=accuracy, gpu=True), ALL)
        if each.model.quality is not None
    ]
    meets = [each.model.quality >= least[each.model.quality_benchmark] for each in ranked]
    assert meets == sorted(meets, reverse=True)
    assert {True, False} == set(meets)
    for each, enough in zip(ranked, meets, strict=True):
        assert any(f"of '{accuracy}'" in said for said in each.cautions) is not enough
        assert any(f"'{accuracy}' starts at" in said for said in each.reasons) is enough


def test_values_of_two_benchmarks_are_never_compared_without_a_word():
    ranked = recommend(replace(NEEDS, gpu=True), ALL)
    for each in ranked:
        other = each.model.quality is not None and each.model.quality_benchmark != "BEIR"
        assert any("does not compare with values on BEIR" in said for said in each.cautions) is other
    assert any(each.model.quality_benchmark == "MTEB English v2 retrieval" for each in ranked)


def test_the_best_is_the_best_and_the_basic_is_fast():
    best = replace(NEEDS, accuracy="best", network=False, gpu=True)
    assert specs(best, 2) == [f"{ST}:Qwen/Qwen3-Embedding-8B", f"{ST}:Qwen/Qwen3-Embedding-4B"]
    private = replace(NEEDS, network=False)
    assert recommend(replace(private, accuracy="basic"), 1)[0].model.speed == "small"
    assert specs(private, 1) == [f"{ST}:BAAI/bge-small-en-v1.5"]


def test_within_a_tier_the_score_falls():
    ranked = [e for e in recommend(NEEDS, ALL) if e.model.quality is not None and e.model.quality >= 50]
    scores = [each.score for each in ranked]
    assert len(scores) > 10
    assert scores == sorted(scores, reverse=True)


def test_a_score_is_the_weighted_sum_that_the_module_states():
    # bge-small: quality (51.68 - 40) / 30, speed 0.7, cost 1.
    assert found(NEEDS, f"{ST}:BAAI/bge-small-en-v1.5").score == pytest.approx(
        0.4 * 11.68 / 30 + 0.4 * 0.7 + 0.2 * 1
    )
    # 3-small: 400 million tokens cost 8 dollars, a month 0.80: over the first year 1.4667 a month.
    assert found(NEEDS, "openai:text-embedding-3-small").score == pytest.approx(
        0.4 * 11.08 / 30 + 0.4 * 0.6 + 0.2 / (1 + (8 / 12 + 0.8) / 20)
    )


def test_long_vectors_are_shortened_unless_the_best_is_asked_for():
    large = "openai:text-embedding-3-large"
    good = found(NEEDS, large)
    assert good.dimensions == 1024
    assert any("for 3,072 dimensions" in said for said in good.cautions)
    best = found(replace(NEEDS, accuracy="best"), large)
    assert best.dimensions == 3072
    assert any("halfvec" in said for said in best.cautions)
    # 4,096 dimensions cannot be indexed at all.
    eight = replace(NEEDS, accuracy="best", gpu=True)
    assert found(eight, f"{ST}:Qwen/Qwen3-Embedding-8B").dimensions == 4000


def test_every_size_recommended_can_be_stored_and_given():
    assert (INDEXED_UP_TO["vector"], INDEXED_UP_TO["halfvec"]) == (
        recommending.FULL_PRECISION,
        recommending.INDEXABLE,
    )
    for accuracy in ("basic", "good", "best"):
        for each in recommend(replace(NEEDS, accuracy=accuracy, gpu=True), ALL):
            assert each.model.reduces_to(each.dimensions)
            assert storage_for(each.dimensions) == ("vector" if each.dimensions <= 2000 else "halfvec")


def test_a_model_that_gives_no_size_that_can_be_indexed_is_excluded(monkeypatch):
    wide = replace(find_model(ST, "BAAI/bge-m3"), model="wide", dimensions=5000)
    monkeypatch.setattr(recommending, "catalogue", lambda: replace(catalogue(), models=(wide,)))
    assert recommend(NEEDS) == ()
    assert "only 5000" in excluded(NEEDS)[wide.spec]


def test_when_nothing_fits_there_is_nothing(monkeypatch):
    services = tuple(model for model in models() if not model.local)
    monkeypatch.setattr(recommending, "catalogue", lambda: replace(catalogue(), models=services))
    needs = replace(NEEDS, network=False)
    assert recommend(needs) == ()
    assert set(excluded(needs)) == {model.spec for model in services}


# Sizes on disk.


def test_sizes_are_those_worked_out_by_hand():
    # 48 + 4 * 256 + 8 = 1,080, and a line pointer: seven rows on a page of 8,168 usable bytes.
    assert vector_bytes(256) == math.ceil(1_000_000 / 7) * 8192
    # An element of 72 + 1,032 = 1,104 bytes, 200 of neighbours, two line pointers: six on a page.
    assert index_bytes(256) == math.ceil(1_000_000 / 6) * 8192
    # 1,536: three pieces of 2,036 and one of 196 fill a page; 22 bytes a piece; 107 pointers a page.
    assert vector_bytes(1536) == math.ceil(1_000_000 / 107) * 8192 + 1_000_000 * (8192 + 88)
    assert index_bytes(1536) == 1_000_000 * 8192


# Measured on PostgreSQL 18 with pgvector 0.8: pg_table_size and pg_relation_size of the HNSW index.
@pytest.mark.parametrize(
    ("dimensions", "rows", "table", "index"),
    [
        (256, 2000, 2_375_680, 2_744_320),
        (384, 2000, 3_309_568, 4_104_192),
        (768, 1500, 6_406_144, 6_152_192),
        (1024, 1500, 8_486_912, 12_296_192),
        (1536, 1000, 8_429_568, 8_200_192),
        (3072, 600, 5_087_232, 4_923_392),
    ],
)
def test_sizes_are_close_to_what_was_measured(dimensions, rows, table, index):
    assert vector_bytes(dimensions, rows) == pytest.approx(table, rel=0.02)
    assert index_bytes(dimensions, rows) == pytest.approx(index, rel=0.005)


@given(st.integers(1, 3999))
def test_more_dimensions_never_take_less_space_of_the_same_type(dimensions):
    if dimensions != 2000:
        assert vector_bytes(dimensions + 1, 10_000) >= vector_bytes(dimensions, 10_000)
    assert vector_bytes(dimensions, 1_000) >= 1_000 * (2 * dimensions + 8)
    assert index_bytes(dimensions, 1_000) >= 1_000 * (2 * dimensions + 8)


# Properties.

NEED = st.builds(
    Needs,
    documents=st.integers(1, 10**9),
    mean_tokens=st.integers(1, 10**5),
    monthly_documents=st.none() | st.integers(0, 10**9),
    queries=st.integers(0, 10**9),
    network=st.booleans(),
    languages=st.lists(st.sampled_from(["en", "de", "ja"]), min_size=1).map(tuple),
    budget=st.none() | st.floats(0, 10**6),
    accuracy=st.sampled_from(["basic", "good", "best"]),
    code=st.booleans(),
    gpu=st.booleans(),
)


@given(NEED, st.floats(0, 10**6))
def test_a_larger_budget_never_loses_an_option(needs, more):
    smaller = replace(needs, budget=needs.budget or 0.0)
    larger = replace(needs, budget=smaller.budget + more)
    assert set(specs(smaller)) <= set(specs(larger)) <= set(specs(replace(needs, budget=None)))


@given(NEED)
def test_whatever_is_recommended_keeps_to_the_needs(needs):
    for each in recommend(needs, ALL):
        assert each.model.local or needs.network
        assert all(each.model.covers(code) for code in needs.languages)
        assert each.model.code or not needs.code
        assert needs.budget is None or each.first_cost + each.monthly_cost <= needs.budget
        assert 0 <= each.score <= 1
        assert each.reasons


@given(NEED, st.integers(1, 10))
def test_the_order_is_one_and_a_limit_only_cuts_it(needs, limit):
    assert recommend(needs, limit) == recommend(needs, ALL)[:limit]


@given(NEED)
def test_giving_up_privacy_never_loses_an_option(needs):
    assert set(specs(replace(needs, network=False))) <= set(specs(replace(needs, network=True)))


def test_a_model_is_a_frozen_value():
    with pytest.raises(AttributeError):
        models()[0].price = 1
    assert isinstance(models()[0], Model)
    assert hash(models()[0]) == hash(replace(models()[0]))


@pytest.mark.parametrize(
    ("served", "known"),
    [
        ("nomic-embed-text", "nomic-ai/nomic-embed-text-v1.5"),
        ("nomic-embed-text:latest", "nomic-ai/nomic-embed-text-v1.5"),
        ("text-embedding-nomic-embed-text-v1.5", "nomic-ai/nomic-embed-text-v1.5"),
        ("mxbai-embed-large", "mixedbread-ai/mxbai-embed-large-v1"),
        ("bge-m3", "BAAI/bge-m3"),
        ("BAAI/bge-m3", "BAAI/bge-m3"),
        ("qwen3-embedding:4b", "Qwen/Qwen3-Embedding-4B"),
        ("qwen3-embedding", "Qwen/Qwen3-Embedding-8B"),
        ("qwen3-embedding:latest", "Qwen/Qwen3-Embedding-8B"),
        ("unknown-model", None),
        ("", None),
    ],
)
def test_a_server_has_names_of_its_own_for_models(served, known):
    found = served_model(served)
    assert (None if found is None else found.model) == known


def test_no_two_models_are_served_under_one_name():
    names = [name for model in models() for name in model.served_as]
    assert len(names) == len(set(names))
    assert all(name == name.lower() for name in names)
