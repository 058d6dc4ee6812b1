"""A server with OpenAI's embeddings endpoint: what it is asked, and its vectors, each checked."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from gateway.encoding import Embedded, Vector
from gateway.errors import UpstreamFailure, UpstreamRejected, UpstreamUnavailable
from gateway.one_server import OneServer
from gateway.routing import Care
from gateway.upstream import Upstream
from indexer.index.errors import EncoderFailure, EncoderUnavailable, EncodingFailed

_REFUSED = (400, 413, 422)
"""Statuses that say something about what was to be embedded."""
_BUSY = 429


class _Row(msgspec.Struct):
    index: int
    embedding: str | list[float]
    """Servers that do not know base64 send numbers."""


class _Usage(msgspec.Struct):
    prompt_tokens: int


class _Answer(msgspec.Struct):
    data: list[_Row]
    usage: _Usage


class EmbeddingsServer:
    """Asks for vectors of one model, once more where the server cannot be reached."""

    def __init__(self, server: Upstream, model: str, care: Care) -> None:
        self._upstream = server
        self._server = OneServer(server, care)
        self._model = model

    async def entry(self) -> Mapping[str, Any]:
        """What its list of models tells of the model, if that is there.

        Raises EncoderUnavailable, EncodingFailed.
        """
        try:
            served = await self._upstream.models()
        except UpstreamFailure as exc:
            raise _translated(exc) from exc
        self._server.breaker.was_reached()
        return next((each.fields for each in served if each.id == self._model), {})

    async def embedded(
        self,
        path: str,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        dimension: int | None,
        options: Mapping[str, Any],
        limit_s: float | None = None,
    ) -> Embedded:
        """A vector of `dimension` numbers for each of `inputs`; of any where that is None.

        `options` are further fields of the request. Raises EncoderUnavailable where the server
        cannot be reached or takes longer than `limit_s`, UpstreamRejected where it refuses the
        inputs, EncodingFailed otherwise.
        """
        body = {"model": self._model, "input": inputs, "encoding_format": "base64", **options}
        raw = await self._answer(path, msgspec.json.encode(body), limit_s)
        try:
            answer = msgspec.json.decode(raw, type=_Answer)
            vectors = _vectors(answer.data, len(inputs), dimension)
        # ValueError is what msgspec, binascii and numpy raise.
        except (ValueError, RecursionError) as exc:
            raise EncodingFailed(f"the embeddings server's answer makes no sense: {exc}") from exc
        return Embedded(vectors, answer.usage.prompt_tokens)

    async def close(self) -> None:
        """Close every connection."""
        await self._server.close()

    async def _answer(self, path: str, body: bytes, limit_s: float | None) -> bytes:
        try:
            return await self._server.answer(path, body, limit_s)
        except UpstreamFailure as exc:
            if isinstance(exc, UpstreamRejected) and exc.status in _REFUSED:
                raise
            raise _translated(exc) from exc


def _translated(exc: UpstreamFailure) -> EncoderFailure:
    busy = isinstance(exc, UpstreamRejected) and exc.status == _BUSY
    away = busy or isinstance(exc, UpstreamUnavailable)
    return (EncoderUnavailable if away else EncodingFailed)(f"the embeddings server: {exc}")


def _vectors(rows: list[_Row], count: int, dimension: int | None) -> list[Vector]:
    """The vector of each input, in their order. Raises ValueError."""
    rows.sort(key=lambda row: row.index)
    if [row.index for row in rows] != list(range(count)):
        raise ValueError(f"it holds {len(rows)} vectors, not one for each of {count} texts")
    vectors = [_numbers(row.embedding) for row in rows]
    lengths = {len(vector) for vector in vectors}
    if len(lengths) > 1 or 0 in lengths or (dimension is not None and lengths - {dimension}):
        wanted = "one length" if dimension is None else f"{dimension} numbers"
        raise ValueError(f"its vectors have {', '.join(map(str, sorted(lengths)))}, not {wanted}")
    return [_unit(vector) for vector in vectors]


def _numbers(embedding: str | list[float]) -> Vector:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    with np.errstate(over="ignore"):  # what is too large is infinite then, and found by its norm
        return np.asarray(embedding, dtype=np.float32)


def _unit(vector: Vector) -> Vector:
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm):
        raise ValueError("its numbers are not finite")
    unit: Vector = vector / np.float32(max(norm, float(np.finfo(np.float32).tiny)))
    return unit
