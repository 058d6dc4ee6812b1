"""robots.txt decides what is read, and threads take turns at a host."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from indexer.errors import DocumentUnusable
from indexer.sources import WebRules
from indexer.sources.web import client as web_client
from indexer.sources.web import clients
from tests.unit.web_fakes import Asked, FakeWeb, Reply, problem, read, serving


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWeb]:
    monkeypatch.setattr(web_client, "BACKOFF_S", 0.01)
    with serving() as running:
        yield running
        clients.close_all()


def robots(text: str) -> Reply:
    return Reply(text.encode(), headers={"Content-Type": "text/plain"})


def test_robots_txt_decides_what_is_read_and_is_asked_for_once(web: FakeWeb) -> None:
    web.replies["/robots.txt"] = robots(
        "User-agent: *\nDisallow: /\n\nUser-agent: groundserve-indexer\nDisallow: /private\n"
    )
    web.replies.update({"/": Reply(b"x"), "/private/a": Reply(b"x")})

    read(web)

    assert problem(web, "/private/a") == "robots.txt forbids it"
    assert [asked.path for asked in web.asked] == ["/robots.txt", "/"]


def test_robots_txt_holds_for_the_target_of_a_redirect(web: FakeWeb) -> None:
    web.replies["/robots.txt"] = robots("User-agent: *\nDisallow: /private")
    web.replies["/"] = Reply(status=302, headers={"Location": "/private"})

    assert problem(web) == "robots.txt forbids it"
    assert web.paths() == ["/"]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_without_robots_txt_everything_is_allowed(web: FakeWeb, status: int) -> None:
    web.replies.update({"/robots.txt": Reply(status=status), "/": Reply(b"x")})

    assert read(web).data == b"x"


@pytest.mark.parametrize("status", [500, 503])
def test_while_robots_txt_cannot_be_had_nothing_is_allowed(web: FakeWeb, status: int) -> None:
    web.replies.update({"/robots.txt": Reply(status=status), "/": Reply(b"x")})

    assert problem(web).startswith("robots.txt decides, and it is answered with 50")
    assert web.paths() == []


def test_a_redirected_robots_txt_holds_for_the_host_that_was_asked(web: FakeWeb) -> None:
    web.replies["/robots.txt"] = Reply(status=301, headers={"Location": "/other.txt"})
    web.replies["/other.txt"] = robots("User-agent: *\nDisallow: /")

    assert problem(web) == "robots.txt forbids it"


def test_a_robots_txt_without_end_is_read_as_far_as_it_counts(web: FakeWeb) -> None:
    def endless() -> Iterator[bytes]:
        yield b"User-agent: *\nDisallow: /private\n"
        for _ in range(1000):
            yield b"# nothing that counts\n" * 100

    web.replies["/robots.txt"] = Reply(pieces=endless)
    web.replies["/"] = Reply(b"x")

    assert read(web).data == b"x"
    assert problem(web, "/private") == "robots.txt forbids it"


def test_robots_txt_is_not_asked_for_where_the_rules_say_so(web: FakeWeb) -> None:
    web.replies.update({"/robots.txt": robots("User-agent: *\nDisallow: /"), "/": Reply(b"x")})

    rules = WebRules(allow_private=True, respect_robots=False)

    assert read(web, rules=rules).data == b"x"
    assert [asked.path for asked in web.asked] == ["/"]


def test_another_user_agent_has_other_rules(web: FakeWeb) -> None:
    web.replies["/robots.txt"] = robots("User-agent: reader\nDisallow: /")
    web.replies["/"] = Reply(b"x")

    assert read(web).data == b"x"
    assert problem(web, rules=WebRules(allow_private=True, user_agent="reader/2")) == (
        "robots.txt forbids it"
    )
    assert web.asked[-1].headers["user-agent"] == "reader/2"


def in_threads(count: int, work: Any) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_crawl_delay_is_kept_by_all_threads_together(web: FakeWeb) -> None:
    web.replies["/robots.txt"] = robots("User-agent: *\nCrawl-delay: 0.3")
    times = []

    def reply(_: Asked) -> Reply:
        times.append(time.monotonic())
        return Reply(b"x")

    web.replies["/"] = reply
    in_threads(4, lambda: read(web))

    assert times[-1] - times[0] > 0.65


def test_a_host_has_two_connections_however_many_threads_read(web: FakeWeb) -> None:
    arrived = threading.Condition()
    now, most = 0, 0

    def reply(_: Asked) -> Reply:
        nonlocal now, most
        with arrived:
            now += 1
            most = max(most, now)
            arrived.notify_all()
            arrived.wait_for(lambda: most >= 2, timeout=10)
        time.sleep(0.05)  # a third one would come now
        with arrived:
            now -= 1
        return Reply(b"x")

    web.replies["/"] = reply
    in_threads(8, lambda: read(web))

    assert most == 2


def test_waiting_for_a_turn_costs_no_time_of_the_page(web: FakeWeb) -> None:
    def reply(_: Asked) -> Reply:
        time.sleep(0.3)
        return Reply(b"x")

    web.replies["/"] = reply
    rules = WebRules(allow_private=True, timeout_s=2)
    failures: list[Exception] = []

    def work() -> None:
        try:
            read(web, rules=rules)
        except DocumentUnusable as exc:
            failures.append(exc)

    in_threads(16, work)  # the last ones begin after 2.1 s

    assert failures == []
