"""Reads books (EPUB). Knows the container and its spine, not how HTML becomes Markdown."""

import posixpath
import zipfile
from collections.abc import Iterator
from urllib.parse import unquote

from lxml import etree

from indexer.documents import Content, Document
from indexer.errors import DocumentUnusable
from indexer.parsing import MAX_CHARACTERS
from indexer.parsing.archive import reading
from indexer.parsing.decoding import decode
from indexer.parsing.html_to_text import to_markdown, tree


def parse(content: Content) -> Document:
    """The chapters in the order of reading, without the list of contents.

    Raises DocumentUnusable when it is damaged, encrypted, or too long.
    """
    with reading(content.data) as book:
        package_name = _package_name(book)
        package = _xml(book.read(package_name))
        if _ENCRYPTION in book.namelist() and _is_encrypted(_xml(book.read(_ENCRYPTION))):
            raise DocumentUnusable("it is encrypted")
        text = "\n\n".join(_chapters(book, package_name, package))
    return Document(title=str(package.xpath("string(//dc:title)", namespaces=_NAMES)), text=text)


def _package_name(book: zipfile.ZipFile) -> str:
    container = _xml(book.read("META-INF/container.xml"))
    return str(container.xpath("string(//c:rootfile/@full-path)", namespaces=_NAMES))


def _chapters(book: zipfile.ZipFile, package_name: str, package: etree._Element) -> Iterator[str]:
    items = {item.get("id"): item for item in package.iterfind(".//o:manifest/o:item", _NAMES)}
    written = 0
    for reference in package.iterfind(".//o:spine/o:itemref", _NAMES):
        item = items.get(reference.get("idref"))
        if item is None or "nav" in (item.get("properties") or "").split():
            continue
        name = posixpath.join(posixpath.dirname(package_name), unquote(item.get("href") or ""))
        try:
            html = decode(book.read(posixpath.normpath(name)))
        except KeyError:  # the spine names a file that the book lacks
            continue
        if not html.strip():
            continue
        chapter = to_markdown(tree(html)).strip()
        written += len(chapter)
        if written > MAX_CHARACTERS:
            raise DocumentUnusable(f"its text is longer than {MAX_CHARACTERS:,} characters")
        yield chapter


def _xml(data: bytes) -> etree._Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    return etree.fromstring(data, parser)


def _is_encrypted(encryption: etree._Element) -> bool:
    """Fonts may be obfuscated in a book that anyone can read."""
    methods = encryption.xpath("//@Algorithm")
    return any(not str(method).startswith(_FONT_OBFUSCATIONS) for method in methods)


_ENCRYPTION = "META-INF/encryption.xml"
_FONT_OBFUSCATIONS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_NAMES = {
    "c": "urn:oasis:names:tc:opendocument:xmlns:container",
    "dc": "http://purl.org/dc/elements/1.1/",
    "o": "http://www.idpf.org/2007/opf",
}
