"""Embeddings, as they are documented."""

from typing import Annotated, Any

import msgspec

from gateway.embeddings import MAX_INPUTS, Format, InputType
from gateway.errors import InvalidRequest, ModelNotFound
from gateway.schemas import failures
from gateway.schemas.components import either
from gateway.schemas.documented import Documented
from gateway.schemas.sampling import Positive

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Texts = Annotated[list[_Text], msgspec.Meta(min_length=1, max_length=MAX_INPUTS)]
_Ids = Annotated[list[Annotated[int, msgspec.Meta(ge=0, lt=2**31)]], msgspec.Meta(min_length=1)]
_Arrays = Annotated[list[_Ids], msgspec.Meta(min_length=1, max_length=MAX_INPUTS)]


class CreateEmbeddingRequest(msgspec.Struct, kw_only=True):
    """OpenAI's request for embeddings, with `input_type`."""

    model: str
    """`default`, or the name of the embedding model."""
    input: Annotated[Any, either(_Text, _Texts, _Ids, _Arrays)]
    """A text, several, or token ids of the embedding model's own tokenizer."""
    encoding_format: Format | None = None
    """`base64` is the numbers as little-endian float32; `float` if not said."""
    dimensions: Positive | None = None
    """Shorter embeddings, where the gateway is configured for them."""
    input_type: InputType | None = None
    """Which prefix of the embedding model comes before each text; none if not said."""
    user: str | None = None


class Embedding(msgspec.Struct, tag_field="object", tag="embedding"):
    """The vector of one input, of unit norm."""

    index: int
    embedding: list[float] | str
    """Numbers, or base64."""


class EmbeddingUsage(msgspec.Struct):
    """Tokens of the inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, tag_field="object", tag="list"):
    """Vectors in the order of the inputs."""

    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


CREATE_EMBEDDINGS = Documented(
    id="createEmbedding",
    tag="Embeddings",
    summary="Create embeddings",
    requests=(CreateEmbeddingRequest,),
    example={"model": "default", "input": ["What do llamas eat?", "Llamas eat grass."]},
    answers=(EmbeddingList,),
    failures=(InvalidRequest, ModelNotFound, *failures.ENCODER),
)
