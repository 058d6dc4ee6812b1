"""A gateway whose Milvus Lite server is killed, hangs, comes back, or loses a collection."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from stack import servers

from indexer.index.collection import IndexWriter
from indexer.index.embedding import Encoder
from indexer.index.settings import IndexSettings
from indexer.report import Report
from tests.integration import fake_vllm
from tests.integration.conftest import indexed, written_documents
from tests.servers import kill, pause, resume, start_again, wait_until

pytestmark = pytest.mark.long

QUESTION = "What do llamas eat?"
TIMEOUT_S = 3.0
"""Of a call to Milvus, in these tests."""
RECOVERED_S = 5.0
MESSAGES = [{"role": "user", "content": QUESTION}]
DEGRADE = {"when_unavailable": "degrade"}
HEADER = "x-groundserve-degraded"


class Answered(NamedTuple):
    status: int
    seconds: float
    title: str
    """Of the best hit; the code of the error where there is one."""
    headers: httpx.Headers
    body: dict[str, Any]


class Stack:
    """A gateway and its Milvus."""

    def __init__(
        self,
        settings: IndexSettings,
        milvus: servers.Server,
        index: Callable[..., Report],
        port: int,
    ) -> None:
        self.settings = settings
        self.milvus = milvus
        self.index = index
        # Making a client takes longer than what is measured here.
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json={"model": "default"} | body)

    def ask(self, retrieval: Any = True, question: str = QUESTION) -> Answered:
        started = time.monotonic()
        messages = [{"role": "user", "content": question}]
        response = self.post("/v1/chat/completions", messages=messages, retrieval=retrieval)
        seconds, said = time.monotonic() - started, response.json()
        if response.status_code != 200:
            told = said["error"]["code"]
        else:
            cited = said["choices"][0]["message"].get("context", {}).get("citations", [])
            told = cited[0]["title"] if cited else ""
        return Answered(response.status_code, seconds, told, response.headers, said)

    def is_grounded(self) -> bool:
        answered = self.ask()
        return (answered.status, answered.title) == (200, "Llamas")

    def missing(self) -> dict[str, str]:
        answer = self.client.get("/health/ready")
        found: dict[str, str] = answer.json().get("missing", {})
        return found

    def degraded(self, part: str) -> float:
        text = self.client.get("/metrics").text
        name = f'groundserve_degraded_total{{part="{part}"}}'
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return float(lines[0].rpartition(" ")[2]) if lines else 0.0


@pytest.fixture(scope="module")
def stack(
    encoder_folder: Path,
    encoder: Encoder,
    free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("away")
    port, milvus_port = free_port(), free_port()
    settings = IndexSettings(
        milvus_uri=f"http://127.0.0.1:{milvus_port}",
        encoder_model=str(encoder_folder),
        encoder_dtype="float32",
        knowledge_base="away",
    )
    with (
        servers.milvus(milvus_port, folder / "data", folder / "logs") as milvus,
        fake_vllm.serving() as vllm_url,
    ):
        milvus.wait_ready()
        index = partial(indexed, settings, encoder, written_documents(folder / "docs"))
        index()
        environment = {
            "GROUNDSERVE_MILVUS_URI": settings.milvus_uri,
            "GROUNDSERVE_MILVUS_TIMEOUT_S": str(TIMEOUT_S),
            "GROUNDSERVE_ENCODER_MODEL": settings.encoder_model,
            "GROUNDSERVE_ENCODER_DTYPE": settings.encoder_dtype,
            "GROUNDSERVE_ENCODER_THREADS": "1",
            "GROUNDSERVE_KNOWLEDGE_BASE": settings.knowledge_base,
            "GROUNDSERVE_UPSTREAM_URL": vllm_url,
            "GROUNDSERVE_POLL_INTERVAL_S": "1",
            "GROUNDSERVE_REWRITE_TIMEOUT_S": "0",
            "GROUNDSERVE_ANSWER_CACHE_MIB": "1",
        }
        with servers.gateway(port, environment, folder / "logs") as gateway:
            gateway.wait_ready()
            stack = Stack(settings, milvus, index, port)
            yield stack
            stack.client.close()


@pytest.fixture(autouse=True)
def _all_is_well(stack: Stack) -> Iterator[None]:
    wait_until(stack.is_grounded)
    yield
    assert stack.milvus.process is not None
    if stack.milvus.process.poll() is None:
        resume(stack.milvus)
    else:
        start_again(stack.milvus)


@pytest.mark.timeout(180)
def test_killed_it_is_missed_at_once_and_found_again_within_seconds_of_its_return(
    stack: Stack,
) -> None:
    kill(stack.milvus)
    away = stack.ask()
    assert (away.status, away.title) == (503, "index_unavailable")
    assert away.seconds < TIMEOUT_S
    assert away.headers["retry-after"]
    assert "milvus" in stack.missing()
    assert stack.ask(retrieval=False).status == 200
    # Long enough for a channel to wait long between its attempts.
    time.sleep(12)
    assert stack.ask().status == 503

    came = start_again(stack.milvus)
    wait_until(stack.is_grounded, 30)
    assert time.monotonic() - came < RECOVERED_S
    wait_until(lambda: not stack.missing(), RECOVERED_S)


@pytest.mark.timeout(180)
def test_stopped_it_costs_the_first_requests_its_timeout_and_others_nothing(stack: Stack) -> None:
    pause(stack.milvus)
    with ThreadPoolExecutor(12) as pool:
        silent = [pool.submit(stack.ask, question=f"{QUESTION} {n}") for n in range(8)]
        time.sleep(0.3)
        plain = stack.ask(retrieval=False)
        live = stack.client.get("/health/live").elapsed.total_seconds()
    first = [each.result() for each in silent]

    assert {each.status for each in first} == {503}
    assert max(each.seconds for each in first) < 2 * TIMEOUT_S
    assert (plain.status, plain.seconds < 1, live < 1) == (200, True, True)
    later = [stack.ask(question=f"Other {n}?") for n in range(5)]
    assert {each.title for each in later} == {"index_unavailable"}
    assert max(each.seconds for each in later) < 0.5
    assert "milvus" in stack.missing()

    resume(stack.milvus)
    assert wait_until(stack.is_grounded, 30) < RECOVERED_S


@pytest.mark.timeout(180)
def test_without_it_who_wants_that_is_answered_without_context_and_told(stack: Stack) -> None:
    options = {"when_unavailable": "degrade"}
    assert HEADER not in stack.ask(options).headers
    kill(stack.milvus)
    before = stack.degraded("milvus")
    answered = stack.ask(options)
    [choice] = answered.body["choices"]

    assert (answered.status, answered.headers[HEADER]) == (200, "milvus")
    assert choice["message"]["context"]["degraded"] == ["milvus"]
    assert choice["message"]["context"]["citations"] == []
    assert choice["message"]["annotations"] == []
    assert stack.degraded("milvus") == before + 1
    assert stack.ask().status == 503

    start_again(stack.milvus)
    wait_until(stack.is_grounded, 30)
    again = stack.ask(options)
    assert (HEADER in again.headers, again.title) == (False, "Llamas")


@pytest.mark.timeout(180)
def test_in_each_api_a_degraded_answer_says_so_before_its_first_word(stack: Stack) -> None:
    kill(stack.milvus)
    said = {"retrieval": {"enabled": True, "when_unavailable": "degrade"}, "max_tokens": 20}
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": MESSAGES} | said,
        "/v1/completions": {"prompt": QUESTION} | said,
        "/v1/messages": {"messages": MESSAGES} | said,
        "/v1/responses": {"input": QUESTION, "retrieval": said["retrieval"]},
    }
    for path, body in bodies.items():
        whole = stack.post(path, **body)
        assert (whole.status_code, whole.headers.get(HEADER)) == (200, "milvus"), path
        assert "degraded" in whole.text, path
        stream = stack.post(path, stream=True, **body)
        assert stream.headers.get(HEADER) == "milvus", path
        events = [
            line.removeprefix("data: ")
            for line in stream.text.splitlines()
            if line.startswith("data: ")
        ]
        assert '"degraded":["milvus"]' in events[0], (path, events[0])


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "options",
    [
        {"in_scope": True},
        {"in_scope": "fail"},
        {"dry_run": True},
        {"when_unavailable": "fail"},
    ],
)
def test_who_wants_no_ungrounded_answer_gets_none(stack: Stack, options: dict[str, Any]) -> None:
    kill(stack.milvus)

    assert stack.ask({"when_unavailable": "degrade"} | options).title == "index_unavailable"


@pytest.mark.timeout(180)
def test_what_the_client_did_wrong_is_no_reason_to_answer_without(stack: Stack) -> None:
    bad_filter = {"filters": {"type": "eq", "key": "none", "value": 1}} | DEGRADE
    unknown = {"vector_store_ids": ["vs_none"]} | DEGRADE

    assert [stack.ask(each).status for each in (bad_filter, unknown)] == [400, 404]


@pytest.mark.timeout(180)
def test_an_index_that_is_replaced_and_dropped_while_it_is_searched_is_followed(
    stack: Stack,
) -> None:
    with ThreadPoolExecutor(4) as pool:
        going = True

        def ask_on(number: int) -> list[tuple[int, str]]:
            seen: list[tuple[int, str]] = []
            while going:
                answered = stack.ask(question=f"{QUESTION} {number} {len(seen)}")
                seen.append((answered.status, answered.title))
            return seen

        asking = [pool.submit(ask_on, number) for number in range(4)]
        try:
            for size in (300, 400, 500):  # another chunk size makes another generation
                stack.index(size=size)
                _drop_old_generations(stack.settings)
        finally:
            going = False
    answers = [each for task in asking for each in task.result()]

    assert len(answers) > 20
    assert set(answers) == {(200, "Llamas")}


def _drop_old_generations(settings: IndexSettings) -> None:
    writer = IndexWriter(settings)
    published = writer.published()
    with writer.lease(60):
        for generation in writer.generations():
            if published is not None and generation.collection != published.collection:
                writer.drop(generation)
    writer.close()
