"""Connections to web servers: where they may go, and for how long. Knows no pages.

The address is checked where the connection is made, and the connection is made to the address
that was checked: a host that answers the next question for its name differently gains nothing.
"""

import functools
import ipaddress
import math
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore2
import httpx2

from indexer.errors import DocumentUnusable

Resolve = Callable[[str, int], list[str]]
"""Gives the addresses of a host, as text; may raise OSError."""

_deadline: ContextVar[float] = ContextVar("deadline")
"""Of the request that this thread is making, on the clock of time.monotonic."""

_NEXT_ADDRESS_AFTER_S = 5.0
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NOT_PUBLIC = [ipaddress.ip_network(net) for net in ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")]
"""Special-purpose networks of IANA that `ipaddress` in Python 3.11 takes for public ones."""


class AddressRefused(DocumentUnusable):
    """The address of a host is not public."""


class Clock:
    """The time that one document has left; waiting for a turn costs none of it."""

    def __init__(self, seconds: float) -> None:
        self.left_s = seconds

    @contextmanager
    def running(self) -> Iterator[None]:
        """Everything that this thread asks of a server inside ends when the time is up."""
        deadline = time.monotonic() + self.left_s
        token = _deadline.set(deadline)
        try:
            yield
        finally:
            _deadline.reset(token)
            self.left_s = deadline - time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait before the next try, which costs time as well."""
        self.left_s -= seconds
        time.sleep(seconds)


def is_public(address: str) -> bool:
    """Whether anyone on the internet may ask `address`, as text."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and (inner := _inner(ip)) is not None:
        return is_public(str(inner))
    return (
        ip.is_global
        and not (ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_unspecified)
        and not (ip.is_multicast or ip.is_reserved)
        and not (isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local)
        and not any(ip in network for network in _NOT_PUBLIC)
    )


def _inner(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to `ip` may end up at."""
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


def resolve(host: str, port: int) -> list[str]:
    """The addresses that the system knows for `host`; its own time limits hold, not ours."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Transport(httpx2.BaseTransport):
    """Carries requests of httpx2 over connections that are guarded and end in time."""

    def __init__(self, *, allow_private: bool, proxy: str = "", resolve: Resolve = resolve) -> None:
        self._pool = httpcore2.ConnectionPool(
            ssl_context=_ssl_context(),
            proxy=_proxy(proxy) if proxy else None,
            max_connections=None,
            max_keepalive_connections=20,
            keepalive_expiry=30.0,
            network_backend=_Network(allow_private=allow_private, resolve=resolve),
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request. Raises httpx2.TransportError, AddressRefused."""
        with _translated():
            response = self._pool.handle_request(
                httpcore2.Request(
                    method=request.method,
                    url=httpcore2.URL(
                        scheme=request.url.raw_scheme,
                        host=request.url.raw_host,
                        port=request.url.port,
                        target=request.url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx2.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


class _Body(httpx2.SyncByteStream):
    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with _translated():
            yield from self._response.iter_stream()

    def close(self) -> None:
        with _translated():
            self._response.close()


class _Network(httpcore2.NetworkBackend):
    """Opens connections to addresses that it has checked itself."""

    def __init__(self, *, allow_private: bool, resolve: Resolve) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._system = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002  # the deadline is shorter
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        failure: Exception = httpcore2.ConnectError(f"{host} has no address")
        addresses = self._addresses(host, port)
        for address in addresses:
            # An address that swallows packets must leave time for the others.
            most_s = math.inf if address == addresses[-1] else _NEXT_ADDRESS_AFTER_S
            try:
                stream = self._system.connect_tcp(
                    address, port, min(_time_left(), most_s), local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                failure = exc
            else:
                return _TimedStream(stream)
        raise failure

    def _addresses(self, host: str, port: int) -> list[str]:
        """All addresses of `host`. One that is not public makes all of them suspicious."""
        try:
            addresses = self._resolve(host, port)
        except socket.gaierror as exc:
            if exc.errno == socket.EAI_AGAIN:
                raise httpcore2.ConnectError(f"{host} cannot be resolved now") from exc
            raise DocumentUnusable(f"cannot be reached: {host} is not known") from exc
        except (OSError, UnicodeError) as exc:
            raise httpcore2.ConnectError(f"{host} cannot be resolved") from exc
        if not self._allow_private:
            for address in addresses:
                if not is_public(address):
                    told = host if host == address else f"{host}, which is {address},"
                    raise AddressRefused(f"{told} is not public")
        return addresses


class _TimedStream(httpcore2.NetworkStream):
    """A connection whose every wait ends at the deadline of the request that waits."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, _time_left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, _time_left())

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore2.NetworkStream:
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, _time_left()))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _time_left() -> float:
    left_s = _deadline.get() - time.monotonic()
    if left_s <= 0:
        raise httpcore2.ReadTimeout
    return left_s


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    """Loading the certificates takes a while, and all clients trust the same ones."""
    return httpcore2.default_ssl_context()


def _proxy(url: str) -> httpcore2.Proxy:
    proxy = httpx2.Proxy(url)
    return httpcore2.Proxy(
        httpcore2.URL(
            scheme=proxy.url.raw_scheme,
            host=proxy.url.raw_host,
            port=proxy.url.port,
            target=proxy.url.raw_path,
        ),
        auth=proxy.raw_auth,
    )


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of httpcore2 as those of httpx2, which the client alone has to know."""
    try:
        yield
    except httpcore2.TimeoutException as exc:
        raise httpx2.ReadTimeout(str(exc)) from exc
    except httpcore2.NetworkError as exc:
        raise httpx2.NetworkError(str(exc)) from exc
    except httpcore2.RemoteProtocolError as exc:
        raise httpx2.RemoteProtocolError(str(exc)) from exc
    except (httpcore2.ProtocolError, httpcore2.ProxyError, httpcore2.UnsupportedProtocol) as exc:
        raise httpx2.TransportError(str(exc)) from exc
