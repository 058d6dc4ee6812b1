"""Who asks where nobody needs a key: somebody on this machine, by its own names for itself.

A page in a browser of this machine may make its own name lead here (DNS rebinding), and then read
what it is answered. Its requests bear that name, and are refused.
"""

import ipaddress
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from gateway.access.callers import Caller
from gateway.errors import Refused

_HOST = b"host"
_LOCALHOST = "localhost"


def anybody_here(tenant: str) -> Callable[[Iterable[tuple[bytes, bytes]]], Caller]:
    """Tells the caller by the headers of a request: always the same one, who has `tenant`.

    What it gives raises Refused where the request was meant for another host.
    """
    anybody = Caller(name="anybody", tenant=tenant)

    def caller(headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        host = next((value for name, value in headers if name == _HOST), b"").decode("latin-1")
        if not _is_this_machine(host):
            raise Refused(
                f"Without keys this gateway answers as {_LOCALHOST} alone, not as {host[:100]!r}: "
                "ask it by that name, or have it ask for keys.",
                403,
                "host_not_allowed",
            )
        return anybody

    return caller


def _is_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == _LOCALHOST or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
