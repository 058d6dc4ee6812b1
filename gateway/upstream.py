"""vLLM, through the openai client. The one module that knows the client and its errors.

Answers are handed over as bytes: nothing is parsed that can be relayed.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx2
import msgspec
import openai
from pydantic import SecretStr

from gateway.client import Client
from gateway.connection import NotHTTP
from gateway.errors import UpstreamBroken, UpstreamFailure, UpstreamRejected, UpstreamUnavailable
from gateway.settings import GatewaySettings
from gateway.transport import Answer, Transport


class ServedModel(msgspec.Struct, frozen=True):
    """A model as /v1/models of vLLM tells it."""

    id: str
    fields: dict[str, Any]
    """The whole entry, `max_model_len` among it."""


class Count(msgspec.Struct, frozen=True):
    """How long a prompt is, as vLLM itself counts."""

    tokens: int = msgspec.field(name="count")
    max_model_len: int
    """Tokens of prompt and answer together that the model can hold now."""


class _ModelList(msgspec.Struct):
    data: list[dict[str, Any]]


_NO_KEY = SecretStr("none")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, KeyError)
"""What decoding raises when an answer is not what it should be; ValidationError among it."""


class UpstreamAnswer:
    """A successful answer whose headers have arrived."""

    def __init__(self, pieces: AsyncIterable[bytes], close: Callable[[], Awaitable[None]]) -> None:
        self._has_begun = isinstance(pieces, Answer) and pieces.has_begun
        self._pieces = aiter(pieces)
        self._close = close
        self._first: asyncio.Task[bytes] | None = None

    async def begin(self, patience_s: float) -> bool:
        """Wait for the first piece of the body; False when it did not come within `patience_s`.

        Raises UpstreamBroken when the answer breaks off before it.
        """
        if self._has_begun:  # it came with the head
            return True
        self._first = asyncio.ensure_future(anext(self._pieces, b""))
        done, _ = await asyncio.wait({self._first}, timeout=patience_s)
        with _broken_off():
            if done:
                self._first.result()
        return bool(done)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes off the network. Raises UpstreamBroken when it breaks off."""
        with _broken_off():
            if self._first is not None and (first := await self._first):
                yield first
            async for chunk in self._pieces:
                yield chunk

    async def read(self) -> bytes:
        """The whole body. Raises UpstreamBroken."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def close(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""
        if self._first is not None:
            self._first.cancel()
        await self._close()


class Upstream:
    """One vLLM server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def name(self) -> str:
        """Its base URL."""
        return str(self._client.base_url)

    @classmethod
    def connect(
        cls,
        settings: GatewaySettings,
        url: str,
        api_key: SecretStr = _NO_KEY,
        *,
        socket: Path | None = None,
    ) -> "Upstream":
        """The server at `url`, /v1 included, with the timeouts of `settings`.

        Where there is a Unix `socket`, that is what it connects to.
        """
        transport = Transport(
            url,
            connect_timeout_s=settings.upstream_connect_timeout_s,
            read_timeout_s=settings.upstream_read_timeout_s,
            socket=socket,
        )
        return cls(Client(url, api_key.get_secret_value(), transport))

    async def models(self) -> list[ServedModel]:
        """What vLLM serves now. Raises UpstreamFailure."""
        with _translated_errors():
            response = await self._client.models.with_raw_response.list()
        try:
            served = msgspec.json.decode(response.content, type=_ModelList).data
            return [ServedModel(msgspec.convert(entry["id"], str), entry) for entry in served]
        except _UNREADABLE as exc:
            raise UpstreamBroken(f"/v1/models makes no sense: {_reason(exc)}") from exc

    async def tokenize(self, content: bytes) -> Count:
        """Count the tokens of a chat, template included; `content` as vLLM's /tokenize takes it.

        Raises UpstreamFailure.
        """
        # It lies beside /v1, not in it.
        root = str(self._client.base_url).rstrip("/").removesuffix("/v1")
        answer = await self.post(f"{root}/tokenize", content)
        try:
            return msgspec.json.decode(await answer.read(), type=Count)
        except _UNREADABLE as exc:
            raise UpstreamBroken(f"/tokenize makes no sense: {_reason(exc)}") from exc
        finally:
            await answer.close()

    async def post(self, path: str, content: bytes) -> UpstreamAnswer:
        """Send `content`, JSON, to `path`, once; the caller closes what comes back.

        Raises UpstreamUnavailable, UpstreamRejected, UpstreamBroken.
        """
        with _translated_errors():
            response = await self._client.relay(path, content)
        return _answer(response)

    async def get(self, path: str, query: Mapping[str, str]) -> UpstreamAnswer:
        """What is at `path`; the caller closes it. Raises what `post` does."""
        with _translated_errors():
            response = await self._client.get(
                path, cast_to=httpx2.Response, options={"params": dict(query)}, stream=True
            )
        return _answer(response)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


def _answer(response: httpx2.Response) -> UpstreamAnswer:
    # The response's own iterators look for compression first, and we ask for none.
    return UpstreamAnswer(cast(AsyncIterable[bytes], response.stream), response.aclose)


@contextmanager
def _broken_off() -> Iterator[None]:
    try:
        yield
    except UpstreamFailure:
        raise
    except Exception as exc:  # whatever the transport under the client raises
        raise UpstreamBroken(f"the model server's answer broke off: {_reason(exc)}") from exc


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except openai.OpenAIError as exc:
        raise _translate(exc) from exc


def _translate(exc: openai.OpenAIError) -> UpstreamFailure:
    # The SDK calls it a timeout too when no connection came about.
    connected = not isinstance(exc.__cause__, httpx2.ConnectTimeout)
    if isinstance(exc, openai.APITimeoutError) and connected:
        return UpstreamBroken(
            "the model server accepted the request and then was silent for too long",
            was_silent=True,
        )
    if isinstance(exc, openai.APIConnectionError) and not isinstance(exc.__cause__, NotHTTP):
        return UpstreamUnavailable(
            f"the model server cannot be reached: {_reason(exc.__cause__ or exc)}"
        )
    if isinstance(exc, openai.APIStatusError):
        message, param = _error_fields(exc.body)
        if exc.status_code == 503:
            return UpstreamUnavailable(message or "the model server is not ready")
        return UpstreamRejected(
            message or f"the model server answered {exc.status_code}", exc.status_code, param
        )
    return UpstreamBroken(
        f"the model server's answer makes no sense: {_reason(exc.__cause__ or exc)}"
    )


def _error_fields(body: object) -> tuple[str, str | None]:
    """Message and param of an error body, as far as it has OpenAI's shape."""
    if not isinstance(body, dict):
        return (str(body) if body else "", None)
    param = body.get("param")
    name = param.removeprefix("body.") if isinstance(param, str) else None
    return str(body.get("message") or ""), name


def _reason(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
