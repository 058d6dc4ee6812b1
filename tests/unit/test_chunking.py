"""Chunks of a document: what every text keeps to, and where headings go."""

from itertools import pairwise

import pytest

from indexer.chunking import Chunker, ChunkerSettings, Span

PROSE = " ".join(f"Sentence number {n} says a little more about the llama." for n in range(60))
TEXTS = {
    "prose": PROSE,
    "wrapped prose": PROSE.replace(" a ", "\na "),
    "german": "Die Größe der Lamas überrascht: 1,80 m „in der Höhe“, für Köln viel. " * 30,
    "chinese": "大羊驼是一种驯化的骆驼科动物。它们生活在南美洲。" * 40,
    "emoji": "🦙🦙 👩‍👩‍👧 llama \u0301 " * 60,
    "one long word": "x" * 3000,
    "blank lines": "\n\n\n one \n\n\n two \n\n",
    "code": "# Code\n\n```python\n" + "\n".join(f"value_{n} = {n}" for n in range(200)) + "\n```\n",
    "table": "| a | b |\n|---|---|\n" + "\n".join(f"| {n} | row {n} |" for n in range(120)),
    "list": "\n".join(f"- item {n}\n  - below it\n" for n in range(60)),
    "html": "\n".join(f"<div>\n  <p>Line {n}</p>\n</div>\n" for n in range(60)),
    "sections": "\n\n".join(f"## Section {n}\n\n{PROSE[: n * 40]}" for n in range(1, 12)),
    "old line ends": PROSE.replace(" says", "\rsays"),
    "short": "one",
}


def spans(text: str, size: int = 100, overlap_percent: int = 0, title: str = "") -> list[Span]:
    settings = ChunkerSettings(size=size, overlap_percent=overlap_percent)
    return Chunker(settings).split(title=title, text=text)


def texts(text: str, size: int = 100, overlap_percent: int = 0) -> list[str]:
    return [span.text for span in spans(text, size, overlap_percent)]


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
def test_spans_come_in_order_and_none_is_within_another(text: str, overlap_percent: int) -> None:
    found = spans(text, 100, overlap_percent)

    assert all(one.start < next_.start for one, next_ in pairwise(found))
    assert all(one.end < next_.end for one, next_ in pairwise(found))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_without_overlap_no_character_is_in_two_spans(text: str) -> None:
    found = spans(text, 100, 0)

    assert all(one.end <= next_.start for one, next_ in pairwise(found))


@pytest.mark.parametrize("overlap_percent", [0, 10])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_nothing_but_white_space_is_left_out(text: str, overlap_percent: int) -> None:
    covered = {
        place for span in spans(text, 100, overlap_percent) for place in range(span.start, span.end)
    }

    left_out = "".join(text[place] for place in sorted(set(range(len(text))) - covered))

    assert left_out.strip() == ""


def test_overlap_repeats_the_end_of_a_span_and_no_more_than_allowed() -> None:
    found = spans(PROSE, 200, 30)
    shared = [one.end - next_.start for one, next_ in pairwise(found)]

    assert max(shared) > 0
    assert max(shared) <= 60
    assert all(span.text.startswith("Sentence") for span in found)


def test_overlap_begins_at_a_word_where_no_sentence_does() -> None:
    found = spans(PROSE, 200, 10)

    assert all(PROSE[span.start - 1] == " " for span in found[1:])
    assert any(one.end > next_.start for one, next_ in pairwise(found))


def test_overlap_of_code_is_whole_lines() -> None:
    code = "```\n" + "\n".join(f"step_{n}()" for n in range(60)) + "\n```"
    found = spans(code, 100, 20)

    assert all(span.text.startswith(("step_", "```")) for span in found)
    assert all(one.end > next_.start for one, next_ in pairwise(found))


def test_after_a_block_of_code_no_lines_of_it_are_repeated() -> None:
    code = "```\n" + "\n".join(f"step_{n}()" for n in range(9)) + "\n```"

    assert texts(f"{code}\n\n{PROSE[:80]}", 120, 20)[1].startswith("Sentence")


def test_nothing_of_a_section_is_repeated_in_the_next() -> None:
    text = f"## One\n\n{PROSE[:150]}\n\nShort.\n\n## Two\n\n{PROSE[:150]}"

    assert texts(text, 200, 50)[1].startswith("## Two")


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


def test_a_heading_that_is_underlined_is_one_too() -> None:
    text = "Title\n=====\n\nSection\n-------\n\n" + "word " * 12

    assert [span.heading_path for span in spans(text, 64)] == ["Title > Section"]


def test_a_heading_says_its_words_without_emphasis_and_links() -> None:
    assert spans("# The *big* [llama](llama.md)\n\nText.")[0].heading_path == "The big llama"


def test_text_before_any_heading_has_no_path_and_a_span_of_its_own() -> None:
    found = spans("intro\n\n# One\n\nText.")

    assert [(span.text, span.heading_path) for span in found] == [
        ("intro", ""),
        ("# One\n\nText.", "One"),
    ]


def test_a_comment_in_a_code_block_is_no_heading_of_what_follows() -> None:
    text = "# Real\n\n```bash\n# comment\n" + "run --it\n" * 30 + "```\n\n" + "word " * 15

    assert {span.heading_path for span in spans(text, 100)} == {"Real"}


def test_a_heading_of_an_empty_section_is_in_no_span() -> None:
    text = "# Title\n\nOne.\n\n## Empty\n\n## Full\n\n" + "more " * 10 + "\n\n## Last\n"
    found = spans(text, 64)

    assert [span.text.split("\n")[0] for span in found] == ["# Title", "## Full"]
    assert [span.heading_path for span in found] == ["Title", "Title > Full"]


def test_an_empty_section_lends_no_heading_to_the_next() -> None:
    assert texts("## Empty\n\n## Full\n\nText.") == ["## Full\n\nText."]
    assert texts("# Above\n\n## Full\n\nText.") == ["# Above\n\n## Full\n\nText."]


def test_headings_alone_are_no_text() -> None:
    assert spans("# One\n") == []
    assert spans("# One\n\n## Two\n\n# Three") == []


def test_a_heading_stays_with_its_text_even_where_that_is_cut() -> None:
    found = texts("# One\n\n## Two\n\n" + PROSE, 200)

    assert found[0].startswith("# One\n\n## Two\n\nSentence number 0")


def test_a_heading_gives_way_to_a_block_that_fits_without_it() -> None:
    paragraph = "word " * 19 + "last"

    assert texts(f"# Heading\n\n{paragraph}") == [paragraph]


def test_a_span_never_ends_with_a_heading() -> None:
    text = "\n\n".join(f"{'#' * (1 + n % 3)} Heading {n}\n\n{PROSE[: 7 * n]}" for n in range(40))

    assert not [found for found in texts(text, 120) if found.split("\n")[-1].startswith("#")]


def test_small_sections_are_together_only_below_their_common_heading() -> None:
    text = "# A\n\nIntro.\n\n## B\n\nSmall.\n\n## C\n\nSmall too.\n\n# D\n\nOther."

    assert [span.heading_path for span in spans(text, 200)] == ["A", "D"]
    assert [span.heading_path for span in spans(text, 40)] == ["A", "A > C", "D"]


def test_a_short_introduction_is_not_mixed_with_the_long_section_below_it() -> None:
    assert texts("# A\n\nIntro.\n\n## B\n\n" + PROSE, 200)[0] == "# A\n\nIntro."


def test_a_paragraph_that_fits_is_not_cut() -> None:
    paragraphs = [f"Paragraph {n}. " + "And more. " * (n % 9) for n in range(60)]
    whole = {paragraph.strip() for paragraph in paragraphs}

    for found in texts("\n\n".join(paragraphs), 120):
        assert {part.strip() for part in found.split("\n\n")} <= whole


def test_a_paragraph_that_fits_is_not_cut_to_fill_the_span_before_it() -> None:
    long = "word " * 22 + "last."

    assert texts(f"Short.\n\n{long}", 120) == ["Short.", long]


def test_a_paragraph_of_just_the_size_fits() -> None:
    paragraph = "word " * 19 + "last."

    assert texts(f"{paragraph}\n\n{paragraph}", 100) == [paragraph, paragraph]


def test_paragraphs_that_fill_a_span_to_the_last_character_are_together() -> None:
    two = f"{'word ' * 9}last.\n\n{'word ' * 8}last.."

    assert texts(f"{two}\n\n{two}", len(two)) == [two, two]


@pytest.mark.parametrize(
    "block",
    [
        "| a | b |\n|---|---|\n" + "\n".join(f"| {n} | row {n} |" for n in range(6)),
        "```\n" + "\n".join(f"step_{n}()" for n in range(10)) + "\n```",
        "\n".join(f"- item {n}" for n in range(11)),
    ],
)
def test_a_block_that_fits_is_not_cut_to_fill_the_span_before_it(block: str) -> None:
    assert texts(f"Short lead-in:\n\n{block}", 110) == ["Short lead-in:", block]


def test_a_lead_in_stays_with_a_list_that_has_to_be_cut() -> None:
    text = "These are they:\n\n" + "\n".join(f"- item number {n}" for n in range(30))

    assert texts(text)[0].startswith("These are they:\n\n- item number 0")


def test_an_item_of_a_list_is_not_cut() -> None:
    items = [f"- Item {n} says one thing. And it says another one." for n in range(30)]

    for found in texts("\n".join(items), 120):
        assert set(found.split("\n")) <= set(items)


@pytest.mark.parametrize("fence", ["```", "~~~~"])
def test_a_line_of_code_is_not_cut(fence: str) -> None:
    lines = [f"    value_{n} = compute({n})  # it says this. And that." for n in range(60)]
    text = f"Intro.\n\n{fence}python\n" + "\n".join(lines) + f"\n{fence}\n\nAfter it."

    for found in texts(text, 150):
        assert set(found.split("\n")) <= set(text.split("\n"))


@pytest.mark.parametrize("lead", range(0, 90, 5))
def test_a_line_of_code_is_not_cut_whatever_is_above_it(lead: int) -> None:
    lines = [f"call_{n}({'x' * (n * 37 % 80)})" for n in range(2, 30)]
    text = f"{'A' * lead}\n\n```python\n" + "\n".join(lines) + "\n```"

    for found in texts(text, 100, 20):
        assert set(found.split("\n")) <= set(text.split("\n"))
        assert not found.endswith("```python")


@pytest.mark.parametrize("length", range(88, 101))
@pytest.mark.parametrize("overlap_percent", [0, 50])
def test_lines_as_long_as_the_size_are_not_cut(length: int, overlap_percent: int) -> None:
    code = "\n".join(f"{'word ' * 30}"[: length - 1] + "." for _ in range(5))
    rows = "\n".join("| " + f"{'word ' * 30}"[: length - 4] + " |" for _ in range(5))
    text = f"# T\n\nText.\n\n```python\n{code}\n```\n\n{rows[:length]}\n|---|\n{rows}"

    for found in texts(text, 100, overlap_percent):
        assert {line.strip() for line in found.split("\n")} <= {
            line.strip() for line in text.split("\n")
        }


def test_code_is_cut_at_blank_lines_first() -> None:
    code = "\n\n".join(f"def f{n}():\n    x = {n}\n    return x" for n in range(20))

    for found in texts(f"```\n{code}\n```", 100):
        assert found.removeprefix("```\n").startswith("def ")


def test_a_fence_is_no_span_of_its_own() -> None:
    code = "\n".join(f"line number {n:04}" for n in range(60))

    for size in range(64, 200):
        assert not {"```", "```python"} & set(texts(f"```python\n{code}\n```", size))


@pytest.mark.parametrize("margin", ["", "  ", "> "])
def test_a_row_of_a_table_is_not_cut(margin: str) -> None:
    rows = [f"{margin}| `param_{n}` | What it means. At length. | {n} |" for n in range(40)]
    heads = [f"{margin}| Parameter | Meaning | Default |", f"{margin}|---|:--|--:|"]
    text = "\n".join([f"{margin}Before it.", *heads, *rows])

    for found in texts(text, 150):
        lines = {line.strip() for line in found.split("\n")}
        assert lines <= {line.strip() for line in [f"{margin}Before it.", *heads, *rows]}


def test_the_head_of_a_table_is_with_its_first_row() -> None:
    rows = "\n".join(f"| {n} | row {n} |" for n in range(40))
    found = texts(f"# T\n\n{PROSE[:54]}\n\n| a | b |\n|---|---|\n{rows}", 100)

    assert [text for text in found if "|---|" in text and "| 0 | row 0 |" not in text] == []


def test_a_row_longer_than_the_size_is_cut_between_words() -> None:
    row = "| " + "word " * 100 + "|"

    for found in texts(f"| a |\n|---|\n{row}", 80)[1:]:
        assert found.strip("| ").split() == ["word"] * found.count("word")


def test_a_paragraph_that_does_not_fit_is_cut_between_sentences() -> None:
    assert all(found.endswith("llama.") for found in texts(PROSE, 150))


def test_wrapped_lines_are_no_reason_to_cut_within_a_sentence() -> None:
    assert all(found.endswith("llama.") for found in texts(TEXTS["wrapped prose"], 150))


def test_chinese_is_cut_between_sentences() -> None:
    assert all(found.endswith("。") for found in texts(TEXTS["chinese"], 100))


def test_lines_without_sentences_are_cut_between_lines() -> None:
    log = "\n".join(f"12:00:{n:02} worker {n} started" for n in range(60))

    for found in texts(log, 150, 10):
        assert set(found.split("\n")) <= set(log.split("\n"))


def test_an_emoji_of_several_characters_stays_whole() -> None:
    family = "👩‍👩‍👧‍👦"

    assert {found.replace(family, "") for found in texts(family * 100, 100)} == {""}


def test_indentation_of_the_first_line_is_kept() -> None:
    text = "Text.\n\n" + "\n".join(f"        deep_{n}()" for n in range(40))

    assert texts(text, 100)[1].startswith("        deep_")


def test_rules_and_fences_alone_say_nothing() -> None:
    assert texts("---\n\n***\n\n```\n```") == []


def test_the_description_tells_chunkers_apart() -> None:
    described = {
        Chunker(
            ChunkerSettings(size=size, overlap_percent=percent, with_headings=with_headings)
        ).description
        for size in (64, 512, 5121)
        for percent in (0, 10, 50)
        for with_headings in (False, True)
    }

    assert len(described) == 18
