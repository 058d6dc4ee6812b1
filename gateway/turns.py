"""Turns of a conversation: their text, and which of them belong together."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

import msgspec

Entry = TypeVar("Entry")

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
"""Who may speak in a chat."""


class Turn(msgspec.Struct):
    """A message, as far as retrieval reads it."""

    role: str
    content: Any = None


class _Call(msgspec.Struct):
    id: str | None = None


class Spoken(Turn):
    """A message and the tool calls that tie it to others."""

    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class Said(msgspec.Struct, frozen=True):
    """The text of a turn."""

    role: str
    text: str


def text_of(turn: Turn) -> str:
    """What is text in a turn; empty for one of images or tool calls alone."""
    match turn.content:
        case str(text):
            return text.strip()
        case list(parts):
            return "\n".join(filter(None, map(text_of_part, parts))).strip()
    return ""


def text_of_part(part: Any) -> str | None:
    """The text of a content part; None for an image and whatever else is no text."""
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    return None


def without(entries: Sequence[Entry], forgotten: Sequence[Sequence[int]]) -> list[Entry]:
    """`entries` but for those at the places that the `forgotten` exchanges name."""
    left = {place for exchange in forgotten for place in exchange}
    return [entry for place, entry in enumerate(entries) if place not in left]


def with_text(message: msgspec.Raw, content: Any, prompt: str) -> msgspec.Raw:
    """`message`, whose content is `content`, with `prompt` for its text.

    Images and whatever else is no text stay, before it; other fields are as they came.
    """
    changed: Any = prompt
    if isinstance(content, list):
        others = [part for part in content if text_of_part(part) is None]
        changed = [*others, {"type": "text", "text": prompt}]
    fields = msgspec.json.decode(message, type=dict[str, msgspec.Raw])
    return msgspec.Raw(msgspec.json.encode({**fields, "content": changed}))


def exchanges(spoken: list[Spoken], question_at: int) -> list[list[int]]:
    """Places of messages before `question_at` that belong together, oldest first.

    A turn of the user and all that answers it, tool calls and their results included. System
    messages are in none.
    """
    places: list[int] = []
    starts: list[int] = []
    """Where in `places` each exchange begins."""
    called: dict[str, int] = {}
    """Where in `places` the message of each tool call is."""
    needed: int | None = None
    """The first of `places` that what stays answers: what begins before its end stays, too."""
    for place, message in enumerate(spoken):
        answered = called.get(message.tool_call_id or "")
        if place >= question_at:
            if answered is not None:
                needed = answered if needed is None else min(needed, answered)
            continue
        if message.role in ("system", "developer"):
            continue
        if message.role == "user" or not starts:
            starts.append(len(places))
        while answered is not None and starts[-1] > answered:
            starts.pop()
        called |= {call.id: len(places) for call in message.tool_calls or () if call.id}
        places.append(place)
    return [
        places[start:end]
        for start, end in pairwise([*starts, len(places)])
        if needed is None or end <= needed
    ]
