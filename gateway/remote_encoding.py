"""An encoder on a server with OpenAI's embeddings, or in a process of our own. Knows no HTTP.

A server tells neither its weights nor its pooling. That its vectors are those of an index is proved
by the data: stored passages are embedded once more and compared. Our own process says what it is.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.batching import AsyncBatcher
from gateway.embeddings_server import EmbeddingsServer
from gateway.encoding import (
    IDENTITY_FIELD,
    QUERIES_AT_ONCE,
    QUERIES_PATH,
    Embedded,
    Stored,
    Vector,
    slices,
)
from gateway.errors import InvalidRequest, UpstreamRejected
from gateway.settings import GatewaySettings
from indexer.index.encoder_identity import documented_query_prefix
from indexer.index.errors import EncoderFailure, EncoderUnavailable, EncodingFailed
from indexer.index.records import EncoderIdentity

TEXTS_PATH = "/embeddings"
REQUESTS_AT_ONCE = 4
"""Most requests with questions that are under way, and as many with texts of clients."""
LOOK_S = 10.0
"""Between looks at a server that answers: each is an embedding, and may cost something."""
SAME_COSINE = 0.99
"""Below it two vectors of one text are of two models: float16 and int8 are at 0.999."""
PROBE = "What do llamas eat?"
NOTHING: Mapping[str, Any] = {}

_log = logging.getLogger(__name__)


class _Slice(msgspec.Struct, frozen=True, eq=False):
    """Texts, or arrays of token ids, of one client."""

    inputs: Sequence[str] | Sequence[Sequence[int]]
    options: Mapping[str, Any]


class RemoteEncoding:
    """An encoder that is asked over HTTP."""

    def __init__(
        self, server: EmbeddingsServer, settings: GatewaySettings, *, is_ours: bool = False
    ) -> None:
        """`is_ours`: the server is a process of this gateway, which tells its identity."""
        self._server = server
        self._is_ours = is_ours
        self._model = settings.encoder_model
        self._query_prefix = settings.encoder_query_prefix
        if self._query_prefix is None:
            self._query_prefix = documented_query_prefix(self._model)
        self._passage_prefix = settings.encoder_passage_prefix or ""
        self._poll_interval_s = settings.poll_interval_s
        self._limit_s = settings.encoder_timeout_s
        bounds = settings.queue_bounds
        self._queries = AsyncBatcher[str, Vector](
            "questions",
            self._embed_queries,
            QUERIES_AT_ONCE,
            REQUESTS_AT_ONCE,
            bounds=bounds,
            may_be_of_one=_may_be_of_one,
        )
        self._slices = AsyncBatcher[_Slice, Embedded](
            "texts", self._embed_slices, 1, REQUESTS_AT_ONCE, bounds=bounds
        )
        self.swaps = 0
        self._identity: EncoderIdentity | None = None
        self._last_identity: EncoderIdentity | None = None
        self._trouble = EncoderUnavailable("the embeddings server has not answered yet")
        self._look_now = asyncio.Event()
        self._options: Mapping[str, Any] = {}
        self._probed: Vector | None = None
        self._proven: set[str] = set()
        """Collections that this model is known to have made."""

    async def start(self) -> None:
        """Find out what the server is, and again when it was away, as long as the task lives."""
        while True:
            self._look_now.clear()
            patience_s = self._poll_interval_s if self._is_ours else LOOK_S
            try:
                await self._look()
            except (EncoderFailure, UpstreamRejected) as exc:
                self._lose(exc)
                patience_s = self._poll_interval_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._look_now.wait()

    def check(self) -> None:
        """Raises EncoderUnavailable while the server does not answer."""
        _ = self.identity

    @property
    def identity(self) -> EncoderIdentity:
        """What is known of it; `revision` is empty where the server does not tell."""
        if self._identity is None:
            raise self._trouble
        return self._identity

    async def differences(
        self, collection: str, stored: EncoderIdentity, read: Stored
    ) -> list[str]:
        """Each way in which the two differ; where the server tells too little, vectors decide.

        A collection without rows is taken by dimension and prefixes. Raises EncoderUnavailable,
        EncodingFailed, and what `read` does.
        """
        ours = self.identity
        if self._is_ours:
            return stored.differences(ours)
        ours = msgspec.structs.replace(ours, revision=stored.revision, pooling=stored.pooling)
        if (found := stored.differences(ours)) or collection in self._proven:
            return found
        if not (passages := await read()):
            return []
        texts = [ours.passage_prefix + text for text, _ in passages]
        try:
            now = (await self._asked(TEXTS_PATH, texts, limit_s=self._limit_s)).vectors
        except UpstreamRejected as exc:
            raise EncodingFailed(f"the embeddings server refuses a stored passage: {exc}") from exc
        cosine = min(
            float(before @ vector) for (_, before), vector in zip(passages, now, strict=True)
        )
        if cosine < SAME_COSINE:
            return [f"a stored passage gets another vector there, at a cosine of {cosine:.2f}"]
        self._proven.add(collection)
        return []

    async def queries(self, texts: Sequence[str]) -> list[Vector]:
        """The vector of each question. Raises EncoderUnavailable, EncodingFailed, Overloaded."""
        self.check()
        try:
            return await self._queries.submit_all(texts)
        except UpstreamRejected as exc:
            raise EncodingFailed(f"the embeddings server refuses the question: {exc}") from exc

    async def texts(self, texts: Sequence[str], prefix: str = "") -> Embedded:
        """The vector of each text, slice by slice: a caller that is cancelled frees the rest.

        Raises EncoderUnavailable, EncodingFailed, Overloaded, and InvalidRequest for what is
        refused.
        """
        self.check()
        vectors: list[Vector] = []
        tokens = 0
        for slice_ in slices(texts):
            embedded = await self._of_client([prefix + text for text in slice_])
            vectors += embedded.vectors
            tokens += embedded.tokens
        return Embedded(vectors, tokens)

    async def arrays(self, arrays: Sequence[Sequence[int]], prefix: str = "") -> Embedded:
        """The vector of each array of token ids, which the server reads. Raises as `texts` does."""
        identity = self.identity
        options = {}
        if prefix and not self._is_ours:
            raise InvalidRequest(
                "The embeddings server takes token ids as they are: leave 'input_type' away, or "
                "send texts.",
                "input_type",
            )
        if prefix:
            options = {"input_type": "query" if prefix == identity.query_prefix else "document"}
        return await self._of_client(arrays, options)

    async def close(self) -> None:
        """Close every connection."""
        await self._server.close()

    async def _embed_queries(self, texts: list[str]) -> list[Vector]:
        if self._is_ours:
            # It is busy with those of other workers, and is looked at all the time.
            return (await self._asked(QUERIES_PATH, texts)).vectors
        given = [self.identity.query_prefix + text for text in texts]
        return (await self._asked(TEXTS_PATH, given, limit_s=self._limit_s)).vectors

    async def _of_client(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        options: Mapping[str, Any] = NOTHING,
    ) -> Embedded:
        try:
            return await self._slices.submit(_Slice(inputs, options))
        except UpstreamRejected as exc:
            raise InvalidRequest(exc.message, exc.param or "input") from exc

    async def _embed_slices(self, slices_: list["_Slice"]) -> list[Embedded]:
        return [await self._asked(TEXTS_PATH, each.inputs, each.options) for each in slices_]

    async def _asked(
        self,
        path: str,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        options: Mapping[str, Any] = NOTHING,
        limit_s: float | None = None,
    ) -> Embedded:
        """Raises EncoderUnavailable, EncodingFailed, UpstreamRejected."""
        dimension = self.identity.dimension
        options = {**self._options, **options}
        try:
            return await self._server.embedded(path, inputs, dimension, options, limit_s)
        except EncoderFailure:
            # It may have died, or have become another one.
            self._look_now.set()
            raise

    async def _look(self) -> None:
        identity = await (self._told() if self._is_ours else self._probe())
        if self._identity is None:
            _log.info("embedding model %s is there", identity.model)
        if self._last_identity not in (None, identity):
            self._swapped()
        self._identity = self._last_identity = identity

    async def _told(self) -> EncoderIdentity:
        entry = await self._server.entry()
        try:
            return msgspec.convert(entry[IDENTITY_FIELD], EncoderIdentity)
        except (KeyError, msgspec.ValidationError) as exc:
            raise EncodingFailed("the encoder process does not say what it is") from exc

    async def _probe(self) -> EncoderIdentity:
        """What one vector tells, which is also compared with the one before."""
        embedded = await self._server.embedded(
            TEXTS_PATH, [PROBE], None, self._options, self._limit_s
        )
        with contextlib.suppress(EncodingFailed):  # a list of models is not what it is there for
            if "max_model_len" in await self._server.entry():
                # vLLM refuses what is longer than it reads, unless it is told to cut.
                self._options = {"truncate_prompt_tokens": -1}
        [vector] = embedded.vectors
        before, self._probed = self._probed, vector
        if before is not None and len(before) == len(vector) and before @ vector < SAME_COSINE:
            self._swapped()
        return EncoderIdentity(
            model=self._model,
            revision="",
            dimension=len(vector),
            pooling="",
            normalised=True,
            query_prefix=self._query_prefix or "",
            passage_prefix=self._passage_prefix,
        )

    def _swapped(self) -> None:
        _log.warning("embedding model %s has become another one", self._model)
        self.swaps += 1
        self._proven.clear()

    def _lose(self, failure: Exception) -> None:
        if self._identity is not None:
            _log.warning("embedding model %s is away: %s", self._model, failure)
        self._identity = None
        self._trouble = EncoderUnavailable(str(failure))
        self._proven.clear()


def _may_be_of_one(failure: Exception) -> bool:
    """Whether one text may be why the server answered for several with an error."""
    told = failure.__cause__ if isinstance(failure, EncodingFailed) else failure
    return isinstance(told, UpstreamRejected)
