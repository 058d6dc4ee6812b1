"""The web clients of this process: one for each set of rules, made when it is first needed."""

import atexit
import os
import threading

from indexer.sources.configuration import WebRules
from indexer.sources.web.client import WebClient

_clients: dict[WebRules, WebClient] = {}
_lock = threading.Lock()


def client_for(rules: WebRules) -> WebClient:
    """The client that all threads of this process share."""
    with _lock:
        if rules not in _clients:
            _clients[rules] = WebClient(rules)
        return _clients[rules]


def close_all() -> None:
    """Close every connection of this process; the next page opens new ones."""
    with _lock:
        while _clients:
            _clients.popitem()[1].close()


def _after_fork() -> None:
    global _lock  # noqa: PLW0603  # it may be held by a thread that the child does not have
    _lock = threading.Lock()
    _clients.clear()


atexit.register(close_all)
os.register_at_fork(after_in_child=_after_fork)
