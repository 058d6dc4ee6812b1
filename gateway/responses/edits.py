"""What becomes of vLLM's response: the search, citations, and the fields that it leaves out.

The same edits serve a whole response, the events that carry one, and one that vLLM has kept: they
travel with it, in its metadata, and are taken out of there again.
"""

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.citations import Grounding, file_citation
from gateway.degraded import DETAIL
from gateway.events import cut_off, told_failure
from gateway.responses.file_search import search_call

KEPT = "groundserve"
"""Key of the edits in the metadata of a response that vLLM keeps."""

Parts = dict[str, msgspec.Raw]
"""An object of which only what is changed is decoded."""
PARTS = msgspec.json.Decoder(Parts)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_LIST_OF_PARTS = msgspec.json.Decoder(list[Parts])
_METADATA = msgspec.json.Decoder(dict[str, Any] | None)
_TEXT = msgspec.json.Decoder(str)
_NULL = msgspec.Raw(b"null")
_NO_LIST = msgspec.Raw(b"[]")
_MESSAGE = msgspec.Raw(b'"message"')
_OUTPUT_TEXT = msgspec.Raw(b'"output_text"')
_FAILED = {"code": "server_error", "message": "The model server failed. Its log has the reason."}
CUT_OFF = "cancelled"
"""State of a response that vLLM gave up, where the client did not want that."""
_BEGUN = ("queued", "in_progress")
"""States in which a response has no output yet."""

_NEVER_MISSING: Parts = dict.fromkeys(
    ("error", "completed_at", "safety_identifier", "prompt_cache_key"), _NULL
)

_NEVER_NULL: Parts = {
    "text": msgspec.Raw(b'{"format":{"type":"text"}}'),
    "top_logprobs": msgspec.Raw(b"0"),
    "metadata": msgspec.Raw(b"{}"),
    "temperature": msgspec.Raw(b"1.0"),
    "top_p": msgspec.Raw(b"1.0"),
    "presence_penalty": msgspec.Raw(b"0.0"),
    "frequency_penalty": msgspec.Raw(b"0.0"),
    "tools": _NO_LIST,
    "tool_choice": msgspec.Raw(b'"auto"'),
    "truncation": msgspec.Raw(b'"disabled"'),
    "background": msgspec.Raw(b"false"),
    "service_tier": msgspec.Raw(b'"default"'),
}
"""What a response says at least, in the OpenResponses specification; vLLM leaves some of it out."""


class Edits(msgspec.Struct, frozen=True, kw_only=True):
    """What is changed in the answer to one request."""

    grounding: Grounding | None = None
    tool: dict[str, Any] | None = None
    """The `file_search` tool as it came; vLLM was not told of it."""
    tool_place: int = 0
    """In the client's list of tools."""
    searched: bool = False
    """Whether that tool was called."""
    shows_results: bool = False
    """Whether the client wants to see what it found."""
    is_stored: bool = True
    """Whether the client wants the response to be kept."""
    asked: Parts = {}
    """Fields of the request that the response repeats."""

    @property
    def changes(self) -> bool:
        """Whether there is anything that vLLM does not say by itself."""
        return self.grounding is not None or self.tool is not None

    def response(self, told: Parts, *, is_new: bool = True) -> dict[str, Any]:
        """The `response` that vLLM `told`, as clients get it.

        One that is not new was kept: when it was completed is not known then.
        """
        fields: dict[str, Any] = {**_NEVER_MISSING, **told}
        fields |= {
            name: value for name, value in _NEVER_NULL.items() if fields.get(name, _NULL) == _NULL
        }
        fields |= self.asked
        fields["store"] = self.is_stored
        fields["metadata"] = _without_edits(told)
        if self.tool is not None:
            tools = _LIST.decode(fields["tools"])
            fields["tools"] = [*tools[: self.tool_place], self.tool, *tools[self.tool_place :]]
        status = status_of(told)
        if status in _BEGUN:
            if self.grounding is not None and (away := self.grounding.details.get(DETAIL)):
                fields["context"] = {DETAIL: away}
            return fields
        if status == "completed" and is_new:
            fields["completed_at"] = int(time.time())
        if status == "failed" and fields["error"] == _NULL:
            fields["error"] = _FAILED
        items = [*map(self.item, _LIST.decode(told["output"]))]
        if self.searched:
            items.insert(0, self.search_call(call_id(told), "completed"))
        fields["output"] = items
        if self.grounding is not None:
            fields["context"] = self.grounding.context(self._invalid(told))
        return fields

    def item(self, raw: msgspec.Raw) -> Any:
        """An entry of `output`, with annotations where it is a message."""
        item = PARTS.decode(raw)
        if item.get("type") != _MESSAGE:
            return raw
        parts = _LIST_OF_PARTS.decode(item.get("content", _NO_LIST))
        return {**item, "content": [*map(self.part, parts)]}

    def part(self, part: Parts) -> dict[str, Any]:
        """A part of a message, with annotations where it is text."""
        if part.get("type") != _OUTPUT_TEXT:
            return part
        edited: dict[str, Any] = {**part}
        if part.get("logprobs", _NULL) == _NULL:
            edited["logprobs"] = _NO_LIST
        edited["annotations"] = self.annotations(_TEXT.decode(part["text"]))
        return edited

    def annotations(self, text: str) -> list[dict[str, Any]]:
        """What a text cites."""
        if self.grounding is None:
            return []
        return [file_citation(each) for each in self.grounding.cited(text).citations]

    def search_call(self, call: str, status: str) -> dict[str, Any]:
        """The item of the search, at some point of its life."""
        if self.grounding is None:
            raise ValueError("nothing was searched for")
        if status == "completed" and not self.grounding.was_searched:
            status = "failed"
        return search_call(call, self.grounding, status, self.shows_results)

    def _invalid(self, told: Parts) -> int:
        """How many numbers in markers name no hit."""
        if self.grounding is None:
            return 0
        items = _LIST_OF_PARTS.decode(told["output"])
        messages = [item for item in items if item.get("type") == _MESSAGE]
        parts = [
            part
            for item in messages
            for part in _LIST_OF_PARTS.decode(item.get("content", _NO_LIST))
        ]
        texts = [_TEXT.decode(part["text"]) for part in parts if "text" in part]
        return sum(self.grounding.cited(text).invalid for text in texts)


def call_id(told: Mapping[str, msgspec.Raw]) -> str:
    """The id of the search in a response: the same whenever that is looked at."""
    return f"fs_{_TEXT.decode(told['id']).removeprefix('resp_')}"


def status_of(told: Mapping[str, msgspec.Raw]) -> str:
    """How far a response is."""
    return _TEXT.decode(told["status"])


def check_new(told: Parts) -> None:
    """Raises UpstreamFailure where what vLLM `told` is a failure, or no whole response."""
    if "status" not in told and told.get("error", _NULL) != _NULL:
        raise told_failure(msgspec.json.decode(told["error"]))
    is_over = told.get("background", _NULL) != msgspec.Raw(b"true")
    if is_over and status_of(told) in (*_BEGUN, CUT_OFF):
        raise cut_off()


def kept_edits(told: Parts) -> Edits:
    """The edits that a kept response carries; none where it was made without the gateway."""
    metadata = _METADATA.decode(told.get("metadata", _NULL)) or {}
    try:
        return msgspec.json.decode(metadata.get(KEPT, "{}"), type=Edits)
    except (msgspec.DecodeError, TypeError):
        return Edits()


def _without_edits(told: Parts) -> dict[str, Any]:
    metadata = _METADATA.decode(told.get("metadata", _NULL)) or {}
    return {name: value for name, value in metadata.items() if name != KEPT}
