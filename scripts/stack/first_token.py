"""What the gateway adds to vLLM's answers, measured on a stack that runs already.

Both are asked for the same thing in turns, by one client and by several at the same time: vLLM
alone gets the finished prompts, the gateway gets the questions and has to find the context first.
What embedding and search took is what the gateway says in its server-timing header; the rest is its
own work and one more hop over the loopback.
"""

import argparse
import asyncio
import re
import statistics
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import openai
from openai import AsyncOpenAI

from gateway.settings import GatewaySettings
from stack import report, servers
from stack.errors import StackError

_STAGE = re.compile(r"(\w+);dur=([\d.]+)")
_QUESTIONS = [
    "What do the parameters for HNSW mean?",
    "How is an index built?",
    "Which metric types are there?",
    "What is a partition key good for?",
    "How are rows deleted?",
    "What happens when a collection is loaded?",
    "How is a search filtered?",
    "What does consistency level mean?",
]


class Sample(NamedTuple):
    """One question, in milliseconds."""

    first_token: float
    total: float
    stages: dict[str, float]


class Side(NamedTuple):
    """A server, and what it is asked."""

    client: AsyncOpenAI
    model: str
    contents: Sequence[str]


def main() -> int:
    """Print the medians; where the stack is, the gateway's environment says."""
    parser = argparse.ArgumentParser(prog="scripts/first-token", description=__doc__)
    parser.add_argument("--question", nargs="+", default=_QUESTIONS, help="asked in turns")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8], help="at the same time")
    parser.add_argument("--tokens", type=int, default=16, help="of each answer")
    given = parser.parse_args()
    try:
        return asyncio.run(_measured(given))
    except openai.OpenAIError as exc:
        raise StackError(f"the stack did not answer: {exc}") from exc


async def _measured(given: argparse.Namespace) -> int:
    settings = GatewaySettings()
    gateway_url = f"http://{settings.listen_host}:{settings.listen_port}/v1"
    async with (
        AsyncOpenAI(base_url=settings.upstream_urls[0], api_key="none", max_retries=0) as vllm,
        AsyncOpenAI(base_url=gateway_url, api_key=servers.api_key(), max_retries=0) as gateway,
    ):
        prompts = [await _prompt(gateway, question) for question in given.question]
        model = (await vllm.models.list()).data[0].id
        alone, through = (
            Side(vllm, model, prompts),
            Side(gateway, "default", given.question),
        )
        for clients in given.clients:
            samples: list[list[Sample]] = [[], []]
            for number in range(given.rounds + 1):
                for kept, side in zip(samples, (alone, through), strict=True):
                    found = await _round(side, number, clients, given.tokens)
                    if number > 0:  # the first round fills vLLM's prefix cache
                        kept.extend(found)
            _print(clients, *samples)
    return 0


async def _prompt(gateway: AsyncOpenAI, question: str) -> str:
    """What the gateway makes of `question`: it tells without asking the model."""
    answer = await gateway.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": question}],
        extra_body={"retrieval": {"dry_run": True}},
    )
    told = (answer.choices[0].message.model_extra or {})["context"]["retrieval"]["prompt"]
    return str(told or question)


async def _round(side: Side, number: int, clients: int, tokens: int) -> list[Sample]:
    """Each of `clients` asks one question, all at the same time."""
    # Of no round before, so that neither side has it in a cache.
    ending = f" ({number})"
    places = [(number * clients + at) % len(side.contents) for at in range(clients)]
    return await asyncio.gather(
        *(_ask(side, side.contents[place] + ending, tokens) for place in places)
    )


async def _ask(side: Side, content: str, tokens: int) -> Sample:
    began = time.perf_counter()
    response = await side.client.chat.completions.with_raw_response.create(
        model=side.model,
        messages=[{"role": "user", "content": content}],
        max_tokens=tokens,
        temperature=0.2,
        top_p=0.95,
        stream=True,
        # Every answer of the same length.
        extra_body={"ignore_eos": True},
    )
    first_ms = None
    # To its end, or vLLM would still be busy with it when the next one is measured.
    async for chunk in response.parse():
        if first_ms is None and chunk.choices and chunk.choices[0].delta.content:
            first_ms = (time.perf_counter() - began) * 1000
    if first_ms is None:
        raise StackError("a stream ended without a token")
    total_ms = (time.perf_counter() - began) * 1000
    timing = _STAGE.findall(response.headers.get("server-timing", ""))
    return Sample(first_ms, total_ms, {stage: float(ms) for stage, ms in timing})


def _print(clients: int, alone: Sequence[Sample], through: Sequence[Sample]) -> None:
    firsts = [statistics.median(sample.first_token for sample in side) for side in (alone, through)]
    totals = [statistics.median(sample.total for sample in side) for side in (alone, through)]
    embed = statistics.median(sample.stages.get("embed", 0.0) for sample in through)
    search = statistics.median(sample.stages.get("search", 0.0) for sample in through)
    report.say(f"{clients} at a time, medians of {len(alone)} answers, in milliseconds")
    report.say(f"  vLLM alone: first token, total      {firsts[0]:8.1f} {totals[0]:8.1f}")
    report.say(f"  through the gateway                 {firsts[1]:8.1f} {totals[1]:8.1f}")
    report.say(f"  of which embedding and searching    {embed:8.1f} {search:8.1f}")
    rest = firsts[1] - firsts[0] - embed - search
    report.say(f"  the first token's rest              {rest:8.1f}")


if __name__ == "__main__":
    sys.exit(report.run(main))
