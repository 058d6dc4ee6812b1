"""Reads presentations (PPTX). Knows python-pptx, not what a talk is about."""

import io
from collections.abc import Iterator
from typing import Any

import pptx
from pptx.util import Length

from indexer.documents import Content, Document
from indexer.parsing.archive import reading


def parse(content: Content) -> Document:
    """Each slide under its title: texts from top to bottom, tables, and the speaker's notes.

    Raises DocumentUnusable when it is damaged or encrypted.
    """
    with reading(content.data):
        slides = pptx.Presentation(io.BytesIO(content.data)).slides
        titles = [_title(slide) for slide in slides]
        blocks = [list(_blocks(slide)) for slide in slides]
    texts = [
        "\n\n".join([f"## {title or f'Slide {number}'}", *slide])
        for number, (title, slide) in enumerate(zip(titles, blocks, strict=True), 1)
        if title or slide
    ]
    return Document(title=next(filter(None, titles), ""), text="\n\n".join(texts))


def _title(slide: Any) -> str:
    title = slide.shapes.title
    return " ".join(title.text_frame.text.split()) if title is not None else ""


def _blocks(slide: Any) -> Iterator[str]:
    title = slide.shapes.title
    for shape in _in_reading_order(slide.shapes):
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if shape.has_text_frame:
            yield from _paragraphs(shape.text_frame)
        elif getattr(shape, "has_table", False) and shape.has_table:
            yield _table(shape.table)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = list(_paragraphs(slide.notes_slide.notes_text_frame))
        if notes:
            yield "\n\n".join(["Notes:", *notes])


def _in_reading_order(shapes: Any) -> Iterator[Any]:
    """By place on the slide; what stands in a group stays together."""
    for shape in sorted(
        shapes, key=lambda shape: (shape.top or Length(0), shape.left or Length(0))
    ):
        if hasattr(shape, "shapes"):
            yield from _in_reading_order(shape.shapes)
        else:
            yield shape


def _paragraphs(frame: Any) -> Iterator[str]:
    """One block for each run of lines: a list where lines follow each other."""
    lines = [
        ("  " * paragraph.level, " ".join(paragraph.text.split()))
        for paragraph in frame.paragraphs
        if paragraph.text.strip()
    ]
    if len(lines) == 1:
        yield lines[0][1]
    elif lines:
        yield "\n".join(f"{indent}- {text}" for indent, text in lines)


def _table(table: Any) -> str:
    rows = [
        "| "
        + " | ".join(" ".join(cell.text.split()).replace("|", "\\|") for cell in row.cells)
        + " |"
        for row in table.rows
    ]
    return "\n".join([*rows[:1], "| " + " | ".join("---" for _ in table.columns) + " |", *rows[1:]])
