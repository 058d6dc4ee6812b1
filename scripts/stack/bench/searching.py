"""How many searches Milvus answers by itself: the gateway's own, with nothing around them.

64 at a time, with vectors that are there already. Prints searches a second.
"""

import argparse
import asyncio
import json
import sys
import time

import numpy as np

from gateway.retrieval.searches import Searches
from gateway.settings import GatewaySettings
from indexer.index.collection import IndexReader
from indexer.index.records import SearchMode
from indexer.index.searching import Query, Search

_CLIENTS = 64


async def _rate(questions: list[str], mode: SearchMode, limit: int, seconds: float) -> float:
    settings = GatewaySettings()
    reader = IndexReader(settings)
    generation = await reader.published(settings.knowledge_base)
    searches = Searches(reader)
    search = Search(tenant=settings.tenant, limit=limit, mode=mode, candidates=limit)
    vectors = np.random.default_rng(0).normal(
        size=(len(questions), generation.fingerprint.encoder.dimension)
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = [Query(*each) for each in zip(questions, vectors.astype(np.float32), strict=True)]
    began, done = time.perf_counter(), 0

    async def client(number: int) -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            await searches.search(generation, [queries[number % len(queries)]], search)
            number += _CLIENTS
            done += 1

    await asyncio.gather(*map(client, range(_CLIENTS)))
    await reader.close()
    return done / (time.perf_counter() - began)


def main() -> int:
    """Search; where, the environment says. Questions come from standard input, as JSON."""
    parser = argparse.ArgumentParser(prog="stack.bench.searching", description=__doc__)
    parser.add_argument("--mode", choices=["dense", "hybrid"], required=True)
    parser.add_argument("--limit", type=int, required=True, help="hits of each")
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    questions = json.load(sys.stdin)
    print(asyncio.run(_rate(questions, given.mode, given.limit, given.seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
