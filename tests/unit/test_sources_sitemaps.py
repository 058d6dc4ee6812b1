"""Which pages a sitemap lists, and what makes its list incomplete."""

import gzip
import time
from collections.abc import Iterator
from typing import Any

import pytest

from indexer.errors import SourceUnusable
from indexer.sources import Listing, Source, WebRules
from indexer.sources.web import clients, sitemaps
from tests.unit.web_fakes import FakeWeb, Reply, serving

XML = {"Content-Type": "application/xml"}
NAMESPACE = "http://www.sitemaps.org/schemas/sitemap/0.9"


@pytest.fixture
def web() -> Iterator[FakeWeb]:
    with serving() as running:
        yield running
        clients.close_all()


def urlset(*urls: str) -> bytes:
    entries = "".join(f"<url><loc>{url}</loc></url>" for url in urls)
    return f'<?xml version="1.0"?><urlset xmlns="{NAMESPACE}">{entries}</urlset>'.encode()


def index(*urls: str) -> bytes:
    entries = "".join(f"<sitemap><loc>{url}</loc></sitemap>" for url in urls)
    return f'<sitemapindex xmlns="{NAMESPACE}">{entries}</sitemapindex>'.encode()


def listing(web: FakeWeb, path: str = "/sitemap.xml", **fields: Any) -> Listing:
    rules = WebRules(allow_private=True, timeout_s=5, **fields.pop("rules", {}))
    return Listing([Source(location=f"{web.url}{path}", web=rules, **fields)])


def paths(web: FakeWeb, path: str = "/sitemap.xml", **fields: Any) -> list[str]:
    """Of the pages of a sitemap that is complete."""
    made = listing(web, path, **fields)
    found = [document.uri.removeprefix(web.url) for document in made]
    assert made.failures == []
    return found


def incomplete(web: FakeWeb, **fields: Any) -> tuple[list[str], list[str]]:
    """The paths of the pages that are listed all the same, and why that is not all of them."""
    made = listing(web, **fields)
    found = [document.uri.removeprefix(web.url) for document in made]
    return found, [reason.replace(web.url, "") for _, reason in made.failures]


def test_the_pages_of_a_sitemap_are_listed_in_its_order(web: FakeWeb) -> None:
    web.replies["/sitemap.xml"] = Reply(
        urlset(f"{web.url}/b", f"\n  {web.url}/a?x=1&amp;y=2#part\n", "/c", f"{web.url}/b"),
        headers=XML,
    )

    assert paths(web) == ["/b", "/a?x=1&y=2", "/c"]


def test_a_sitemap_may_have_any_name_where_the_source_says_so(web: FakeWeb) -> None:
    web.replies["/map"] = Reply(urlset("/a"), headers=XML)

    assert paths(web, "/map", kind="sitemap") == ["/a"]


def test_tenant_attributes_rules_and_patterns_hold_for_each_page(web: FakeWeb) -> None:
    web.replies["/sitemap.xml"] = Reply(
        urlset("/guide/a", "/guide/old/b", "/blog/c", "/guide/%C3%BC"), headers=XML
    )
    fields: dict[str, Any] = {
        "tenant": "t",
        "attributes": {"year": 1},
        "include": ["/guide/"],
        "exclude": ["old/", "ü"],
    }

    [page] = listing(web, **fields)

    assert page.uri == f"{web.url}/guide/a"
    assert page.tenant == "t"
    web.replies["/guide/a"] = Reply(b"text")
    content = page.read()
    assert content is not None
    assert content.attributes == {"year": 1}


def test_a_sitemap_without_namespace_and_with_images_is_read(web: FakeWeb) -> None:
    web.replies["/sitemap.xml"] = Reply(
        b'<urlset xmlns:i="http://www.google.com/schemas/sitemap-image/1.1"><url>'
        b"<i:image><i:loc>/image.png</i:loc></i:image><loc>/a</loc><lastmod>2024</lastmod>"
        b"</url><url><lastmod>2024</lastmod></url><url><loc></loc></url></urlset>",
        headers=XML,
    )

    assert paths(web) == ["/a"]


@pytest.mark.parametrize("headers", [XML, {"Content-Type": "application/gzip"}])
def test_a_sitemap_may_be_a_gzip_file(web: FakeWeb, headers: dict[str, str]) -> None:
    web.replies["/sitemap.xml.gz"] = Reply(gzip.compress(urlset("/a")), headers=headers)

    assert paths(web, "/sitemap.xml.gz") == ["/a"]


def test_a_sitemap_may_be_compressed_on_the_way_too(web: FakeWeb) -> None:
    web.replies["/sitemap.xml"] = Reply(
        gzip.compress(urlset("/a")), headers={**XML, "Content-Encoding": "gzip"}
    )

    assert paths(web) == ["/a"]


def test_sitemaps_that_name_each_other_end(web: FakeWeb) -> None:
    web.replies.update(
        {
            "/sitemap.xml": Reply(index("/one.xml", "/two.xml", "/sitemap.xml"), headers=XML),
            "/one.xml": Reply(index("/two.xml", "/sitemap.xml"), headers=XML),
            "/two.xml": Reply(urlset("/a", "/b"), headers=XML),
        }
    )

    assert paths(web) == ["/a", "/b"]
    assert web.paths() == ["/sitemap.xml", "/one.xml", "/two.xml"]


def test_sitemaps_are_followed_only_so_deep(web: FakeWeb) -> None:
    for depth in range(9):
        web.replies[f"/{depth}.xml"] = Reply(index(f"/{depth + 1}.xml"), headers=XML)
    web.replies["/sitemap.xml"] = Reply(index("/1.xml", "/pages.xml"), headers=XML)
    web.replies["/pages.xml"] = Reply(urlset("/a"), headers=XML)

    assert incomplete(web) == (
        ["/a"],
        ["/4.xml is named by 3 sitemaps, one inside the other"],
    )


def test_pages_of_other_hosts_are_passed_over_unless_they_are_allowed(web: FakeWeb) -> None:
    web.replies["/sitemap.xml"] = Reply(
        urlset(
            "/a",
            "http://other.example/b",
            "https://cdn.example/c",
            "ftp://127.0.0.1/d",
            "file:///etc/passwd",
            "http://user@127.0.0.1/e",
            "http://0177.0.0.1/",
        ),
        headers=XML,
    )

    assert paths(web) == ["/a"]
    assert paths(web, rules={"other_hosts": ("CDN.example",)}) == ["/a", "https://cdn.example/c"]


def test_a_sitemap_of_another_host_is_not_read_and_told(web: FakeWeb) -> None:
    web.replies["/sitemap.xml"] = Reply(
        index("http://localhost:1/x.xml", "/pages.xml"), headers=XML
    )
    web.replies["/pages.xml"] = Reply(urlset("/a"), headers=XML)

    assert incomplete(web) == (
        ["/a"],
        ["/sitemap.xml names a sitemap of another host: http://localhost:1/x.xml"],
    )


def test_more_pages_than_the_limit_make_the_source_fail(web: FakeWeb) -> None:
    web.replies["/sitemap.xml"] = Reply(urlset("/a", "/b", "/c"), headers=XML)

    assert paths(web, rules={"max_urls": 3}) == ["/a", "/b", "/c"]
    assert incomplete(web, rules={"max_urls": 2}) == (
        ["/a", "/b"],
        ["/sitemap.xml lists more than 2 pages"],
    )


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply(status=404), "is answered with 404 Not Found"),
        (Reply(status=500), "is answered with 500 Internal Server Error"),
        (Reply(b"<html><body>Please log in</body></html>"), "is no sitemap but <html>"),
        (Reply(b"Please log in"), "is no sitemap: "),
        (Reply(b""), "is no sitemap: "),
        (Reply(b"\x1f\x8bbroken"), "cannot be unpacked"),
        (Reply(urlset("/b")[:-20]), "is no sitemap: "),
    ],
)
def test_a_sitemap_that_cannot_be_read_makes_the_list_incomplete(
    web: FakeWeb, reply: Reply, told: str
) -> None:
    web.replies["/sitemap.xml"] = Reply(index("/broken.xml", "/good.xml"), headers=XML)
    web.replies["/broken.xml"] = reply
    web.replies["/good.xml"] = Reply(urlset("/a"), headers=XML)

    found, [reason] = incomplete(web)

    assert found[-1] == "/a"
    assert reason.startswith(f"/broken.xml {told}")
    assert "\n" not in reason


def test_a_single_sitemap_that_cannot_be_read_is_a_failed_source(web: FakeWeb) -> None:
    with pytest.raises(SourceUnusable, match=r"/sitemap\.xml is answered with 404 Not Found"):
        list(listing(web))


def test_robots_txt_holds_for_sitemaps_too(web: FakeWeb) -> None:
    web.replies["/robots.txt"] = Reply(b"User-agent: *\nDisallow: /")

    with pytest.raises(SourceUnusable, match=r"/sitemap\.xml robots\.txt forbids it"):
        list(listing(web))


def test_entities_that_multiply_are_not_expanded(web: FakeWeb) -> None:
    laughs = "".join(f'<!ENTITY a{number} "{f"&a{number - 1};" * 10}">' for number in range(1, 10))
    web.replies["/sitemap.xml"] = Reply(
        f'<!DOCTYPE urlset [<!ENTITY a0 "/x">{laughs}]>'
        "<urlset><url><loc>&a9;</loc></url></urlset>".encode(),
        headers=XML,
    )
    started = time.monotonic()

    with pytest.raises(SourceUnusable, match="is no sitemap: Maximum entity amplification"):
        list(listing(web))
    assert time.monotonic() - started < 10


def test_entities_that_name_files_and_pages_are_not_read(web: FakeWeb) -> None:
    web.replies["/secret"] = Reply(b"/from-the-network")
    web.replies["/sitemap.xml"] = Reply(
        b'<!DOCTYPE urlset [<!ENTITY file SYSTEM "file:///etc/hostname">'
        b'<!ENTITY net SYSTEM "/secret">]><urlset><url><loc>/b&file;</loc></url>'
        b"<url><loc>/c&net;</loc></url><url><loc>/a</loc></url></urlset>",
        headers=XML,
    )

    assert paths(web) == ["/b", "/c", "/a"]
    assert web.paths() == ["/sitemap.xml"]


def test_a_gzip_bomb_is_no_sitemap(web: FakeWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitemaps, "MAX_BYTES", 100_000)
    web.replies["/sitemap.xml"] = Reply(gzip.compress(bytes(1_000_000)), headers=XML)

    with pytest.raises(SourceUnusable, match="is larger than 100,000 bytes"):
        list(listing(web))
