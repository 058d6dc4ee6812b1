"""Reads PDF files. Knows PDFium and where lines stand on pages, not what they are."""

import ctypes
import re
from collections.abc import Iterator

import pypdfium2
from pypdfium2 import raw

from indexer.documents import Content, Document
from indexer.errors import DocumentUnusable
from indexer.parsing import MAX_CHARACTERS
from indexer.parsing.markdown import first_title
from indexer.parsing.page_layout import Line, to_markdown


def parse(content: Content) -> Document:
    """The text of all pages in their order, with headings by the size of the letters.

    Raises DocumentUnusable when it is damaged or encrypted, and when no page has text.
    """
    try:
        pdf = pypdfium2.PdfDocument(content.data)
    except pypdfium2.PdfiumError as exc:
        encrypted = exc.err_code in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY)
        raise DocumentUnusable("it is encrypted" if encrypted else "it is damaged") from exc
    try:
        text = to_markdown(_pages(pdf))
        title = " ".join(pdf.get_metadata_value("Title").split())
    finally:
        pdf.close()
    if not text:
        raise DocumentUnusable("there is no text in it; it may be scanned pages")
    return Document(title=title if _is_real(title) else first_title(text), text=text)


def _is_real(title: str) -> bool:
    """Whether somebody wrote it: programs put in file names, and what they call a new file."""
    return bool(title) and not _FILE_NAME.search(title) and not _PLACEHOLDER.match(title)


def _pages(pdf: pypdfium2.PdfDocument) -> Iterator[list[Line]]:
    """The lines of each page; an empty list for a page that cannot be read."""
    characters = 0
    for number in range(len(pdf)):
        try:
            page = pdf[number]
            text = page.get_textpage()
        except pypdfium2.PdfiumError:
            yield []
            continue
        lines = list(_lines(text))
        text.close()
        page.close()
        characters += sum(len(line.text) for line in lines)
        if characters > MAX_CHARACTERS:
            raise DocumentUnusable(f"its text is longer than {MAX_CHARACTERS:,} characters")
        yield lines


def _lines(page: pypdfium2.PdfTextPage) -> Iterator[Line]:
    """The lines in PDFium's order of reading, which follows columns.

    PDFium ends a line by a line feed; it marks a word that goes on in the next line by a
    control character, and then ends no line.
    """
    units = [raw.FPDFText_GetUnicode(page, index) for index in range(page.count_chars())]
    begin = 0
    for end in [*(index for index, unit in enumerate(units) if unit == _LINE_FEED), len(units)]:
        shown = [index for index in range(begin, end) if units[index] > _SPACE]
        if shown:
            text = _text(units[begin:end])
            yield _line(page, text, shown)
        begin = end + 1


def _text(units: list[int]) -> str:
    """From UTF-16 code units."""
    text = b"".join(unit.to_bytes(2, "little") for unit in units if unit <= _LAST_UNIT)
    joined = _HYPHENATED.sub(r"\1", text.decode("utf-16-le", "replace"))
    return " ".join(joined.replace("\x02", "-").replace("\xad", "").split())


def _line(page: pypdfium2.PdfTextPage, text: str, shown: list[int]) -> Line:
    first, middle, last = shown[0], shown[len(shown) // 2], shown[-1]
    sizes = sorted(_size(page, index) for index in (first, middle, last))
    left, bottom, _, _ = page.get_charbox(first, loose=True)
    _, _, right, _ = page.get_charbox(last, loose=True)
    return Line(
        text=text,
        size=sizes[1],
        fixed_width=all(_is_fixed_width(page, index) for index in (first, middle, last)),
        left=left,
        right=right,
        bottom=bottom,
    )


def _size(page: pypdfium2.PdfTextPage, index: int) -> float:
    """Of a letter as it is seen, in points: scaled by what the page does to the font."""
    matrix = raw.FS_MATRIX()
    size = float(raw.FPDFText_GetFontSize(page, index))
    if raw.FPDFText_GetMatrix(page, index, ctypes.byref(matrix)):
        size *= max(abs(matrix.d), abs(matrix.b)) or 1.0
    return size


def _is_fixed_width(page: pypdfium2.PdfTextPage, index: int) -> bool:
    name = ctypes.create_string_buffer(_LONGEST_FONT_NAME)
    flags = ctypes.c_int()
    raw.FPDFText_GetFontInfo(page, index, name, len(name), ctypes.byref(flags))
    return bool(flags.value & _FIXED_PITCH) or bool(_FIXED_WIDTH_NAME.search(name.value))


_LINE_FEED = 0x0A
_SPACE = 0x20
_LAST_UNIT = 0xFFFF
_LONGEST_FONT_NAME = 128
_FIXED_PITCH = 1  # table 121 of ISO 32000-1
_FIXED_WIDTH_NAME = re.compile(rb"courier|mono|consol|typewriter|cmtt", re.IGNORECASE)
_HYPHENATED = re.compile(r"\x02([^\W\d_A-ZÀ-Þ])")
_FILE_NAME = re.compile(
    r"\.(?:docx?|dvi|eps|indd|odt|p65|pdf|pptx?|ps|qxd|rtf|tex|xlsx?)\b",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"(?:untitled|microsoft word|powerpoint|print|title|document\d*|slide \d+|\W*)$"
    r"|microsoft \w+ - ",
    re.IGNORECASE,
)
