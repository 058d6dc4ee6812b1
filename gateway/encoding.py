"""What turns text into vectors, for retrieval and `/v1/embeddings`; the model in a thread here.

A question for a chat waits for one call at most: long requests come in slices, and questions go
in between. Knows no HTTP.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.batching import Batcher, take_short_turns
from gateway.loading import loaded
from gateway.waiting import QueueBounds
from indexer.index.embedding import EmbeddingModel
from indexer.index.errors import EncoderUnavailable, TokensInvalid
from indexer.index.records import EncoderIdentity

QUERIES_AT_ONCE = 32
"""Most questions that are embedded in one call."""
TEXTS_AT_ONCE = 32
"""Most texts of clients that are embedded in one call."""
CHARS_AT_ONCE = 8_000
"""Most characters of one client's texts in one call; a longer text has a call to itself."""
ARRAYS_AT_ONCE = 32
"""Most arrays of token ids that are turned into text in one call."""
QUERIES_PATH = "/queries"
"""Where a process that has the encoder for others takes questions: they do not wait for texts."""
IDENTITY_FIELD = "groundserve_encoder"
"""Where it tells its EncoderIdentity, in its entry of /v1/models."""

Vector = NDArray[np.float32]
"""Shape (dimension,), unit norm."""
Stored = Callable[[], Awaitable[Sequence[tuple[str, Vector]]]]
"""Reads passages as they were embedded, without the prefix, and their stored vectors."""

_log = logging.getLogger(__name__)


class Embedded(msgspec.Struct, frozen=True):
    """What texts of a client became."""

    vectors: list[Vector]
    """In the order of the texts."""
    tokens: int
    """As many as the model read of all of them, special ones included."""


class Encoding(Protocol):
    """An encoder, wherever it runs."""

    async def start(self) -> None:
        """Make it ready, and keep it so for as long as that takes and the task lives."""

    def check(self) -> None:
        """Raises EncoderUnavailable while it is not there."""

    @property
    def swaps(self) -> int:
        """How often another model was found where it is."""

    @property
    def identity(self) -> EncoderIdentity:
        """What decides which vector a text gets, as far as it tells. Raises EncoderUnavailable."""

    async def differences(
        self, collection: str, stored: EncoderIdentity, read: Stored
    ) -> list[str]:
        """Each way in which the encoder of `collection` is another one; empty where it is this.

        Raises EncoderUnavailable, EncodingFailed, and what `read` does.
        """

    async def queries(self, texts: Sequence[str]) -> list[Vector]:
        """The vector of each question, with the prefix of questions, batched with what waits.

        Raises EncoderUnavailable, EncodingFailed, Overloaded.
        """

    async def texts(self, texts: Sequence[str], prefix: str = "") -> Embedded:
        """The vector of each text of a client with `prefix` before it, however many there are.

        Raises EncoderUnavailable, EncodingFailed, Overloaded, and InvalidRequest for what a server
        refuses.
        """

    async def arrays(self, arrays: Sequence[Sequence[int]], prefix: str = "") -> Embedded:
        """The same for texts that come as ids of the encoder's tokenizer.

        Raises TokensInvalid beside what `texts` does.
        """

    async def close(self) -> None:
        """Let go of threads and connections."""


class LocalEncoding:
    """An encoder that is loading, loaded, or could not be loaded yet."""

    swaps = 0

    def __init__(
        self,
        load: Callable[[], EmbeddingModel],
        bounds: QueueBounds = QueueBounds(),  # noqa: B008 - immutable
    ) -> None:
        """`load` takes seconds, and raises EncoderUnavailable; `bounds` are those of each queue."""
        self._load = load
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")
        self._encoder: EmbeddingModel | None = None
        self._trouble = EncoderUnavailable("the embedding model is still loading")
        # Each has one call in the thread at a time, so they take turns.
        self._queries = Batcher[str, Vector](
            "questions",
            self._embed_queries,
            self._thread,
            QUERIES_AT_ONCE,
            bounds=bounds,
            may_be_of_one=_may_be_of_one,
        )
        self._texts = Batcher[str, tuple[Vector, int]](
            "texts",
            self._embed_texts,
            self._thread,
            TEXTS_AT_ONCE,
            bounds=bounds,
            may_be_of_one=_may_be_of_one,
        )
        self._arrays = Batcher[Sequence[Sequence[int]], list[str]](
            "tokens", self._decode, self._thread, 1, bounds=bounds
        )

    async def start(self) -> None:
        """Load the model; until then everything else raises EncoderUnavailable."""
        encoder = await loaded(self._load, self._thread, self._lacks)
        take_short_turns()
        self._encoder = encoder
        _log.info("embedding model %s is loaded", encoder.identity.model)

    def check(self) -> None:
        """Raises EncoderUnavailable while the model is not there."""
        self._loaded()

    @property
    def identity(self) -> EncoderIdentity:
        """What decides which vector a text gets. Raises EncoderUnavailable."""
        return self._loaded().identity

    async def differences(
        self,
        collection: str,  # noqa: ARG002 - both encoders say exactly what they are
        stored: EncoderIdentity,
        read: Stored,  # noqa: ARG002
    ) -> list[str]:
        """Each way in which the two differ. Raises EncoderUnavailable."""
        return stored.differences(self.identity)

    async def queries(self, texts: Sequence[str]) -> list[Vector]:
        """The vector of each question. Raises EncoderUnavailable, EncodingFailed, Overloaded."""
        self.check()
        return await self._queries.submit_all(texts)

    async def texts(self, texts: Sequence[str], prefix: str = "") -> Embedded:
        """The vector of each text.

        They go slice by slice: others get in between, and a caller that is cancelled frees the
        rest. Raises EncoderUnavailable, EncodingFailed, Overloaded.
        """
        self.check()
        embedded: list[tuple[Vector, int]] = []
        for slice_ in slices(texts):
            embedded += await self._texts.submit_all([prefix + text for text in slice_])
        return Embedded([vector for vector, _ in embedded], sum(count for _, count in embedded))

    async def arrays(self, arrays: Sequence[Sequence[int]], prefix: str = "") -> Embedded:
        """The vector of the text of each array. Raises what `texts` does, and TokensInvalid."""
        return await self.texts(await self._decoded(arrays), prefix)

    async def _decoded(self, arrays: Sequence[Sequence[int]]) -> list[str]:
        self.check()
        texts: list[str] = []
        for start in range(0, len(arrays), ARRAYS_AT_ONCE):
            slice_ = arrays[start : start + ARRAYS_AT_ONCE]
            try:
                texts += await self._arrays.submit(slice_)
            except TokensInvalid as exc:
                raise TokensInvalid(str(exc), start + exc.place) from exc
        return texts

    async def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _lacks(self, trouble: EncoderUnavailable) -> None:
        self._trouble = trouble

    def _loaded(self) -> EmbeddingModel:
        if self._encoder is None:
            raise self._trouble
        return self._encoder

    def _decode(self, slices: list[Sequence[Sequence[int]]]) -> list[list[str]]:
        """In the encoder's thread as well: a tokenizer is not for two threads at once."""
        return [self._loaded().decode(slice_) for slice_ in slices]

    def _embed_queries(self, texts: list[str]) -> list[Vector]:
        return list(self._loaded().encode_queries(texts))

    def _embed_texts(self, texts: list[str]) -> list[tuple[Vector, int]]:
        encoder = self._loaded()
        return list(zip(encoder.encode_texts(texts), encoder.count_tokens(texts), strict=True))


def _may_be_of_one(failure: Exception) -> bool:
    """Whether one text may be why several were not embedded."""
    return not isinstance(failure, EncoderUnavailable)


def slices(texts: Sequence[str]) -> Iterator[list[str]]:
    """`texts` in order, in slices of up to TEXTS_AT_ONCE texts and CHARS_AT_ONCE characters."""
    slice_: list[str] = []
    chars = 0
    for text in texts:
        if slice_ and (len(slice_) == TEXTS_AT_ONCE or chars + len(text) > CHARS_AT_ONCE):
            yield slice_
            slice_, chars = [], 0
        slice_.append(text)
        chars += len(text)
    if slice_:
        yield slice_
