"""Anthropic's messages, as they are documented."""

from typing import Annotated, Any, Literal

import msgspec

from gateway.schemas import failures
from gateway.schemas.context import Context
from gateway.schemas.documented import RETRIEVAL_HEADER, Documented
from gateway.schemas.sampling import Count, Modelled, Positive


class AnthropicMessage(msgspec.Struct):
    """What somebody said."""

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]
    """A text, or blocks as `{"type": "text", "text": "…"}`."""


class AnthropicTool(msgspec.Struct):
    """A tool that the model may use."""

    name: str
    input_schema: dict[str, Any]
    """A JSON schema."""
    description: str | None = None


class CountTokensRequest(Modelled, kw_only=True):
    """A request whose prompt is to be counted."""

    messages: Annotated[list[AnthropicMessage], msgspec.Meta(min_length=1)]
    system: str | list[dict[str, Any]] | None = None
    """Instructions."""
    tools: list[AnthropicTool] | None = None
    tool_choice: dict[str, Any] | None = None


class CreateMessageRequest(CountTokensRequest, kw_only=True):
    """Anthropic's request for a message, with `retrieval`."""

    max_tokens: Positive
    """How long the answer gets at most."""
    stop_sequences: list[str] | None = None
    top_k: int | None = None
    metadata: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None


class MessageBlock(msgspec.Struct):
    """A part of an answer."""

    type: str
    """`text`, `thinking`, `tool_use` …"""
    text: str | None = None
    citations: list[dict[str, Any]] | None = None
    """What the model cited, as `search_result_location`."""


class MessageUsage(msgspec.Struct):
    """Tokens that an answer took."""

    input_tokens: int
    output_tokens: int


class AnthropicAnswer(msgspec.Struct, tag_field="type", tag="message"):
    """An answer."""

    id: str
    role: Literal["assistant"]
    model: str
    content: list[MessageBlock]
    usage: MessageUsage
    stop_reason: str | None = None
    stop_sequence: str | None = None
    context: Context | None = None
    """What the model was given."""


class MessageEvent(msgspec.Struct):
    """An event of a stream."""

    type: str
    """`message_start`, `content_block_delta`, `message_stop`, `error` …"""


class TokenCount(msgspec.Struct):
    """How long the prompt is."""

    input_tokens: Count


class AnthropicFailure(msgspec.Struct):
    """The inside of Anthropic's error body, and what OpenAI's has more."""

    type: str
    message: str
    param: str | None = None
    code: str | None = None


class AnthropicError(msgspec.Struct, tag_field="type", tag="error"):
    """What an error answer is in this API."""

    error: AnthropicFailure
    request_id: str | None = None


_EXAMPLE = {
    "model": "default",
    "messages": [{"role": "user", "content": "What do llamas eat?"}],
    "retrieval": {"max_num_results": 3},
}

CREATE_MESSAGE = Documented(
    id="createMessage",
    tag="Messages",
    summary="Create a message",
    requests=(CreateMessageRequest,),
    example={**_EXAMPLE, "max_tokens": 200},
    answers=(AnthropicAnswer,),
    events=(MessageEvent,),
    parameters=(RETRIEVAL_HEADER,),
    failures=failures.ANSWER,
    error=AnthropicError,
)
COUNT_TOKENS = Documented(
    id="countMessageTokens",
    tag="Messages",
    summary="Count the tokens of a message's prompt",
    requests=(CountTokensRequest,),
    example=_EXAMPLE,
    answers=(TokenCount,),
    parameters=(RETRIEVAL_HEADER,),
    failures=failures.ANSWER,
    error=AnthropicError,
)
