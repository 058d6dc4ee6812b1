"""A ledger in Redis, for any number of workers and hosts. The one module that knows Redis."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError  # noqa: A004 - no OSError

from gateway.access.ledger import LEASE_S, Entry, Give, LedgerAway, Renew, Take, Taken

_PREFIX = "{groundserve-limits}:"
"""The braces keep all keys on one node of a cluster: they are read and written in one step."""
_SCRIPT = Path(__file__).with_suffix(".lua")
_ANSWERS = msgspec.msgpack.Decoder(list[Taken | None])


class RedisLedger:
    """Asks Redis; whatever is told in one message is one step there."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Connects when it is first asked. Raises ValueError for a URL that cannot be used."""
        self._redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # Once, for connections that Redis has closed since: they are found broken only now.
            # What had been done already counts twice then, which lets in less and never more.
            retry=Retry(NoBackoff(), 1, (ConnectionError,)),
        )
        self._script = self._redis.register_script(_SCRIPT.read_text(encoding="utf-8"))

    async def ask(self, entries: list[Entry]) -> Sequence[Taken | None]:
        """What it answers. Raises LedgerAway."""
        keys = {_PREFIX + key for entry in entries for key in _keys(entry)}
        try:
            answer = await self._script(
                keys=sorted(keys), args=[msgspec.msgpack.encode(entries), LEASE_S]
            )
            return _ANSWERS.decode(answer)
        except (RedisError, OSError, msgspec.DecodeError) as exc:
            raise LedgerAway(f"Redis: {exc}") from exc

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()


def _keys(entry: Entry) -> list[str]:
    match entry:
        case Take(_, charges, slots):
            return [*(each.key for each in charges), *(slot.key for slot in slots)]
        case Give(_, slots, _, settled):
            return [*slots, *(key for key, _ in settled)]
        case Renew(_, slots):
            return list(slots)
