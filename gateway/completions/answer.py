"""Answers of vLLM's completions, with context and citations put in.

They stand in each choice beside its text. Of a stream only the first event of each choice is
written anew, which gets the context, and the last, which gets the annotations.
"""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from gateway.citations import Cited, Grounding, url_citation
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


class _Choice(Choice, gc=False):
    text: str | None = None


class _Completion(Said, gc=False):
    choices: Sequence[_Choice] = []


# What is not opened stays as it came, to the byte.
_Parts = dict[str, msgspec.Raw]
_PARTS = msgspec.json.Decoder(_Parts)
_LIST_OF_PARTS = msgspec.json.Decoder(list[_Parts])
_COMPLETION = msgspec.json.Decoder(_Completion)


class CompletionShape:
    """A completion, or its chunks, which have the same shape."""

    def __init__(
        self, grounding: Grounding | None, *, wants_usage: bool = False, echoed: str = ""
    ) -> None:
        """`wants_usage`: a stream ends with what it used; `echoed` stands before each answer."""
        self._grounding = grounding
        self._wants_usage = wants_usage
        self._echoed = echoed

    def whole(self, body: bytes) -> bytes:
        """`body` with context and annotations in each choice. Raises UpstreamFailure."""
        check_whole(body)
        if self._grounding is None:
            return body
        try:
            choices = _COMPLETION.decode(body).choices
            return _with(body, [_added(self._grounding, each, self._echoed) for each in choices])
        except NO_SENSE as exc:
            raise UpstreamBroken(f"the model server's answer is no completion: {exc}") from exc

    def events(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The stream, with context and annotations."""
        editor = Watcher() if self._grounding is None else _Editor(self._grounding, self._echoed)
        return relayed(chunks, editor, self.failed)

    def failed(self, failure: Exception) -> bytes:
        """The event that ends a stream which breaks off."""
        return error_event(failure)

    def reply(self, text: str, model: str) -> bytes:
        """A completion that no model writes."""
        choice = _choice(text, "stop")
        if self._grounding is not None:
            choice |= {"context": self._grounding.context(invalid_citations=0), "annotations": []}
        return msgspec.json.encode({**_head(model), "choices": [choice], "usage": NO_USAGE})

    async def reply_events(self, text: str, model: str) -> AsyncIterator[bytes]:
        """The same as chunks."""
        head = _head(model)
        first = _choice(text, None)
        if self._grounding is not None:
            first["context"] = self._grounding.context()
        for choice in (first, _choice("", "stop")):
            yield b"data: " + msgspec.json.encode({**head, "choices": [choice]}) + b"\n\n"
        if self._wants_usage:
            last = {**head, "choices": [], "usage": NO_USAGE}
            yield b"data: " + msgspec.json.encode(last) + b"\n\n"
        yield DONE + b"\n\n"


class _Editor(Reader[_Completion]):
    """Puts a grounding into the events of one stream."""

    def __init__(self, grounding: Grounding, echoed: str) -> None:
        super().__init__(_COMPLETION)
        self._grounding = grounding
        self._echoed = echoed
        self._texts: dict[int, list[str]] = {}
        """Text so far of each choice, in pieces."""

    def edit(self, event: bytes) -> bytes:
        """The event with what is added to it. Raises UpstreamFailure."""
        if (said := self.read(event)) is None:
            return event
        additions = [self._added(choice) for choice in said.choices]
        if not any(additions):
            return event
        try:
            return b"data: " + _with(data_of(event), additions)
        except NO_SENSE as exc:
            raise no_sense(exc) from exc

    def _added(self, choice: _Choice) -> dict[str, Any]:
        added: dict[str, Any] = {}
        pieces = self._texts.get(choice.index)
        if pieces is None:
            pieces = self._texts[choice.index] = []
            added["context"] = self._grounding.context()
        pieces.append(choice.text or "")
        if choice.finish_reason is None:
            return added
        found = _cited(self._grounding, "".join(pieces), self._echoed)
        if found is not None and found.citations:
            added["annotations"] = [url_citation(each) for each in found.citations]
        if found is not None and found.invalid:
            added.setdefault("context", {})["invalid_citations"] = found.invalid
        return added


def _added(grounding: Grounding, choice: _Choice, echoed: str) -> dict[str, Any]:
    """What a whole choice gets."""
    found = _cited(grounding, choice.text or "", echoed)
    if found is None:
        return {"context": grounding.context()}
    return {
        "context": grounding.context(found.invalid),
        "annotations": [url_citation(each) for each in found.citations],
    }


def _cited(grounding: Grounding, text: str, echoed: str) -> Cited | None:
    """What the answer in `text` cites, by its places in `text`.

    None where `text` does not begin with what was to be echoed, such as a prompt that vLLM cut
    off: nobody knows then where the answer begins, and documents have numbers in brackets too.
    """
    if not text.startswith(echoed):
        return None
    found = grounding.cited(text[len(echoed) :])
    moved = [
        msgspec.structs.replace(each, start=each.start + len(echoed), end=each.end + len(echoed))
        for each in found.citations
    ]
    return Cited(moved, found.invalid)


def _with(data: bytes, additions: list[dict[str, Any]]) -> bytes:
    """The completion with more in each of its choices."""
    completion = _PARTS.decode(data)
    choices = _LIST_OF_PARTS.decode(completion["choices"])
    written = [choice | added for choice, added in zip(choices, additions, strict=True)]
    return msgspec.json.encode(completion | {"choices": written})


def _choice(text: str, reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


def _head(model: str) -> dict[str, Any]:
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
    }
