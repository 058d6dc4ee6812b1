"""Hands vLLM's answers on, with citations put in. Knows OpenAI's wire format, not HTTP.

A stream is relayed as it comes. Only two kinds of events are opened up and written anew: the
first of each choice, which gets the context, and the last, which gets the annotations.
"""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from gateway.citations import cited, context, url_citation
from gateway.errors import UpstreamBroken, UpstreamFailure, UpstreamRejected
from indexer.index.records import Hit

_END_OF_EVENT = re.compile(rb"\r?\n\r?\n")
_DONE = b"data: [DONE]"
_ERROR = b'data: {"error"'
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError)
"""What reading an answer raises when it is not what it should be."""


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    choices: list[_Choice] = []


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


class Grounding(msgspec.Struct, frozen=True):
    """What an answer was given to stand on."""

    question: str
    hits: Sequence[Hit]
    is_json: bool = False
    """Whether the client asked for JSON, as text or after a schema."""
    details: dict[str, Any] = {}
    """What the context tells beside query and hits: what was left out, how hits were chosen."""

    def context(self, invalid_citations: int | None = None) -> dict[str, Any]:
        """The `context` field of a message; see `citations.context`."""
        return context(self.question, self.hits, invalid_citations) | self.details


def grounded(body: bytes, grounding: Grounding) -> bytes:
    """A whole chat completion with context and annotations in each message.

    Raises UpstreamBroken when `body` is no chat completion.
    """
    try:
        completion = _PARTS.decode(body)
        choices = _LIST_OF_PARTS.decode(completion["choices"])
        for choice in choices:
            message = _PARTS.decode(choice["message"])
            content = _CONTENT.decode(message.get("content", _NULL))
            found = cited(content or "", grounding.hits, is_json=grounding.is_json)
            additions = {
                "context": grounding.context(found.invalid),
                "annotations": [url_citation(each) for each in found.citations],
            }
            choice["message"] = msgspec.Raw(msgspec.json.encode(message | additions))
        return msgspec.json.encode(completion | {"choices": choices})
    except _UNREADABLE as exc:
        raise UpstreamBroken(f"the model server's answer is no chat completion: {exc}") from exc


async def relayed(
    chunks: AsyncIterator[bytes],
    grounding: Grounding | None,
    error_event: Callable[[Exception], bytes],
) -> AsyncIterator[bytes]:
    """The events of a stream as bytes; one that breaks off ends with an error event.

    The SDK raises nothing when a stream just stops, so a client could take half an answer for a
    whole one.
    """
    editor = _Editor(grounding) if grounding is not None else None
    waiting = b""
    complete = False
    try:
        async for chunk in chunks:
            *events, waiting = _END_OF_EVENT.split(waiting + chunk)
            if not events:
                continue
            complete = complete or _DONE in events
            edited, failure = _edited(events, editor)
            if edited:
                yield b"\n\n".join(edited) + b"\n\n"
            if failure is not None:
                raise failure
        if not complete:
            raise UpstreamBroken("the model server's answer ended before it was complete")
    except UpstreamFailure as exc:
        yield error_event(exc)


def _edited(
    events: list[bytes], editor: "_Editor | None"
) -> tuple[list[bytes], UpstreamFailure | None]:
    """The events as clients get them, up to the one that fails, and that one's failure."""
    edited: list[bytes] = []
    for event in events:
        if event.startswith(_ERROR):
            return edited, _reported(event)
        try:
            edited.append(event if editor is None else editor.edit(event))
        except UpstreamBroken as exc:
            return edited, exc
    return edited, None


def _reported(event: bytes) -> UpstreamFailure:
    """The failure that vLLM reports in the middle of a stream, after a status of 200."""
    try:
        error = msgspec.json.decode(event[len(b"data:") :])["error"]
        code = error.get("code")
        return UpstreamRejected(str(error["message"]), code if isinstance(code, int) else 500)
    except _UNREADABLE as exc:
        return UpstreamBroken(f"the model server sent an event that makes no sense: {exc}")


class _Editor:
    """Puts a grounding into the events of one stream."""

    def __init__(self, grounding: Grounding) -> None:
        self._grounding = grounding
        self._answers: dict[int, list[str]] = {}
        """Text so far of each choice, in pieces."""

    def edit(self, event: bytes) -> bytes:
        if not event.startswith(b"data:") or event.startswith(_DONE):
            return event
        data = event[len(b"data:") :]
        try:
            choices = _EVENT.decode(data).choices
        except _UNREADABLE as exc:
            raise UpstreamBroken(
                f"the model server sent an event that makes no sense: {exc}"
            ) from exc
        additions: dict[int, dict[str, Any]] = {}
        for choice in choices:
            answer = self._answers.get(choice.index)
            if answer is None:
                answer = self._answers[choice.index] = []
                additions[choice.index] = {"context": self._grounding.context()}
            if choice.delta is not None and choice.delta.content:
                answer.append(choice.delta.content)
            if choice.finish_reason is not None:
                self._conclude("".join(answer), additions.setdefault(choice.index, {}))
        return _with(data, additions) if any(additions.values()) else event

    def _conclude(self, answer: str, additions: dict[str, Any]) -> None:
        """Adds to what a delta gets what a whole answer cites."""
        found = cited(answer, self._grounding.hits, is_json=self._grounding.is_json)
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
