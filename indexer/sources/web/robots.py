"""What the robots.txt of one host allows, as RFC 9309 says. Knows no connections."""

from collections.abc import Callable

from protego import Protego

from indexer.errors import DocumentUnusable
from indexer.sources.web.connections import AddressRefused

MAX_BYTES = 500 << 10  # section 2.5: what a crawler parses at least
MAX_DELAY_S = 10.0
"""Longest Crawl-delay that is waited for; a longer one counts as this."""


class Robots:
    """The rules of one host for one user agent."""

    def __init__(self, agent: str, text: str = "", refusal: str = "") -> None:
        """`refusal` tells why nothing at all may be read; empty when `text` decides."""
        self._agent = agent.partition("/")[0]
        self._refusal = refusal
        self._rules = Protego.parse(text)
        self.delay_s = min(self._rules.crawl_delay(self._agent) or 0.0, MAX_DELAY_S)
        """Seconds from one request to the next."""

    @classmethod
    def of(cls, agent: str, get: Callable[[], tuple[int, bytes]]) -> "Robots":
        """From what `get` gives: status and content of robots.txt, or DocumentUnusable.

        Without a robots.txt (4xx) everything is allowed; while the server cannot give it (5xx, no
        answer) nothing is.
        """
        try:
            status, data = get()
        except AddressRefused as exc:
            return cls(agent, refusal=str(exc))
        except DocumentUnusable as exc:
            return cls(agent, refusal=f"robots.txt decides, and it {exc}")
        if status >= 500:
            return cls(agent, refusal=f"robots.txt decides, and it is answered with {status}")
        if not 200 <= status < 300:
            return cls(agent)
        return cls(agent, text=data.decode("utf-8-sig", errors="replace"))

    def check(self, url: str) -> None:
        """Raises DocumentUnusable when `url` may not be read."""
        if self._refusal:
            raise DocumentUnusable(self._refusal)
        if not self._rules.can_fetch(url, self._agent):
            raise DocumentUnusable("robots.txt forbids it")
