"""Web pages as documents: what is asked for, and what an answer means. Knows no connections."""

from collections.abc import Callable, Iterator
from email.message import Message
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2
import msgspec

from indexer.documents import Content
from indexer.errors import DocumentGone, DocumentUnusable, SourceUnusable
from indexer.index.records import content_hash
from indexer.sources.configuration import Source, WebRules
from indexer.sources.formats import RECORD_FORMATS, format_of
from indexer.sources.web.client import Answer, normalised, status_line
from indexer.sources.web.clients import client_for
from indexer.sources.web.sitemaps import sitemap_urls

_FORMATS = {
    "application/epub+zip": ".epub",
    "application/pdf": ".pdf",
    "application/vnd.ms-excel": ".xls",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/xhtml+xml": ".xhtml",
    "text/csv": ".csv",
    "text/html": ".html",
    "text/markdown": ".md",
    "text/x-markdown": ".md",
    "text/x-rst": ".rst",
}


class WebPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page that is to be in the index."""

    uri: str
    tenant: str
    attributes: dict[str, Any]
    rules: WebRules

    @property
    def name(self) -> str:
        """What people are shown: its URL."""
        return self.uri

    def read(self, known_version: str = "") -> Content | None:
        """Its content; None when the server says that it has not changed.

        Raises DocumentGone, DocumentUnusable.
        """
        known = _Version.decoded(known_version)
        said = _digest(self.attributes)
        conditions = known.conditions() if known.attributes == said else {}
        answer = client_for(self.rules).get(self.uri, conditions)
        match answer.status:
            case 304 if conditions:
                return None
            case 404 | 410:
                raise DocumentGone(f"is answered with {status_line(answer.status)}")
            case status if not 200 <= status < 300:
                raise DocumentUnusable(f"is answered with {status_line(status)}")
        kind = Message()
        kind["content-type"] = answer.headers.get("content-type", "")
        version = _Version(
            etag=answer.headers.get("etag", ""),
            last_modified=answer.headers.get("last-modified", ""),
            attributes=said,
        )
        return Content(
            data=answer.data,
            format=_format(answer, kind),
            version=version.encoded(),
            attributes=self.attributes,
            charset=kind.get_content_charset(""),
        )


def find_pages(source: Source, problem: Callable[[str], None]) -> Iterator[WebPage]:
    """The page at a location, or the pages of the sitemap there.

    `problem` is told of each sitemap that cannot be read. Raises SourceUnusable when the location
    is no URL.
    """
    try:
        location = normalised(httpx2.URL(source.location))
    except httpx2.InvalidURL as exc:
        raise SourceUnusable(f"{source.location} is no URL: {exc}") from exc
    path = urlsplit(location).path
    if source.kind == "sitemap" or path.lower().endswith((".xml", ".xml.gz")):
        urls = sitemap_urls(location, source.web, client_for(source.web).get, problem)
    else:
        urls = iter([location])
    patterns = source.patterns()
    for url in urls:
        if patterns.want_file(unquote(urlsplit(url).path).strip("/")):
            yield WebPage(
                uri=url, tenant=source.tenant, attributes=source.attributes, rules=source.web
            )


class _Version(msgspec.Struct, frozen=True, array_like=True):
    """What a server said of a version, and a digest of what we say of it."""

    etag: str = ""
    last_modified: str = ""
    attributes: str = ""

    @classmethod
    def decoded(cls, version: str) -> "_Version":
        try:
            return msgspec.json.decode(version, type=cls)
        except msgspec.MsgspecError:
            return cls()

    def encoded(self) -> str:
        """Empty when the server did not say anything that it can be asked about."""
        if not (self.etag or self.last_modified):
            return ""
        return msgspec.json.encode(self).decode()

    def conditions(self) -> dict[str, str]:
        stated = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in stated.items() if value}


def _digest(attributes: dict[str, Any]) -> str:
    return content_hash(msgspec.json.encode(attributes, order="sorted"))


def _format(answer: Answer, kind: Message) -> str:
    """From the declared type; from the URL where that tells no format."""
    declared = kind.get_content_type() if kind["content-type"] else ""
    suffix = _FORMATS.get(declared) or format_of(unquote(urlsplit(answer.url).path))
    if not suffix and declared == "text/plain":
        suffix = ".txt"
    if not format_of(f"page{suffix}") or suffix in RECORD_FORMATS:
        raise DocumentUnusable(f"is of no known format ({declared or 'no type is declared'})")
    return suffix
