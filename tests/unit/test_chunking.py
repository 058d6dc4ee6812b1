"""Chunks of a document: what every text keeps to, and where headings go."""

from itertools import pairwise

import pytest

from indexer.chunking import Chunker, Span

PROSE = " ".join(f"Sentence number {n} says a little more about the llama." for n in range(60))
TEXTS = {
    "prose": PROSE,
    "german": "Die Größe der Lamas überrascht: 1,80 m „in der Höhe“, für Köln viel. " * 30,
    "chinese": "大羊驼是一种驯化的骆驼科动物。它们生活在南美洲。" * 40,
    "emoji": "🦙🦙 👩‍👩‍👧 llama \u0301 " * 60,
    "one long word": "x" * 3000,
    "blank lines": "\n\n\n one \n\n\n two \n\n",
    "code": "# Code\n\n```python\n" + "\n".join(f"value_{n} = {n}" for n in range(200)) + "\n```\n",
    "table": "| a | b |\n|---|---|\n" + "\n".join(f"| {n} | row {n} |" for n in range(120)),
    "sections": "\n\n".join(f"## Section {n}\n\n{PROSE[: n * 40]}" for n in range(1, 12)),
    "short": "one",
}


def spans(text: str, size: int = 100, overlap_percent: int = 0) -> list[Span]:
    return Chunker(size, overlap_percent).split(text)


@pytest.mark.parametrize("overlap_percent", [0, 10, 50])
@pytest.mark.parametrize("size", [64, 100, 512])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_span_stands_where_it_says_and_fits_the_size(
    text: str, size: int, overlap_percent: int
) -> None:
    found = spans(text, size, overlap_percent)

    assert found
    for span in found:
        assert text[span.start : span.end] == span.text
        assert 0 < len(span.text) <= size
        assert span.text.strip()


@pytest.mark.parametrize("overlap_percent", [0, 10, 50])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_spans_come_in_order(text: str, overlap_percent: int) -> None:
    starts = [span.start for span in spans(text, 100, overlap_percent)]

    assert starts == sorted(set(starts))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_without_overlap_no_character_is_in_two_spans(text: str) -> None:
    found = spans(text, 100, 0)

    assert all(one.end <= next_.start for one, next_ in pairwise(found))


@pytest.mark.parametrize("name", ["prose", "german", "chinese", "one long word", "table", "code"])
@pytest.mark.parametrize("overlap_percent", [0, 10])
def test_nothing_but_white_space_and_lone_headings_is_left_out(
    name: str, overlap_percent: int
) -> None:
    text = TEXTS[name]
    covered = {
        place for span in spans(text, 100, overlap_percent) for place in range(span.start, span.end)
    }

    left_out = {text[place] for place in set(range(len(text))) - covered}

    assert left_out <= set(" \n# Code")


def test_overlap_repeats_the_end_of_a_span_and_no_more_than_allowed() -> None:
    found = spans(PROSE, 200, 30)
    shared = [one.end - next_.start for one, next_ in pairwise(found)]

    assert max(shared) > 0
    assert max(shared) <= 60


def test_a_span_has_the_headings_above_it_outermost_first() -> None:
    body = "word " * 12
    text = (
        f"# A\n\n{body}\n\n## B\n\n{body}\n\n### C `x`\n\n{body}\n\n## D\n\n{body}\n\n# E\n\n{body}"
    )

    assert [span.heading_path for span in spans(text, 64)] == [
        "A",
        "A > B",
        "A > B > C x",
        "A > D",
        "E",
    ]


def test_a_skipped_level_leaves_no_gap_in_the_path() -> None:
    text = "# A\n\n#### Deep\n\n" + "word " * 12 + "\n\n## B\n\n" + "word " * 12

    assert [span.heading_path for span in spans(text, 64)] == ["A > Deep", "A > B"]


def test_text_before_any_heading_has_no_path() -> None:
    assert spans("intro\n")[0].heading_path == ""


def test_a_comment_in_a_code_block_is_no_heading_of_what_follows() -> None:
    text = "# Real\n\n```bash\n# comment\n" + "run --it\n" * 30 + "```\n\n" + "word " * 15

    assert {span.heading_path for span in spans(text, 100)} == {"Real"}


def test_a_heading_that_is_left_alone_is_no_span() -> None:
    text = "# Title\n\n" + "word " * 12 + "\n\n## Empty\n\n## Full\n\n" + "more " * 12

    found = spans(text, 64)

    assert [span.text.split()[0] for span in found] == ["word", "more"]
    assert [span.heading_path for span in found] == ["Title", "Title > Full"]


def test_headings_alone_are_no_text() -> None:
    assert spans("# One\n") == []


def test_two_headings_in_one_piece_are_no_span_either() -> None:
    text = "Title\n=====\n\n## Section\n\n" + "word " * 40

    assert Chunker(64, 0).split(text)[0].text.startswith("word")


def test_a_heading_stays_with_its_text_where_both_fit() -> None:
    assert [span.text for span in spans("# One\n\nText.\n")] == ["# One\n\nText."]


def test_the_description_tells_chunkers_apart() -> None:
    described = {
        Chunker(size, percent).description for size in (64, 512, 5121) for percent in (0, 10, 50)
    }

    assert len(described) == 9
