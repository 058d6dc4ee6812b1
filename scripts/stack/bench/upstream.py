"""A stand-in for vLLM that costs next to nothing: real HTTP, no model. One process.

A stream comes at once, or a token every few milliseconds: POST /pace says how many.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from typing import cast

import httptools
import msgspec
import uvloop

from stack.bench import wire

_MODELS = msgspec.json.encode(
    {
        "object": "list",
        "data": [{"id": wire.MODEL, "object": "model", "max_model_len": 131_072}],
    }
)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)

_CHUNKS = [b"%x\r\n%b\r\n" % (len(event), event) for event in wire.EVENTS] + [b"0\r\n\r\n"]


class _Asked(msgspec.Struct):
    stream: bool = False


class _Pace(msgspec.Struct):
    milliseconds: float = 0.0


_ASKED = msgspec.json.Decoder(_Asked)


class _Serving(asyncio.Protocol):
    """One connection."""

    pace = _Pace()
    """That of all connections."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self._path, self._body = b"", b""
        self._next: asyncio.TimerHandle | None = None

    def connection_lost(self, _: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._path, self._body = b"", b""

    def on_url(self, url: bytes) -> None:
        self._path = url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._path == b"/v1/chat/completions":
            mark = wire.mark_of(self._body)
            if _ASKED.decode(self._body).stream:
                self._stream(mark)
            else:
                self._answer(wire.with_mark(wire.COMPLETION, mark))
        elif self._path == b"/v1/models":
            self._answer(_MODELS)
        elif self._path == b"/pace":
            _Serving.pace = msgspec.json.decode(self._body, type=_Pace)
            self._answer(b"{}")
        elif self._path == b"/health":
            self._answer(b"")
        else:
            self._answer(b'{"error": {"message": "there is no such path"}}', b"404 Not Found")

    def _answer(self, body: bytes, status: bytes = b"200 OK") -> None:
        self._transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )

    def _stream(self, mark: int) -> None:
        if not _Serving.pace.milliseconds:
            self._transport.write(_STREAM_HEAD + wire.with_mark(b"".join(_CHUNKS), mark))
            return
        role, first, *others = _CHUNKS
        self._transport.write(_STREAM_HEAD + role + wire.with_mark(first, mark))
        # The last token and what ends the stream come together, as vLLM sends them.
        paced = iter([*others[:-3], b"".join(others[-3:])])
        self._paced(paced, _Serving.pace.milliseconds / 1000)

    def _paced(self, chunks: Iterator[bytes], interval_s: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()

        def tick() -> None:
            nonlocal due
            if (chunk := next(chunks, None)) is not None:
                self._transport.write(chunk)
                due += interval_s
                self._next = loop.call_at(due, tick)

        due += interval_s
        self._next = loop.call_at(due, tick)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Serving, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main() -> int:
    """Serve on 127.0.0.1 until a signal."""
    parser = argparse.ArgumentParser(prog="stack.bench.upstream", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_args().port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
