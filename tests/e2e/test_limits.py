"""A gateway whose tokens count, beside one that counts nothing: clients see the same of vLLM."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from stack import servers

from gateway.access.keys import Key, digest, written
from tests.e2e.conftest import Stack

TOKENS = 100_000
SAID = "Name three animals."
CHAT = {"messages": [{"role": "user", "content": SAID}], "max_tokens": 12}
COMPLETION = {"prompt": "Once upon a time", "max_tokens": 12}
RESPONSE = {"input": SAID, "max_output_tokens": 16}
WITH_USAGE = {"stream_options": {"include_usage": True}}
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("/chat/completions", CHAT),
    ("/chat/completions", CHAT | WITH_USAGE),
    ("/completions", COMPLETION),
    ("/completions", COMPLETION | WITH_USAGE),
    ("/messages", CHAT),
    ("/responses", RESPONSE),
]
KEYS = [f"{path.strip('/')}{number}" for number, (path, _) in enumerate(ASKED * 2)]
"""One for each test of what a request costs: what was charged before leaves a minute later."""
OF_THE_MOMENT = re.compile(
    r'"(id|item_id|created|created_at|completed_at|cached_tokens)":\s?("[^"]*"|[0-9.]+)'
)


def key(token: str) -> Key:
    name = token.replace("/", "-")
    return Key(name=name, tenant="t", sha256=digest(token.encode()).hex(), created_at=0)


@pytest.fixture(scope="module")
def metered(
    stack: Stack, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a second gateway, in front of the same vLLM."""
    port = free_port()
    environment = {
        "GROUNDSERVE_UPSTREAM_URL": stack.vllm_url,
        "GROUNDSERVE_ENCODER_URL": stack.vllm_url,
        "GROUNDSERVE_MILVUS_URI": "http://127.0.0.1:9",
        "GROUNDSERVE_OPEN_ACCESS": "false",
        "GROUNDSERVE_API_KEYS": written([*map(key, ["compared", *KEYS])]).decode(),
        "GROUNDSERVE_KEY_TOKENS_PER_MINUTE": str(TOKENS),
    }
    gateway = servers.gateway(port, environment, tmp_path_factory.mktemp("metered"))
    gateway.probe = servers.http_probe(f"http://127.0.0.1:{port}/health/live")
    with gateway:
        gateway.wait_ready()
        yield f"http://127.0.0.1:{port}/v1"


def said(
    url: str, path: str, body: dict[str, Any], *, stream: bool, token: str = "compared"
) -> list[Any]:
    """What was answered, without what is another each time."""
    asked = {"model": "default", "temperature": 0, "retrieval": {"enabled": False}, **body}
    if stream:
        asked["stream"] = True
    else:
        asked.pop("stream_options", None)
    answer = httpx.post(url + path, json=asked, headers=bearer(token), timeout=120)
    assert answer.status_code == 200, answer.text
    text = OF_THE_MOMENT.sub(r'"\1":0', answer.text)
    lines = text.splitlines() if stream else ["data: " + text]
    data = [line.removeprefix("data:").strip() for line in lines]
    return [json.loads(each) if each.startswith("{") else each for each in data]


def text(events: list[Any]) -> str:
    """What was written, however many tokens vLLM puts into an event."""
    found = []
    for event in events:
        match event:
            case {"choices": [{"delta": {"content": str(piece)}}]} | {"choices": [{"text": piece}]}:
                found.append(piece)
            case {"delta": str(piece)} | {"delta": {"text": piece}}:
                found.append(piece)
            case {"choices": [{"message": {"content": piece}}]}:
                found.append(piece)
            case {"content": [{"text": piece}]} | {"output": [{"content": [{"text": piece}]}]}:
                found.append(piece)
    return "".join(found)


def shapes(events: list[Any]) -> list[Any]:
    """The fields of each event and their types; those that come several times in a row once."""
    found: list[Any] = []
    for event in map(shape, events):
        if event not in found[-3:]:  # with its name before it, and an empty line behind it
            found.append(event)
    return found


def shape(value: Any) -> Any:
    match value:
        case dict():
            return {name: shape(each) for name, each in value.items()}
        case list():
            return [*map(shape, value)]
        case str() if value.startswith(("event:", "[")) or not value:
            return value
    return type(value).__name__


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), ASKED)
def test_clients_see_the_same_whether_tokens_count_or_not(
    path: str, body: dict[str, Any], stream: bool, stack: Stack, metered: str
) -> None:
    one, other = (said(url, path, body, stream=stream) for url in (metered, stack.gateway_url))

    assert text(one) == text(other) != ""
    assert shapes(one) == shapes(other)


@pytest.mark.parametrize(
    ("token", "path", "body", "stream"),
    [
        (token, path, body, stream)
        for token, (path, body, stream) in zip(
            KEYS,
            [(path, body, stream) for stream in (False, True) for path, body in ASKED],
            strict=True,
        )
    ],
)
def test_a_request_costs_what_vllm_says(
    token: str, path: str, body: dict[str, Any], stream: bool, stack: Stack, metered: str
) -> None:
    [whole] = said(stack.gateway_url, path, body, stream=False)
    usage = whole["usage"]
    expected = usage.get("total_tokens") or usage["input_tokens"] + usage["output_tokens"]

    said(metered, path, body, stream=stream, token=token)

    headers = httpx.get(f"{metered}/models", headers=bearer(token)).headers
    assert int(headers["x-ratelimit-remaining-tokens"]) == TOKENS - expected
