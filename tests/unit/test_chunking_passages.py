"""What is embedded for a chunk."""

import pytest

from indexer.index.passages import HEAD_MAX_BYTES, passage, text_alone


def test_title_and_headings_are_a_line_above_the_text() -> None:
    assert (
        passage("Llamas", "Food > Grass", "They eat it.") == "Llamas > Food > Grass\nThey eat it."
    )


def test_what_is_not_there_takes_no_place() -> None:
    assert passage("", "", "Text.") == "Text."
    assert passage("Llamas", "", "Text.") == "Llamas\nText."
    assert passage("", "Food", "Text.") == "Food\nText."


@pytest.mark.parametrize("path", ["Llamas", "Llamas > Food", "Llamas > Llamas"])
def test_a_title_that_is_also_the_first_heading_is_said_once(path: str) -> None:
    assert passage("Llamas", path, "Text.") == f"{path}\nText."


def test_a_title_on_two_lines_is_put_on_one() -> None:
    assert passage(" The\n  llama ", "", "Text.") == "The llama\nText."


def test_a_long_title_loses_its_end() -> None:
    head = passage("word " * 60, "", "Text.").removesuffix("\nText.")

    assert ("word " * 60).startswith(head)
    assert HEAD_MAX_BYTES - 4 < len(head) <= HEAD_MAX_BYTES


def test_a_long_path_loses_its_outermost_headings_and_keeps_the_title() -> None:
    headings = [f"Heading number {n} of them all" for n in range(20)]

    assert passage("The title", " > ".join(headings), "") == (
        " > ".join(["The title", *headings[-7:]]) + "\n"
    )


@pytest.mark.parametrize("character", ["x", "é", "羊", "🦙"])
@pytest.mark.parametrize("path", ["", " > ".join("ab"), "{0}", "{0} > {0}{0}"])
def test_the_head_has_a_limit_in_bytes_and_no_half_characters(character: str, path: str) -> None:
    title = character * 500
    head = passage(title, path.format(character * 400), "").removesuffix("\n")

    assert HEAD_MAX_BYTES // 3 < len(head.encode()) <= HEAD_MAX_BYTES
    assert set(head) <= {character, *" >ab"}


def test_text_alone_is_just_that() -> None:
    assert text_alone("Llamas", "Food", "Text.") == "Text."
