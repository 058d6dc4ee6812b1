"""Completions, as they are documented."""

from typing import Annotated, Any

import msgspec

from gateway.schemas import failures
from gateway.schemas.components import either
from gateway.schemas.context import Context, UrlCitationAnnotation
from gateway.schemas.documented import RETRIEVAL_HEADER, Documented
from gateway.schemas.sampling import Count, Sampled, Usage

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Texts = Annotated[list[_Text], msgspec.Meta(min_length=1)]
_Ids = Annotated[list[Count], msgspec.Meta(min_length=1)]
_Prompts = Annotated[list[_Ids], msgspec.Meta(min_length=1)]


class CompletionRequest(Sampled, kw_only=True):
    """OpenAI's, and vLLM's, request for a completion, with `retrieval`."""

    prompt: Annotated[Any, either(_Text, _Texts, _Ids, _Prompts)]
    """A text, several, or token ids; with retrieval one text, which is what is searched for."""
    suffix: str | None = None
    """What follows the answer."""
    echo: bool | None = None
    """Whether the prompt stands before the answer."""
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=5)] | None = None
    best_of: Annotated[int, msgspec.Meta(ge=1, le=20)] | None = None


class CompletionChoice(msgspec.Struct):
    """One of the answers, or what an event adds to it."""

    index: int
    text: str
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None
    annotations: list[UrlCitationAnnotation] | None = None
    """What the model cited."""
    context: Context | None = None
    """What it was given."""


class Completion(msgspec.Struct, tag_field="object", tag="text_completion"):
    """An answer, or several; in a stream what an event adds to them."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


CREATE_COMPLETION = Documented(
    id="createCompletion",
    tag="Completions",
    summary="Create a completion",
    requests=(CompletionRequest,),
    example={
        "model": "default",
        "prompt": "What do llamas eat?",
        "retrieval": {"max_num_results": 3},
        "max_tokens": 50,
    },
    answers=(Completion,),
    events=(Completion,),
    parameters=(RETRIEVAL_HEADER,),
    failures=failures.ANSWER,
)
