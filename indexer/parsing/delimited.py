"""Reads tables whose values are separated by a character: CSV and TSV. Knows no spreadsheets."""

import csv
import io

from indexer.documents import Content, Document
from indexer.errors import DocumentUnusable
from indexer.parsing import MAX_CHARACTERS, records
from indexer.parsing.decoding import decode


def parse(content: Content) -> Document:
    """One paragraph a row. Raises DocumentUnusable when it is binary, or not such a table."""
    text = decode(content.data)
    csv.field_size_limit(MAX_CHARACTERS)
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, content.format))
        return Document(title="", text=records.to_text(rows))
    except csv.Error as exc:
        raise DocumentUnusable(f"it is not a table: {exc}") from exc


def _delimiter(text: str, suffix: str) -> str:
    """The separator that the first lines have most of; spreadsheets in much of Europe use ";"."""
    if suffix == ".tsv":
        return "\t"
    sample = text[:_SAMPLE_CHARACTERS]
    try:
        return csv.Sniffer().sniff(sample[: sample.rfind("\n") + 1] or sample, ",;\t|").delimiter
    except csv.Error:  # one column, or lines of different lengths
        return ","


_SAMPLE_CHARACTERS = 8_192
