"""The same question in each API, plain and as a stream, and what a client gets to see."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import httpx


class Route(NamedTuple):
    """A way to ask for an answer from documents."""

    name: str
    stream: bool
    path: str
    body: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name}-{'stream' if self.stream else 'plain'}"


class Seen(NamedTuple):
    """What came back."""

    status: int
    code: str | None
    """Of the error, if any; Anthropic's type, where that is what there is."""
    said: str
    """All of the body."""
    ended_well: bool
    """Whether it says of itself that it is complete."""
    headers: httpx.Headers
    seconds: float


def routes(question: str, knowledge_base: str, max_tokens: int = 8) -> list[Route]:
    """Each API, plain and streamed."""
    messages = [{"role": "user", "content": question}]
    search = {"type": "file_search", "vector_store_ids": [knowledge_base]}
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "chat": ("/v1/chat/completions", {"messages": messages, "max_tokens": max_tokens}),
        "completions": (
            "/v1/completions",
            {"prompt": question, "max_tokens": max_tokens, "retrieval": {"enabled": True}},
        ),
        "responses": (
            "/v1/responses",
            {"input": question, "tools": [search], "max_output_tokens": max(16, max_tokens)},
        ),
        "messages": (
            "/v1/messages",
            {"messages": messages, "max_tokens": max_tokens, "retrieval": {"enabled": True}},
        ),
    }
    return [
        Route(name, stream, path, {"model": "default", "stream": stream, **body})
        for name, (path, body) in bodies.items()
        for stream in (False, True)
    ]


def ask(
    url: str,
    route: Route,
    *,
    timeout_s: float = 120,
    on_event: Callable[[int], None] = lambda _: None,
    fields: Mapping[str, Any] | None = None,
) -> Seen:
    """Ask, and read to the end; `on_event` is told how many pieces have come."""
    began = time.monotonic()
    pieces: list[str] = []
    with (
        httpx.Client(base_url=url, timeout=timeout_s) as client,
        client.stream("POST", route.path, json={**route.body, **(fields or {})}) as answer,
    ):
        for number, piece in enumerate(answer.iter_text()):
            pieces.append(piece)
            on_event(number)
    said = "".join(pieces)
    code = _error_code(said)
    return Seen(
        answer.status_code,
        code,
        said,
        answer.status_code == 200 and code is None and _ended_well(route, said),
        answer.headers,
        time.monotonic() - began,
    )


def _error_code(said: str) -> str | None:
    for line in said.splitlines():
        try:
            content = json.loads(line.removeprefix("data: "))
        except ValueError:
            continue
        error = content.get("error")
        if content.get("type") == "error" and error is None:
            return str(content.get("code"))
        if content.get("type") == "response.failed":
            return str(content["response"]["error"]["code"])
        if isinstance(error, dict):
            return str(error.get("code") or error.get("type"))
    return None


def _ended_well(route: Route, said: str) -> bool:
    if not route.stream:
        return True
    endings = {"responses": "response.completed", "messages": "message_stop"}
    tail = said[-4000:]
    # One that was cut by max_tokens is complete as well.
    return endings.get(route.name, "data: [DONE]") in tail or "response.incomplete" in tail
