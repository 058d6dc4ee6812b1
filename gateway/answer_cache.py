"""Answers of vLLM that are given again to a request that is the same to the byte.

What is kept is what vLLM said; context and citations are put in anew each time. The key is made of
the tenant, the model, the whole request with the prompt in it, and the generations that were
searched: a new index never serves an old answer, and nobody is served another's.
"""

import hashlib
from collections.abc import AsyncIterator, Callable

import msgspec
from cachetools import TTLCache

from gateway.access.callers import caller
from gateway.models import Loaded
from gateway.upstream_answer import UpstreamAnswer

Keep = Callable[[bytes], None]
_MIB = 2**20


class AnswerCache:
    """The last answers, up to a size."""

    def __init__(self, size_mib: float, ttl_s: float) -> None:
        """A size of 0 keeps nothing. Answers are forgotten `ttl_s` seconds after they came."""
        self.is_on = size_mib > 0
        self._answers: TTLCache[bytes, bytes] = TTLCache(size_mib * _MIB, ttl_s, getsizeof=len)

    @staticmethod
    def key(model: Loaded, path: str, request: bytes, index: str) -> bytes:
        """What makes two requests the same; `index` names what was searched."""
        parts = (caller().tenant, model.name, model.swaps, path, index)
        digest = hashlib.blake2b(msgspec.json.encode(parts), digest_size=32)
        digest.update(b"\0" + request)
        return digest.digest()

    def get(self, key: bytes) -> "KeptAnswer | None":
        """The answer to such a request."""
        body = self._answers.get(key)
        return None if body is None else KeptAnswer(body)

    def keep(self, key: bytes, body: bytes) -> None:
        """Remember a complete answer; one that is larger than the whole cache is not."""
        if len(body) <= self._answers.maxsize:
            self._answers[key] = body


class KeptAnswer(UpstreamAnswer):
    """An answer that has come before."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def begin(self, patience_s: float) -> bool:  # noqa: ARG002  # it is all here
        """True: it is all here."""
        return True

    async def chunks(self) -> AsyncIterator[bytes]:
        """All of it at once."""
        yield self._body

    async def close(self) -> None:
        """There is nothing to close."""


async def kept(chunks: AsyncIterator[bytes], keep: Keep, ending: bytes) -> AsyncIterator[bytes]:
    """`chunks`, which are kept when they end as a complete stream does, with `ending` in it."""
    pieces: list[bytes] = []
    async for chunk in chunks:
        pieces.append(chunk)
        yield chunk
    body = b"".join(pieces)
    if ending in body[-4096:]:
        keep(body)
