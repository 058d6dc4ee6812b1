"""Messages of Anthropic's API, and which of them belong together."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from gateway import turns


class MessageTurn(turns.Turn):
    """A message: its content is a text, or a list of blocks."""

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


def is_result_alone(turn: MessageTurn) -> bool:
    """Whether a turn says nothing of its own, but what tools gave."""
    blocks = turn.content
    return isinstance(blocks, list) and all(block.get("type") == "tool_result" for block in blocks)


def exchanges(messages: Sequence[MessageTurn], question_at: int) -> list[list[int]]:
    """Places of messages before `question_at` that belong together, oldest first."""
    return turns.exchanges(list(map(_spoken, messages)), question_at)


def _spoken(turn: MessageTurn) -> turns.Spoken:
    """The turn as chats have it, where a tool has a role of its own and calls stand by themselves.

    All results in one turn answer calls of one turn before it: the first tells which.
    """
    blocks = turn.content if isinstance(turn.content, list) else []
    calls = [{"id": block.get("id")} for block in blocks if block.get("type") == "tool_use"]
    results = [block.get("tool_use_id") for block in blocks if block.get("type") == "tool_result"]
    spoken = {
        "role": "tool" if blocks and is_result_alone(turn) else turn.role,
        "tool_calls": [call for call in calls if isinstance(call["id"], str)],
        "tool_call_id": next((each for each in results if isinstance(each, str)), None),
    }
    return msgspec.convert(spoken, turns.Spoken)
