"""Hands vLLM's answers on, with citations put in. Knows OpenAI's wire format, not HTTP.

A stream is relayed as it comes. Only two kinds of events are opened up and written anew: the
first of each choice, which gets the context, and the last, which gets the annotations.
"""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from gateway.citations import annotations, context
from gateway.errors import UpstreamBroken, UpstreamFailure, UpstreamRejected
from indexer.index.records import Hit

_END_OF_EVENT = re.compile(rb"\r?\n\r?\n")
_DONE = b"data: [DONE]"
_ERROR = b'data: {"error"'
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError)
"""What reading an answer raises when it is not what it should be."""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []


class Grounding(msgspec.Struct, frozen=True):
    """What an answer was given to stand on."""

    question: str
    hits: Sequence[Hit]


def grounded(body: bytes, grounding: Grounding) -> bytes:
    """A whole chat completion with context and annotations in each message.

    Raises UpstreamBroken when `body` is no chat completion.
    """
    try:
        completion = msgspec.json.decode(body, type=dict[str, Any])
        for choice in completion["choices"]:
            message = choice["message"]
            message["context"] = context(grounding.question, grounding.hits)
            message["annotations"] = annotations(message.get("content") or "", grounding.hits)
    except _UNREADABLE as exc:
        raise UpstreamBroken(f"the model server's answer is no chat completion: {exc}") from exc
    return msgspec.json.encode(completion)


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
            choices = msgspec.json.decode(data, type=_Event).choices
        except _UNREADABLE as exc:
            raise UpstreamBroken(
                f"the model server sent an event that makes no sense: {exc}"
            ) from exc
        additions = {
            choice.index: found for choice in choices if (found := self._additions(choice))
        }
        if not additions:
            return event
        whole = msgspec.json.decode(data)
        for choice in whole["choices"]:
            choice["delta"] = {
                **(choice.get("delta") or {}),
                **additions.get(choice.get("index", 0), {}),
            }
        return b"data: " + msgspec.json.encode(whole)

    def _additions(self, choice: _Choice) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if choice.index not in self._answers:
            self._answers[choice.index] = []
            found["context"] = context(self._grounding.question, self._grounding.hits)
        answer = self._answers[choice.index]
        if choice.delta is not None and choice.delta.content:
            answer.append(choice.delta.content)
        if choice.finish_reason is not None:
            cited = annotations("".join(answer), self._grounding.hits)
            if cited:
                found["annotations"] = cited
        return found
