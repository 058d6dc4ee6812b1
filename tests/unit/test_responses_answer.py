"""Responses that vLLM gives whole, and those that no model writes."""

from typing import Any

import msgspec
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.body import Body
from gateway.citations import Grounding, cited, context, file_citation
from gateway.errors import UpstreamBroken
from gateway.responses.answer import ResponsesShape
from gateway.responses.edits import KEPT, Edits, kept_edits
from indexer.index.attributes import within_limits
from indexer.index.records import Hit
from tests.unit.responses_samples import CALL, MESSAGE, TEXT, response

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("acting")]

SEARCH = {"type": "file_search", "vector_store_ids": ["documents"]}
FUNCTION: dict[str, Any] = {"type": "function", "name": "f", "parameters": {}, "strict": None}
NEVER_NULL = (
    "temperature",
    "top_p",
    "tools",
    "tool_choice",
    "truncation",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "background",
    "service_tier",
    "text",
    "metadata",
    "store",
)


@pytest.fixture
def grounding(hits: list[Hit]) -> Grounding:
    return Grounding("Why?", hits, queries=["Why?", "Because?"])


def searched(grounding: Grounding, **stated: Any) -> Edits:
    return Edits(grounding=grounding, tool=SEARCH, searched=True, **stated)


def whole(edits: Edits, **stated: Any) -> dict[str, Any]:
    """A response of vLLM's as the client gets it, checked against the SDK's type."""
    shape = ResponsesShape(edits, Body(b"{}"))
    body = shape.whole(msgspec.json.encode(response(**stated)))
    Response.model_validate_json(body, strict=True)
    found: dict[str, Any] = msgspec.json.decode(body)
    return found


def annotations(hits: list[Hit]) -> list[dict[str, Any]]:
    return [file_citation(each) for each in cited(TEXT, hits).citations]


def test_what_vllm_leaves_out_is_filled_in() -> None:
    found = whole(Edits())
    assert [name for name in NEVER_NULL if found[name] is None] == []
    assert found["error"] is None
    assert found["completed_at"] >= found["created_at"] > 0
    assert found["output"][0]["content"][0]["logprobs"] == []
    assert "context" not in found
    assert found | {"output": [MESSAGE]} == found | response(
        **{name: found[name] for name in ("text", "top_logprobs", "metadata")}
    )


def test_the_search_comes_first_and_the_text_has_its_citations(
    grounding: Grounding, hits: list[Hit]
) -> None:
    found = whole(searched(grounding), output=[MESSAGE, CALL])
    search, message, call = found["output"]
    assert search == {
        "id": "fs_a7cf",
        "type": "file_search_call",
        "status": "completed",
        "queries": ["Why?", "Because?"],
        "results": None,
    }
    [part] = message["content"]
    assert part == {
        "type": "output_text",
        "text": TEXT,
        "logprobs": [],
        "annotations": annotations(hits),
    }
    assert [each["index"] for each in part["annotations"]] == [19, 35]
    assert call == CALL
    assert found["context"] == context("Why?", hits, invalid_citations=1)


def test_results_are_shown_to_who_wants_them(grounding: Grounding, hits: list[Hit]) -> None:
    found = whole(searched(grounding, shows_results=True))
    first, *others = found["output"][0]["results"]
    assert first == {
        "file_id": "d1",
        "filename": "llamas.html",
        "score": 0.9,
        "text": "Llamas eat grass.",
        "attributes": {},
        "chunk_id": "c1",
        "start_index": 0,
        "end_index": 5,
    }
    assert len(others) == len(hits) - 1


def test_attributes_are_shown_within_the_limits_of_openai() -> None:
    many = {f"key{number}": number for number in range(20)}
    assert len(within_limits(many)) == 16
    assert within_limits({"a": "x" * 600, "k" * 65: 1, "n": None, "b": True}) == {
        "a": "x" * 512,
        "b": True,
    }


def test_without_the_tool_there_are_citations_and_no_search(
    grounding: Grounding, hits: list[Hit]
) -> None:
    found = whole(Edits(grounding=grounding))
    [message] = found["output"]
    assert message["content"][0]["annotations"] == annotations(hits)
    assert found["tools"] == []


def test_tools_and_their_choice_are_those_of_the_client(grounding: Grounding) -> None:
    asked = {"tool_choice": msgspec.Raw(b'{"type":"file_search"}')}
    edits = searched(grounding, tool_place=1, asked=asked, is_stored=False)
    found = whole(edits, tools=[FUNCTION, FUNCTION])
    assert found["tools"] == [FUNCTION, SEARCH, FUNCTION]
    assert found["tool_choice"] == {"type": "file_search"}
    assert found["store"] is False


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_what_has_not_begun_has_no_output(grounding: Grounding, status: str) -> None:
    begun: dict[str, Any] = {"status": status, "output": [], "usage": None, "background": True}
    found = whole(searched(grounding), **begun)
    assert found["output"] == []
    assert found["completed_at"] is None


def test_a_failure_in_the_background_is_an_error() -> None:
    assert whole(Edits(), status="failed", output=[])["error"]["code"] == "server_error"


def test_what_is_no_response_is_broken() -> None:
    for body in (b"nothing", b"{}", b'{"id":"r","status":"completed","output":3}'):
        with pytest.raises(UpstreamBroken):
            ResponsesShape(Edits(), Body(b"{}")).whole(body)


def test_edits_are_found_again_in_a_response_that_was_kept(grounding: Grounding) -> None:
    edits = searched(grounding, asked={"tool_choice": msgspec.Raw(b'"auto"')})
    kept = {"a": "b", KEPT: msgspec.json.encode(edits).decode()}
    told = {"metadata": msgspec.Raw(msgspec.json.encode(kept))}
    assert msgspec.json.encode(kept_edits(told)) == msgspec.json.encode(edits)
    assert whole(edits, metadata=kept)["metadata"] == {"a": "b"}


@pytest.mark.parametrize("metadata", [b"null", b'{"groundserve":"x"}', b'{"groundserve":3}'])
def test_other_responses_carry_none(metadata: bytes) -> None:
    assert kept_edits({"metadata": msgspec.Raw(metadata)}) == Edits()
    assert kept_edits({}) == Edits()


async def test_a_refusal_is_a_whole_response_and_its_events(grounding: Grounding) -> None:
    asked = Body(
        msgspec.json.encode(
            {"tools": [SEARCH, FUNCTION], "instructions": "Be kind.", "top_p": None}
        )
    )
    shape = ResponsesShape(searched(grounding), asked)
    body = shape.reply("No.", "org/m")
    parsed = Response.model_validate_json(body, strict=True)
    assert parsed.output_text == "No."
    assert [item.type for item in parsed.output] == ["file_search_call", "message"]
    assert [tool.type for tool in parsed.tools] == ["file_search", "function"]
    assert (parsed.instructions, parsed.model) == ("Be kind.", "org/m")
    assert parsed.usage is not None
    assert parsed.usage.total_tokens == 0
    assert msgspec.json.decode(body)["store"] is False

    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    content = b"".join([event async for event in shape.reply_events("No.", "org/m")])
    events = [
        adapter.validate_json(event.split(b"data: ")[1], strict=True)
        for event in filter(None, content.split(b"\n\n"))
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "No."
    assert events[-1].response.tools == parsed.tools


async def test_what_a_dry_run_found_stands_in_a_response_without_a_message(
    grounding: Grounding,
) -> None:
    explained = msgspec.structs.replace(grounding, details={"retrieval": {"queries": ["Why?"]}})
    shape = ResponsesShape(searched(explained), Body(b"{}"))
    found = msgspec.json.decode(shape.reply("", "org/m"))
    assert [item["type"] for item in found["output"]] == ["file_search_call"]
    assert found["context"]["retrieval"] == {"queries": ["Why?"]}
    events = [event async for event in shape.reply_events("", "org/m")]
    assert b"output_text" not in b"".join(events)
