"""Answers of vLLM in Anthropic's messages API, with context and citations put in.

The context stands in the message itself, the citations in the blocks of text that make them. A
stream is relayed as it comes: its first event gets the context, and before each block of text
ends there is an event for each citation in it.
"""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from gateway.citations import Cited, Grounding, search_result_location
from gateway.errors import UpstreamBroken
from gateway.events import (
    NO_SENSE,
    cut_off,
    data_of,
    no_sense,
    relayed,
    told_failure,
)
from gateway.messages.failures import failure_body

_NO_USAGE = {"input_tokens": 0, "output_tokens": 0}


class _Text(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    content_block: _Text | None = None
    delta: _Text | None = None
    error: Any = None


class _Message(msgspec.Struct, gc=False):
    type: str = ""
    stop_reason: str | None = None
    error: Any = None


# What is not opened stays as it came, to the byte.
_Parts = dict[str, msgspec.Raw]
_PARTS = msgspec.json.Decoder(_Parts)
_LIST_OF_PARTS = msgspec.json.Decoder(list[_Parts])
_BLOCKS = msgspec.json.Decoder(list[_Text])
_EVENT = msgspec.json.Decoder(_Event)
_MESSAGE = msgspec.json.Decoder(_Message)


class MessagesShape:
    """A message, or the events that make one."""

    def __init__(self, grounding: Grounding | None) -> None:
        self._grounding = grounding

    def whole(self, body: bytes) -> bytes:
        """`body` with its context, and citations in each block of text. Raises UpstreamFailure."""
        try:
            _check_whole(_MESSAGE.decode(body))
            if self._grounding is None:
                body.decode()
                return body
            message = _PARTS.decode(body)
            blocks = _LIST_OF_PARTS.decode(message["content"])
            invalid = 0
            for block, said in zip(blocks, _BLOCKS.decode(message["content"]), strict=True):
                if said.type == "text":
                    found = self._grounding.cited(said.text or "")
                    invalid += found.invalid
                    block["citations"] = msgspec.Raw(msgspec.json.encode(_citations(found) or None))
            context = self._grounding.context(invalid)
            return msgspec.json.encode(message | {"content": blocks, "context": context})
        except NO_SENSE as exc:
            raise UpstreamBroken(f"the model server's answer is no message: {exc}") from exc

    def events(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The stream, with context and citations."""
        editor = _Watcher() if self._grounding is None else _Editor(self._grounding)
        return relayed(chunks, editor, self.failed)

    def failed(self, failure: Exception) -> bytes:
        """The event that ends a stream which breaks off."""
        return _error_event(failure)

    def reply(self, text: str, model: str) -> bytes:
        """A message that no model writes."""
        message = self._message(model) | {
            "content": [{"type": "text", "text": text, "citations": None}],
            "stop_reason": "end_turn",
        }
        if self._grounding is not None:
            message["context"] = self._grounding.context(invalid_citations=0)
        return msgspec.json.encode(message)

    async def reply_events(self, text: str, model: str) -> AsyncIterator[bytes]:
        """The same as a stream."""
        block = {"type": "text", "text": "", "citations": None}
        delta = {"type": "text_delta", "text": text}
        ending = {"stop_reason": "end_turn", "stop_sequence": None}
        for name, fields in (
            ("message_start", {"message": self._message(model)}),
            ("content_block_start", {"index": 0, "content_block": block}),
            ("content_block_delta", {"index": 0, "delta": delta}),
            ("content_block_stop", {"index": 0}),
            ("message_delta", {"delta": ending, "usage": _NO_USAGE}),
            ("message_stop", {}),
        ):
            yield _event(name, {"type": name, **fields}) + b"\n\n"

    def _message(self, model: str) -> dict[str, Any]:
        """A message with nothing in it but its context."""
        message: dict[str, Any] = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _NO_USAGE,
        }
        if self._grounding is not None:
            message["context"] = self._grounding.context()
        return message


class _Count(msgspec.Struct):
    input_tokens: int


class TokenCountShape(MessagesShape):
    """How long a prompt is."""

    def whole(self, body: bytes) -> bytes:
        """What vLLM counted, as it is. Raises UpstreamBroken."""
        try:
            msgspec.json.decode(body, type=_Count)
        except NO_SENSE as exc:
            raise UpstreamBroken(f"the model server's answer is no count: {exc}") from exc
        return body

    def reply(self, text: str, model: str) -> bytes:  # noqa: ARG002  # of the interface
        """Where no model is asked, it reads nothing."""
        return msgspec.json.encode({"input_tokens": 0})


class _Watcher:
    """Changes nothing, and notices how a stream ends."""

    def __init__(self) -> None:
        self.is_complete = False
        self._has_reason = False
        """Whether vLLM has said why the message ends."""

    def edit(self, event: bytes) -> bytes:
        """The event as clients get it. Raises UpstreamFailure."""
        if not (data := data_of(event)):
            return event
        try:
            said = _EVENT.decode(data)
            if said.error is not None:
                raise told_failure(said.error)
            self._notice(said)
            return self._edited(event, data, said)
        except NO_SENSE as exc:
            raise no_sense(exc) from exc

    def _notice(self, said: _Event) -> None:
        match said.type:
            case "":
                raise KeyError("type")
            case "error":
                raise told_failure(None)
            case "message_delta" if said.delta is not None:
                self._has_reason = self._has_reason or said.delta.stop_reason is not None
            case "message_stop" if not self._has_reason:
                raise cut_off()
            case "message_stop":
                self.is_complete = True

    def _edited(self, event: bytes, data: bytes, said: _Event) -> bytes:  # noqa: ARG002
        return event


class _Editor(_Watcher):
    """Puts a grounding into the events of one stream."""

    def __init__(self, grounding: Grounding) -> None:
        super().__init__()
        self._grounding = grounding
        self._texts: dict[int, list[str]] = {}
        """Text so far of each block that is a text, in pieces."""
        self._invalid = 0

    def _edited(self, event: bytes, data: bytes, said: _Event) -> bytes:
        match said.type:
            case "message_start":
                parts = _PARTS.decode(data)
                message = _PARTS.decode(parts["message"]) | {"context": self._grounding.context()}
                return _event(said.type, parts | {"message": message})
            case "content_block_start" if said.content_block and said.content_block.type == "text":
                self._texts[said.index] = [said.content_block.text or ""]
            case "content_block_delta" if said.delta and said.delta.type == "text_delta":
                self._texts.setdefault(said.index, []).append(said.delta.text or "")
            case "content_block_stop" if said.index in self._texts:
                return b"\n\n".join([*self._concluded(said.index), event])
            case "message_delta" if self._invalid:
                context = {"invalid_citations": self._invalid}
                return _event(said.type, _PARTS.decode(data) | {"context": context})
        return event

    def _concluded(self, index: int) -> list[bytes]:
        """An event for each citation in a text that is complete."""
        found = self._grounding.cited("".join(self._texts.pop(index)))
        self._invalid += found.invalid
        name = "content_block_delta"
        deltas = [{"type": "citations_delta", "citation": each} for each in _citations(found)]
        return [_event(name, {"type": name, "index": index, "delta": delta}) for delta in deltas]


def _citations(found: Cited) -> list[dict[str, Any]]:
    return [search_result_location(each) for each in found.citations]


def _event(name: str, content: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(content)


def _check_whole(said: _Message) -> None:
    """Raises UpstreamFailure where it is no message, or one that was cut off."""
    if said.error is not None:
        raise told_failure(said.error)
    if said.type != "message" or said.stop_reason is None:
        raise cut_off()


def _error_event(failure: Exception) -> bytes:
    return _event("error", failure_body(failure)) + b"\n\n"
