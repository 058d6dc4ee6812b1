"""Turns text into vectors. The one module that knows sentence-transformers and torch.

Both are imported when a model is loaded, not before: they take seconds.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from indexer.index.errors import EncoderUnavailable, EncodingFailed
from indexer.index.records import EncoderIdentity
from indexer.index.settings import IndexSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = NDArray[np.float32]
"""Shape (n_texts, dimension), each row of unit norm."""

_DOCUMENTED_QUERY_PREFIXES = {
    # From the model cards of the bge v1.5 family; their passages take no prefix.
    "bge-small-en": "Represent this sentence for searching relevant passages: ",
    "bge-base-en": "Represent this sentence for searching relevant passages: ",
    "bge-large-en": "Represent this sentence for searching relevant passages: ",
}


class TextEncoder(Protocol):
    """What the rest of the project needs of an encoder."""

    @property
    def identity(self) -> EncoderIdentity:
        """What decides which vector a text gets."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, shape (len(texts), dimension)."""

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of passages, shape (len(texts), dimension)."""


class Encoder:
    """A sentence-transformers model with its prefixes. Not safe for two threads at once."""

    def __init__(
        self, model: "SentenceTransformer", identity: EncoderIdentity, batch_size: int
    ) -> None:
        self._model = model
        self._batch_size = batch_size
        self.identity = identity
        self.max_tokens: int = model.max_seq_length or 0
        """Tokens of a passage that the model reads, special ones included; 0 where it says none."""

    @property
    def tokenizer(self) -> str:
        """The model's tokenizer as the JSON of the tokenizers library; "" where it is another."""
        backend = getattr(self._model.tokenizer, "backend_tokenizer", None)
        return "" if backend is None else str(backend.to_str())

    @classmethod
    def load(cls, settings: IndexSettings, batch_size: int = 32) -> "Encoder":
        """Load the model that `settings` names; takes seconds, downloads it where it is on a hub.

        Raises EncoderUnavailable when it cannot be had.
        """
        try:
            import torch
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging as transformers_logging

            transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
            if settings.encoder_threads is not None:
                torch.set_num_threads(settings.encoder_threads)
            model = SentenceTransformer(
                settings.encoder_model,
                revision=settings.encoder_revision,
                device=settings.encoder_device,
            )
        except Exception as exc:
            reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
            raise EncoderUnavailable(
                f"the embedding model {settings.encoder_model!r} could not be loaded: {reason}"
            ) from exc
        return cls(model, _identify(model, settings), batch_size)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, shape (len(texts), dimension). Raises EncodingFailed."""
        return self._encode(self.identity.query_prefix, texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of passages, shape (len(texts), dimension). Raises EncodingFailed."""
        return self._encode(self.identity.passage_prefix, texts)

    def _encode(self, prefix: str, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self.identity.dimension), dtype=np.float32)
        try:
            vectors = self._model.encode(
                [prefix + text for text in texts] if prefix else list(texts),
                batch_size=self._batch_size,
                normalize_embeddings=True,  # each row by its own norm, not the matrix by one
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        except (RuntimeError, ValueError, TypeError) as exc:
            raise EncodingFailed(
                f"the embedding model failed on {len(texts)} texts: {exc}"
            ) from exc
        return cast(Vectors, vectors.astype(np.float32, copy=False))


def _identify(model: "SentenceTransformer", settings: IndexSettings) -> EncoderIdentity:
    prompts = model.prompts or {}
    query_prefix, passage_prefix = settings.encoder_query_prefix, settings.encoder_passage_prefix
    if query_prefix is None:
        query_prefix = prompts.get("query") or next(
            (
                prefix
                for name, prefix in _DOCUMENTED_QUERY_PREFIXES.items()
                if name in settings.encoder_model
            ),
            "",
        )
    if passage_prefix is None:
        passage_prefix = prompts.get("document") or prompts.get("passage") or ""
    dimension = model.get_embedding_dimension()
    if dimension is None:
        raise EncoderUnavailable(
            f"{settings.encoder_model!r} does not say how long its vectors are"
        )
    return EncoderIdentity(
        model=settings.encoder_model,
        revision=_weights_digest(model),
        dimension=dimension,
        pooling="+".join(str(getattr(module, "pooling_mode", "")) for module in model).strip("+"),
        normalised=True,
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
    )


def _weights_digest(model: "SentenceTransformer") -> str:
    """SHA-256 over the weights in float32: about 0.3 s for each gigabyte.

    Names and folders differ from machine to machine, and a hub's revision is unknown for a
    folder; the numbers are the same wherever they came from.
    """
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return f"sha256:{digest.hexdigest()[:32]}"
