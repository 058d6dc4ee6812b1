"""How much of each prompt of a conversation vLLM had read before, on a stack that runs already.

The context of a question changes from turn to turn, so it stands in the last message, behind
everything that the turns have in common: vLLM's prefix cache holds the keys and values of that.
The same conversation without retrieval is what could be had at best.
"""

import argparse
import sys
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import openai

from gateway.settings import GatewaySettings
from stack import report, servers
from stack.errors import StackError
from stack.report import say

_QUESTIONS = (
    "What do the parameters for HNSW mean?",
    "Which of them make a search slower?",
    "How is a collection loaded into memory?",
    "What is a partition key?",
    "Which metric types are there for floating point vectors?",
)
_SYSTEM = (
    "You are the assistant of a team that runs a vector database. Answer in plain English, name "
    "parameters as the documentation writes them, and say so when you are not sure. Do not guess "
    "at figures, and do not recommend anything that the documentation warns about."
)


class Turn(NamedTuple):
    """The prompt of one turn, in tokens."""

    prompt: int
    cached: int


def main() -> int:
    """Print the share of each turn; the gateway is where its settings say."""
    parser = argparse.ArgumentParser(prog="scripts/prefix-cache", description=__doc__)
    parser.add_argument("--question", action="append", help="a turn; give it again for the next")
    parser.add_argument("--system", default=_SYSTEM, help="the system prompt")
    given = parser.parse_args()
    settings = GatewaySettings()
    url = f"http://{settings.listen_host}:{settings.listen_port}/v1"
    try:
        with openai.OpenAI(base_url=url, api_key=servers.api_key(), max_retries=0) as client:
            for title, retrieval in (("with context", True), ("without context", False)):
                questions = given.question or _QUESTIONS
                _print(title, _converse(client, given.system, questions, retrieval=retrieval))
    except openai.OpenAIError as exc:
        raise StackError(f"the stack did not answer: {exc}") from exc
    return 0


def _converse(
    client: openai.OpenAI, system: str, questions: Sequence[str], *, retrieval: bool
) -> list[Turn]:
    # A run must not find what the one before it left in the cache.
    messages: list[Any] = [{"role": "system", "content": f"{system} Team {uuid.uuid4()}."}]
    turns = []
    for question in questions:
        messages.append({"role": "user", "content": question})
        completion = client.chat.completions.create(
            model="default",
            messages=messages,
            max_tokens=120,
            temperature=0,
            extra_body={"retrieval": retrieval},
        )
        turns.append(_turn(completion.usage))
        messages.append({"role": "assistant", "content": completion.choices[0].message.content})
    return turns


def _turn(usage: openai.types.CompletionUsage | None) -> Turn:
    details = usage.prompt_tokens_details if usage is not None else None
    if usage is None or details is None:
        raise StackError(
            "vLLM does not tell what was cached: start it with enable-prompt-tokens-details"
        )
    return Turn(usage.prompt_tokens, details.cached_tokens or 0)


def _print(title: str, turns: Sequence[Turn]) -> None:
    say(f"{title:<16}{'prompt':>8}{'cached':>8}{'share':>7}")
    everything = Turn(sum(turn.prompt for turn in turns), sum(turn.cached for turn in turns))
    rows = [(f"turn {number}", turn) for number, turn in enumerate(turns, start=1)]
    for name, turn in [*rows, ("together", everything)]:
        say(f"{name:<16}{turn.prompt:>8}{turn.cached:>8}{turn.cached / turn.prompt:>7.0%}")


if __name__ == "__main__":
    sys.exit(report.run(main))
