"""PDF files."""

import zlib

import pytest

from indexer.errors import DocumentUnusable
from indexer.parsing.page_layout import Line, to_markdown
from tests.unit.parsing_samples import parsed, pdf, text_page

ENCRYPTED = (
    f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{'00' * 32}> /U <{'00' * 32}> /P -4 >>"
    " /ID [<00><00>]"
)


def line(
    text: str, bottom: float, *, size: float = 11, left: float = 72, code: bool = False
) -> Line:
    right = left + 5 * len(text)
    return Line(text=text, size=size, fixed_width=code, left=left, right=right, bottom=bottom)


def test_headings_paragraphs_and_code_are_told_apart_by_their_letters() -> None:
    document = parsed(
        pdf(
            text_page(
                (20, 740, "Guide"),
                (11, 700, "It begins here and"),
                (11, 686, "goes on in a second line."),
                (14, 650, "Install"),
                (11, 620, "Another paragraph, which is of two lines as"),
                (11, 606, "well."),
            ),
            text_page((9, 700, "if x:"), (9, 688, "  y = 1"), font="F2"),
        ),
        ".pdf",
    )

    assert document.title == "Guide"
    assert document.text == (
        "# Guide\n\nIt begins here and goes on in a second line.\n\n## Install\n\n"
        "Another paragraph, which is of two lines as well.\n\n```\nif x:\n  y = 1\n```"
    )


def test_letters_beyond_ascii_are_read() -> None:
    assert parsed(pdf(text_page((11, 700, "Größe: 5 €"))), ".pdf").text == "Größe: 5 €"


@pytest.mark.parametrize(
    ("stated", "title"),
    [
        ("A Guide to Llamas", "A Guide to Llamas"),
        (" Guide\\n to ", "Guide to"),
        ("Microsoft Word - guide_v2.docx", "Heading"),
        ("guide_v2.indd", "Heading"),
        ("untitled", "Heading"),
        ("Document1", "Heading"),
        ("", "Heading"),
    ],
)
def test_a_title_is_one_that_somebody_wrote(stated: str, title: str) -> None:
    page = text_page((20, 700, "Heading"), (11, 660, "Text of the usual size."))

    assert parsed(pdf(page, title=stated), ".pdf").title == title


def test_pages_without_text_may_be_scanned() -> None:
    with pytest.raises(DocumentUnusable, match="there is no text in it; it may be scanned pages"):
        parsed(pdf(b"0 0 100 100 re f", b""), ".pdf")


def test_an_encrypted_file_is_told_from_a_damaged_one() -> None:
    page = text_page((11, 700, "Text"))

    with pytest.raises(DocumentUnusable, match="it is encrypted"):
        parsed(pdf(page, trailer=ENCRYPTED), ".pdf")
    with pytest.raises(DocumentUnusable, match="it is damaged"):
        parsed(pdf(page)[:200], ".pdf")


def test_pages_that_are_their_own_parents_end() -> None:
    whole = pdf(text_page((11, 700, "Text")))
    assert b"/Kids [5 0 R]" in whole

    with pytest.raises(DocumentUnusable, match="there is no text in it"):
        parsed(whole.replace(b"/Kids [5 0 R]", b"/Kids [2 0 R]"), ".pdf")


@pytest.mark.parametrize("size", ["0", "1e30", "-7"])
def test_letters_of_impossible_sizes_are_harmless(size: str) -> None:
    page = f"BT /F1 {size} Tf 72 700 Td (Odd) Tj /F1 11 Tf 0 -30 Td (Usual) Tj ET".encode()

    assert "Usual" in parsed(pdf(page), ".pdf").text


def test_a_page_that_inflates_a_thousandfold_is_read() -> None:
    packed = zlib.compress(text_page((11, 700, "Text")) + b" " * 20_000_000, 9)

    assert parsed(pdf(b"", packed=packed), ".pdf").text == "Text"


def test_running_heads_page_numbers_and_tables_of_contents_are_left_out() -> None:
    pages = [
        [
            line(f"Chapter {number}: Llamas", 760),
            line(f"{word} is the text of this page.", 400),
            line(f"It ends {word.lower()}.", 386),
            line(f"- {number} -", 30),
        ]
        for number, word in enumerate(["Here", "There", "Elsewhere"], 1)
    ]
    contents = [line("1 Introduction . . . . . . . . . . 3", 700), line("2 Use .......... iv", 686)]

    text = to_markdown([contents, *pages])

    assert text.startswith("Here is the text")
    assert "Chapter" not in text
    assert "- 2 -" not in text
    assert "Introduction" not in text
    assert "There is the text of this page. It ends there." in text


def test_a_sentence_goes_on_over_the_end_of_a_page() -> None:
    pages = [
        [line("First paragraph of them.", 400), line("It goes on", 86)],
        [line("over the end.", 700), line("New sentence.", 660)],
    ]

    assert (
        to_markdown(pages)
        == "First paragraph of them.\n\nIt goes on over the end.\n\nNew sentence."
    )


def test_items_of_a_list_stay_apart() -> None:
    page = [
        line("There are:", 700),
        line("• wool, which", 686),
        line("is warm", 672),
        line("• milk", 658),
        line("1. First of all", 644),
    ]

    assert to_markdown([page]) == "There are:\n\n- wool, which is warm\n\n- milk\n\n1. First of all"


def test_a_line_that_begins_with_a_number_sign_is_no_heading() -> None:
    assert to_markdown([[line("# of llamas", 700)]]) == "\\# of llamas"


def test_nothing_is_made_of_nothing() -> None:
    assert to_markdown([]) == ""
    assert to_markdown([[], []]) == ""
