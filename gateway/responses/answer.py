"""Responses of vLLM, with the search and the citations put in; and those that no model writes."""

import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from gateway.body import Body
from gateway.errors import UpstreamBroken
from gateway.events import NO_SENSE, relayed
from gateway.responses.edits import PARTS, Edits, check_new
from gateway.responses.file_search import read_tools
from gateway.responses.ids import new_id
from gateway.responses.stream import Editor, written

_REPEATED = (
    "instructions",
    "metadata",
    "temperature",
    "top_p",
    "background",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "reasoning",
    "service_tier",
    "text",
    "top_logprobs",
    "truncation",
    "user",
    "presence_penalty",
    "frequency_penalty",
)
"""Fields of a request that its response repeats."""
_NO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}


class ResponsesShape:
    """A response, or its events."""

    def __init__(self, edits: Edits, asked: Body) -> None:
        """`asked` is the request."""
        self._edits = edits
        self._asked = asked
        self._editor = Editor(edits)

    def whole(self, body: bytes) -> bytes:
        """VLLM's response as clients get it. Raises UpstreamFailure."""
        return edited(body, self._edits)

    def events(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The stream; one that breaks off ends with an error event."""
        return relayed(chunks, self._editor, self.failed)

    def failed(self, failure: Exception) -> bytes:
        """The event that ends a stream which breaks off."""
        return self._editor.failed(failure)

    def reply(self, text: str, model: str) -> bytes:
        """A response that no model writes."""
        told = self._told(model, "completed", _message(text))
        return edited(msgspec.json.encode(told), self._unkept)

    async def reply_events(self, text: str, model: str) -> AsyncIterator[bytes]:
        """The same as events."""
        self._editor = Editor(self._unkept)
        for event in self._events(text, model):
            yield self._editor.edit(event) + b"\n\n"

    @property
    def _unkept(self) -> Edits:
        """The edits of a response that vLLM knows nothing of."""
        return msgspec.structs.replace(self._edits, is_stored=False)

    def _told(self, model: str, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        """A response as vLLM would tell it."""
        repeated = {
            name: None if self._asked.is_absent(name) else self._asked.fields[name]
            for name in _REPEATED
        }
        return {
            "incomplete_details": None,
            "tools": read_tools(self._asked).others,
            **repeated,
            "id": new_id(),
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            "status": status,
            "output": output,
            "parallel_tool_calls": self._asked.lenient("parallel_tool_calls", bool, True),
            "usage": _NO_USAGE if status == "completed" else None,
        }

    def _events(self, text: str, model: str) -> Iterator[bytes]:
        """The events of such a response as vLLM would send them."""
        begun = self._told(model, "in_progress", [])
        output = _message(text)
        ended = {**begun, "status": "completed", "output": output, "usage": _NO_USAGE}
        yield written("response.created", {"response": begun})
        yield written("response.in_progress", {"response": begun})
        for item in output:
            part = item["content"][0]
            place = {"output_index": 0, "content_index": 0, "item_id": item["id"]}
            empty = {**item, "status": "in_progress", "content": []}
            yield written("response.output_item.added", {"output_index": 0, "item": empty})
            yield written("response.content_part.added", {**place, "part": {**part, "text": ""}})
            yield written("response.output_text.delta", {**place, "delta": text, "logprobs": []})
            yield written("response.output_text.done", {**place, "text": text, "logprobs": []})
            yield written("response.content_part.done", {**place, "part": part})
            yield written("response.output_item.done", {"output_index": 0, "item": item})
        yield written("response.completed", {"response": ended})


def edited(body: bytes, edits: Edits, *, is_new: bool = True) -> bytes:
    """VLLM's whole response with `edits`. Raises UpstreamFailure."""
    try:
        told = PARTS.decode(body)
        if is_new:
            check_new(told)
        return msgspec.json.encode(edits.response(told, is_new=is_new))
    except NO_SENSE as exc:
        raise UpstreamBroken(f"the model server's answer is no response: {exc}") from exc


def _message(text: str) -> list[dict[str, Any]]:
    """The output that says `text`: a message, or nothing where there is no text."""
    if not text:
        return []
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    head = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant"}
    return [{**head, "status": "completed", "content": [part]}]
