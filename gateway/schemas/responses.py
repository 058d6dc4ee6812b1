"""The Responses API, as it is documented."""

from typing import Annotated, Any, Literal

import msgspec

from gateway.errors import InvalidRequest, PreviousResponseNotFound, ResponseNotFound
from gateway.responses.file_search import RankingOptions
from gateway.retrieval.options import MAX_RESULTS, MAX_STORES
from gateway.schemas import failures
from gateway.schemas.documented import RETRIEVAL_HEADER, Documented, Parameter
from gateway.schemas.sampling import Modelled, Positive

Status = Literal["in_progress", "searching", "completed", "incomplete", "failed"]


class FileSearchTool(
    msgspec.Struct, tag_field="type", tag="file_search", forbid_unknown_fields=True
):
    """Searches vector stores; the gateway does that before the model is asked."""

    vector_store_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_STORES)]
    """What several find is merged by score."""
    filters: Any = None
    """Which documents are looked at, by their attributes."""
    max_num_results: Annotated[int, msgspec.Meta(ge=1, le=MAX_RESULTS)] | None = None
    ranking_options: RankingOptions | None = None


class FunctionTool(msgspec.Struct, tag_field="type", tag="function"):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema."""
    strict: bool | None = None


class InputItem(msgspec.Struct):
    """A message, or another entry of `input`, such as what a function gave back."""

    type: str | None = None
    """`message` where there is a role, if not said; `function_call`, `function_call_output` …"""
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[dict[str, Any]] | None = None
    """A text, or parts as `{"type": "input_text", "text": "…"}`."""
    call_id: str | None = None
    """Ties what a function gave back to the call of it."""
    output: str | list[dict[str, Any]] | None = None


class CreateResponse(Modelled, kw_only=True):
    """OpenAI's request for a response, with `retrieval`."""

    input: str | list[InputItem]
    instructions: str | None = None
    """The system message."""
    tools: list[FileSearchTool | FunctionTool] | None = None
    """At most one `file_search`; what else vLLM has is handed on."""
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    include: list[str] | None = None
    """`file_search_call.results` for the chunks that were found."""
    previous_response_id: str | None = None
    """Goes on from a response that vLLM has kept."""
    max_output_tokens: Positive | None = None
    store: bool | None = None
    background: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    text: dict[str, Any] | None = None
    """`{"format": {"type": "json_schema", …}}` for an answer after a schema."""
    reasoning: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    user: str | None = None


class FileSearchResult(msgspec.Struct):
    """A chunk that was found."""

    file_id: str
    filename: str
    score: float
    """0 to 1, higher is better."""
    text: str
    attributes: dict[str, Any] | None = None
    chunk_id: str | None = None
    start_index: int | None = None
    """First character of the chunk in the text of its document."""
    end_index: int | None = None


class OutputItem(msgspec.Struct):
    """A search, a message, reasoning, or a call of a function."""

    type: str
    """`file_search_call`, `message`, `reasoning`, `function_call` …"""
    id: str | None = None
    status: Status | None = None
    queries: list[str] | None = None
    """Of a `file_search_call`: what was searched for."""
    results: list[FileSearchResult] | None = None
    role: str | None = None
    content: list[dict[str, Any]] | None = None
    """Of a message: parts with `text`, and `file_citation` annotations of what the model cited."""


class ModelResponse(msgspec.Struct, tag_field="object", tag="response"):
    """A response."""

    id: str
    created_at: float
    status: str
    model: str
    output: list[OutputItem]
    error: dict[str, Any] | None = None
    """Why a response failed."""
    usage: dict[str, Any] | None = None


class ResponseEvent(msgspec.Struct):
    """An event of a stream."""

    type: str
    """`response.created`, `response.output_text.delta`, `response.completed`, `error` …"""
    sequence_number: int


CREATE_RESPONSE = Documented(
    id="createResponse",
    tag="Responses",
    summary="Create a response",
    requests=(CreateResponse,),
    example={
        "model": "default",
        "input": "What do llamas eat?",
        "max_output_tokens": 200,
        "retrieval": {"max_num_results": 3},
    },
    answers=(ModelResponse,),
    events=(ResponseEvent,),
    parameters=(RETRIEVAL_HEADER,),
    failures=(*failures.ANSWER, PreviousResponseNotFound),
)
RETRIEVE_RESPONSE = Documented(
    id="getResponse",
    tag="Responses",
    summary="Retrieve a response",
    answers=(ModelResponse,),
    events=(ResponseEvent,),
    parameters=(
        Parameter(
            name="stream",
            description="Whether to send the events that made it.",
            type=bool,
        ),
        Parameter(
            name="starting_after",
            description="Number of the last event that the client has had.",
            type=int,
        ),
    ),
    failures=(InvalidRequest, ResponseNotFound, *failures.UPSTREAM),
)
CANCEL_RESPONSE = Documented(
    id="cancelResponse",
    tag="Responses",
    summary="Cancel a response that is made in the background",
    answers=(ModelResponse,),
    failures=(ResponseNotFound, *failures.UPSTREAM),
)
