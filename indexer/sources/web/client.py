"""Gets one page at a time: redirects, retries, limits, robots.txt. Knows no documents.

A client is shared by all threads of a process that read under the same rules. It keeps to two
connections for each host; another process has its own client, and its own two.
"""

import http
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urlsplit

import httpx2
import msgspec
import tenacity

from indexer.errors import DocumentUnusable
from indexer.index import __version__
from indexer.sources.configuration import WebRules
from indexer.sources.web import robots
from indexer.sources.web.connections import Clock, Resolve, Transport, resolve
from indexer.sources.web.robots import Robots

MAX_REDIRECTS = 5
TRIES = 3
RETRY_AFTER_MAX_S = 10.0
BACKOFF_S = 0.5
CONNECTIONS_PER_HOST = 2

_RETRIED = {429, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a server, beside the URL."""

    headers: dict[str, str] = {}
    max_bytes: int
    is_cut: bool = False
    """Whether what is behind `max_bytes` is left away; otherwise the page is refused."""
    heeds_robots: bool = True


class Answer(msgspec.Struct, frozen=True):
    """What a server said in the end."""

    url: str
    """After redirects."""
    status: int
    headers: Mapping[str, str]
    """Found by their names in any case."""
    data: bytes
    """Decompressed; empty unless the status is 2xx."""


class WebClient:
    """Gets pages under one set of rules."""

    def __init__(self, rules: WebRules, *, resolve: Resolve = resolve) -> None:
        self._rules = rules
        self._agent = rules.user_agent or f"Groundserve-indexer/{__version__}"
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()
        self._http = httpx2.Client(
            transport=Transport(
                allow_private=rules.allow_private, proxy=rules.proxy, resolve=resolve
            ),
            headers={"User-Agent": self._agent, "Accept": "text/html, */*;q=0.9"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=rules.timeout_s,
            trust_env=False,
        )

    def get(
        self, url: str, headers: dict[str, str] | None = None, max_bytes: int | None = None
    ) -> Answer:
        """What is at `url`, of at most `max_bytes`, by default those of the rules.

        Raises DocumentUnusable when there is no answer in time, when the server stays busy, and
        when the rules or robots.txt forbid to ask. Any other status is an answer.
        """
        ask = Ask(
            headers=headers or {},
            max_bytes=max_bytes or self._rules.max_bytes,
            heeds_robots=self._rules.respect_robots,
        )
        return self._follow(url, ask)

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def _follow(self, url: str, ask: Ask) -> Answer:
        clock = Clock(self._rules.timeout_s)
        for _ in range(MAX_REDIRECTS + 1):
            host = self._host(url)
            delay_s = 0.0
            if ask.heeds_robots:
                rules = host.robots(self._robots)
                rules.check(url)
                delay_s = rules.delay_s
            with host.turn(delay_s):
                answer = self._tried(url, ask, clock)
            if answer.status not in _REDIRECTS or "location" not in answer.headers:
                return answer
            url = redirected(url, answer.headers["location"])
        raise DocumentUnusable(f"is redirected more than {MAX_REDIRECTS} times")

    def _host(self, url: str) -> "_Host":
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            if origin not in self._hosts:
                self._hosts[origin] = _Host(origin)
            return self._hosts[origin]

    def _robots(self, origin: str) -> Robots:
        def get() -> tuple[int, bytes]:
            ask = Ask(max_bytes=robots.MAX_BYTES, is_cut=True, heeds_robots=False)
            answer = self._follow(f"{origin}/robots.txt", ask)
            return answer.status, answer.data

        return Robots.of(self._agent, get)

    def _tried(self, url: str, ask: Ask, clock: Clock) -> Answer:
        """What the server says, asked again while it says that it is busy."""
        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Again),
            wait=_pause_s,
            stop=lambda state: (
                state.attempt_number >= TRIES or state.upcoming_sleep >= clock.left_s
            ),
            sleep=clock.sleep,
            reraise=True,
        )
        return tries(self._once, url, ask, clock)

    def _once(self, url: str, ask: Ask, clock: Clock) -> Answer:
        try:
            with (
                clock.running(),
                self._http.stream("GET", url, headers=ask.headers) as response,
            ):
                if response.status_code in _RETRIED:
                    raise _busy(response)
                data = _content(response, ask) if response.is_success else b""
                return Answer(url, response.status_code, response.headers, data)
        except httpx2.TimeoutException as exc:
            raise DocumentUnusable(f"takes longer than {self._rules.timeout_s:g} s") from exc
        except (httpx2.NetworkError, httpx2.RemoteProtocolError) as exc:
            raise _Again(f"cannot be reached: {exc or type(exc).__name__}") from exc
        except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
            raise DocumentUnusable(f"cannot be read: {exc or type(exc).__name__}") from exc


class _Host:
    """What is known of one scheme, host and port, and whose turn it is to ask there."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._slots = threading.BoundedSemaphore(CONNECTIONS_PER_HOST)
        self._lock = threading.Lock()
        self._next_at = 0.0
        self._robots: Robots | None = None
        self._robots_lock = threading.Lock()

    def robots(self, read: Callable[[str], Robots]) -> Robots:
        """Its robots.txt, read once."""
        with self._robots_lock:
            if self._robots is None:
                self._robots = read(self._origin)
            return self._robots

    @contextmanager
    def turn(self, delay_s: float) -> Iterator[None]:
        """One of few connections, `delay_s` after the last request began."""
        with self._slots:
            with self._lock:
                now = time.monotonic()
                starts_at = max(now, self._next_at)
                self._next_at = starts_at + delay_s
            time.sleep(starts_at - now)
            yield


class _Again(DocumentUnusable):
    """There was no answer, and there may be one soon."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


def normalised(url: httpx2.URL) -> str:
    """`url` as it is asked for: one text for one page, as far as the address tells."""
    return str(url.copy_with(raw_path=url.raw_path, fragment=None))


def redirected(url: str, location: str) -> str:
    """The URL that a redirect from `url` leads to. Raises DocumentUnusable when it may not."""
    try:
        target = httpx2.URL(url).join(location)
        if target.port is not None and target.port > 65_535:
            raise httpx2.InvalidURL("port")  # noqa: TRY301  # the one thing that it does not check
    except httpx2.InvalidURL as exc:
        raise DocumentUnusable("is redirected to something that is no URL") from exc
    if target.scheme not in ("http", "https") or not target.host:
        raise DocumentUnusable("is redirected to something else than http or https")
    if target.userinfo:
        raise DocumentUnusable("is redirected to an address with a user name in it")
    if target.scheme == "http" and url.startswith("https:"):
        raise DocumentUnusable("is redirected from https to http")
    return normalised(target)


def _busy(response: httpx2.Response) -> DocumentUnusable:
    told = f"is answered with {status_line(response.status_code)}"
    after_s = _retry_after_s(response.headers.get("retry-after", ""))
    if after_s is not None and after_s > RETRY_AFTER_MAX_S:
        return DocumentUnusable(f"{told}, try again in {after_s:.0f} s")
    return _Again(told, after_s)


def _retry_after_s(header: str) -> float | None:
    if header.isdecimal():
        return float(header)
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _pause_s(state: tenacity.RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    if isinstance(failure, _Again) and failure.after_s is not None:
        return failure.after_s
    return tenacity.wait_random_exponential(multiplier=BACKOFF_S, min=BACKOFF_S)(state)


def _content(response: httpx2.Response, ask: Ask) -> bytes:
    """The body, never more of it in memory than is allowed and one piece more."""
    pieces, size = [], 0
    for piece in response.iter_bytes():
        pieces.append(piece)
        size += len(piece)
        if size > ask.max_bytes:
            if not ask.is_cut:
                raise DocumentUnusable(f"is larger than {ask.max_bytes:,} bytes")
            break
    return b"".join(pieces)[: ask.max_bytes]


def status_line(status: int) -> str:
    """`404 Not Found`."""
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
