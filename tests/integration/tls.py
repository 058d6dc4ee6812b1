"""Puts TLS before a server that has none: it ends here, and bytes go on as they are."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def context(
    certificate: tuple[Path, Path], client_authority: Path | None = None, alpn: str = "http/1.1"
) -> ssl.SSLContext:
    """A server's; with `client_authority` it asks clients for certificates, too."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*certificate)
    made.set_alpn_protocols([alpn])
    if client_authority is not None:
        made.load_verify_locations(client_authority)
        made.verify_mode = ssl.CERT_REQUIRED
    return made


@contextmanager
def forwarded(port: int, tls: ssl.SSLContext) -> Iterator[int]:
    """A port of 127.0.0.1 that leads to `port` there, by TLS."""
    ready: list[int] = []
    started, ended = threading.Event(), threading.Event()

    writers: list[asyncio.StreamWriter] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writers.append(back)
        await asyncio.gather(_copied(reader, back), _copied(there, writer))

    async def serve() -> None:
        server = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=tls)
        ready.append(server.sockets[0].getsockname()[1])
        started.set()
        await asyncio.to_thread(ended.wait)
        server.close()
        for writer in writers:
            writer.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    try:
        assert started.wait(10)
        yield ready[0]
    finally:
        ended.set()
        thread.join()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
