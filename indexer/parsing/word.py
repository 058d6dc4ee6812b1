"""Reads Word documents (DOCX). Knows mammoth, not how HTML becomes Markdown."""

import io
from typing import Any

import mammoth

from indexer.documents import Content, Document
from indexer.parsing.archive import reading
from indexer.parsing.html_to_text import to_markdown, tree
from indexer.parsing.markdown import first_title


def parse(content: Content) -> Document:
    """Headings, paragraphs, lists, tables and notes, in their order; no pictures.

    Raises DocumentUnusable when it is damaged or encrypted.
    """
    with reading(content.data):
        html = mammoth.convert_to_html(
            io.BytesIO(content.data),
            style_map=_STYLES,
            convert_image=mammoth.images.img_element(_no_picture),
            external_file_access=False,
        ).value
    markdown = to_markdown(tree(html)) if html else ""
    return Document(title=first_title(markdown), text=markdown)


def _no_picture(_image: Any) -> dict[str, str]:
    return {"src": ""}


_STYLES = """
p[style-name='Title'] => h1:fresh
p[style-name='Subtitle'] => p:fresh
p[style-name='HTML Preformatted'] => pre:separator('\\n')
p[style-name='Code'] => pre:separator('\\n')
p[style-name='Source Code'] => pre:separator('\\n')
p[style-name='Preformatted Text'] => pre:separator('\\n')
"""
