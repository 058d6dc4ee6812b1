"""Chat completions, as they are documented."""

from typing import Annotated, Any, ClassVar, Literal

import msgspec

from gateway.chat.azure import Source
from gateway.schemas import failures
from gateway.schemas.context import Context, UrlCitationAnnotation
from gateway.schemas.documented import RETRIEVAL_HEADER, Documented
from gateway.schemas.sampling import Count, Positive, Sampled, Usage


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    """Text."""

    text: str


class ImageUrl(msgspec.Struct):
    """Where an image is."""

    url: str
    """An address, or the image itself as `data:image/png;base64,…`."""
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(msgspec.Struct, tag_field="type", tag="image_url"):
    """An image, for models that see."""

    image_url: ImageUrl


class InputAudio(msgspec.Struct):
    """A recording."""

    data: str
    """In base64."""
    format: Literal["wav", "mp3"]


class AudioPart(msgspec.Struct, tag_field="type", tag="input_audio"):
    """Speech, for models that hear."""

    input_audio: InputAudio


Text = str | list[TextPart]


class SystemMessage(msgspec.Struct, tag_field="role", tag="system"):
    """Instructions."""

    content: Text
    name: str | None = None


class DeveloperMessage(msgspec.Struct, tag_field="role", tag="developer"):
    """Instructions, by OpenAI's newer name."""

    content: Text
    name: str | None = None


class UserMessage(msgspec.Struct, tag_field="role", tag="user"):
    """What the user says. The last of these is what is searched for."""

    content: str | list[TextPart | ImagePart | AudioPart]
    name: str | None = None


class CalledFunction(msgspec.Struct):
    """A function that the model calls."""

    name: str
    arguments: str
    """JSON."""


class ToolCall(msgspec.Struct, tag_field="type", tag="function"):
    """A call of a tool by the model."""

    id: str
    function: CalledFunction


class AssistantMessage(msgspec.Struct, tag_field="role", tag="assistant"):
    """What the model said before."""

    content: Text | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None


class ToolMessage(msgspec.Struct, tag_field="role", tag="tool"):
    """What a tool gave back."""

    content: Text
    tool_call_id: str


class FunctionMessage(msgspec.Struct, tag_field="role", tag="function"):
    """What a function gave back, by OpenAI's older name."""

    content: str | None
    name: str


Message = (
    SystemMessage
    | DeveloperMessage
    | UserMessage
    | AssistantMessage
    | ToolMessage
    | FunctionMessage
)


class Function(msgspec.Struct):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema."""
    strict: bool | None = None


class Tool(msgspec.Struct, tag_field="type", tag="function"):
    """A tool that the model may use."""

    function: Function


class ChatCompletionRequest(Sampled, kw_only=True):
    """OpenAI's, and vLLM's, request for a chat completion, with `retrieval` or `data_sources`."""

    more: ClassVar[dict[str, Any]] = {"not": {"required": ["data_sources", "retrieval"]}}

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    data_sources: Annotated[list[Source], msgspec.Meta(min_length=1, max_length=1)] | None = None
    """Azure's "On Your Data", instead of `retrieval`; endpoint and authentication do not count."""
    max_completion_tokens: Positive | None = None
    """How long an answer gets at most, by OpenAI's newer name."""
    tools: Annotated[list[Tool], msgspec.Meta(min_length=1)] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    """Whether the answer tells how likely its tokens were."""
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    reasoning_effort: str | None = None
    min_tokens: Count | None = None
    """How long an answer gets at least; vLLM's."""
    chat_template_kwargs: dict[str, Any] | None = None
    """What the model's chat template is told; vLLM's."""


class TopLogprob(msgspec.Struct):
    """How likely a token was."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob):
    """How likely a token of the answer was, and which others were."""

    top_logprobs: list[TopLogprob] = []


class Logprobs(msgspec.Struct):
    """How likely the tokens of an answer were."""

    content: list[TokenLogprob] | None = None


class ChatMessage(msgspec.Struct):
    """An answer."""

    role: Literal["assistant"]
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None
    annotations: list[UrlCitationAnnotation] | None = None
    """What the model cited."""
    context: Context | None = None
    """What it was given."""


class ChatChoice(msgspec.Struct):
    """One of the answers."""

    index: int
    message: ChatMessage
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class ChatCompletion(msgspec.Struct, tag_field="object", tag="chat.completion"):
    """An answer, or several."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage | None = None


class ChatDelta(msgspec.Struct):
    """What an event adds to an answer."""

    role: str | None = None
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    annotations: list[UrlCitationAnnotation] | None = None
    """In the last event of a choice: what the model cited."""
    context: Context | None = None
    """In the first event of a choice: what the model was given."""


class ChunkChoice(msgspec.Struct):
    """What an event adds to one of the answers."""

    index: int
    delta: ChatDelta
    finish_reason: str | None = None


class ChatCompletionChunk(msgspec.Struct, tag_field="object", tag="chat.completion.chunk"):
    """An event of a stream."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


CREATE_CHAT_COMPLETION = Documented(
    id="createChatCompletion",
    tag="Chat",
    summary="Create a chat completion",
    requests=(ChatCompletionRequest,),
    example={
        "model": "default",
        "messages": [{"role": "user", "content": "What do llamas eat?"}],
        "retrieval": {"max_num_results": 3},
        "max_tokens": 200,
    },
    answers=(ChatCompletion,),
    events=(ChatCompletionChunk,),
    parameters=(RETRIEVAL_HEADER,),
    failures=failures.ANSWER,
)
