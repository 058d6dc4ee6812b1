"""What vLLM 0.33 writes as a response, recorded from a real server and shortened."""

from typing import Any

import msgspec

TEXT = "Llamas eat gräss 🦙 [1]. They drink [3, 9]."
PART: dict[str, Any] = {"annotations": [], "text": TEXT, "type": "output_text", "logprobs": None}
MESSAGE = {
    "id": "msg_94fd",
    "content": [PART],
    "role": "assistant",
    "status": "completed",
    "type": "message",
    "phase": None,
}
CALL = {
    "arguments": "{}",
    "call_id": "call_1",
    "name": "f",
    "type": "function_call",
    "id": "fc_1",
    "namespace": None,
    "status": "completed",
}
USAGE = {
    "input_tokens": 32,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 6,
    "output_tokens_details": {"reasoning_tokens": 0, "tool_output_tokens": 0},
    "total_tokens": 38,
}


def response(**stated: Any) -> dict[str, Any]:
    """A response of which a test states only what it is about."""
    return {
        "id": "resp_a7cf",
        "created_at": 1795691946,
        "incomplete_details": None,
        "instructions": None,
        "metadata": None,
        "model": "org/model-a",
        "object": "response",
        "output": [MESSAGE],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "none",
        "tools": [],
        "top_p": 1.0,
        "background": False,
        "max_output_tokens": 6,
        "max_tool_calls": None,
        "previous_response_id": None,
        "prompt": None,
        "reasoning": None,
        "service_tier": "auto",
        "status": "completed",
        "text": None,
        "top_logprobs": None,
        "truncation": "disabled",
        "usage": USAGE,
        "user": None,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "kv_transfer_params": None,
        **stated,
    }


def stream(**stated: Any) -> list[bytes]:
    """Its events: a message in three pieces, then a call of a function."""
    begun = response(status="in_progress", output=[], usage=None)
    place = {"item_id": "msg_94fd", "output_index": 0, "content_index": 0}
    empty = {**MESSAGE, "content": [], "status": "in_progress"}
    called = {"item_id": "fc_1", "output_index": 1}
    pieces = (TEXT[:12], TEXT[12:20], TEXT[20:])
    events: list[tuple[str, dict[str, Any]]] = [
        ("created", {"response": begun}),
        ("in_progress", {"response": begun}),
        ("output_item.added", {"item": empty, "output_index": 0}),
        ("content_part.added", {**place, "part": {**PART, "text": "", "logprobs": []}}),
        *(("output_text.delta", {**place, "delta": piece, "logprobs": []}) for piece in pieces),
        ("output_text.done", {**place, "text": TEXT, "logprobs": []}),
        ("content_part.done", {**place, "part": PART}),
        ("output_item.done", {"item": MESSAGE, "output_index": 0}),
        (
            "output_item.added",
            {"item": {**CALL, "arguments": "", "status": "in_progress"}, "output_index": 1},
        ),
        ("function_call_arguments.delta", {**called, "delta": "{}"}),
        ("function_call_arguments.done", {**called, "arguments": "{}", "name": "f"}),
        ("output_item.done", {"item": CALL, "output_index": 1}),
        ("completed", {"response": response(output=[MESSAGE, CALL], **stated)}),
    ]
    return [
        b"event: response.%b\ndata: %b\n\n"
        % (
            kind.encode(),
            msgspec.json.encode({**fields, "sequence_number": number, "type": f"response.{kind}"}),
        )
        for number, (kind, fields) in enumerate(events)
    ]
