"""What BM25 compares: words in one form, whatever the script."""

import sys
import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indexer.index.stream_safe import MOST_MARKS, stream_safe
from indexer.index.terms import LANGUAGES, Terms

ENGLISH, PLAIN = Terms("english"), Terms("none")
ANY_LANGUAGE = {language: Terms(language) for language in sorted(LANGUAGES)}


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("english", "Configuring the collections", "configured collection"),
        ("german", "Häuser", "Hauses"),
        ("french", "continuellement", "continuelle"),
        ("russian", "книгами", "книга"),
        ("none", "Straße", "STRASSE"),
    ],
)
def test_forms_of_a_word_are_one_term(language: str, one: str, other: str) -> None:
    assert Terms(language)(one) == Terms(language)(other) != ""


def test_without_a_language_words_stay_as_they_are() -> None:
    assert PLAIN("Configuring the Collections") == "configuring the collections"


def test_english_stop_words_are_left_out_but_where_there_is_nothing_else() -> None:
    assert ENGLISH("What is the height of an orbit?") == "what height orbit"
    assert ENGLISH("To be, or not to be") == "to be or not to be"
    assert Terms("german")("the orbit") == "the orbit"


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("max_num_results", "max num results"),
        ("--chunk-size-chars=512", "chunk size chars 512"),
        ("indexer.index.terms", "indexer index terms"),
        ("HTTP/1.1 404", "http 1 1 404"),
        ("GPT4o-mini", "gpt4o mini"),
        ("10.0.0.1:19530", "10 0 0 1 19530"),
    ],
)
def test_an_identifier_is_the_words_in_it(text: str, terms: str) -> None:
    assert PLAIN(text) == terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("大羊驼是动物。", "大羊 羊驼 驼是 是动 动物"),
        ("大。", "大"),
        ("向量数据库Milvus", "向量 量数 数据 据库 milvus"),
        ("ラマ・アルパカ", "ラマ アル ルパ パカ"),
        ("라마는 풀을", "라마 마는 풀을"),
        ("𠀀𠀁𠀂", "𠀀𠀁 𠀁𠀂"),
    ],
)
def test_scripts_without_spaces_are_told_apart_by_two_characters(text: str, terms: str) -> None:
    assert PLAIN(text) == terms


def test_a_word_beside_a_script_without_spaces_is_stemmed_as_it_is_elsewhere() -> None:
    assert ENGLISH("databases数据").split() == [ENGLISH("databases"), "数据"]
    assert ENGLISH("数据the库") == "数据 库"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\uff26\uff35\uff2c\uff2c\u3000\uff57\uff49\uff44\uff54\uff48", "full width"),
        ("ﬁle", "file"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u212bngstr\u00f6m", "\u00c5ngstro\u0308m"),
        ("x²", "x2"),
        ("İstanbul", "istanbul"),
        ("כָּתַב", "כתב"),
        ("كِتَاب", "كتاب"),
    ],
)
def test_what_reads_the_same_is_the_same(one: str, other: str) -> None:
    assert PLAIN(one) == PLAIN(other) != ""


@pytest.mark.parametrize("word", ["हिन्दी", "தமிழ்", "বাংলা"])
def test_marks_do_not_cut_a_word_into_pieces(word: str) -> None:
    assert len(PLAIN(f"{word} {word}").split()) == 2


def test_thai_goes_by_pairs_of_letters_across_its_marks() -> None:
    assert all(len(term) == 2 for term in PLAIN("ที่อยู่ภาษาไทย").split())


@pytest.mark.parametrize("text", ["", " \t\n", "?!", "…", "___", "🦙👩‍👩‍👧", "\u0301", "€§"])
def test_a_text_without_words_has_no_terms(text: str) -> None:
    assert ENGLISH(text) == ""


@pytest.mark.parametrize("language", ["elvish", "", "English"])
def test_a_language_that_is_not_known_is_refused_with_those_that_are(language: str) -> None:
    with pytest.raises(ValueError, match=r"is none of .*english.*none"):
        Terms(language)


texts = st.text() | st.text(st.sampled_from("aÄßİﬁé\u0301\u0e50ทีก大ラ・한²½①_- .'0ǅ"))


@given(texts, st.sampled_from(sorted(LANGUAGES)))
@example("İ", "none")
@example("0:S", "porter")
@example("ำำ", "none")
@example("ͅ", "greek")
def test_terms_are_letters_and_digits_with_single_spaces_between(text: str, language: str) -> None:
    terms = ANY_LANGUAGE[language](text)

    assert terms == " ".join(terms.split())
    assert all(each.isalnum() for term in terms.split() for each in term)


@given(texts)
def test_the_terms_of_terms_are_the_same_terms(text: str) -> None:
    terms = PLAIN(text)

    assert PLAIN(terms) == terms


@given(texts)
@example("ß\u0301")
def test_the_same_text_in_another_normal_form_or_in_capitals_has_the_same_terms(text: str) -> None:
    terms = PLAIN(text)

    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert PLAIN(unicodedata.normalize(form, text)) == terms
    assert PLAIN(unicodedata.normalize("NFD", text).casefold()) == terms


def test_marks_without_end_on_one_letter_take_no_longer_than_other_text() -> None:
    for text in ("\u0301" * 40_000 + "\u0327" * 40_000, "\uff9e\u0f73\u0301" * 30_000):
        began = time.process_time()
        assert PLAIN("a" + text + " b").split()[-1] == "b"
        assert time.process_time() - began < 2


def test_marks_as_languages_have_them_stay_as_they_are() -> None:
    most = "a" + "\u0327\u0301" * (MOST_MARKS // 2)
    for text in ("e\u0323\u0302", "หนี้", most, "─" * 500, "🦙" * 90):
        assert stream_safe(text * 3) == text * 3


def test_whatever_is_ordered_among_others_is_parted() -> None:
    marks = [
        each
        for each in map(chr, range(sys.maxunicode + 1))
        if unicodedata.combining(unicodedata.normalize("NFKD", each)[0])
    ]
    assert len(marks) > 900
    for mark in marks:
        safe = stream_safe("a" + f"\u0301{mark}" * MOST_MARKS + "a")
        assert [len(part) for part in safe.split("\u034f")] == [MOST_MARKS + 1] * 2


@given(st.lists(texts, max_size=4))
def test_the_terms_of_a_whole_are_those_of_its_parts(parts: list[str]) -> None:
    together = " ".join(filter(None, map(PLAIN, parts)))

    assert PLAIN("\n".join(parts)) == together
