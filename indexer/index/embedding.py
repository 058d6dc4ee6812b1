"""Turns text into vectors, with sentence-transformers and torch.

Both are imported when a model is loaded, not before: they take seconds.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.index.encoder_backends import (
    compute_with,
    dtype_of,
    first_line,
    refuse_what_does_not_go_together,
    with_another_backend,
)
from indexer.index.encoder_identity import identify
from indexer.index.errors import EncoderUnavailable, EncodingFailed
from indexer.index.records import EncoderIdentity
from indexer.index.settings import IndexSettings
from indexer.index.tokens import texts_of_tokens

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = NDArray[np.float32]
"""Shape (n_texts, dimension), each row of unit norm."""

CHARS_FOR_A_TOKEN = 100
"""Of a text longer than that for each token that the model reads, the rest is not looked at.

A tokenizer takes a whole text apart before it is truncated: a second for each million characters.
"""
MIXED_AT_ONCE_ON_CPU = 8
"""Texts of unlike lengths: so many fill a core, and more would be padded to the longest of all."""


class TextEncoder(Protocol):
    """What an index and its questions need of an encoder."""

    @property
    def identity(self) -> EncoderIdentity:
        """What decides which vector a text gets."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, shape (len(texts), dimension)."""

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of passages, shape (len(texts), dimension)."""


class EmbeddingModel(TextEncoder, Protocol):
    """What who serves an encoder to others needs beside that."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts as they are, without a prefix, shape (len(texts), dimension)."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens the model reads of each text, special ones included."""

    def decode(self, arrays: Sequence[Sequence[int]]) -> list[str]:
        """The text of each array of token ids. Raises TokensInvalid."""


class Encoder:
    """A sentence-transformers model with its prefixes. Not safe for two threads at once."""

    def __init__(
        self,
        model: "SentenceTransformer",
        identity: EncoderIdentity,
        batch_size: int,
        devices: Sequence[str] = (),
    ) -> None:
        """Several `devices` get a process each, which a copy of the model is sent to."""
        self._model = model.eval()
        self._device = model.device
        self._batch_size = batch_size
        on_cpu = self._device.type == "cpu"
        self._mixed_at_once = min(batch_size, MIXED_AT_ONCE_ON_CPU) if on_cpu else batch_size
        self._pool = model.start_multi_process_pool([*devices]) if len(devices) > 1 else None
        self.identity = identity
        longest = model.max_seq_length
        self.max_tokens: int = longest if isinstance(longest, int) else 0
        """Tokens of a passage that the model reads, special ones included; 0 where it says none."""

    @property
    def tokenizer(self) -> str:
        """The model's tokenizer as the JSON of the tokenizers library; "" where it is another."""
        backend = getattr(self._model.tokenizer, "backend_tokenizer", None)
        return "" if backend is None else str(backend.to_str())

    @classmethod
    def load(cls, settings: IndexSettings, batch_size: int = 32) -> "Encoder":
        """Load the model that `settings` names; takes seconds, downloads it where it is on a hub.

        Raises EncoderUnavailable when it cannot be had, or not with these settings.
        """
        devices = [device.strip() for device in (settings.encoder_device or "").split(",")]
        refuse_what_does_not_go_together(settings, devices)
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
                device="cpu" if len(devices) > 1 else devices[0] or None,
            )
            identity = identify(model, settings)
            if settings.encoder_backend == "torch":
                compute_with(model, dtype_of(settings, torch.device(devices[0] or model.device)))
            else:
                model = with_another_backend(model, settings)
            return cls(model, identity, batch_size, devices)
        except EncoderUnavailable:
            raise
        except Exception as exc:
            raise EncoderUnavailable(
                f"the embedding model {settings.encoder_model!r} could not be loaded: "
                f"{first_line(exc)}"
            ) from exc

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, shape (len(texts), dimension). Raises EncodingFailed."""
        return self._encode(self.identity.query_prefix, texts, self._mixed_at_once)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of passages, shape (len(texts), dimension). Raises EncodingFailed."""
        return self._encode(self.identity.passage_prefix, texts, self._batch_size)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts without a prefix, shape (len(texts), dimension). Raises EncodingFailed.

        The model truncates what is longer than `max_tokens`.
        """
        return self._encode("", texts, self._mixed_at_once)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens the model reads of each text, special ones included.

        Raises EncodingFailed.
        """
        if not texts:
            return []
        with _failures_named(len(texts)):
            features = self._model.preprocess([self._readable(text) for text in texts])
            mask = features.get("attention_mask")
            if mask is None:  # a model that knows no padding
                return [len(self._model.tokenizer.encode(self._readable(text))) for text in texts]
            return [int(count) for count in mask.sum(dim=1)]

    def decode(self, arrays: Sequence[Sequence[int]]) -> list[str]:
        """The text of each array of this tokenizer's ids, as far as the model reads it.

        Raises TokensInvalid.
        """
        return texts_of_tokens(self._model.tokenizer, arrays, self.max_tokens)

    def close(self) -> None:
        """End the processes of several devices; where there is one, there is nothing to end."""
        if self._pool is not None:
            self._model.stop_multi_process_pool(self._pool)
            self._pool = None

    def _encode(self, prefix: str, texts: Sequence[str], at_once: int) -> Vectors:
        if not texts:
            return np.empty((0, self.identity.dimension), dtype=np.float32)
        with _failures_named(len(texts)):
            vectors = self._inferred([self._readable(prefix + text) for text in texts], at_once)
        # Here and not in the model, whose numbers may be too coarse: each row by its own norm.
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(norms).all():
            raise EncodingFailed(
                "the embedding model gave numbers that are not finite: its dtype may be too narrow"
            )
        unit: Vectors = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
        return unit

    def _readable(self, text: str) -> str:
        return text[: self.max_tokens * CHARS_FOR_A_TOKEN] if self.max_tokens else text

    def _inferred(self, texts: list[str], at_once: int) -> Vectors:
        vectors = np.empty((len(texts), self.identity.dimension), dtype=np.float32)
        # Those of one length together: a batch is padded to its longest.
        order = np.argsort([-len(text) for text in texts])
        longest_first = [texts[place] for place in order]
        if self._pool is not None:
            # The empty prompt keeps the model's default one away: the prefix is there already.
            vectors[order] = self._model.encode(
                longest_first,
                prompt="",
                batch_size=self._batch_size,
                chunk_size=self._batch_size,
                show_progress_bar=False,
                pool=self._pool,
            )
            return vectors
        for start in range(0, len(texts), at_once):
            batch = slice(start, start + at_once)
            vectors[order[batch]] = self._forward(longest_first[batch])
        return vectors

    def _forward(self, texts: list[str]) -> Vectors:
        """What the model's `encode` does with a batch.

        Each call of that walks over all modules and weights first, which takes as long as a
        tenth of a short question.
        """
        import torch
        from sentence_transformers.util import batch_to_device

        with torch.inference_mode():
            features = batch_to_device(self._model.preprocess(texts), self._device)
            vectors: Vectors = self._model(features)["sentence_embedding"].float().cpu().numpy()
        return vectors


@contextlib.contextmanager
def _failures_named(count: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, TypeError) as exc:
        raise EncodingFailed(f"the embedding model failed on {count} texts: {exc}") from exc
