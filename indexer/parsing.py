"""Turns the bytes of a file into a title and Markdown text. Knows formats, not files or chunks."""

import re
from collections.abc import Callable, Sequence
from itertools import accumulate

import charset_normalizer
import frontmatter
import lxml.html
import msgspec
import trafilatura
import yaml
from frontmatter.default_handlers import YAMLHandler
from html_to_markdown import ConversionOptions, convert
from lxml.etree import ParserError
from markdown_it import MarkdownIt
from markdown_it.token import Token

from indexer.errors import DocumentUnusable

PARSER_VERSION = 1
"""Part of the fingerprint: a change in what parsing yields makes a new generation."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """The text of one file."""

    title: str
    """Empty where the document states none."""
    canonical_url: str
    """Empty where the document states none."""
    text: str
    """Markdown, or plain text."""


class Heading(msgspec.Struct, frozen=True):
    """A heading and where it begins."""

    start: int
    level: int
    text: str


def parse(content: bytes, suffix: str) -> Document:
    """The document in `content`, whose format is told by `suffix`, such as ".md".

    Raises DocumentUnusable when there is no text in it.
    """
    document = FORMATS[suffix.lower()](_decode(content))
    if not document.text.strip():
        raise DocumentUnusable("there is no text in it")
    return document


def outline(markdown: str) -> list[Heading]:
    """The headings of a Markdown text in order; what looks like one inside a code block is none."""
    line_starts = list(accumulate((len(line) + 1 for line in markdown.split("\n")), initial=0))
    tokens = _MARKDOWN.parse(markdown)
    return [
        Heading(
            line_starts[token.map[0]], int(token.tag[1]), _plain(tokens[place + 1].children or [])
        )
        for place, token in enumerate(tokens)
        if token.type == "heading_open" and token.map
    ]


def is_only_headings(markdown: str) -> bool:
    """Whether a piece of Markdown says nothing beneath its headings."""
    return all(
        token.type in ("heading_open", "heading_close", "inline")
        for token in _MARKDOWN.parse(markdown)
    )


def _decode(content: bytes) -> str:
    """The text with line feeds as line ends, by its byte order mark, as UTF-8, or by statistics."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        match = charset_normalizer.from_bytes(content, cp_isolation=_ENCODINGS).best()
        if match is None:
            raise DocumentUnusable("it is not text in any known encoding") from None
        text = str(match)
    if "\0" in text:
        raise DocumentUnusable("it is binary")
    return re.sub(r"\r\n?", "\n", text)


def _parse_text(text: str) -> Document:
    return Document(title="", canonical_url="", text=text)


def _parse_markdown(text: str) -> Document:
    try:
        front_matter, body = frontmatter.parse(text, handler=_FRONT_MATTER)
    except (yaml.YAMLError, ValueError):  # a line of dashes at the top is not always front matter
        front_matter, body = {}, text
    title = front_matter.get("title")
    return Document(
        title=str(title).strip() if isinstance(title, str | int | float) else _first_title(body),
        canonical_url="",
        text=body,
    )


def _parse_html(text: str) -> Document:
    parser = lxml.html.HTMLParser(encoding="utf-8")
    try:
        page = lxml.html.document_fromstring(text.encode(), parser=parser)
    except ParserError as exc:
        raise DocumentUnusable(f"it is not HTML: {exc}") from exc
    markdown = _main_content(page, text)
    return Document(
        title=_first_title(markdown) or " ".join(str(page.xpath("string(//title)")).split()),
        canonical_url=str(page.xpath("string(//link[@rel='canonical']/@href)")).strip(),
        text=markdown,
    )


def _main_content(page: lxml.html.HtmlElement, text: str) -> str:
    """The article of a page as Markdown.

    A page that marks its regions (HTML's sectioning elements, ARIA's landmark roles) is taken
    at its word: everything in the main region, and nothing of the furniture. On the 22 pages
    of the Milvus documentation that keeps all code blocks, where trafilatura, which decides
    by statistics, keeps two thirds. For a page that marks nothing, statistics are all there is.
    """
    regions = page.xpath("//main | //*[@role='main']") or page.xpath("//article")
    if len(regions) == 1:
        return _to_markdown(lxml.html.tostring(regions[0], encoding="unicode"))
    if not page.xpath(_LANDMARKS):
        extracted = trafilatura.extract(text, output_format="markdown", include_formatting=True)
        if extracted:
            return str(extracted)
    return _to_markdown(text)


def _to_markdown(html: str) -> str:
    return convert(html, _CONVERSION).content or ""


def _first_title(markdown: str) -> str:
    """The first heading, if it is of the first level."""
    headings = outline(markdown)
    return headings[0].text if headings and headings[0].level == 1 else ""


def _plain(inline: Sequence[Token]) -> str:
    return "".join(
        token.content for token in inline if token.type in ("text", "code_inline")
    ).strip()


FORMATS: dict[str, Callable[[str], Document]] = {
    ".html": _parse_html,
    ".htm": _parse_html,
    ".md": _parse_markdown,
    ".markdown": _parse_markdown,
    ".txt": _parse_text,
}

_MARKDOWN = MarkdownIt("commonmark")
_FRONT_MATTER = YAMLHandler()
_ENCODINGS = [
    # One for each script: among the many of the Latin one, the statistics take a short French
    # text for a Baltic or a Czech one.
    *("utf_16", "utf_16_le", "utf_16_be", "cp1252", "cp1251", "cp1253"),
    *("cp932", "euc_jp", "gb18030", "big5", "euc_kr"),
]
_LANDMARKS = "//nav | //header | //footer | //aside | //*[@role='navigation' or @role='banner']"
_CONVERSION = ConversionOptions(
    extract_metadata=False,
    compact_tables=True,  # padding would fill chunks with spaces
    skip_images=True,
    strip_tags=["a"],  # the address of a link is noise to an encoder; its words stay
    exclude_selectors=[
        *(
            "nav",
            "footer",
            "aside",
            "form",
            "button",
            "svg",
            "script",
            "style",
            "template",
            "dialog",
        ),
        *("body > header", "[role=navigation]", "[role=banner]", "[role=contentinfo]"),
        *("[role=search]", "[role=complementary]", "[aria-hidden=true]", "[hidden]"),
    ],
)
