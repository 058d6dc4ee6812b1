"""What happens to requests when a part leaves: the client, vLLM, and vLLM with another model.

Its name makes it the last file here: after it the stack has no vLLM.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from stack import models, servers

if TYPE_CHECKING:
    from tests.e2e.conftest import Stack

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Tell me of the lighthouse."}
]
ENDLESS = {"max_tokens": 3000, "ignore_eos": True}


def _running(stack: "Stack") -> float:
    metrics = httpx.get(stack.vllm_url.replace("/v1", "/metrics"), timeout=30).text
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in metrics.splitlines()
        if line.startswith("vllm:num_requests_running")
    )


def _wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_vllm_stops_working_for_a_client_that_has_left(stack: "Stack", stream: bool) -> None:
    question = {"model": "default", "messages": MESSAGES, "stream": stream, **ENDLESS}
    async with httpx.AsyncClient(timeout=120) as client:
        asking = asyncio.create_task(
            client.post(f"{stack.gateway_url}/chat/completions", json=question)
        )
        await asyncio.to_thread(_wait_until, lambda: _running(stack) == 1)
        asking.cancel()
        await asyncio.wait({asking})
    # The whole answer would take a minute and more.
    await asyncio.to_thread(_wait_until, lambda: _running(stack) == 0, timeout_s=10)


@pytest.mark.long
def test_a_killed_vllm_is_told_and_its_successor_is_found(
    stack: "Stack", client: openai.OpenAI, tmp_path: Path
) -> None:
    stream = client.chat.completions.create(
        model="default", messages=MESSAGES, stream=True, extra_body=ENDLESS
    )
    with pytest.raises(openai.APIError) as broken:
        for number, _ in enumerate(stream):
            if number == 3:
                _kill(stack.vllm)
    assert broken.value.code == "model_answer_broken"

    with pytest.raises(openai.InternalServerError) as refused:
        client.chat.completions.create(model="default", messages=MESSAGES)
    assert (refused.value.status_code, refused.value.code) == (503, "model_unavailable")
    assert refused.value.response.headers["retry-after-ms"] == "2000"
    ready = httpx.get(stack.gateway_url.replace("/v1", "/health/ready"))
    assert ready.status_code == 503
    assert list(ready.json()["missing"]) == ["vllm"]

    flags = ["--served-model-name", "another-model"]
    model = str(models.smollm2())
    with servers.vllm(stack.vllm_port, stack.vllm_config, model, tmp_path, flags) as successor:
        successor.wait_ready()
        answer = client.chat.completions.create(model="default", messages=MESSAGES, max_tokens=3)
        assert answer.model == "another-model"
        listed = client.models.list().data
        assert [entry.id for entry in listed] == ["another-model", "default"]
        client.chat.completions.create(model="another-model", messages=MESSAGES, max_tokens=3)
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(
                model="HuggingFaceTB/SmolLM2-135M-Instruct", messages=MESSAGES
            )


def _kill(server: servers.Server) -> None:
    assert server.process is not None
    os.killpg(server.process.pid, signal.SIGKILL)
