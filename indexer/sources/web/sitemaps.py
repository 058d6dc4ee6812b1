"""Reads sitemaps (sitemaps.org, version 0.9) and those that they name. Knows no pages."""

import io
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import httpx2
from lxml import etree

from indexer.errors import DocumentUnusable
from indexer.sources.configuration import WebRules
from indexer.sources.web.client import Answer, normalised, status_line

MAX_BYTES = 50 << 20
"""Largest sitemap, unpacked, as the protocol has it."""
MAX_DEPTH = 3
"""Sitemaps that name sitemaps; the protocol has one such level."""

_ENTRY_OF = {"urlset": "url", "sitemapindex": "sitemap"}


class Get(Protocol):
    """Asks a server. Raises DocumentUnusable."""

    def __call__(self, url: str, *, max_bytes: int) -> Answer: ...  # noqa: D102


def sitemap_urls(
    location: str, rules: WebRules, get: Get, problem: Callable[[str], None]
) -> Iterator[str]:
    """URLs of the pages that the sitemap at `location` lists, and those that it names.

    Pages on other hosts are passed over unless the rules allow them. `problem` is told of
    whatever makes the list incomplete.
    """
    hosts = {httpx2.URL(location).host, *(host.lower() for host in rules.other_hosts)}
    seen = {location}
    waiting = deque([(location, 0)])
    count = 0
    while waiting:
        sitemap, depth = waiting.popleft()
        try:
            for is_sitemap, url in _entries(sitemap, get):
                text = normalised(url)
                is_ours = url.host in hosts and url.scheme in ("http", "https")
                if not (is_sitemap or is_ours) or url.userinfo or text in seen:
                    continue
                if not is_ours:
                    problem(f"{sitemap} names a sitemap of another host: {text}")
                elif count == rules.max_urls:
                    problem(f"{location} lists more than {rules.max_urls} pages")
                    return
                elif is_sitemap and depth == MAX_DEPTH:
                    problem(f"{text} is named by {depth} sitemaps, one inside the other")
                elif is_sitemap:
                    count += 1
                    seen.add(text)
                    waiting.append((text, depth + 1))
                else:
                    count += 1
                    yield text
        except DocumentUnusable as exc:
            problem(f"{sitemap} {exc}")


def _entries(sitemap: str, get: Get) -> Iterator[tuple[bool, httpx2.URL]]:
    """Whether it is a sitemap, and the URL, of each entry; what is no URL is passed over."""
    answer = get(sitemap, max_bytes=MAX_BYTES)
    if not 200 <= answer.status < 300:
        raise DocumentUnusable(f"is answered with {status_line(answer.status)}")
    for is_sitemap, location in _locations(_unpacked(answer.data)):
        try:
            url = httpx2.URL(answer.url).join(location.strip())
        except httpx2.InvalidURL:
            continue
        yield is_sitemap, url


def _locations(data: bytes) -> Iterator[tuple[bool, str]]:
    """Streams the entries, so that no tree of 50,000 of them is built."""
    root = ""
    try:
        for event, element in etree.iterparse(
            io.BytesIO(data),
            events=("start", "end"),
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
        ):
            name = etree.QName(element).localname
            if not root:
                root = name
                if root not in _ENTRY_OF:
                    raise DocumentUnusable(f"is no sitemap but <{root}>")
            if event == "end" and name == _ENTRY_OF[root]:
                if location := element.findtext("{*}loc"):
                    yield root == "sitemapindex", location
                element.clear()
                while element.getprevious() is not None:
                    del element.getparent()[0]
    except etree.XMLSyntaxError as exc:
        raise DocumentUnusable(f"is no sitemap: {exc.msg}") from exc


def _unpacked(data: bytes) -> bytes:
    """`data`, or what is in it when it is a gzip file."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacker.decompress(data, MAX_BYTES)
    except zlib.error as exc:
        raise DocumentUnusable("cannot be unpacked") from exc
    if unpacker.unconsumed_tail:
        raise DocumentUnusable(f"is larger than {MAX_BYTES:,} bytes")
    return unpacked
