"""Word documents, presentations, tables and books."""

import datetime as dt
import io
import struct
import zipfile

import pytest

from indexer.errors import DocumentUnusable
from indexer.parsing import archive
from tests.unit.parsing_samples import (
    BILLION_LAUGHS,
    EXTERNAL_ENTITY,
    SECRET,
    docx,
    epub,
    paragraph,
    parsed,
    slides,
    with_part,
    xlsx,
    zipped,
)

TABLE = (
    f"<w:tbl><w:tr><w:tc>{paragraph('Name')}</w:tc><w:tc>{paragraph('Range')}</w:tc></w:tr>"
    f"<w:tr><w:tc>{paragraph('M')}</w:tc><w:tc>{paragraph('2 to 9')}</w:tc></w:tr></w:tbl>"
)
SAMPLES = {
    ".docx": docx(paragraph("Text")),
    ".xlsx": xlsx({"S": [["Text"]]}),
    ".pptx": slides(("Text", "x")),
    ".epub": epub({"a.xhtml": "<html><body>Text</body></html>"}),
}
PART_WITH_TEXT = {
    ".docx": ("word/document.xml", "Text"),
    ".xlsx": ("xl/worksheets/sheet1.xml", 't="inlineStr"'),
    ".pptx": ("ppt/slides/slide1.xml", "Text"),
    ".epub": ("OEBPS/text/a.xhtml", "Text"),
}

INDEX_PART = {
    ".docx": "word/document.xml",
    ".xlsx": "xl/workbook.xml",
    ".pptx": "ppt/presentation.xml",
    ".epub": "OEBPS/book.opf",
}


def test_a_word_document_keeps_headings_code_and_tables() -> None:
    document = parsed(
        docx(
            paragraph("Guide", "Title")
            + paragraph("Install", "heading2")
            + paragraph("It is &lt;easy&gt;.")
            + paragraph("if x:", "HTMLPreformatted")
            + paragraph("    y = 1", "HTMLPreformatted")
            + TABLE
        ),
        ".docx",
    )

    assert document.title == "Guide"
    assert document.text.startswith("# Guide\n\n## Install\n\nIt is <easy>.")
    assert "```\nif x:\n    y = 1\n```" in document.text
    assert "| Name | Range |\n| --- | --- |\n| M | 2 to 9 |" in document.text


def test_slides_are_read_under_their_titles_with_points_and_notes() -> None:
    document = parsed(slides(("Llamas", "Wool\nMilk"), ("", "Alone"), notes="Smile."), ".pptx")

    assert document.title == "Llamas"
    assert document.text.startswith("## Llamas\n\n- Wool\n- Milk\n\nNotes:\n\nSmile.")
    assert "## Slide 2\n\nAlone" in document.text


def test_rows_of_a_sheet_are_named_by_its_header() -> None:
    rows: list[list[object]] = [
        [None, None],
        ["Name", "Price", "Since"],
        ["Tea", 3.5, dt.date(2024, 5, 1)],
        ["Milk\nfresh", None, dt.datetime.fromisoformat("2024-05-01T12:30")],
        [None, None, None],
        ["#1 oil", 2.0, None],
    ]

    book = xlsx({"Prices": rows, "Secret": [["hidden words"]]}, hidden=["Secret"])

    assert parsed(book, ".xlsx").text == (
        "# Prices\n\nName: Tea\nPrice: 3.5\nSince: 2024-05-01\n\n"
        "Name: Milk fresh\nSince: 2024-05-01 12:30:00\n\nName: #1 oil\nPrice: 2"
    )


def test_a_sheet_without_a_header_is_read_line_by_line() -> None:
    text = parsed(xlsx({"S": [["2024", 1, 2], ["2025", 3, 4], ["#x"]]}), ".xlsx").text

    assert text == "# S\n\n2024 | 1 | 2\n\n2025 | 3 | 4\n\n\\#x"


def test_the_size_that_a_sheet_claims_is_not_believed() -> None:
    book = with_part(
        xlsx({"S": [["Text"]]}),
        "xl/worksheets/sheet1.xml",
        '<dimension ref="A1:A1"',
        '<dimension ref="A1:XFD1048576"',
    )

    assert parsed(book, ".xlsx").text == "# S\n\nText"


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ('Name,Note\nTea,"strong, black"\nMilk,\n', ".csv"),
        ("Name;Note\nTea;strong, black\nMilk;\n", ".csv"),
        ("Name\tNote\nTea\tstrong, black\nMilk\t\n", ".tsv"),
        ('"Name"|"Note"\n"Tea"|"strong, black"\n"Milk"|""\n', ".csv"),
    ],
)
def test_values_are_told_apart_by_whatever_separates_them(text: str, suffix: str) -> None:
    assert parsed(text, suffix).text == "Name: Tea\nNote: strong, black\n\nName: Milk"


def test_a_row_that_is_longer_than_its_header_keeps_its_values() -> None:
    assert parsed("a,b\n1,2,3\n4\n", ".csv").text == "a: 1\nb: 2\n3\n\na: 4"


def test_a_column_is_read_as_a_table_of_one() -> None:
    assert parsed("Name\nTea\nMilk\n", ".csv").text == "Name: Tea\n\nName: Milk"


def test_a_value_longer_than_a_text_may_be_is_refused() -> None:
    with pytest.raises(DocumentUnusable, match="field larger than field limit"):
        parsed("a,b\n1," + "x" * 20_000_001, ".csv")


def test_names_of_columns_count_for_the_length_of_a_text() -> None:
    with pytest.raises(DocumentUnusable, match="longer than 20,000,000 characters"):
        parsed("n" * 99 + ",b\n" + "1,2\n" * 200_000, ".csv")


def test_two_hundred_thousand_columns_are_read() -> None:
    columns = ",".join(f"c{n}" for n in range(200_000))

    assert "c199999: 7" in parsed(f"{columns}\n" + ",".join("7" * 200_000), ".csv").text


def test_a_book_is_read_in_the_order_of_its_spine_without_its_list_of_contents() -> None:
    chapters = {
        "z%20first.xhtml": "<html><body><h1>One</h1><p>First.</p></body></html>",
        "a.xhtml": "<html><body><h1>Two</h1><p>Second.</p></body></html>",
    }
    book = with_name(epub(chapters, title="A  Book"), "z%20first.xhtml", "z first.xhtml")

    document = parsed(book, ".epub")

    assert document.title == "A Book"
    assert document.text == "# One\n\nFirst.\n\n# Two\n\nSecond."


def test_a_chapter_that_is_missing_does_not_cost_the_book() -> None:
    book = epub({"a.xhtml": "<p>Here.</p>", "b.xhtml": "<p>Gone.</p>"})

    assert parsed(with_name(book, "b.xhtml", "moved.xhtml"), ".epub").text == "Here."


@pytest.mark.parametrize(
    ("algorithm", "readable"),
    [
        ("http://www.w3.org/2001/04/xmlenc#aes128-cbc", False),
        ("http://www.idpf.org/2008/embedding", True),
    ],
)
def test_a_book_with_its_chapters_encrypted_is_told_from_one_with_its_fonts(
    algorithm: str, readable: bool
) -> None:
    encryption = f'<encryption><EncryptionMethod Algorithm="{algorithm}"/></encryption>'
    book = epub({"a.xhtml": "<p>Text</p>"}, extra={"META-INF/encryption.xml": encryption})

    if readable:
        assert parsed(book, ".epub").text == "Text"
    else:
        with pytest.raises(DocumentUnusable, match="it is encrypted"):
            parsed(book, ".epub")


@pytest.mark.parametrize("suffix", sorted(SAMPLES))
def test_an_encrypted_or_older_document_is_told_as_such(suffix: str) -> None:
    with pytest.raises(DocumentUnusable, match="it is encrypted, or in the format of before 2007"):
        parsed(bytes.fromhex("D0CF11E0A1B11AE1") + bytes(512), suffix)

    with pytest.raises(DocumentUnusable, match="it is encrypted"):
        parsed(with_flags(SAMPLES[suffix], 0x1), suffix)


@pytest.mark.parametrize("suffix", sorted(SAMPLES))
@pytest.mark.parametrize("damage", ["cut", "other", "markup"])
def test_damage_is_told_as_such(suffix: str, damage: str) -> None:
    whole = SAMPLES[suffix]
    damaged = {
        "cut": whole[: len(whole) // 2],
        "other": zipped({"a.txt": "no office document"}),
        "markup": with_part(whole, INDEX_PART[suffix], "<", "<<"),
    }

    with pytest.raises(DocumentUnusable, match="it is damaged, or not of the format its name says"):
        parsed(damaged[damage], suffix)


@pytest.mark.parametrize("suffix", sorted(SAMPLES))
@pytest.mark.parametrize(
    ("doctype", "entity"), [(BILLION_LAUGHS, "&l9;"), (EXTERNAL_ENTITY, "&secret;")]
)
def test_entities_are_never_expanded(suffix: str, doctype: str, entity: str) -> None:
    part, text = PART_WITH_TEXT[suffix]
    use = f'{text} note="{entity}"' if "=" in text else entity  # a sheet has no text of its own
    with zipfile.ZipFile(io.BytesIO(SAMPLES[suffix])) as parts:
        xml = parts.read(part).decode()
    declaration, end, rest = xml.rpartition("?>")
    hostile = with_part(
        SAMPLES[suffix], part, xml, declaration + end + doctype + rest.replace(text, use)
    )

    try:
        document = parsed(hostile, suffix)
    except DocumentUnusable:
        return
    assert SECRET not in document.text + document.title
    assert len(document.text) < 100


@pytest.mark.parametrize("suffix", sorted(SAMPLES))
def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_MARKUP_BYTES", 1 << 20)
    part, _ = PART_WITH_TEXT[suffix]
    bomb = with_part(SAMPLES[suffix], part, "<", " " * 400_000 + "<")

    assert len(bomb) < 200_000
    with pytest.raises(DocumentUnusable, match="it unpacks to far more than a document needs"):
        parsed(bomb, suffix)


def test_pictures_count_less_than_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MARKUP_BYTES", 1 << 16)
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 1 << 21)
    chapter = {"a.xhtml": "<p>Text</p>"}

    assert parsed(epub(chapter, extra={"a.png": " " * (1 << 20)}), ".epub").text == "Text"
    with pytest.raises(DocumentUnusable, match="it unpacks to far more than a document needs"):
        parsed(epub(chapter, extra={"a.png": " " * (1 << 21)}), ".epub")


def test_an_archive_of_too_many_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_PARTS", 10)

    with pytest.raises(DocumentUnusable, match="it unpacks to far more than a document needs"):
        parsed(epub({f"{n}.xhtml": "<p>x</p>" for n in range(10)}), ".epub")


def test_a_part_that_lies_about_its_size_is_damaged() -> None:
    honest = docx(paragraph("a" * 100_000))
    size = struct.pack("<I", 100_000)
    assert size not in honest
    with zipfile.ZipFile(io.BytesIO(honest)) as parts:
        true_size = struct.pack("<I", parts.getinfo("word/document.xml").file_size)

    with pytest.raises(DocumentUnusable, match="it is damaged"):
        parsed(honest.replace(true_size, struct.pack("<I", 1_000)), ".docx")


def test_tables_in_tables_without_end_are_nested_too_deeply() -> None:
    depth = 3_000
    body = "<w:tbl><w:tr><w:tc>" * depth + paragraph("x") + "</w:tc></w:tr></w:tbl>" * depth

    with pytest.raises(DocumentUnusable, match="it is nested too deeply"):
        parsed(docx(body), ".docx")


def with_name(archive_bytes: bytes, old: str, new: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive_bytes)) as parts:
        return zipped({part.replace(old, new): parts.read(part) for part in parts.namelist()})


def with_flags(archive_bytes: bytes, flags: int) -> bytes:
    """With general purpose bits set in every entry of the central directory."""
    marked = bytearray(archive_bytes)
    place = marked.find(b"PK\x01\x02")
    while place >= 0:
        marked[place + 8] |= flags
        place = marked.find(b"PK\x01\x02", place + 4)
    return bytes(marked)
