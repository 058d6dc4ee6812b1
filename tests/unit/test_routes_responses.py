"""Responses over HTTP: made, followed up, found again and cancelled, with vLLM faked."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from litestar.testing import TestClient

from gateway.access.callers import Caller, acting_as
from gateway.app import create_app
from gateway.errors import UpstreamBroken, UpstreamRejected, UpstreamUnavailable
from gateway.responses.ids import new_id
from gateway.settings import GatewaySettings
from gateway.upstream import Count
from gateway.upstream_answer import UpstreamAnswer
from indexer.index.errors import IndexUnavailable, KnowledgeBaseMissing
from tests.unit.conftest import FakeAnswer, FakeUpstream
from tests.unit.responses_samples import MESSAGE, response, stream

if TYPE_CHECKING:
    from tests.unit.conftest import FakeReader
    from tests.unit.index_fakes import FakeEncoder

URL = "/v1/responses"
SEARCH: dict[str, Any] = {"type": "file_search", "vector_store_ids": ["documents"]}
QUESTION: dict[str, Any] = {"model": "default", "input": "What do llamas eat?", "tools": [SEARCH]}
with acting_as(Caller(name="anybody", tenant=GatewaySettings().tenant)):
    OWN = new_id()
UNKNOWN = UpstreamRejected(f"Response with id '{OWN}' not found.", 404, "response_id")

Client = TestClient[Any]


class Server(FakeUpstream):
    """A vLLM server that may have kept a response."""

    def __init__(self, url: str) -> None:
        super().__init__("org/model-a")
        self.url = url
        self.kept: dict[str, Any] | Exception = UNKNOWN
        self.events: list[bytes] = []
        self.got: list[str] = []

    async def tokenize(self, content: bytes) -> Count:
        return Count(tokens=len(content) // 4, max_model_len=4096)

    async def get(self, path: str, query: Mapping[str, str]) -> UpstreamAnswer:
        self.got.append(path)
        if isinstance(self.kept, Exception):
            raise self.kept
        if query.get("stream") == "true":
            failure = None if self.events else UpstreamBroken("gone")
            return FakeAnswer(self.events, failure)
        return FakeAnswer([msgspec.json.encode(self.kept)])


@pytest.fixture
def servers() -> list[Server]:
    return [Server("http://one.test/v1/"), Server("http://two.test/v1/")]


@pytest.fixture
def client(servers: list[Server], reader: "FakeReader", encoder: "FakeEncoder") -> Iterator[Client]:
    app = create_app(
        GatewaySettings(), servers=servers, reader=reader, load_encoder=lambda: encoder
    )
    with TestClient(app, base_url="http://127.0.0.1") as client:
        ends = time.monotonic() + 10
        while client.get("/health/ready").status_code != 200:
            assert time.monotonic() < ends
        yield client


@pytest.fixture
def answered(servers: list[Server]) -> Callable[..., None]:
    """The next answer, whichever server is asked."""

    def answer(*pieces: bytes) -> None:
        for server in servers:
            server.answers.append(FakeAnswer(pieces))

    return answer


def sent(servers: list[Server]) -> dict[str, Any]:
    """The one body that vLLM got."""
    [(path, body)] = [posted for server in servers for posted in server.posted]
    assert path == "/responses"
    return msgspec.json.decode(body, type=dict[str, Any])


def test_a_response_has_its_search_and_citations(
    client: Client, servers: list[Server], answered: Callable[..., None]
) -> None:
    answered(msgspec.json.encode(response()))
    got = client.post(URL, json=QUESTION | {"include": ["file_search_call.results"]})
    assert got.status_code == 200
    assert "search" in got.headers["server-timing"]
    search, message = got.json()["output"]
    assert [result["chunk_id"] for result in search["results"]] == ["c1", "c2"]
    assert message["content"][0]["annotations"][0]["file_id"] == "d1"
    assert got.json()["tools"] == [SEARCH]
    body = sent(servers)
    assert "Llamas eat grass." in body["input"]
    assert {"tools", "retrieval", "include"} & body.keys() == {"include"}
    assert (body["model"], body["temperature"]) == ("org/model-a", 0.2)


def test_a_stream_has_them_too(client: Client, answered: Callable[..., None]) -> None:
    answered(*stream())
    got = client.post(URL, json=QUESTION | {"stream": True})
    assert got.headers["content-type"].startswith("text/event-stream")
    assert b"response.file_search_call.searching" in got.content
    assert got.content.count(b"annotation.added\n") == 1
    assert got.content.rstrip().splitlines()[-2] == b"event: response.completed"


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("failure", "code"),
    [(IndexUnavailable("away"), "index_unavailable"), (KnowledgeBaseMissing("x"), "index_missing")],
)
def test_a_store_that_fails_is_a_failed_call_and_vllm_is_not_asked(
    client: Client,
    servers: list[Server],
    reader: "FakeReader",
    failure: Exception,
    code: str,
    streamed: bool,
) -> None:
    reader.search_failures = [failure, failure]
    got = client.post(URL, json=QUESTION | {"stream": streamed})
    assert (got.status_code, got.json()["error"]["code"]) == (503, code)
    assert [server.posted for server in servers] == [[], []]


@pytest.mark.parametrize(
    ("tool", "status", "param"),
    [
        (SEARCH | {"vector_store_ids": ["nope"]}, 404, "tools[0].vector_store_ids[0]"),
        (
            SEARCH | {"filters": {"type": "eq", "key": "year", "value": 1}},
            400,
            "tools[0].filters.key",
        ),
        (SEARCH | {"max_num_results": 99}, 400, "tools[0].max_num_results"),
    ],
)
def test_what_is_wrong_in_the_tool_is_named(
    client: Client, tool: dict[str, Any], status: int, param: str
) -> None:
    got = client.post(URL, json=QUESTION | {"tools": [tool]})
    assert (got.status_code, got.json()["error"]["param"]) == (status, param)


@pytest.mark.parametrize("place", [0, 1])
def test_the_server_that_kept_an_earlier_response_answers(
    client: Client, servers: list[Server], place: int
) -> None:
    servers[place].answers = [FakeAnswer([msgspec.json.encode(response())])]
    servers[1 - place].answers = [UNKNOWN]
    got = client.post(URL, json=QUESTION | {"previous_response_id": OWN})
    assert got.status_code == 200
    assert len(servers[place].posted) == 1


def test_an_earlier_response_that_nobody_kept_is_a_400(
    client: Client, servers: list[Server]
) -> None:
    for server in servers:
        server.answers = [UNKNOWN]
    got = client.post(URL, json=QUESTION | {"previous_response_id": OWN})
    assert got.status_code == 400
    assert got.json()["error"] == {
        "message": str(UNKNOWN),
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }
    # Each was asked once, and the question was searched for once.
    assert [len(server.posted) for server in servers] == [1, 1]


def test_a_prompt_that_is_too_long_is_called_input(client: Client, servers: list[Server]) -> None:
    for server in servers:
        server.answers = [UpstreamRejected("too long", 400, "input_tokens")]
    got = client.post(URL, json=QUESTION | {"retrieval": False, "tools": []})
    error = got.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")


def kept_by_vllm(client: Client, servers: list[Server], **stated: Any) -> dict[str, Any]:
    """A response as the client got it; vLLM keeps what it was sent with it."""
    for server in servers:
        server.answers = [FakeAnswer([msgspec.json.encode(response(**stated))])]
    first: dict[str, Any] = client.post(
        URL, json=QUESTION | {"include": ["file_search_call.results"], "metadata": {"a": "b"}}
    ).json()
    servers[1].kept = response(**stated, metadata=sent(servers)["metadata"])
    return first


def test_a_response_is_found_wherever_it_is_and_is_the_same(
    client: Client, servers: list[Server]
) -> None:
    first = kept_by_vllm(client, servers)
    got = client.get(f"{URL}/{OWN}")
    assert got.status_code == 200
    differing = {"completed_at": None, "metadata": {"a": "b"}}
    assert got.json() == first | differing
    assert servers[0].got == servers[1].got == [f"/responses/{OWN}"]


def test_events_of_the_background_begin_where_the_client_left_off(
    client: Client, servers: list[Server]
) -> None:
    kept_by_vllm(client, servers, background=True)
    servers[1].events = stream()
    everything = client.get(f"{URL}/{OWN}?stream=true").content
    assert b"response.file_search_call.searching" in everything
    rest = client.get(f"{URL}/{OWN}?stream=true&starting_after=7").content
    assert everything.endswith(rest.lstrip())
    assert b'"sequence_number":7,' not in rest
    assert b'"sequence_number":8,' in rest


@pytest.mark.parametrize(
    "stated", [{"background": False}, {"background": True}, {"status": "cancelled"}]
)
def test_a_response_whose_events_nobody_kept_is_no_stream(
    client: Client, servers: list[Server], stated: dict[str, Any]
) -> None:
    servers[0].kept = response(**stated)
    got = client.get(f"{URL}/{OWN}?stream=true")
    assert (got.status_code, got.json()["error"]["param"]) == (400, "stream")


def test_cancelling_reaches_the_server_that_makes_the_response(
    client: Client, servers: list[Server]
) -> None:
    servers[0].answers = [UNKNOWN]
    servers[1].answers = [
        FakeAnswer([msgspec.json.encode(response(status="cancelled", output=[MESSAGE]))])
    ]
    got = client.post(f"{URL}/{OWN}/cancel")
    assert got.json()["status"] == "cancelled"
    assert [server.posted for server in servers] == [[(f"/responses/{OWN}/cancel", b"")]] * 2


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_response_that_nobody_knows_is_a_404(
    client: Client, servers: list[Server], method: str
) -> None:
    for server in servers:
        server.answers = [UNKNOWN]
    got = client.request(method, f"{URL}/{OWN}{'/cancel' * (method == 'POST')}")
    assert got.status_code == 404
    assert got.json()["error"]["code"] == "response_not_found"


def test_a_response_that_a_server_out_of_reach_may_know_is_no_404(
    client: Client, servers: list[Server]
) -> None:
    servers[0].kept = UpstreamUnavailable("away")
    got = client.get(f"{URL}/{OWN}")
    assert (got.status_code, got.json()["error"]["code"]) == (503, "model_unavailable")


def test_what_vllm_says_against_cancelling_is_told(client: Client, servers: list[Server]) -> None:
    servers[0].answers = [UpstreamRejected("Cannot cancel.", 400, "response_id")]
    got = client.post(f"{URL}/{OWN}/cancel")
    assert (got.status_code, got.json()["error"]["message"]) == (400, "Cannot cancel.")


@pytest.mark.parametrize("name", ["..%2F..%2Fmetrics", "a%20b", "x" * 200, "resp_%3Fstream"])
def test_an_id_that_is_none_never_reaches_vllm(
    client: Client, servers: list[Server], name: str
) -> None:
    assert client.get(f"{URL}/{name}").status_code == 404
    assert servers[0].got == []


@pytest.mark.parametrize(
    ("query", "param"),
    [("stream=maybe", "stream"), ("stream=1&starting_after=x", "starting_after")],
)
def test_a_query_that_makes_no_sense_is_named(client: Client, query: str, param: str) -> None:
    got = client.get(f"{URL}/{OWN}?{query}")
    assert (got.status_code, got.json()["error"]["param"]) == (400, param)


def test_a_refusal_needs_no_model(
    client: Client, servers: list[Server], reader: "FakeReader"
) -> None:
    reader.hits = []
    asked = QUESTION | {"retrieval": {"in_scope": "refuse"}}
    got = client.post(URL, json=asked).json()
    search, message = got["output"]
    assert search["status"] == "completed"
    assert "nothing" in message["content"][0]["text"]
    streamed = client.post(URL, json=asked | {"stream": True}).content
    assert streamed.rstrip().splitlines()[-2] == b"event: response.completed"
    assert [server.posted for server in servers] == [[], []]


def test_a_dry_run_tells_how_it_searched(client: Client, servers: list[Server]) -> None:
    got = client.post(URL, json=QUESTION | {"retrieval": {"dry_run": True}}).json()
    assert [item["type"] for item in got["output"]] == ["file_search_call"]
    assert got["context"]["retrieval"]["queries"] == ["What do llamas eat?"]
    assert [server.posted for server in servers] == [[], []]
