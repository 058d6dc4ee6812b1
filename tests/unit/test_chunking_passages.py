"""What is embedded for a chunk."""

import pytest

from indexer.index.passages import passage, text_alone


def test_title_and_headings_stand_above_the_text() -> None:
    assert passage("Llamas", "Food > Grass", "They eat it.") == "Llamas\nFood > Grass\nThey eat it."


def test_what_is_not_there_takes_no_line() -> None:
    assert passage("", "", "Text.") == "Text."
    assert passage("Llamas", "", "Text.") == "Llamas\nText."
    assert passage("", "Food", "Text.") == "Food\nText."


@pytest.mark.parametrize(("path", "rest"), [("Llamas", ""), ("Llamas > Food", "Food\n")])
def test_a_title_that_is_also_the_first_heading_is_said_once(path: str, rest: str) -> None:
    assert passage("Llamas", path, "Text.") == f"Llamas\n{rest}Text."


def test_a_title_on_two_lines_is_put_on_one() -> None:
    assert passage(" The\n  llama ", "", "Text.") == "The llama\nText."


def test_a_long_title_loses_its_end() -> None:
    head = passage("word " * 60, "", "Text.").removesuffix("\nText.")

    assert head == ("word " * 24).rstrip()


def test_a_long_path_loses_its_outermost_headings() -> None:
    headings = [f"Heading number {n} of them all" for n in range(9)]

    assert passage("", " > ".join(headings), "") == " > ".join(headings[-3:]) + "\n"


@pytest.mark.parametrize("character", ["x", "é", "羊", "🦙"])
def test_the_head_has_a_limit_in_bytes_and_no_half_characters(character: str) -> None:
    head = passage(character * 500, character * 501, "")

    assert len(head.encode()) < 250
    assert set(head) == {character, "\n"}


def test_text_alone_is_just_that() -> None:
    assert text_alone("Llamas", "Food", "Text.") == "Text."
