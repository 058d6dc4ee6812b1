"""From the last turn of a conversation to what is searched for. The model itself puts it in words.

A question that stands alone is searched as it is. One that leans on the turns before it is put
anew, within a time limit; where that fails, it is searched as it was asked.
"""

import asyncio
import logging
import re
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from gateway.access.limits import admission
from gateway.access.request_guard import RequestGuard
from gateway.body import UNREADABLE
from gateway.conversation import Conversation
from gateway.deadline import within
from gateway.errors import UpstreamFailure
from gateway.models import Loaded
from gateway.turns import Said
from indexer.index.stream_safe import stream_safe

PATH = "/chat/completions"
TURNS = 6
"""Turns before the question that the model is shown."""
TURN_CHARS = 1_000
"""Characters of each that it is shown."""
QUERY_CHARS = 150
"""A longer line is no query, where the question is not long itself: the model answered instead."""
QUERY_TOKENS = 64
QUESTION_CHARS = 8_000
"""Characters of a question that are searched with. Encoders read some 2,000 of them, and the words
of so many take 3 ms, in which nobody else is served."""
_LONGER = 3
"""Times as many characters that words may be taken apart into: a syllable of Hangul is three, but
one ligature eighteen."""
SHARE = 0.25
"""Of the time that is left for a request, the most that this takes: it can do without."""
SHORT_WORDS = 4
"""So few words say too little by themselves."""

_LEANING = re.compile(
    r"^(and|but|or|so|then|also|what about|how about|why not|why|which one)\b"
    r"|\b(it|its|they|them|their|theirs|this|that|these|those|he|him|his|she|her|hers|"
    r"the former|the latter|the same|the other|the first|the second|the last|"
    r"there|ones?|above|instead|again|you (said|mentioned|meant))\b",
    re.IGNORECASE,
)
_DECORATION = re.compile(
    r"^\s*(?:(?:[-*•>]+|\d+[.)])\s)?\s*(?:(?:(?:last|rewritten|search) )?(?:query|question):)?"
    r"\s*[\"“']?",
    re.IGNORECASE,
)
_CLOSING = ('"', "”", "'")
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)

_log = logging.getLogger(__name__)


class Understood(msgspec.Struct, frozen=True):
    """What is searched for."""

    queries: list[str]
    """The question that stands alone, then further ways to put it."""
    fallback: str = ""
    """Why the question is searched as it was asked, where it was to be put anew."""


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    total_tokens: int = 0


class _Completion(msgspec.Struct):
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _Usage | None = None


class Understanding:
    """Asks the model what a question is about."""

    def __init__(self, timeout_s: float, guard: RequestGuard) -> None:
        """`timeout_s` of 0 searches for every question as it was asked."""
        self._timeout_s = timeout_s
        self._guard = guard

    async def queries(self, conversation: Conversation, model: Loaded, count: int) -> Understood:
        """Up to `count` queries for the last turn. Raises nothing that vLLM does wrong."""
        question = searched(conversation.question)
        history = conversation.said_before(TURNS)
        leans = bool(history) and leans_on_history(question)
        if not self._timeout_s or not (leans or count > 1):
            return Understood([question])
        return await self._put_anew(question, history if leans else [], model, count)

    async def rewritten(self, question: str, model: Loaded) -> Understood:
        """`question` in words that documents may have. Raises nothing that vLLM does wrong."""
        if not self._timeout_s:
            return Understood([question])
        return await self._put_anew(question, [], model, 1, instead=True)

    async def _put_anew(
        self,
        question: str,
        history: Sequence[Said],
        model: Loaded,
        count: int,
        *,
        instead: bool = False,
    ) -> Understood:
        """What the model makes of a question; with `instead`, or with a history, in its place."""
        request = _request(model.name, question, history, count)
        if (salt := self._guard.salt()) is not None:
            request["cache_salt"] = salt
        body = msgspec.json.encode(request)
        limit_s = within(self._timeout_s, SHARE)
        try:
            async with asyncio.timeout(limit_s):
                lines = await _lines(model, body)
        except TimeoutError:
            return self._as_asked(question, f"the model took longer than {limit_s:.2g} s")
        except (UpstreamFailure, *UNREADABLE) as exc:
            return self._as_asked(question, str(exc))
        most = max(QUERY_CHARS, 2 * len(question))
        queries = [line for line in map(_cleaned, lines) if _is_query(line, most)]
        if not queries:
            return self._as_asked(question, "the model gave no query")
        alone = [] if history or instead else [question]
        return Understood(list(dict.fromkeys(alone + queries))[:count])

    def _as_asked(self, question: str, reason: str) -> Understood:
        _log.info("the question is searched as it was asked: %s", reason)
        return Understood([question], reason)


async def _lines(model: Loaded, body: bytes) -> list[str]:
    answer = await model.route.post(PATH, body)
    try:
        completion = msgspec.json.decode(await answer.read(), type=_Completion)
    finally:
        await answer.close()
    if (limited := admission()) is not None and completion.usage is not None:
        limited.used_besides(completion.usage.total_tokens)
    choice = completion.choices[0]
    lines = _THOUGHTS.sub("", choice.message.content or "").splitlines()
    return lines[:-1] if choice.finish_reason == "length" else lines


def searched(question: str) -> str:
    """What of `question` is searched with: its beginning."""
    cut = question[:QUESTION_CHARS]
    while len(unicodedata.normalize("NFKD", stream_safe(cut))) > _LONGER * QUESTION_CHARS:
        cut = cut[: len(cut) // 2]
    return cut


def leans_on_history(question: str) -> bool:
    """Whether `question` seems to need the turns before it; a guess that costs no model.

    English words give it away; in other languages only that it is short.
    """
    is_short = len(question.split(maxsplit=SHORT_WORDS)) <= SHORT_WORDS
    return is_short or bool(_LEANING.search(question))


def _request(model: str, question: str, history: Sequence[Said], count: int) -> dict[str, Any]:
    said = "\n".join(f"{turn.role}: {turn.text[:TURN_CHARS]}" for turn in history)
    task = (
        "Rewrite the last question so that it can be understood without the conversation: put the "
        "names it refers to in their place. Keep its language and its meaning."
        if history
        else "Put the question in other words, as they may stand in the documents that answer it."
    )
    form = (
        "Reply with that question alone, on one line."
        if count == 1
        else f"Reply with {count} different search queries for it, one on each line, nothing else."
    )
    asked = f"Conversation:\n{said}\n\n" if history else ""
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": f"{task} {form} Do not answer it."},
            {"role": "user", "content": f"{asked}Last question: {question}"},
        ],
        "temperature": 0,
        # A long question needs room to be said again.
        "max_tokens": (QUERY_TOKENS + len(question) // 2) * count,
    }


def _cleaned(line: str) -> str:
    query = _DECORATION.sub("", line).rstrip()
    return (query[:-1] if query.endswith(_CLOSING) else query).strip()


def _is_query(line: str, most: int) -> bool:
    """Whether there is a word in `line`, and it neither announces queries nor is an answer."""
    has_words = any(map(str.isalnum, line))
    return has_words and not line.endswith((":", "\uff1a")) and len(line) <= most
