"""Turns HTML into Markdown. Knows elements, not which part of a page is worth reading."""

import re

import lxml.html
from html_to_markdown import ConversionOptions, convert
from lxml import etree

from indexer.errors import DocumentUnusable


def tree(html: str) -> lxml.html.HtmlElement:
    """The document of a page or a part of one.

    Raises DocumentUnusable for elements nested deeper than the converters follow: they would
    leave the rest out without a word. Formatting that is never closed, as old pages have it,
    nests as well; it is dropped first.
    """
    parser = lxml.html.HTMLParser(encoding="utf-8", huge_tree=True)
    html = _ENTITY_DECLARATIONS.sub("", html, count=1)  # XHTML's; no parser of HTML knows them
    try:
        page = lxml.html.document_fromstring(html.encode(errors="replace"), parser=parser)
    except etree.ParserError as exc:  # nothing in it
        raise DocumentUnusable("there is no text in it") from exc
    except etree.XMLSyntaxError as exc:  # it recovers from everything but a lack of memory
        raise MemoryError from exc
    if any(error.type == _EXCESSIVE_DEPTH for error in parser.error_log):
        raise DocumentUnusable("it is nested too deeply")
    if _is_deep(page):
        etree.strip_tags(page, *_FORMATTING)
        if _is_deep(page):
            raise DocumentUnusable("it is nested too deeply")
    return page


def to_markdown(element: lxml.html.HtmlElement) -> str:
    """Headings, lists, code blocks and tables of `element`; words of links, no addresses."""
    html = lxml.html.tostring(element, encoding="unicode", with_tail=False)
    return convert(html, _CONVERSION).content or ""


def _is_deep(page: lxml.html.HtmlElement) -> bool:
    depth = deepest = 0
    for event, _ in etree.iterwalk(page, events=("start", "end")):
        depth += 1 if event == "start" else -1
        deepest = max(deepest, depth)
    return deepest > _DEEPEST


_ENTITY_DECLARATIONS = re.compile(r"<!DOCTYPE[^<>\[]*\[[^\]]*\]\s*>", re.IGNORECASE)
_DEEPEST = 250
_EXCESSIVE_DEPTH = etree.ErrorTypes.ERR_RESOURCE_LIMIT
_FORMATTING = ("a", "b", "big", "em", "font", "i", "small", "span", "strike", "strong", "u")
_CONVERSION = ConversionOptions(
    extract_metadata=False,
    compact_tables=True,  # padding would fill chunks with spaces
    skip_images=True,
    strip_tags=["a"],  # the address of a link is noise to an encoder; its words stay
    exclude_selectors=["script", "style", "template", "noscript", "iframe", "svg"],
)
