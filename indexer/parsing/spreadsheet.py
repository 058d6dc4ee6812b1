"""Reads the sheets of an XLSX workbook. Knows openpyxl, not how rows become text."""

import io
import warnings
from collections.abc import Iterator
from typing import Any

import openpyxl

from indexer.documents import Content, Document
from indexer.parsing import records
from indexer.parsing.archive import reading


def parse(content: Content) -> Document:
    """Every visible sheet under its name, one paragraph a row, formulas as their last results.

    Raises DocumentUnusable when it is damaged or encrypted.
    """
    with reading(content.data), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and extensions that openpyxl leaves out
        book = openpyxl.load_workbook(
            io.BytesIO(content.data), read_only=True, data_only=True, keep_links=False
        )
        sheets = [
            (sheet.title, records.to_text(_rows(sheet)))
            for sheet in book.worksheets
            if sheet.sheet_state == "visible"
        ]
    title = (book.properties.title or "") if book.properties else ""
    return Document(
        title=title.strip(),
        text="\n\n".join(f"# {name}\n\n{text}" for name, text in sheets if text),
    )


def _rows(sheet: Any) -> Iterator[list[str]]:
    sheet.reset_dimensions()  # what the file says of its size is often wrong, or a trap
    for row in sheet.iter_rows(values_only=True):
        yield [_shown(value) for value in row]


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).removesuffix(" 00:00:00")  # a date without a time of day
