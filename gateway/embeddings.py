"""OpenAI's embeddings, made by the encoder of the index. Knows no HTTP."""

import asyncio
import base64
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from gateway.access.limits import admission, spend
from gateway.body import Body
from gateway.encoding import Embedded, Encoding, Vector
from gateway.errors import InvalidRequest
from gateway.own_models import OwnModel
from gateway.settings import GatewaySettings
from gateway.stages import Stages
from indexer.index.errors import TokensInvalid
from indexer.index.records import EncoderIdentity

MAX_INPUTS = 2048
"""OpenAI's own limit."""

Format = Literal["float", "base64"]
InputType = Literal["query", "passage", "document"]

_Texts = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1)]],
    msgspec.Meta(min_length=1, max_length=MAX_INPUTS),
]
_Tokens = Annotated[list[Annotated[int, msgspec.Meta(ge=0, lt=2**31)]], msgspec.Meta(min_length=1)]
_Arrays = Annotated[list[_Tokens], msgspec.Meta(min_length=1, max_length=MAX_INPUTS)]


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client wants vectors of, and how."""

    model: str
    texts: list[str]
    """Empty where there are `arrays`."""
    arrays: list[list[int]]
    """Token ids of the encoder's own tokenizer."""
    is_one: bool
    """Whether `input` was one text or array, and no list of them."""
    encoding_format: Format
    dimensions: int | None
    input_type: InputType | None
    """Whose prefix comes before each input; nothing does, if not set."""

    @classmethod
    def read(cls, content: bytes, model: str | None = None) -> "EmbeddingRequest":
        """The request in `content`; `model` counts before the one in it. Raises InvalidRequest."""
        body = Body(content)
        model = model or body.required("model", str)
        texts, arrays, is_one = _inputs(body)
        body.get("user", str | None)
        return cls(
            model=model,
            texts=texts,
            arrays=arrays,
            is_one=is_one,
            encoding_format=body.get("encoding_format", Format | None) or "float",
            dimensions=body.get("dimensions", Annotated[int, msgspec.Meta(ge=1)] | None),
            input_type=body.get("input_type", InputType | None),
        )


class _Embedding(msgspec.Struct, frozen=True):
    object: Literal["embedding"]
    index: int
    embedding: msgspec.Raw


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class _Embeddings(msgspec.Struct, frozen=True):
    object: Literal["list"]
    data: list[_Embedding]
    model: str
    usage: _Usage


class Embeddings:
    """Answers requests for embeddings."""

    def __init__(self, settings: GatewaySettings, encoding: Encoding) -> None:
        self._encoding = encoding
        self._dimensions = [int(each) for each in settings.embedding_dimensions.split(",") if each]
        self.model = OwnModel.called(settings.encoder_model, settings.embedding_model_name)

    async def answer(self, content: bytes, stages: Stages, model: str | None = None) -> bytes:
        """The answer to the request in `content`, as JSON; `model` counts before the one in it.

        Raises ModelNotFound, and what `embedded_by` does.
        """
        await spend(content)
        # Megabytes of numbers are read and written here: that is for another thread.
        request = await asyncio.to_thread(EmbeddingRequest.read, content, model)
        self.model.check(request.model)
        identity = self._encoding.identity
        dimension = self._dimension(request.dimensions, identity)
        with stages.measure("embed"):
            embedded = await embedded_by(self._encoding, request)
        if (limited := admission()) is not None:
            limited.used(embedded.tokens)
        return await asyncio.to_thread(
            written, self.model.name, embedded, dimension, request.encoding_format
        )

    def _dimension(self, wanted: int | None, identity: EncoderIdentity) -> int:
        allowed = {identity.dimension, *(n for n in self._dimensions if n < identity.dimension)}
        if wanted is None:
            return identity.dimension
        if wanted not in allowed:
            raise InvalidRequest(
                f"Invalid value for 'dimensions': embeddings of {self.model.name} may have "
                f"{', '.join(map(str, sorted(allowed)))} dimensions, not {wanted}.",
                "dimensions",
            )
        return wanted


async def embedded_by(encoding: Encoding, request: EmbeddingRequest) -> Embedded:
    """What `encoding` makes of the inputs. Raises InvalidRequest, and what that raises."""
    prefix = _prefix(request.input_type, encoding.identity)
    if not request.arrays:
        return await encoding.texts(request.texts, prefix)
    try:
        return await encoding.arrays(request.arrays, prefix)
    except TokensInvalid as exc:
        param = "input" if request.is_one else f"input[{exc.place}]"
        raise InvalidRequest(f"Invalid value for {param!r}: {exc}", param) from exc


def written(model: str, embedded: Embedded, dimension: int, encoding_format: Format) -> bytes:
    """`embedded` as OpenAI's answer of `model`, each vector cut to `dimension` numbers."""
    data = [
        _Embedding("embedding", index, _json(_shortened(vector, dimension), encoding_format))
        for index, vector in enumerate(embedded.vectors)
    ]
    usage = _Usage(embedded.tokens, embedded.tokens)
    return msgspec.json.encode(_Embeddings("list", data, model, usage))


def _inputs(body: Body) -> tuple[list[str], list[list[int]], bool]:
    """Texts, arrays of token ids, and whether there is but one that stood in no list.

    Raises InvalidRequest.
    """
    if body.is_absent("input"):
        raise InvalidRequest("Missing required parameter: 'input'.", "input")
    raw = body.raw("input")
    if not raw.startswith(b"["):
        return [body.get("input", Annotated[str, msgspec.Meta(min_length=1)])], [], True
    first = raw[1:].lstrip()[:1]
    if first == b"[":
        return [], body.get("input", _Arrays), False
    if first.isdigit() or first == b"-":
        return [], [body.get("input", _Tokens)], True
    return body.get("input", _Texts), [], False


def _prefix(input_type: InputType | None, identity: EncoderIdentity) -> str:
    if input_type is None:
        return ""
    return identity.query_prefix if input_type == "query" else identity.passage_prefix


def _json(vector: Vector, encoding_format: Format) -> msgspec.Raw:
    written: Any = vector.tolist()
    if encoding_format == "base64":
        written = base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return msgspec.Raw(msgspec.json.encode(written))


def _shortened(vector: Vector, dimension: int) -> Vector:
    """The first numbers of `vector`, of unit norm again."""
    if dimension == len(vector):
        return vector
    cut = vector[:dimension]
    unit: Vector = cut / max(float(np.linalg.norm(cut)), float(np.finfo(np.float32).tiny))
    return unit
