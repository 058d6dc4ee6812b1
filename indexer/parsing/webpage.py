"""Reads a web page: which part of it is its content, its title, its address. Knows HTML."""

import copy
import re

import lxml.html
import trafilatura

from indexer.documents import Content, Document
from indexer.parsing.decoding import decode
from indexer.parsing.heading_ids import heading_ids
from indexer.parsing.html_to_text import to_markdown, tree
from indexer.parsing.markdown import first_title


def parse(content: Content) -> Document:
    """The main content of a page as Markdown.

    Raises DocumentUnusable when it is binary, or nested too deeply.
    """
    page = tree(decode(content.data, _declared_encoding(content.data)))
    title = " ".join(str(page.xpath("string(//title)")).split())
    canonical_url = str(page.xpath("string(//link[@rel='canonical']/@href)")).strip()
    region, whole = _main_region(page)
    text = (not whole and _by_statistics(page)) or to_markdown(region)
    return Document(
        title=first_title(text) or title,
        canonical_url=canonical_url if _ABSOLUTE.match(canonical_url) else "",
        text=text,
        anchors=heading_ids(region if whole else page),
    )


def _declared_encoding(data: bytes) -> str:
    """What an XML declaration or a meta element says; a browser looks no further either."""
    declaration = _ENCODING.search(data[:_ENCODING_WITHIN_BYTES])
    return declaration[1].decode("ascii") if declaration else ""


def _main_region(page: lxml.html.HtmlElement) -> tuple[lxml.html.HtmlElement, bool]:
    """What holds what the page is about, and whether all of it is read, or what statistics take.

    What surrounds it on every page of the site is dropped from the page.

    Three kinds of page are told apart by what they say of themselves:

    - One that marks its regions (HTML's sectioning elements, ARIA's landmark roles) is taken
      at its word, and nothing of the region is lost. Documentation is like that.
    - One that calls itself an article (Open Graph, schema.org) and holds no code is mostly of
      a newspaper or a blog, whose region also holds what else one might like to read. Here
      statistics tell the article from the rest.
    - One that marks nothing is read whole when hardly any of its words are links, and by
      statistics when many are; a huge one is a table or a reference, and read whole.
    """
    marked = bool(page.xpath(_LANDMARKS))
    _drop_furniture(page)
    regions = page.xpath("//main | //*[@role='main']") or page.xpath("//article")
    region = regions[0] if len(regions) == 1 else page
    links = _share_of_links(region)
    if marked or len(regions) == 1:
        is_article = bool(page.xpath(_ARTICLE)) and not region.xpath(".//pre")
        whole = not is_article and links < _LINKS_IN_REGION
    else:
        whole = links < _LINKS_IN_PROSE
    return region, whole or sum(1 for _ in region.iter()) > _MOST_ELEMENTS_OF_AN_ARTICLE


def _by_statistics(page: lxml.html.HtmlElement) -> str:
    """What trafilatura takes for the content, code blocks and tables word for word.

    It judges a block by its prose, and so loses a third of the code of a documentation page.
    Each code block and table is a paragraph with a number while it decides.
    """
    page = copy.deepcopy(page)
    blocks: list[str] = []
    for block in page.xpath("//pre[not(ancestor::pre)] | //table[.//th][not(.//table)]"):
        if block.getparent() is None or block.xpath("ancestor::pre | ancestor::table"):
            continue
        stand_in = lxml.html.Element("p")
        stand_in.text = _STAND_IN.format(len(blocks))
        stand_in.tail = block.tail
        blocks.append(to_markdown(block).strip())
        block.getparent().replace(block, stand_in)
    extracted = trafilatura.extract(
        page,
        output_format="markdown",
        include_formatting=True,
        include_comments=False,
        favor_precision=True,
    )
    parts = _STAND_IN_NUMBER.split(str(extracted or ""))
    parts[1::2] = [blocks[int(number)] for number in parts[1::2]]
    return "\n\n".join(filter(None, parts))


def _drop_furniture(page: lxml.html.HtmlElement) -> None:
    for element in page.xpath(_FURNITURE):
        if element.getparent() is not None:
            element.drop_tree()
    words = _words(page)
    for form in page.xpath("//form"):
        # Some servers put the whole page into one.
        if form.getparent() is not None and 2 * _words(form) < words:
            form.drop_tree()


def _share_of_links(element: lxml.html.HtmlElement) -> float:
    return sum(_words(link) for link in element.iter("a")) / max(1, _words(element))


def _words(element: lxml.html.HtmlElement) -> int:
    return len(_WORD.findall(element.text_content()))


_LINKS_IN_REGION = 0.5  # of its words; above it, the region is a list of other pages
_LINKS_IN_PROSE = 0.07
_MOST_ELEMENTS_OF_AN_ARTICLE = 20_000  # and trafilatura needs a second for every few thousand
_ENCODING_WITHIN_BYTES = 4096
_ENCODING = re.compile(
    rb"""(?:<\?xml[^>]*encoding|<meta[^>]*charset)\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE
)
_ABSOLUTE = re.compile(r"https?://[^\s/]", re.IGNORECASE)
_WORD = re.compile(r"\w+")
# Long enough to be taken for prose, and no words that a page could hold.
_STAND_IN = "Zqblock{} stands here for a passage that is kept word for word as it is"
_STAND_IN_NUMBER = re.compile(r"\s*" + _STAND_IN.format(r"(\d+)") + r"\s*")
_LANDMARKS = "//nav | //header | //footer | //aside | //*[@role='navigation' or @role='banner']"
_ARTICLE = """
    //meta[@property='og:type' and contains(@content, 'article')]
    | //meta[starts-with(@property, 'article:')]
    | //*[contains(@itemtype, 'Article') or contains(@itemtype, 'BlogPosting')]
    | //script[@type='application/ld+json'][contains(., 'Article') or contains(., 'BlogPosting')]
"""
_FURNITURE = """
    //nav | //footer | //aside | //dialog | //body/header
    | //button | //input | //select | //textarea | //template | //style | //noscript | //svg
    | //script[not(@type='application/ld+json')] | //iframe | //*[@hidden]
    | //*[@aria-hidden='true'] | //*[@role='navigation' or @role='banner' or @role='contentinfo']
    | //*[@role='search' or @role='complementary']
"""
