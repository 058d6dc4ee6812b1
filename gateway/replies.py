"""Answers that no model writes: a refusal, and what a dry run found. OpenAI's shapes."""

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from gateway.relay import Grounding

_NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class Reply(msgspec.Struct, frozen=True):
    """A whole answer, ready before the first byte is sent."""

    text: str
    model: str
    grounding: Grounding
    tells_usage: bool = False
    """Whether a stream ends with what it used, which is nothing."""

    def whole(self) -> bytes:
        """As a chat completion."""
        message = {
            "role": "assistant",
            "content": self.text,
            "context": self.grounding.context(invalid_citations=0),
            "annotations": [],
        }
        return msgspec.json.encode(
            {
                **self._head("chat.completion"),
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": _NO_USAGE,
            }
        )

    async def events(self) -> AsyncIterator[bytes]:
        """As the events of a stream."""
        head = self._head("chat.completion.chunk")
        deltas: list[tuple[dict[str, Any], str | None]] = [
            (
                {
                    "role": "assistant",
                    "content": self.text,
                    "context": self.grounding.context(),
                },
                None,
            ),
            ({}, "stop"),
        ]
        for delta, reason in deltas:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            yield b"data: " + msgspec.json.encode({**head, "choices": [choice]}) + b"\n\n"
        if self.tells_usage:
            last = {**head, "choices": [], "usage": _NO_USAGE}
            yield b"data: " + msgspec.json.encode(last) + b"\n\n"
        yield b"data: [DONE]\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
        }
