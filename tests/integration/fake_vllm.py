"""A server that answers as vLLM does, at once: real HTTP, and no model."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "org/small"
TEXT = "Llamas eat grass and hay [1]."
USAGE = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}

Said = dict[str, Any]
_numbers = itertools.count(1)


def _chat(_: Said) -> Said:
    message = {"role": "assistant", "content": TEXT, "tool_calls": []}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return _head("chat.completion") | {"choices": [choice], "usage": USAGE}


def _chat_events(said: Said) -> Iterator[Said]:
    for delta, reason in (
        ({"role": "assistant", "content": ""}, None),
        ({"content": TEXT}, "stop"),
    ):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        yield _head("chat.completion.chunk") | {"choices": [choice]}
    yield from _usage(said, "chat.completion.chunk")


def _usage(said: Said, kind: str) -> Iterator[Said]:
    """What ends a stream whose client asked for it."""
    if (said.get("stream_options") or {}).get("include_usage"):
        yield _head(kind) | {"choices": [], "usage": USAGE}


def _completion(_: Said) -> Said:
    choice = {"index": 0, "text": TEXT, "finish_reason": "stop", "logprobs": None}
    return _head("text_completion") | {"choices": [choice], "usage": USAGE}


def _completion_events(said: Said) -> Iterator[Said]:
    chunk = _completion(said)
    del chunk["usage"]
    yield chunk
    yield from _usage(said, "text_completion")


def _response(_: Said) -> Said:
    part = {"type": "output_text", "text": TEXT, "annotations": []}
    item = {
        "id": f"msg_{next(_numbers)}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    return {
        "id": f"resp_{next(_numbers)}",
        "object": "response",
        "created_at": 1,
        "model": MODEL,
        "status": "completed",
        "output": [item],
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "usage": {"input_tokens": 9, "output_tokens": 9, "total_tokens": 18},
    }


def _response_events(said: Said) -> Iterator[Said]:
    whole = _response(said)
    [item] = whole["output"]
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    events: list[Said] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item | {"content": []}},
        {"type": "response.content_part.added", **place, "part": item["content"][0] | {"text": ""}},
        {"type": "response.output_text.delta", **place, "delta": TEXT, "logprobs": []},
        {"type": "response.output_text.done", **place, "text": TEXT, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": item["content"][0]},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    for number, event in enumerate(events):
        yield event | {"sequence_number": number}


def _message(_: Said) -> Said:
    return {
        "id": f"msg_{next(_numbers)}",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 9},
    }


def _message_events(said: Said) -> Iterator[Said]:
    block = {"type": "text", "text": ""}
    yield {"type": "message_start", "message": _message(said) | {"content": []}}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    yield {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": TEXT},
    }
    yield {"type": "content_block_stop", "index": 0}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 9},
    }
    yield {"type": "message_stop"}


def _count(_: Said) -> Said:
    return {"count": 9, "max_model_len": 4096, "tokens": []}


def _input_tokens(_: Said) -> Said:
    return {"input_tokens": 9}


def _scores(said: Said) -> Said:
    scored = [{"index": at, "relevance_score": 0.5} for at, _ in enumerate(said["documents"])]
    return {"id": "rerank-1", "model": MODEL, "results": scored}


WHOLE: dict[str, Callable[[Said], Said]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/responses": _response,
    "/v1/messages": _message,
    "/v1/messages/count_tokens": _input_tokens,
    "/v1/rerank": _scores,
    "/tokenize": _count,
}
EVENTS: dict[str, Callable[[Said], Iterator[Said]]] = {
    "/v1/chat/completions": _chat_events,
    "/v1/completions": _completion_events,
    "/v1/responses": _response_events,
    "/v1/messages": _message_events,
}
_NAMED = ("/v1/responses", "/v1/messages")
"""Their events have names, and no [DONE] at the end."""


def events(path: str, said: Said) -> Iterator[bytes]:
    """The events of a stream, as they are written."""
    for event in EVENTS[path](said):
        name = f"event: {event['type']}\n" if path in _NAMED else ""
        yield f"{name}data: {json.dumps(event)}\n\n".encode()
    if path not in _NAMED:
        yield b"data: [DONE]\n\n"


class Handler(BaseHTTPRequestHandler):
    """Answers each request at once."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            entry = {"id": MODEL, "object": "model", "created": 1, "max_model_len": 4096}
            self._send(200, {"object": "list", "data": [entry]})
        else:
            self._missing()

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path not in WHOLE:
            self._missing()
            return
        said = json.loads(content)
        self.pause(said)
        if said.get("stream") and self.path in EVENTS:
            self._send(200, b"".join(events(self.path, said)), "text/event-stream")
        else:
            self._send(200, WHOLE[self.path](said))

    def pause(self, said: Said) -> None:
        """What passes before the answer."""
        time.sleep(said.get("pause_s", 0))

    def _missing(self) -> None:
        error = {"message": "not found", "type": "NotFoundError", "param": None, "code": 404}
        if "/responses/" in self.path:
            error["param"] = "response_id"
        self._send(404, {"error": error})

    def _send(self, status: int, body: Said | bytes, kind: str = "application/json") -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _head(kind: str) -> Said:
    return {"id": f"cmpl-{next(_numbers)}", "object": kind, "created": 1, "model": MODEL}


class _Server(ThreadingHTTPServer):
    # Of five, which is the default, those that come at once lose some, and try again in seconds.
    request_queue_size = 128


@contextmanager
def serving(handler: type[Handler] = Handler) -> Iterator[str]:
    """Base URL of a running one, /v1 included; it ends with the context."""
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
