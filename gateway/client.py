"""The openai client, with what is the same in every request made once.

The SDK makes options, headers and URL anew for each request, and its HTTP client looks for
redirects and cookies: that costs several times what sending it does.
"""

import asyncio
import copy
from collections.abc import AsyncIterable
from typing import Any, cast

import httpx2
from cachetools import LRUCache
from openai import AsyncOpenAI
from openai._models import FinalRequestOptions

from gateway.connection import NotHTTP

_PATHS = 64
MOST_OF_A_FAILURE = 64 * 1024
"""Bytes of an error body that are read."""
MOST_OF_A_LIST = 16 * 1024 * 1024
_FAILURE_S = 5.0
"""Longest wait for such a body: its status says most of it."""


class Client(AsyncOpenAI):
    """One server's client. It does not retry by itself: two layers of retries multiply."""

    def __init__(self, url: str, api_key: str, transport: httpx2.AsyncBaseTransport) -> None:
        """`url` is the server's base URL, which `transport` leads to."""
        super().__init__(
            base_url=url,
            api_key=api_key,
            max_retries=0,
            # What is handed on as it came must not come compressed.
            http_client=_Direct(transport=transport, headers={"accept-encoding": "identity"}),
        )
        self._headers = httpx2.Headers(
            {
                "host": self.base_url.netloc.decode("ascii"),
                "content-type": "application/json",
                **self.auth_headers,
            }
        )
        # Few paths are asked all the time; there may be any number of others, with ids in them.
        self._known: LRUCache[str, tuple[FinalRequestOptions, httpx2.URL]] = LRUCache(_PATHS)

    async def relay(self, path: str, content: bytes) -> httpx2.Response:
        """The answer to `content`, JSON, posted to `path`; only its head is read.

        Raises openai.OpenAIError.
        """
        options, _ = self._prepared(path)
        options = copy.copy(options)
        options.content = content
        return await self.request(httpx2.Response, options, stream=True)

    def _build_request(
        self, options: FinalRequestOptions, *, retries_taken: int = 0
    ) -> httpx2.Request:
        if not isinstance(options.content, bytes):
            return super()._build_request(options, retries_taken=retries_taken)
        _, url = self._prepared(options.url)
        body = httpx2.ByteStream(options.content)
        return httpx2.Request("POST", url, headers=self._headers, stream=body)

    def _prepared(self, path: str) -> tuple[FinalRequestOptions, httpx2.URL]:
        known = self._known.get(path)
        if known is None:
            options = FinalRequestOptions.construct(method="post", url=path, idempotency_key="none")
            known = self._known[path] = options, self._prepare_url(path)
        return known


class _Direct(httpx2.AsyncClient):
    """Has its transport send each request, and reads what is not handed on as it comes."""

    async def send(
        self, request: httpx2.Request, *, stream: bool = False, **_: Any
    ) -> httpx2.Response:
        response = await self._transport.handle_async_request(request)
        response.request = request
        if response.is_success and stream:
            return response
        try:
            content = b""
            if response.is_success:
                content = await _read(response, MOST_OF_A_LIST)
            else:
                content = await _as_far_as_it_came(response)
        finally:
            await response.aclose()
        # The SDK reads it once more, and knows neither bounds nor an error body that breaks off.
        return httpx2.Response(
            response.status_code, headers=response.headers, content=content, request=request
        )


async def _read(response: httpx2.Response, most: int) -> bytes:
    """The body. Raises NotHTTP where it is longer than `most` bytes."""
    body = bytearray()
    # The response's own iterators look for compression first, and we ask for none.
    async for piece in cast(AsyncIterable[bytes], response.stream):
        body += piece
        if len(body) > most:
            raise NotHTTP(f"its answer is longer than {most} bytes")
    return bytes(body)


async def _as_far_as_it_came(response: httpx2.Response) -> bytes:
    """The body of an error; the status counts also where it is missing."""
    try:
        async with asyncio.timeout(_FAILURE_S):
            return await _read(response, MOST_OF_A_FAILURE)
    except (TimeoutError, httpx2.TransportError):
        return b""
