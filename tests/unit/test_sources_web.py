"""What a web page becomes: formats, versions, retries, robots.txt and turns."""

import pickle
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

from indexer.documents import Content
from indexer.errors import DocumentGone, DocumentUnusable
from indexer.sources import Listing, Source, WebRules
from indexer.sources.web import client as web_client
from indexer.sources.web import clients
from tests.unit.web_fakes import Asked, FakeWeb, Reply, page, problem, read, serving


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWeb]:
    monkeypatch.setattr(web_client, "BACKOFF_S", 0.01)
    with serving() as running:
        yield running
        clients.close_all()


def test_a_page_is_known_by_its_url_and_can_be_sent_to_another_process(web: FakeWeb) -> None:
    web.replies["/a?b=c"] = Reply(
        b"<p>text", headers={"Content-Type": "text/html; charset=latin-1"}
    )

    document = page(web, "/a?b=c#part", attributes={"year": 1}, tenant="t")

    assert document.uri == document.name == f"{web.url}/a?b=c"
    assert document.tenant == "t"
    assert document.read() == Content(
        data=b"<p>text", format=".html", attributes={"year": 1}, charset="latin-1"
    )
    assert pickle.loads(pickle.dumps(document)) == document
    assert web.asked[-1].headers["user-agent"].startswith("Groundserve-indexer/")


@pytest.mark.parametrize(
    ("kind", "path", "format_"),
    [
        ("text/html", "/a.pdf", ".html"),
        ("Text/HTML;charset=utf-8", "/", ".html"),
        ("application/xhtml+xml", "/", ".xhtml"),
        ("application/pdf", "/download?id=3", ".pdf"),
        ("text/markdown", "/", ".md"),
        ("text/plain", "/", ".txt"),
        ("text/plain", "/README.rst", ".rst"),
        ("text/plain", "/image.png", ".txt"),
        ("application/octet-stream", "/a%20b.PDF", ".pdf"),
        ("application/zip", "/a.docx", ".docx"),
        ("text/x-python", "/a.py", ".py"),
        ("", "/a.md", ".md"),
        (
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "/",
            ".docx",
        ),
        ("image/png", "/a.png", None),
        ("application/octet-stream", "/", None),
        ("", "/", None),
        ("application/x-ndjson", "/a.jsonl", None),
    ],
)
def test_the_format_is_the_declared_one_or_that_of_the_name(
    web: FakeWeb, kind: str, path: str, format_: str | None
) -> None:
    web.replies[path] = Reply(b"text", headers={"Content-Type": kind} if kind else {})

    if format_:
        assert read(web, path).format == format_
    else:
        assert problem(web, path) == (f"is of no known format ({kind or 'no type is declared'})")


@pytest.mark.parametrize(
    "location",
    [
        "http://example.org",
        "HTTP://Example.ORG:80/#top",
        "http://example.org/a/..",
        "http://example.org/",
    ],
)
def test_one_page_has_one_uri_however_it_is_written(location: str) -> None:
    [document] = Listing([Source(location=location)])

    assert document.uri == "http://example.org/"


def test_a_charset_that_is_declared_oddly_is_handed_on_as_text(web: FakeWeb) -> None:
    kind = "text/html; charset*=us-ascii'en'Shift%5FJIS"
    web.replies["/"] = Reply(b"x", headers={"Content-Type": kind})

    assert read(web).charset == "shift_jis"


def test_the_format_of_a_redirected_page_is_that_of_its_last_address(web: FakeWeb) -> None:
    web.replies["/latest"] = Reply(status=302, headers={"Location": "/v2/guide.md"})
    web.replies["/v2/guide.md"] = Reply(b"# Guide", headers={})

    assert read(web, "/latest").format == ".md"
    assert page(web, "/latest").uri == f"{web.url}/latest"


def conditional(etag: str) -> Any:
    def reply(asked: Asked) -> Reply:
        if asked.headers.get("if-none-match") == etag:
            return Reply(status=304, headers={"ETag": etag})
        return Reply(b"text", headers={"Content-Type": "text/html", "ETag": etag})

    return reply


def test_an_unchanged_page_is_none_and_a_changed_one_is_read(web: FakeWeb) -> None:
    web.replies["/"] = conditional('W/"1"')
    first = read(web)

    assert page(web).read(first.version) is None
    web.replies["/"] = conditional('W/"2"')
    second = page(web).read(first.version)
    assert second is not None
    assert second.version != first.version
    assert page(web).read(second.version) is None


def test_the_date_of_a_page_is_asked_about_too(web: FakeWeb) -> None:
    date = formatdate(0, usegmt=True)
    web.replies["/"] = Reply(b"x", headers={"Content-Type": "text/html", "Last-Modified": date})
    version = read(web).version
    web.replies["/"] = Reply(status=304)

    assert page(web).read(version) is None
    assert web.asked[-1].headers["if-modified-since"] == date


def test_a_page_whose_attributes_are_configured_anew_is_read_again(web: FakeWeb) -> None:
    web.replies["/"] = conditional('"1"')
    version = read(web).version

    content = page(web, attributes={"year": 1}).read(version)

    assert content is not None
    assert content.attributes == {"year": 1}


@pytest.mark.parametrize("version", ["", "no json", "[1]", "{}", '["a"]'])
def test_a_version_that_is_none_of_ours_is_not_asked_about(web: FakeWeb, version: str) -> None:
    web.replies["/"] = conditional('"1"')

    assert page(web).read(version) is not None
    assert "if-none-match" not in web.asked[-1].headers


def test_a_page_without_version_has_none(web: FakeWeb) -> None:
    web.replies["/"] = Reply(b"text")

    assert read(web).version == ""


@pytest.mark.parametrize("status", [404, 410])
def test_a_page_that_is_not_there_is_gone(web: FakeWeb, status: int) -> None:
    web.replies["/"] = Reply(status=status)

    with pytest.raises(DocumentGone, match=f"is answered with {status} "):
        page(web).read()


@pytest.mark.parametrize("status", [304, 401, 403, 418, 500, 599])
def test_a_page_that_cannot_be_had_is_unusable_and_not_gone(web: FakeWeb, status: int) -> None:
    web.replies["/"] = Reply(status=status)

    with pytest.raises(DocumentUnusable, match=f"is answered with {status}") as unusable:
        page(web).read()
    assert not isinstance(unusable.value, DocumentGone)
    assert web.paths() == ["/"]


def test_a_redirect_that_leads_nowhere_is_unusable(web: FakeWeb) -> None:
    web.replies["/"] = Reply(status=302, headers={})

    assert problem(web) == "is answered with 302 Found"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_three_times(web: FakeWeb, status: int) -> None:
    web.replies["/"] = Reply(status=status)

    assert problem(web).startswith(f"is answered with {status} ")
    assert web.paths() == ["/"] * 3


def test_a_server_that_recovers_is_forgiven(web: FakeWeb) -> None:
    answers = iter([Reply(status=503), Reply(b"text")])
    web.replies["/"] = lambda _: next(answers)

    assert read(web).data == b"text"


def test_a_server_is_asked_again_when_it_says(web: FakeWeb) -> None:
    answers = iter([Reply(status=429, headers={"Retry-After": "1"}), Reply(b"text")])
    web.replies["/"] = lambda _: next(answers)
    started = time.monotonic()

    assert read(web).data == b"text"
    assert time.monotonic() - started >= 1
    assert web.paths() == ["/"] * 2


@pytest.mark.parametrize("is_a_date", [False, True])
def test_a_server_that_wants_a_long_pause_is_left_alone(web: FakeWeb, is_a_date: bool) -> None:
    after = formatdate(time.time() + 1000, usegmt=True) if is_a_date else "11"
    web.replies["/"] = Reply(status=503, headers={"Retry-After": after})

    assert problem(web).startswith("is answered with 503 Service Unavailable, try again in")
    assert web.paths() == ["/"]


def test_a_pause_that_takes_all_the_time_is_not_made(web: FakeWeb) -> None:
    web.replies["/"] = Reply(status=503, headers={"Retry-After": "8"})
    started = time.monotonic()

    assert "503" in problem(web, rules=WebRules(allow_private=True, timeout_s=5))
    assert time.monotonic() - started < 5
    assert web.paths() == ["/"]


def test_a_broken_connection_is_tried_again(web: FakeWeb) -> None:
    def cut() -> Iterator[bytes]:
        yield b"only a part"

    too_short = Reply(headers={"Content-Type": "text/html", "Content-Length": "100"}, pieces=cut)
    answers = iter([too_short, too_short, Reply(b"text")])
    web.replies["/"] = lambda _: next(answers)

    assert read(web).data == b"text"


def test_cookies_are_neither_kept_nor_sent(web: FakeWeb) -> None:
    web.replies["/"] = Reply(b"x", headers={"Content-Type": "text/html", "Set-Cookie": "a=b"})

    read(web)
    read(web)

    assert "cookie" not in web.asked[-1].headers


def test_a_location_that_is_no_url_fails() -> None:
    listing = Listing(
        [Source(location="http://0177.0.0.1/"), Source(location="http://x.org/a.html")]
    )

    assert [document.uri for document in listing] == ["http://x.org/a.html"]
    assert listing.failures[0][0] == "http://0177.0.0.1/"
