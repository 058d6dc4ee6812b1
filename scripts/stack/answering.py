"""How good the gateway's answers are: what they say, and whether what they cite holds it.

Exact match and F1 are those of SQuAD (Rajpurkar et al., 2016), without the citation markers.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import openai

from indexer.index.terms import Terms
from stack import servers
from stack.errors import AskFailed
from stack.judging import Values

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n+")
_MAX_TOKENS = 400
_TIMEOUT_S = 300.0


class Answered(NamedTuple):
    """An answer as a client gets it."""

    text: str
    markers: list[tuple[int, int, int]]
    """First character of each marker, one past its last, and the number that it cites, from 1."""
    chunks: list[str]
    """The texts that the model was given."""


def ask(gateway: str, questions: Sequence[str], instruction: str) -> list[Answered]:
    """The gateway's answer to each of `questions`. Raises AskFailed."""
    said = [{"role": "system", "content": instruction}] if instruction else []
    with openai.OpenAI(
        base_url=gateway, api_key=servers.api_key(), max_retries=0, timeout=_TIMEOUT_S
    ) as client:
        try:
            return [
                _answered(client, [*said, {"role": "user", "content": question}])
                for question in questions
            ]
        except openai.APIError as exc:
            raise AskFailed(f"the gateway did not answer: {exc.message}") from exc


def scores(answers: Sequence[Answered], expected: Sequence[Sequence[str]]) -> dict[str, Values]:
    """Each figure for each answer, or for each citation; a figure of nothing is empty."""
    bare = [without_markers(answer) for answer in answers]
    pairs = list(zip(bare, expected, strict=True))
    shares = [share for answer in answers for share in support(answer)]
    figures = {
        "exact match": [exact_match(text, right) for text, right in pairs],
        "F1": [f1(text, right) for text, right in pairs],
        "answers with a valid citation": [is_cited(answer) for answer in answers],
        "citations whose chunk has all words of the claim": [share == 1 for share in shares],
        "share of the claim's words in the cited chunk": shares,
    }
    return {name: np.array(values, dtype=np.float64) for name, values in figures.items()}


def normalised(text: str) -> str:
    """In lower case, without punctuation and articles, with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, expected: Sequence[str]) -> bool:
    """Whether it is one of the `expected`, once both are normalised."""
    return normalised(answer) in map(normalised, expected)


def f1(answer: str, expected: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of the words, for the best of the `expected`."""
    words = Counter(normalised(answer).split())
    return max(_f1(words, Counter(normalised(each).split())) for each in expected)


def without_markers(answer: Answered) -> str:
    """What it says, without what it cites."""
    return _cut(answer.text, [(start, end) for start, end, _ in answer.markers])


def is_cited(answer: Answered) -> bool:
    """Whether a marker is in the text where the annotation says, and names a chunk it was given."""
    return any(
        0 <= start < end <= len(answer.text)
        and str(number) in answer.text[start:end]
        and 1 <= number <= len(answer.chunks)
        for start, end, number in answer.markers
    )


def support(answer: Answered) -> list[float]:
    """For each citation the share of its claim's words, stemmed, that the cited chunk has."""
    stemmed = Terms("english")
    shares = []
    for start, _, number in answer.markers:
        before = [(first, end) for first, end, _ in answer.markers if end <= start]
        words = set(stemmed(claim(_cut(answer.text[:start], before))).split())
        chunk = set(stemmed(answer.chunks[number - 1]).split())
        if words:
            shares.append(len(words & chunk) / len(words))
    return shares


def claim(before: str) -> str:
    """The last sentence of what stands before a marker, which may stand behind its full stop."""
    text = before.rstrip()
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    return text[max(ends, default=0) :].strip()


def _f1(words: Counter[str], right: Counter[str]) -> float:
    if not words or not right:
        return float(words == right)
    common = sum((words & right).values())
    return 2 * common / (words.total() + right.total())


def _cut(text: str, spans: Sequence[tuple[int, int]]) -> str:
    for start, end in sorted(set(spans), reverse=True):
        text = text[:start] + text[end:]
    return text


def _answered(client: openai.OpenAI, messages: list[Any]) -> Answered:
    response = client.chat.completions.create(
        model="default", messages=messages, max_tokens=_MAX_TOKENS, temperature=0
    )
    message = response.choices[0].message
    extra = message.model_extra or {}
    notes = [note.model_dump() for note in message.annotations or []]
    return Answered(
        message.content or "",
        [
            (place["start_index"], place["end_index"], place["number"])
            for place in (note["url_citation"] for note in notes)
        ],
        [citation["content"] for citation in (extra.get("context") or {}).get("citations", [])],
    )
