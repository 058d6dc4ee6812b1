"""What the gateway adds to vLLM's time to first token, measured on a stack that runs already.

Both are asked for the same thing in turns: vLLM alone gets the finished prompt, the gateway gets
the question and has to find the context first. What embedding and search took is what the gateway
says in its server-timing header; the rest is its own work and one more hop over the loopback.
"""

import argparse
import re
import statistics
import sys
import time
from typing import NamedTuple

import openai

from gateway.settings import GatewaySettings
from stack import report
from stack.errors import StackError

_STAGE = re.compile(r"(\w+);dur=([\d.]+)")


class Sample(NamedTuple):
    """One question, in milliseconds."""

    first_token: float
    stages: dict[str, float]


def main() -> int:
    """Print the medians; where the stack is, the gateway's environment says."""
    parser = argparse.ArgumentParser(prog="scripts/first-token", description=__doc__)
    parser.add_argument("--question", default="What do the parameters for HNSW mean?")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    settings = GatewaySettings()
    gateway_url = f"http://{settings.listen_host}:{settings.listen_port}/v1"
    try:
        prompt = _prompt(gateway_url, given.question)
        alone, through = _rounds(settings.upstream_url, gateway_url, prompt, given)
    except openai.OpenAIError as exc:
        raise StackError(f"the stack did not answer: {exc}") from exc
    _print(alone, through)
    return 0


def _prompt(gateway_url: str, question: str) -> str:
    """What the gateway makes of `question`: it tells without asking the model."""
    with openai.OpenAI(base_url=gateway_url, api_key="none", max_retries=0) as gateway:
        answer = gateway.chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": question}],
            extra_body={"retrieval": {"dry_run": True}},
        )
    told = (answer.choices[0].message.model_extra or {})["context"]["retrieval"]["prompt"]
    return str(told or question)


def _rounds(
    vllm_url: str, gateway_url: str, prompt: str, given: argparse.Namespace
) -> tuple[list[Sample], list[Sample]]:
    alone, through = [], []
    with (
        openai.OpenAI(base_url=vllm_url, api_key="none", max_retries=0) as vllm,
        openai.OpenAI(base_url=gateway_url, api_key="none", max_retries=0) as gateway,
    ):
        model = vllm.models.list().data[0].id
        for number in range(given.rounds + 1):
            samples = _ask(vllm, model, prompt), _ask(gateway, "default", given.question)
            if number > 0:  # the first round fills vLLM's prefix cache
                alone.append(samples[0])
                through.append(samples[1])
    return alone, through


def _ask(client: openai.OpenAI, model: str, content: str) -> Sample:
    began = time.perf_counter()
    response = client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": content}],
        max_tokens=2,
        temperature=0.2,
        top_p=0.95,
        stream=True,
    )
    elapsed_ms = None
    # To its end, or vLLM would still be busy with it when the next one is measured.
    for chunk in response.parse():
        if elapsed_ms is None and chunk.choices and chunk.choices[0].delta.content:
            elapsed_ms = (time.perf_counter() - began) * 1000
    if elapsed_ms is None:
        raise StackError("a stream ended without a token")
    timing = _STAGE.findall(response.headers.get("server-timing", ""))
    return Sample(elapsed_ms, {stage: float(ms) for stage, ms in timing})


def _print(alone: list[Sample], through: list[Sample]) -> None:
    def median(values: list[float]) -> float:
        return statistics.median(values)

    vllm = median([sample.first_token for sample in alone])
    total = median([sample.first_token for sample in through])
    embed, search = (
        median([sample.stages[stage] for sample in through]) for stage in ("embed", "search")
    )
    report.say(f"medians of {len(alone)} rounds, in milliseconds")
    report.say(f"  vLLM alone, first token        {vllm:8.1f}")
    report.say(f"  embedding the question         {embed:8.1f}")
    report.say(f"  searching                      {search:8.1f}")
    report.say(f"  through the gateway            {total:8.1f}")
    report.say(f"  that is beyond the other three {total - vllm - embed - search:8.1f}")


if __name__ == "__main__":
    sys.exit(report.run(main))
