"""Finds the title of a Markdown text. Knows Markdown, not documents or chunks."""

from markdown_it import MarkdownIt


def first_title(markdown: str) -> str:
    """The first heading near the top, if it is of the first level; empty otherwise.

    What looks like a heading inside a code block is none.
    """
    tokens = _MARKDOWN.parse(markdown[:_TOP_CHARACTERS])
    place = next((place for place, token in enumerate(tokens) if token.type == "heading_open"), -1)
    if place < 0 or tokens[place].tag != "h1":
        return ""
    words = tokens[place + 1].children or []
    return "".join(
        token.content for token in words if token.type in ("text", "code_inline")
    ).strip()


_TOP_CHARACTERS = 10_000
_MARKDOWN = MarkdownIt("commonmark")
