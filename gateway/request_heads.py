"""Heads of requests, before there is a request: not too long, and refused as everything else is.

Left to itself, uvicorn takes a head of any length into memory, and answers what is no HTTP in plain
text.
"""

import http
from typing import Any

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import Refused
from gateway.verdicts import error_body


class HeadProtocol(HttpToolsProtocol):
    """One connection, whose requests have heads of limited length."""

    def __init__(
        self, max_header_bytes: int, config: uvicorn.Config, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(config, *args, **kwargs)
        self._max_header_bytes = max_header_bytes
        self._is_in_head = False
        self._is_too_long = False
        self._head_bytes = 0
        """Bytes of a head that is not complete, in earlier pieces."""
        self._piece_bytes = 0
        """Length of the piece that is read now."""

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's protocol."""
        self._piece_bytes = len(data)
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += self._piece_bytes
            if self._head_bytes > self._max_header_bytes and not self.transport.is_closing():
                self._is_too_long = True
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """Part of httptools' protocol."""
        self._is_in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Part of httptools' protocol."""
        self._is_in_head = False
        # A piece may have much of a body in it, or several requests: then it is added up.
        if self._head_bytes + self._piece_bytes > self._max_header_bytes:
            length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if length > self._max_header_bytes:
                self._is_too_long = True
                raise ValueError("the head of a request is too long")
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn does where something is no HTTP, or where a callback fails."""
        failure = Refused(msg, 400, "invalid_http")
        if self._is_too_long:
            failure = Refused(
                f"URL and headers are longer than {self._max_header_bytes} bytes.",
                431,
                "request_header_fields_too_large",
            )
        self.transport.write(refusal(failure))
        self.transport.close()


def refusal(failure: Refused) -> bytes:
    """The whole response to a request that does not get as far as the application."""
    body = msgspec.json.encode({"error": error_body(failure)})
    phrase = http.HTTPStatus(failure.status).phrase.encode()
    head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\nconnection: close\r\n"
    head %= (failure.status, phrase)
    return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
