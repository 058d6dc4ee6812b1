"""Answers of vLLM's chat completions, with context and citations put in.

A stream is relayed as it comes. Only two kinds of events are opened up and written anew: the
first of each choice, which gets the context, and the last, which gets the annotations.
"""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from gateway.citations import Grounding, url_citation
from gateway.conversation import NO_USAGE
from gateway.errors import UpstreamBroken
from gateway.events import (
    DONE,
    NO_SENSE,
    Choice,
    Reader,
    Said,
    Watcher,
    check_whole,
    data_of,
    error_event,
    no_sense,
    relayed,
)


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None


class _Choice(Choice, gc=False):
    delta: _Delta | None = None


class _Event(Said, gc=False):
    choices: Sequence[_Choice] = []


# What is not opened stays as it came, to the byte.
_Parts = dict[str, msgspec.Raw]
_PARTS = msgspec.json.Decoder(_Parts)
_DELTA_PARTS = msgspec.json.Decoder(_Parts | None)
_LIST_OF_PARTS = msgspec.json.Decoder(list[_Parts])
_CONTENT = msgspec.json.Decoder(str | None)
_EVENT = msgspec.json.Decoder(_Event)
_INDEX = msgspec.json.Decoder(int)
_NULL = msgspec.Raw(b"null")
_ZERO = msgspec.Raw(b"0")


class ChatShape:
    """A chat completion, or its chunks."""

    def __init__(self, grounding: Grounding | None, wants_usage: bool = False) -> None:
        """`wants_usage` says whether a stream ends with what it used."""
        self._grounding = grounding
        self._wants_usage = wants_usage

    def whole(self, body: bytes) -> bytes:
        """`body` with context and annotations in each message. Raises UpstreamFailure."""
        check_whole(body)
        if self._grounding is None:
            return body
        try:
            completion = _PARTS.decode(body)
            choices = _LIST_OF_PARTS.decode(completion["choices"])
            for choice in choices:
                message = _PARTS.decode(choice["message"])
                found = self._grounding.cited(_CONTENT.decode(message.get("content", _NULL)) or "")
                additions = {
                    "context": self._grounding.context(found.invalid),
                    "annotations": [url_citation(each) for each in found.citations],
                }
                choice["message"] = msgspec.Raw(msgspec.json.encode(message | additions))
            return msgspec.json.encode(completion | {"choices": choices})
        except NO_SENSE as exc:
            raise UpstreamBroken(f"the model server's answer is no chat completion: {exc}") from exc

    def events(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The stream, with context and annotations."""
        editor = Watcher() if self._grounding is None else _Editor(self._grounding)
        return relayed(chunks, editor, self.failed)

    def failed(self, failure: Exception) -> bytes:
        """The event that ends a stream which breaks off."""
        return error_event(failure)

    def reply(self, text: str, model: str) -> bytes:
        """A completion that no model writes."""
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self._grounding is not None:
            context = self._grounding.context(invalid_citations=0)
            message |= {"context": context, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        head = _head("chat.completion", model)
        return msgspec.json.encode({**head, "choices": [choice], "usage": NO_USAGE})

    async def reply_events(self, text: str, model: str) -> AsyncIterator[bytes]:
        """The same as chunks."""
        head = _head("chat.completion.chunk", model)
        first: dict[str, Any] = {"role": "assistant", "content": text}
        if self._grounding is not None:
            first["context"] = self._grounding.context()
        deltas: list[tuple[dict[str, Any], str | None]] = [(first, None), ({}, "stop")]
        for delta, reason in deltas:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            yield b"data: " + msgspec.json.encode({**head, "choices": [choice]}) + b"\n\n"
        if self._wants_usage:
            last = {**head, "choices": [], "usage": NO_USAGE}
            yield b"data: " + msgspec.json.encode(last) + b"\n\n"
        yield DONE + b"\n\n"


def _head(kind: str, model: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


class _Editor(Reader[_Event]):
    """Puts a grounding into the events of one stream."""

    def __init__(self, grounding: Grounding) -> None:
        super().__init__(_EVENT)
        self._grounding = grounding
        self._answers: dict[int, list[str]] = {}
        """Text so far of each choice, in pieces."""

    def edit(self, event: bytes) -> bytes:
        """The event with what is added to it. Raises UpstreamFailure."""
        if (said := self.read(event)) is None:
            return event
        additions: dict[int, dict[str, Any]] = {}
        for choice in said.choices:
            answer = self._answers.get(choice.index)
            if answer is None:
                answer = self._answers[choice.index] = []
                additions[choice.index] = {"context": self._grounding.context()}
            if choice.delta is not None and choice.delta.content:
                answer.append(choice.delta.content)
            if choice.finish_reason is not None:
                self._cite("".join(answer), additions.setdefault(choice.index, {}))
        if not any(additions.values()):
            return event
        try:
            return _with(data_of(event), additions)
        except NO_SENSE as exc:
            raise no_sense(exc) from exc

    def _cite(self, answer: str, additions: dict[str, Any]) -> None:
        """Adds to what a delta gets what a whole answer cites."""
        found = self._grounding.cited(answer)
        if found.citations:
            additions["annotations"] = [url_citation(each) for each in found.citations]
        if found.invalid:
            # The SDK merges this into the context of the first event.
            additions.setdefault("context", {})["invalid_citations"] = found.invalid


def _with(data: bytes, additions: dict[int, dict[str, Any]]) -> bytes:
    """The event with more in the deltas of its choices, which are named by their index."""
    event = _PARTS.decode(data)
    choices = _LIST_OF_PARTS.decode(event["choices"])
    for choice in choices:
        added = additions.get(_INDEX.decode(choice.get("index", _ZERO)))
        if added:
            delta = _DELTA_PARTS.decode(choice.get("delta", _NULL)) or {}
            choice["delta"] = msgspec.Raw(msgspec.json.encode(delta | added))
    return b"data: " + msgspec.json.encode(event | {"choices": choices})
