"""Every configuration PostgreSQL ships, several languages in one collection, accents, and scripts without spaces."""

from __future__ import annotations

import pytest
from support import CountingEmbedder, rows

from pgseek import InvalidInput
from pgseek.db.connection import connect

# A sentence of each language, a word to ask for, and how the sentence writes it.
SENTENCES = {
    "arabic": ("ذهب الطلاب إلى المدرسة الكبيرة", "مدرسة"),
    "armenian": ("Երեխաները գնում են դպրոց", "դպրոց"),
    "basque": ("Umeak eskolara doaz egunero", "eskola"),
    "catalan": ("Els nens van a les escoles del poble", "escola"),
    "danish": ("Børnene går i skolerne hver dag", "skole"),
    "dutch": ("De kinderen lopen naar de scholen", "kinderen"),
    "english": ("The children are walking to their schools", "school"),
    "estonian": ("Lapsed lähevad igal hommikul kooli", "kooli"),
    "finnish": ("Lapset kävelevät kouluihin aamulla", "koulu"),
    "french": ("Les enfants marchent vers les écoles", "école"),
    "german": ("Die Kinder gehen in die Häuser der Städte", "Haus"),
    "greek": ("Τα παιδιά πηγαίνουν στα σχολεία", "σχολείο"),
    "hindi": ("बच्चे हर दिन विद्यालय जाते हैं", "विद्यालय"),
    "hungarian": ("A gyerekek az iskolákba mennek", "iskola"),
    "indonesian": ("Anak-anak berjalan ke sekolah setiap pagi", "jalan"),
    "irish": ("Tá na páistí ag siúl chun na scoile", "scoile"),
    "italian": ("I bambini camminano verso le scuole", "scuola"),
    "lithuanian": ("Vaikai eina į mokyklas kiekvieną rytą", "mokykla"),
    "nepali": ("केटाकेटीहरू हरेक दिन विद्यालय जान्छन्", "विद्यालय"),
    "norwegian": ("Barna går til skolene hver dag", "skole"),
    "portuguese": ("As crianças caminham para as escolas", "escola"),
    "romanian": ("Copiii merg la școlile din oraș", "școli"),
    "russian": ("Дети ходят в школы каждый день", "школа"),
    "serbian": ("Деца иду у школе сваког дана", "школе"),
    "simple": ("The children are walking to their schools", "schools"),
    "spanish": ("Los niños caminan hacia las escuelas", "escuela"),
    "swedish": ("Barnen går till skolorna varje dag", "skola"),
    "tamil": ("குழந்தைகள் பள்ளிக்கு செல்கிறார்கள்", "பள்ளி"),
    "turkish": ("Çocuklar her gün okullara gidiyor", "okul"),
    "yiddish": ("די קינדער גייען אין די שולן", "קינדער"),
    "polish": ("Dzieci idą do szkoły codziennie rano", "szkoły"),
    "esperanto": ("La infanoj iras al la lernejoj", "lernejo"),
}


def test_every_configuration_of_the_server_has_a_sentence(dsn):
    shipped = rows(dsn, "SELECT cfgname FROM pg_ts_config WHERE cfgnamespace = 'pg_catalog'::regnamespace")
    assert {row["cfgname"] for row in shipped} <= set(SENTENCES)


def test_a_document_in_each_language_is_found_in_one_collection(client, dsn):
    shipped = rows(dsn, "SELECT cfgname FROM pg_ts_config WHERE cfgnamespace = 'pg_catalog'::regnamespace")
    languages = sorted(row["cfgname"] for row in shipped)
    assert len(languages) >= 20
    docs = client.create_collection("docs", embedder=CountingEmbedder(), language="english")
    report = docs.ingest(
        {"id": language, "text": SENTENCES[language][0], "language": language} for language in languages
    )
    assert report.new == len(languages)
    for language in languages:
        hits = docs.search(SENTENCES[language][1], alpha=0, k=40, typos=False)
        assert language in [hit.id for hit in hits], language
        (hit,) = [hit for hit in hits if hit.id == language]
        assert "<b>" in hit.snippet, (language, hit.snippet, hit.matched)


def test_a_query_is_read_in_every_language_of_the_collection(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), language="english")
    docs.ingest(
        [
            {"id": "de", "text": "Die Häuser der alten Städte", "language": "german"},
            {"id": "fr", "text": "Les maisons des villes", "language": "french"},
            {"id": "en", "text": "houses of the old cities"},
        ]
    )
    assert [hit.id for hit in docs.search("haus", alpha=0)] == ["de"]
    assert [hit.id for hit in docs.search("maison", alpha=0)] == ["fr"]
    assert {hit.id for hit in docs.search("Häuser houses", alpha=0)} == {"de", "en"}
    assert [hit.id for hit in docs.search('"alten Städte"', alpha=0)] == ["de"]
    assert {hit.id for hit in docs.search("haus house -städte", alpha=0)} == {"en"}


@pytest.mark.parametrize(
    ("language", "text", "queries"),
    [
        (
            "english",
            "a café for the naïve, with résumés",
            ["cafe", "café", "CAFÉ", "naive", "resume", "resumes"],
        ),
        ("simple", "Ångström, Đà Nẵng and Łódź", ["angstrom", "Ångström", "da nang", "lodz"]),
        (
            "german",
            "die große Straße über dem Fluß",
            ["grosse", "große", "strasse", "STRASSE", "fluss"],
        ),
        ("french", "la forêt brûlée de l'été dernier", ["foret", "forêt", "brulée", "dernier"]),
        ("spanish", "mañana cantaré una canción", ["manana", "mañana", "cancion"]),
        ("portuguese", "a nação e o coração", ["nacao", "nação", "coracao"]),
        ("english", "deﬁne the ﬂow of ＡＢＣ and CO₂", ["define", "flow", "abc", "co2"]),
    ],
)
def test_accents_and_compatible_forms_are_folded(client, language, text, queries):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), language=language)
    docs.ingest([{"id": "it", "text": text}, {"id": "other", "text": "nothing of that"}])
    for query in queries:
        assert [hit.id for hit in docs.search(query, alpha=0, typos=False)] == ["it"], query


def test_letters_of_other_scripts_are_not_folded(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), language="russian")
    docs.ingest([{"id": "мой", "text": "мой дом"}, {"id": "мои", "text": "мои дома"}])
    # The short i is a letter of its own, not an i with an accent.
    assert rows_of(docs, "SELECT pgseek.fold('йЙё') AS folded") == [{"folded": "йЙё"}]


def rows_of(docs, statement):
    return rows(docs._client._dsn.get_secret_value(), statement)


UNSPACED = {
    "japanese": {
        "search": "全文検索エンジンは文書を高速に探すための仕組みです。",
        "vector": "ベクトル検索は意味の近さで文書を探します。",
        "cat": "猫は机の上で寝ています。",
        "tokyo": "東京都庁は新宿にあります。",
        "half": "ﾊﾝｶｸの文字もカタカナです。",
    },
    "chinese": {
        "search": "全文搜索引擎可以快速查找文档。",
        "vector": "向量检索根据语义相似度查找文档。",
        "cat": "一只猫睡在桌子上。",
        "database": "关系数据库保存结构化数据。",
    },
    "thai": {
        "search": "ระบบค้นหาข้อความช่วยให้พบเอกสารได้รวดเร็ว",
        "water": "น้ำใจของคนไทยเป็นที่รู้จัก",
        "cat": "แมวนอนอยู่บนโต๊ะ",
        "database": "ฐานข้อมูลเก็บข้อมูลไว้อย่างเป็นระเบียบ",
    },
    "korean": {
        "search": "전문 검색엔진은 문서를 빠르게 찾습니다.",
        "cat": "고양이가 책상 위에서 잡니다.",
        "database": "데이터베이스에 자료를 저장합니다.",
    },
}


@pytest.mark.parametrize(
    ("language", "query", "wanted"),
    [
        ("japanese", "検索エンジン", "search"),
        ("japanese", "ベクトル", "vector"),
        ("japanese", "猫", "cat"),
        ("japanese", "都庁", "tokyo"),
        ("japanese", "ハンカク", "half"),
        ("japanese", '"新宿にあり"', "tokyo"),
        ("chinese", "搜索引擎", "search"),
        ("chinese", "向量", "vector"),
        ("chinese", "猫", "cat"),
        ("chinese", "数据库", "database"),
        ("thai", "ค้นหา", "search"),
        ("thai", "น้ำใจ", "water"),
        ("thai", "แมว", "cat"),
        ("thai", "ฐานข้อมูล", "database"),
        ("korean", "검색", "search"),
        ("korean", "고양이", "cat"),
        ("korean", "데이터베이스", "database"),
    ],
)
def test_scripts_without_spaces_are_found_by_pairs_of_letters(client, language, query, wanted):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), language=language)
    assert docs.info().language == "simple"
    docs.ingest({"id": name, "text": text} for name, text in UNSPACED[language].items())
    hits = docs.search(query, alpha=0)
    assert hits[0].id == wanted
    assert hits[0].degraded is None
    if language != "thai" and query != "ハンカク":
        assert "<b>" in hits[0].snippet


def test_they_are_found_in_a_collection_of_any_language_and_between_words(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), language="english")
    docs.ingest(
        [{"id": "ja", "text": "PostgreSQLで全文検索を行う方法"}, {"id": "en", "text": "full-text search"}]
    )
    assert [hit.id for hit in docs.search("全文検索", alpha=0)] == ["ja"]
    assert [hit.id for hit in docs.search("postgresql", alpha=0)] == ["ja"]
    assert docs.search("全文検索", alpha=0)[0].snippet == "PostgreSQLで<b>全文検索</b>を行う方法"


def test_pairs_that_stand_apart_do_not_make_a_phrase(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), language="chinese")
    docs.ingest(
        [{"id": "together", "text": "机器学习很有用"}, {"id": "apart", "text": "机器很多，学习很难，器学"}]
    )
    assert {hit.id for hit in docs.search("机器学习", alpha=0)} == {"together", "apart"}
    assert [hit.id for hit in docs.search('"机器学习"', alpha=0)] == ["together"]


def test_sql_writers_may_name_such_a_language_too(client, dsn):
    client.create_collection("docs", embedder=CountingEmbedder())
    rows(dsn, "SELECT pgseek.put_document('docs', 'ja', '日本語の文章', language => 'japanese')")
    assert rows(dsn, "SELECT language FROM pgseek.chunks") == [{"language": "simple"}]
    assert len(rows(dsn, "SELECT FROM pgseek.search('docs', '文章', alpha => 0)")) == 1
    with connect(dsn) as connection, pytest.raises(Exception, match="language 'klingon' is not"):
        connection.execute("SELECT pgseek.put_document('docs', 'x', 'y', language => 'klingon')")
    with pytest.raises(InvalidInput, match="language 'klingon' is not"):
        client.create_collection("other", embedder=CountingEmbedder(), language="klingon")
