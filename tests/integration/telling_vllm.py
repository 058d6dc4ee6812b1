"""A vLLM that answers with all that it was told: what reaches a prompt reaches the answer."""

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.errors import UpstreamRejected
from gateway.upstream import Count
from gateway.upstream_answer import UpstreamAnswer
from tests.unit.conftest import FakeAnswer, FakeUpstream

Said = dict[str, Any]


class Telling(FakeUpstream):
    """Keeps responses for whoever knows their ids, as vLLM does."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._model = model
        self.kept: dict[str, Said] = {}

    async def tokenize(self, content: bytes) -> Count:
        return Count(tokens=len(content) // 4, max_model_len=100_000)

    async def post(self, path: str, content: bytes) -> UpstreamAnswer:
        if path.endswith("/cancel"):
            return self._found(path.split("/")[2])
        said = msgspec.json.decode(content)
        if said.get("previous_response_id") not in (None, *self.kept):
            raise UpstreamRejected("not found", 404, "response_id")
        text = content.decode()
        if said.get("previous_response_id"):
            text += str(self.kept[said["previous_response_id"]])
        told = self._told(path, said, text)
        if said.get("stream"):
            deltas: list[Said] = [
                {"delta": {"content": text}},
                {"delta": {}, "finish_reason": "stop"},
            ]
            events = [{"choices": [{"index": 0, **each}]} for each in deltas]
            lines = [b"data: " + msgspec.json.encode(each) + b"\n\n" for each in events]
            return FakeAnswer([*lines, b"data: [DONE]\n\n"])
        return FakeAnswer([msgspec.json.encode(told)])

    async def get(self, path: str, query: Mapping[str, str]) -> UpstreamAnswer:  # noqa: ARG002
        return self._found(path.rpartition("/")[2])

    def _found(self, response_id: str) -> UpstreamAnswer:
        if response_id not in self.kept:
            raise UpstreamRejected("not found", 404, "response_id")
        return FakeAnswer([msgspec.json.encode(self.kept[response_id])])

    def _told(self, path: str, said: Said, text: str) -> Said:
        head: Said = {"id": "x", "model": self._model, "created": 1}
        match path:
            case "/completions":
                return head | {"choices": [{"index": 0, "text": text, "finish_reason": "stop"}]}
            case "/messages":
                part: Said = {"type": "text", "text": text}
                told: Said = {"type": "message", "role": "assistant", "stop_reason": "end_turn"}
                return head | told | {"content": [part]}
            case "/messages/count_tokens":
                return {"input_tokens": len(text)}
            case "/responses":
                part = {"type": "output_text", "text": text, "annotations": []}
                item: Said = {"id": "msg_1", "type": "message", "content": [part]}
                told = {"id": said["request_id"], "status": "completed", "output": [item]}
                self.kept[said["request_id"]] = head | told | {"background": True}
                return self.kept[said["request_id"]]
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return head | {"object": "chat.completion", "choices": [choice]}
