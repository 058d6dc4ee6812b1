"""What requests of every API that a model answers have in common."""

from typing import Annotated, Any, ClassVar

import msgspec

from gateway.retrieval.options import RetrievalOptions

Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
TopP = Annotated[float, msgspec.Meta(gt=0, le=1)]
Bias = Annotated[float, msgspec.Meta(ge=-100, le=100)]


class StreamOptions(msgspec.Struct):
    """How a stream is written."""

    include_usage: bool | None = None
    """Whether the stream ends with an event that tells how many tokens were used."""


class Modelled(msgspec.Struct, kw_only=True):
    """A request that a model answers."""

    more: ClassVar[dict[str, Any]] = {}
    """What its schema says beside its fields."""

    model: str
    """`default`, a name from `/v1/models`, or either with `:no-retrieval` or `:retrieval`."""
    stream: bool | None = None
    """Whether the answer comes as server-sent events while it is written."""
    temperature: Temperature | None = None
    """0 always takes the likeliest token."""
    top_p: TopP | None = None
    """How much of the probability the tokens have that are chosen from."""
    retrieval: bool | RetrievalOptions | None = None
    """Whether and how the answer is to stand on the documents in the index."""


class Sampled(Modelled, kw_only=True):
    """A request with the options that chat completions and completions share."""

    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    """How many answers."""
    max_tokens: Positive | None = None
    """How long an answer gets at most."""
    stop: str | list[str] | None = None
    """Where an answer ends."""
    seed: int | None = None
    """Makes sampling repeatable."""
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    """Changes how likely tokens are, by their ids."""
    stream_options: StreamOptions | None = None
    """Only in a request for a stream."""
    response_format: dict[str, Any] | None = None
    """`{"type": "json_object"}`, or `{"type": "json_schema", "json_schema": {…}}`."""
    user: str | None = None


class Usage(msgspec.Struct):
    """Tokens that an answer took."""

    prompt_tokens: int
    completion_tokens: int | None = None
    total_tokens: int | None = None
