"""The events of a response, with the search before them and annotations among them."""

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.events import NO_SENSE, cut_off, data_of, no_sense, told_failure
from gateway.responses.edits import CUT_OFF, PARTS, Edits, Parts, call_id, status_of
from gateway.verdicts import error_body

_LAST = ("response.completed", "response.incomplete", "response.failed", "error")
_ENDINGS = {"incomplete": "response.incomplete", "failed": "response.failed"}
"""What ends a response by its status; vLLM calls every end completed."""


class _Head(msgspec.Struct, gc=False):
    type: str = ""
    sequence_number: int = -1
    output_index: int | None = None
    error: Any = None


_HEAD = msgspec.json.Decoder(_Head)
_TEXT = msgspec.json.Decoder(str)
_NUMBER = msgspec.json.Decoder(int)


class Editor:
    """Edits the events of one stream, and numbers them anew where some are added."""

    def __init__(self, edits: Edits, *, after: int = -1, is_new: bool = True) -> None:
        """Events up to number `after` are left out: a client that comes back has had them."""
        self._edits = edits
        self._shift = int(edits.searched)
        """How far the items of vLLM's output move down."""
        self._after = after
        self._is_new = is_new
        self._number = 0
        """Of the next event."""
        self.is_complete = False

    def edit(self, event: bytes) -> bytes:
        """The event as clients get it, and those that come with it.

        Raises UpstreamFailure for one that reports a failure or makes no sense.
        """
        if not (data := data_of(event)):
            return event
        try:
            head = _HEAD.decode(data)
            if not head.type:
                raise told_failure(head.error)
            if self._stays(head):
                self._number += 1
                written = [event]
            else:
                written = [self._written(*each) for each in self._edited(head, data)]
        except NO_SENSE as exc:
            raise no_sense(exc) from exc
        self.is_complete = self.is_complete or head.type in _LAST
        return b"\n\n".join(filter(None, written))

    def failed(self, failure: Exception) -> bytes:
        """The event that ends a stream which broke off."""
        body = error_body(failure)
        fields = {"code": body.code, "message": body.message, "param": body.param}
        return self._written("error", fields) + b"\n\n"

    def _stays(self, head: _Head) -> bool:
        """Whether an event is right as it is: most are, where no search stands before them."""
        edited = head.type in _EDITED
        return not (edited or self._shift or self._number <= self._after) and (
            head.sequence_number == self._number
        )

    def _edited(self, head: _Head, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        """The event and those that come with it, with their types."""
        event: dict[str, Any] = PARTS.decode(data)
        if head.output_index is not None:
            event["output_index"] = head.output_index + self._shift
        match head.type:
            case "response.output_text.done":
                yield from self._annotated(event)
            case "response.content_part.done":
                event["part"] = self._edits.part(PARTS.decode(event["part"]))
            case "response.output_item.done":
                event["item"] = self._edits.item(event["item"])
        kind = head.type
        if "response" in event:
            told = PARTS.decode(event["response"])
            event["response"] = self._edits.response(told, is_new=self._is_new)
            if kind == "response.completed":
                if status_of(told) == CUT_OFF:
                    raise cut_off()
                kind = _ENDINGS.get(status_of(told), kind)
        yield kind, event
        if kind == "response.in_progress" and self._shift:
            yield from self._search(told)

    def _search(self, told: Parts) -> Iterator[tuple[str, dict[str, Any]]]:
        """The life of a search, which is over already."""
        call = call_id(told)
        begun, done = (
            self._edits.search_call(call, status) for status in ("in_progress", "completed")
        )
        yield "response.output_item.added", {"output_index": 0, "item": begun}
        for step in ("in_progress", "searching", done["status"]):
            if step != "failed":  # there is no such event: the item tells it
                yield f"response.file_search_call.{step}", {"output_index": 0, "item_id": call}
        yield "response.output_item.done", {"output_index": 0, "item": done}

    def _annotated(self, event: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """An event for each annotation of the text that `event` completes."""
        place = {name: event[name] for name in ("item_id", "output_index", "content_index")}
        for index, annotation in enumerate(self._edits.annotations(_TEXT.decode(event["text"]))):
            yield (
                "response.output_text.annotation.added",
                {**place, "annotation_index": index, "annotation": annotation},
            )

    def _written(self, kind: str, fields: dict[str, Any]) -> bytes:
        """An event with the next number; nothing, where the client has had it."""
        number = self._number
        self._number += 1
        if number <= self._after:
            return b""
        return written(kind, {**fields, "sequence_number": number})


_EDITED = {
    "response.created",
    "response.queued",
    "response.in_progress",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
}


def written(kind: str, fields: dict[str, Any]) -> bytes:
    """An event of that type, without the empty line behind it."""
    data = msgspec.json.encode({**fields, "type": kind})
    return b"event: " + kind.encode() + b"\ndata: " + data
