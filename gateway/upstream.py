"""vLLM, through the openai client. The one module that knows the client and its errors.

Answers are handed over as bytes: nothing is parsed that can be relayed.
"""

import asyncio
import ssl
from collections.abc import AsyncIterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx2
import msgspec
import openai
from pydantic import SecretStr

from gateway.body import UNREADABLE
from gateway.client import Client
from gateway.connection import NotHTTP, Unheard
from gateway.deadline import within
from gateway.errors import (
    UpstreamBroken,
    UpstreamFailure,
    UpstreamRejected,
    UpstreamUnavailable,
)
from gateway.settings import GatewaySettings
from gateway.transport import Transport
from gateway.upstream_answer import UpstreamAnswer


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


LIST_TIMEOUT_S = 5.0
"""Longest wait for what a server serves: one that takes longer is as good as away."""
COUNT_TIMEOUT_S = 10.0
"""Longest wait for a count of tokens: an estimate takes its place."""
COUNT_SHARE = 0.5
"""Of what is left to a request, the most that counting may take: the answer needs the rest."""
_CONTENT_TYPE = b"content-type"
_NO_KEY = SecretStr("none")
_UNCONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout)
_UNREADABLE = (*UNREADABLE, KeyError)
"""What decoding raises when an answer is not what it should be; ValidationError among it."""


class Upstream:
    """One vLLM server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._name = ""

    @property
    def name(self) -> str:
        """Its base URL, for logs and metrics: without what it says about who asks."""
        if not self._name:
            self._name = str(self._client.base_url.copy_with(userinfo=b""))
        return self._name

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
            stall_timeout_s=settings.upstream_stall_timeout_s,
            socket=socket,
            tls=_tls(settings) if url.startswith("https:") else None,
        )
        return cls(Client(url, api_key.get_secret_value(), transport))

    async def models(self) -> list[ServedModel]:
        """What vLLM serves now. Raises UpstreamFailure."""
        try:
            with _translated_errors():
                async with asyncio.timeout(LIST_TIMEOUT_S):
                    response = await self._client.models.with_raw_response.list()
        except TimeoutError as exc:
            raise UpstreamUnavailable(
                "the model server does not say what it serves", is_connected=True
            ) from exc
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
        try:
            async with asyncio.timeout(within(COUNT_TIMEOUT_S, COUNT_SHARE)):
                answer = await self.post(f"{root}/tokenize", content)
                try:
                    return msgspec.json.decode(await answer.read(), type=Count)
                finally:
                    await answer.close()
        except TimeoutError as exc:
            raise UpstreamBroken("/tokenize did not answer in time", was_silent=True) from exc
        except _UNREADABLE as exc:
            raise UpstreamBroken(f"/tokenize makes no sense: {_reason(exc)}") from exc

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


def _tls(settings: GatewaySettings) -> ssl.SSLContext:
    """Whom to trust, and who we are. Certificates and host names are always checked."""
    context = ssl.create_default_context(cafile=settings.upstream_ca_file)
    if settings.upstream_client_cert_file is not None:
        context.load_cert_chain(
            settings.upstream_client_cert_file, settings.upstream_client_key_file
        )
    return context


def _answer(response: httpx2.Response) -> UpstreamAnswer:
    # The response's own iterators look for compression first, and we ask for none.
    pieces = cast(AsyncIterable[bytes], response.stream)
    kind = next((value for name, value in response.headers.raw if name == _CONTENT_TYPE), b"")
    return UpstreamAnswer(pieces, response.aclose, kind.lower())


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
        is_connected = not isinstance(exc.__cause__, _UNCONNECTED)
        words = "left without an answer" if is_connected else "cannot be reached"
        return UpstreamUnavailable(
            f"the model server {words}: {_reason(exc.__cause__ or exc)}",
            is_connected=is_connected,
            may_run=is_connected,
            was_unheard=isinstance(exc.__cause__, Unheard),
        )
    if isinstance(exc, openai.APIStatusError):
        message, param = _error_fields(exc.body)
        if exc.status_code == 503:
            return UpstreamUnavailable(
                message or "the model server is not ready", is_connected=True
            )
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
