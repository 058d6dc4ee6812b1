"""Asks the gateway a question through the openai SDK, and prints the answer and its sources."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import openai

from stack.errors import AskFailed
from stack.report import say

_TIMEOUT_S = 300.0
"""A small model on two cores writes about 25 tokens a second."""
_MAX_TOKENS = 400
"""A small model may not find an end by itself."""


def ask(base_url: str, question: str) -> None:
    """Print the streamed answer and its sources. Raises AskFailed."""
    try:
        # Retries would hide from a new user that the first answer failed.
        with openai.OpenAI(
            base_url=base_url, api_key="none", max_retries=0, timeout=_TIMEOUT_S
        ) as client:
            _print_answer(client, question)
    except openai.APIStatusError as exc:
        raise AskFailed(f"the gateway answered {exc.status_code}: {exc.message}") from exc
    except openai.APIError as exc:
        raise AskFailed(f"the question failed: {exc.message}") from exc


def _print_answer(client: openai.OpenAI, question: str) -> None:
    answer = ""
    finish_reason: str | None = None
    citations: Sequence[Mapping[str, Any]] = ()
    annotations: list[Mapping[str, Any]] = []
    with client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": question}],
        max_tokens=_MAX_TOKENS,
        stream=True,
    ) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                extra = choice.delta.model_extra or {}
                citations = citations or (extra.get("context") or {}).get("citations", ())
                annotations.extend(extra.get("annotations") or ())
                finish_reason = choice.finish_reason or finish_reason
                print(choice.delta.content or "", end="", flush=True)
                answer += choice.delta.content or ""
    say()
    if finish_reason == "length":
        say(f"(cut after {_MAX_TOKENS} tokens)")
    if finish_reason is None:
        raise AskFailed("the answer broke off: see the gateway's log and vLLM's")
    say()
    _print_sources(citations, _cited_numbers(answer, annotations))


def _cited_numbers(answer: str, annotations: Sequence[Mapping[str, Any]]) -> set[int]:
    """Numbers of the sources that the answer cites: an annotation spans its marker, such as [1]."""
    spans = [note["url_citation"] for note in annotations if note.get("type") == "url_citation"]
    markers = [answer[span["start_index"] : span["end_index"]] for span in spans]
    return {int(number) for marker in markers for number in re.findall(r"\d+", marker)}


def _print_sources(citations: Sequence[Mapping[str, Any]], cited: set[int]) -> None:
    if not citations:
        say("No sources: the documents hold nothing that fits the question.")
        return
    say("Sources (* cited in the answer)")
    for number, citation in enumerate(citations, start=1):
        place = citation.get("url") or citation.get("filepath") or ""
        mark = "*" if number in cited else " "
        say(f" {mark}[{number}] {citation.get('title') or 'untitled'}  {place}")
