"""What it costs a request to be let in: finding its key, and counting it under every limit.

The gateway's own parts do it, without HTTP around them. A request takes its slot, is charged for
its tokens, and gives back what it did not need, as every request does where all limits are set.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import uvloop

from gateway.access import machine_ledger
from gateway.access.callers import Caller, Limits
from gateway.access.keyring import Keyring
from gateway.access.keys import Key, digest
from gateway.access.ledger import Ledger
from gateway.access.limits import Limiter
from gateway.access.local_ledger import LocalLedger
from gateway.access.machine_ledger import MachineLedger
from gateway.access.redis_ledger import RedisLedger
from gateway.access.shared_ledger import SharedLedger
from gateway.settings import GatewaySettings
from stack import report

KEYS = 1_000
AT_A_TIME = 64
PROMPT, ANSWER, USED = 40, 64, 80
"""Tokens of a request, as it is charged and as it turns out."""
TIMEOUT_S = 1.0
PLENTY = Limits(
    requests_per_minute=10**9,
    tokens_per_minute=10**12,
    concurrent_requests=10**6,
    answer_tokens=10**6,
)
LIMITED = GatewaySettings(
    requests_per_minute=10**9, tokens_per_minute=10**12, concurrent_requests=10**6
)
"""As many limits for all as for the key."""


class Cost(msgspec.Struct, frozen=True):
    """What one request costs, in microseconds."""

    cpu_us: float
    """Of the gateway's process, with AT_A_TIME requests at a time."""
    wait_us: float
    """Of a request that is alone."""


async def counted(limiter: Limiter, who: Caller, requests: int) -> None:
    """Let in, charge and end so many requests, one after the other."""
    for _ in range(requests):
        admission = await limiter.admitted(who)
        if admission is not None:
            await admission.spend(PROMPT, ANSWER)
            admission.used(USED)
            admission.end(failed=False)


async def cost(ledger: Ledger, who: Caller, settings: GatewaySettings, requests: int) -> Cost:
    """What the limits of `who` and of `settings` cost where `ledger` counts."""
    limiter = Limiter(settings, ledger)
    await counted(limiter, who, requests // 10)
    began = time.perf_counter()
    await counted(limiter, who, requests // 10)
    alone_s = (time.perf_counter() - began) / (requests // 10)
    began = time.process_time()
    each = requests // AT_A_TIME
    await asyncio.gather(*(counted(limiter, who, each) for _ in range(AT_A_TIME)))
    cpu_s = (time.process_time() - began) / (each * AT_A_TIME)
    return Cost(cpu_s * 1e6, alone_s * 1e6)


def finding_a_key(requests: int) -> Cost:
    """What it costs to find a caller among KEYS."""
    tokens = [f"gs-{number}" for number in range(KEYS)]
    keyring = Keyring(
        Key(name=each, tenant=each, sha256=digest(each.encode()).hex(), created_at=0)
        for each in tokens
    )
    sent = [
        [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {each}".encode())] for each in tokens
    ]
    began = time.process_time()
    for number in range(requests):
        keyring.caller(sent[number % KEYS])
    found_us = (time.process_time() - began) / requests * 1e6
    return Cost(found_us, found_us)


async def costs(requests: int, machine: Path, redis: str | None) -> dict[str, Cost]:
    """All of it, by what is measured; a ledger for the workers of a machine is at `machine`."""
    nobody = Caller(name="key", tenant="key")
    limited = Caller(name="key", tenant="key", limits=PLENTY)
    found = {
        f"finding one of {KEYS} keys": finding_a_key(requests),
        "no limits": await cost(LocalLedger(), nobody, GatewaySettings(), requests),
        "all limits, in memory": await cost(LocalLedger(), limited, LIMITED, requests),
    }
    async with _shared(MachineLedger(machine)) as ledger:
        # It is kept by a thread of this process here, so its work is counted too.
        name = "all limits, shared by workers, with the ledger's own work"
        found[name] = await cost(ledger, limited, LIMITED, requests)
    if redis is not None:
        async with _shared(RedisLedger(redis, TIMEOUT_S)) as ledger:
            found["all limits, in Redis"] = await cost(ledger, limited, LIMITED, requests)
    return found


@asynccontextmanager
async def _shared(there: MachineLedger | RedisLedger) -> AsyncIterator[SharedLedger]:
    ledger = SharedLedger(there.ask, there.close, TIMEOUT_S)
    running = asyncio.create_task(ledger.run())
    try:
        yield ledger
    finally:
        running.cancel()
        await ledger.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/measure-admission", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--redis", metavar="URL", help="measure limits in that Redis as well")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        machine = Path(folder, "ledger.sock")
        with machine_ledger.keeping(machine):
            found = uvloop.run(costs(given.requests, machine, given.redis))
    for name, each in found.items():
        report.say(f"{name}: {each.cpu_us:.1f} µs of CPU, {each.wait_us:.1f} µs for one alone")
    return 0


if __name__ == "__main__":
    sys.exit(report.run(main))
