"""What the stand-in for vLLM says, and how an answer is known to be whole and nobody else's.

Each question bears a mark, each answer repeats it: an answer that went to another client is found
out. The text cites the first passage, as a model would that was given some.
"""

import json
import re
from typing import Any

import msgspec

MODEL = "stand-in"
TOKENS = 64
"""Chunks of a stream, one token each."""
_WORDS = ["the", "passage", "says", "that", "it", "depends", "on", "how", "much", "is", "stored"]
_MARK = re.compile(rb"#q(\d+)")


def marked(question: str, mark: int) -> str:
    """`question` with the mark that its answer must repeat."""
    return f"{question} #q{mark:05d}"


def mark_of(body: bytes) -> int:
    """The mark of the question in the body of a request; the last one, as a prompt ends with it."""
    found = _MARK.findall(body)
    return int(found[-1]) if found else 0


def first_token(mark: int) -> bytes:
    """What the first piece of text in an answer to that mark is; as long for any mark."""
    return b"re#%05d:" % mark


def text(mark: int) -> str:
    """The answer to the question with that mark."""
    return "".join(_pieces(mark))


def with_mark(answer: bytes, mark: int) -> bytes:
    """An answer to the mark 0 as one to another mark; of the same length."""
    return answer.replace(first_token(0), first_token(mark))


def without_mark(answer: bytes, mark: int) -> bytes:
    """An answer to a mark as one to the mark 0."""
    return answer.replace(first_token(mark), first_token(0))


def _pieces(mark: int) -> list[str]:
    words = [_WORDS[place % len(_WORDS)] for place in range(TOKENS - 2)]
    return [first_token(mark).decode(), *(f" {word}" for word in words), " [1]."]


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-stand-in", "object": kind, "created": 1, "model": MODEL}


def _event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    said = _head("chat.completion.chunk") | {"choices": [choice]}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


def _completion() -> bytes:
    message = {"role": "assistant", "content": text(0), "tool_calls": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 40, "completion_tokens": TOKENS, "total_tokens": 40 + TOKENS}
    return json.dumps(_head("chat.completion") | {"choices": [choice], "usage": usage}).encode()


COMPLETION = _completion()
"""The answer to the mark 0 as one body."""
EVENTS = [
    _event({"role": "assistant", "content": ""}),
    *(_event({"content": piece}) for piece in _pieces(0)[:-1]),
    _event({"content": _pieces(0)[-1]}, "stop"),
    b"data: [DONE]\n\n",
]
"""The same as the events of a stream, as vLLM writes them."""


class _Text(msgspec.Struct, gc=False):
    content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Text | None = None
    message: _Text | None = None


class _Answer(msgspec.Struct, gc=False):
    choices: list[_Choice] = []


_ANSWER = msgspec.json.Decoder(_Answer)


def is_right(body: bytes, mark: int, *, stream: bool) -> bool:
    """Whether `body` is the whole answer to the question with that mark, and ends as it must."""
    try:
        if not stream:
            [choice] = _ANSWER.decode(body).choices
            return choice.message is not None and choice.message.content == text(mark)
        *said, done = [event for event in body.split(b"\n\n") if event.startswith(b"data:")]
        read = [_ANSWER.decode(event[5:]).choices for event in said]
    except (msgspec.DecodeError, ValueError):
        return False
    deltas = [choice.delta for choices in read for choice in choices]
    said_in_all = "".join(delta.content or "" for delta in deltas if delta is not None)
    return said_in_all == text(mark) and done == b"data: [DONE]"
