"""Knows a request's caller by the key in its headers, and follows the file with the keys."""

import asyncio
import hmac
import ipaddress
import logging
import math
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from gateway.access.callers import Caller
from gateway.access.key_file import KeyFile
from gateway.access.keys import Key, KeysUnusable, digest, parsed
from gateway.errors import Unauthenticated
from gateway.settings import GatewaySettings

RELOAD_S = 1.0
"""Time between two looks at the file."""
_REFUSAL = (
    "Incorrect API key provided, or none. Send a key of this gateway in one of the headers "
    "authorization (as Bearer), api-key and x-api-key."
)
_NOBODY: tuple[bytes, Key | None, float] = (bytes(32), None, math.inf)
"""What is compared where no key is known by a digest; nobody knows what has this digest."""

_log = logging.getLogger(__name__)


class Keyring:
    """The keys that are let in now.

    They are found by their digest. How long that takes may tell something of the digests that are
    there; but whoever sends a key cannot choose its digest, so nothing leads from there to a key.
    What was found is compared in constant time, and where nothing was, something else is.
    """

    def __init__(self, keys: Iterable[Key], file: KeyFile | None = None) -> None:
        """`file` is what `keys` were read from, where it is to be followed."""
        self._keys = _by_digest(keys)
        self._file = file
        self._problem = ""

    def caller(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Who sent these headers, whose names are in small letters.

        Raises Unauthenticated: the same, after the same steps, for whatever is wrong.
        """
        sent = digest(_token(dict(headers)))
        known, key, ends_at = self._keys.get(sent, _NOBODY)
        is_right = hmac.compare_digest(sent, known)
        is_now = time.time() < ends_at
        if key is None or not (is_right and is_now):
            raise Unauthenticated(_REFUSAL)
        return key

    async def watch(self) -> None:
        """Take over what changes in the file; one that cannot be used changes nothing."""
        if self._file is None:
            return
        # Of its own: those that all share may be busy with clients' texts while a key is revoked.
        with ThreadPoolExecutor(1, "keys") as thread:
            while True:
                await asyncio.sleep(RELOAD_S)
                await asyncio.get_running_loop().run_in_executor(thread, self._reload, self._file)

    def _reload(self, file: KeyFile) -> None:
        problem = ""
        try:
            if (keys := file.read_if_changed()) is not None:
                self._keys = _by_digest(keys)
                _log.info("%s has changed: %d keys are let in", file.path, len(keys))
        except KeysUnusable as exc:
            problem = str(exc)
        if problem and problem != self._problem:
            _log.error("those keys are let in that were there before: %s", problem)
        self._problem = problem


def configured_keyring(settings: GatewaySettings) -> Keyring | None:
    """The keys that the settings name; None where they let everybody in.

    Raises KeysUnusable where they name no keys that can be used and do not say that access is open,
    or say so where others than this machine could ask.
    """
    named = [settings.api_keys_file is not None, settings.api_keys is not None]
    if sum([*named, settings.open_access]) > 1:
        raise KeysUnusable(
            "GROUNDSERVE_API_KEYS_FILE, GROUNDSERVE_API_KEYS and GROUNDSERVE_OPEN_ACCESS exclude "
            "each other: set one of them"
        )
    if settings.api_keys_file is not None:
        file = KeyFile(settings.api_keys_file)
        return Keyring(file.read(), file)
    if settings.api_keys is not None:
        try:
            return Keyring(parsed(settings.api_keys.get_secret_value().encode()))
        except KeysUnusable as exc:
            raise KeysUnusable(f"GROUNDSERVE_API_KEYS: {exc}") from exc
    if not settings.open_access:
        raise KeysUnusable(
            "nobody would be let in: make a key with `python -m gateway keys make` and name its "
            "file in GROUNDSERVE_API_KEYS_FILE, or set GROUNDSERVE_OPEN_ACCESS=true, which lets "
            "everybody on this machine in"
        )
    if not _is_loopback(settings.listen_host):
        raise KeysUnusable(
            f"GROUNDSERVE_OPEN_ACCESS is for a loopback address, and {settings.listen_host} is "
            "none: listen on 127.0.0.1, or use keys"
        )
    return None


def _by_digest(keys: Iterable[Key]) -> dict[bytes, tuple[bytes, Key | None, float]]:
    found: dict[bytes, tuple[bytes, Key | None, float]] = {}
    for key in keys:
        known = bytes.fromhex(key.sha256)
        found[known] = (known, key, math.inf if key.expires_at is None else key.expires_at)
    return found


def _token(headers: dict[bytes, bytes]) -> bytes:
    """What was sent as a key, in the first of the three headers that is there; nothing if none is.

    OpenAI's clients have the first, Azure's the second, Anthropic's the third.
    """
    if (said := headers.get(b"authorization")) is not None:
        scheme, _, token = said.partition(b" ")
        return token.strip() if scheme.lower() == b"bearer" else b""
    return headers.get(b"api-key", headers.get(b"x-api-key", b""))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
