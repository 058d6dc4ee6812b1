"""URLs of images and other media in requests: which of them vLLM may load.

vLLM loads what it is given from wherever the URL points to, its own network included. It takes
nothing of that from here but hosts that the settings name; what is in the request itself, as a
data: URL, is always taken. What such a host redirects to is vLLM's own affair: see
VLLM_MEDIA_URL_ALLOW_REDIRECTS and --allowed-media-domains.

vLLM also keeps media by a name that a part may give, its `uuid`, and would put what another tenant
sent under it into the prompt; no part may give one. It knows equal media by what is in them, too.

A URL has to be written so plainly that no two parsers can differ about its host: without user,
backslash, whitespace, or anything but ASCII.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from gateway.errors import InvalidRequest

_URL_FIELDS = ("image_url", "audio_url", "video_url", "file_url")
_NAMES = frozenset(["uuid"])
"""Of what vLLM keeps for all its tenants."""
WITH_PARTS = ("content", "output")
"""Fields of messages and parts in which there are parts."""
_PORTS = {"http": 80, "https": 443}
_PLAIN = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?:[/?][!-~]*)?",
)
_HOST = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]/@\s]+)(?::(?P<port>[0-9]{1,5}))?")

_NO_HOSTS = "it is no list of hosts, as a.example, b.example:8443"

Hosts = frozenset[tuple[str, int | None]]
"""Names as `_host` writes them, with a port where it is not the scheme's own."""


def parsed_hosts(said: str) -> Hosts:
    """The hosts in `said`, which commas separate; names may be international.

    Raises ValueError.
    """
    return frozenset(_parsed_host(part) for part in map(str.strip, said.split(",")) if part)


def is_allowed(url: str, hosts: Hosts) -> bool:
    """Whether vLLM may load `url`: it is a data: URL, or of one of `hosts`."""
    if url[:5].lower() == "data:":
        return True
    found = _PLAIN.fullmatch(url)
    if found is None or "\\" in url:
        return False
    try:
        host = _host(found["host"])
    except ValueError:
        return False
    port = int(found["port"] or _PORTS[found["scheme"]])
    return (host, port) in hosts or (port in _PORTS.values() and (host, None) in hosts)


class Media:
    """Looks after the parts of messages."""

    def __init__(self, hosts: Hosts, refused: frozenset[str]) -> None:
        """`refused` are the names of parts that are not taken whatever they say."""
        self._hosts = hosts
        self._refused = refused | _NAMES

    def check(self, said: Any, place: str) -> None:
        """Look at messages or parts, or at one, that stand at `place` of a request.

        Raises InvalidRequest, naming the part whose URL is not allowed.
        """
        if isinstance(said, list):
            for at, each in enumerate(said):
                if isinstance(each, dict | list):
                    self.check(each, f"{place}[{at}]")
        elif isinstance(said, dict):
            self._check_part(said, place)
            for name in WITH_PARTS:
                if isinstance(said.get(name), dict | list):
                    self.check(said[name], f"{place}.{name}")

    def _check_part(self, part: dict[str, Any], place: str) -> None:
        kind = part.get("type")
        names = (*part, kind) if isinstance(kind, str) else part
        for name in self._refused.intersection(names):
            raise InvalidRequest(f"'{place}.{name}' is not taken here.", f"{place}.{name}")
        for where, url in _urls(part, place):
            if not (isinstance(url, str) and is_allowed(url, self._hosts)):
                raise InvalidRequest(
                    f"Invalid value for {where!r}: nothing is loaded from there. Send the data "
                    "itself, as a data: URL.",
                    where,
                )


def _urls(part: dict[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    """Where each URL of a part stands, and what it is."""
    for name in _URL_FIELDS:
        match part.get(name):
            case None:
                pass
            case dict(said):
                if said.get("url") is not None:
                    yield f"{place}.{name}.url", said["url"]
            case said:
                yield f"{place}.{name}", said
    match part.get("source"):
        case {"url": url} if url is not None:
            yield f"{place}.source.url", url
    match part.get("file"):
        case {"file_url": url} if url is not None:
            yield f"{place}.file.file_url", url


def _parsed_host(said: str) -> tuple[str, int | None]:
    found = _HOST.fullmatch(said)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or port not in (None, *range(1, 65536)):
        raise ValueError(_NO_HOSTS)
    try:
        return _host(found["host"].encode("idna").decode("ascii")), port
    except ValueError as exc:
        raise ValueError(_NO_HOSTS) from exc


def _host(said: str) -> str:
    """A name in small letters without the dot at its end, an address of IPv6 in its short form.

    Raises ValueError.
    """
    if said.startswith("["):
        return str(ipaddress.IPv6Address(said[1:-1]))
    return said.lower().removesuffix(".")
