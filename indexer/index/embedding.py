"""Turns text into vectors. The one module that knows sentence-transformers and torch.

Both are imported when a model is loaded, not before: they take seconds.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

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

_PACKAGES = {"onnx": "optimum-onnx and onnxruntime", "openvino": "optimum-intel and openvino"}
_OPENVINO_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "f32"}
_PROBES = ["What do llamas eat?", "Sourdough rises for a day before it is baked."]
_PROBE_COSINE = 0.99
"""Below it two models are not the same: int8 is at 0.999, another pooling far below."""


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
        self._model = model
        self._batch_size = batch_size
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
        _refuse_what_does_not_go_together(settings, devices)
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
                model.to(getattr(torch, settings.encoder_dtype))
            else:
                model = _with_another_backend(model, settings)
            return cls(model, identity, batch_size, devices)
        except EncoderUnavailable:
            raise
        except Exception as exc:
            raise EncoderUnavailable(
                f"the embedding model {settings.encoder_model!r} could not be loaded: "
                f"{_first_line(exc)}"
            ) from exc

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, shape (len(texts), dimension). Raises EncodingFailed."""
        return self._encode(self.identity.query_prefix, texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of passages, shape (len(texts), dimension). Raises EncodingFailed."""
        return self._encode(self.identity.passage_prefix, texts)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts without a prefix, shape (len(texts), dimension). Raises EncodingFailed.

        The model truncates what is longer than `max_tokens`.
        """
        return self._encode("", texts)

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

    def _encode(self, prefix: str, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self.identity.dimension), dtype=np.float32)
        with _failures_named(len(texts)):
            vectors = self._inferred([self._readable(prefix + text) for text in texts])
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

    def _inferred(self, texts: list[str]) -> Vectors:
        options: dict[str, Any] = {"batch_size": self._batch_size, "show_progress_bar": False}
        if self._pool is None:
            return np.asarray(self._model.encode(texts, **options), dtype=np.float32)
        # A process sorts what it is given by length; it is given one batch, of one length.
        order = np.argsort([-len(text) for text in texts])
        found = self._model.encode(
            [texts[place] for place in order],
            pool=self._pool,
            chunk_size=self._batch_size,
            **options,
        )
        vectors = np.empty((len(texts), self.identity.dimension), dtype=np.float32)
        vectors[order] = found
        return vectors


@contextlib.contextmanager
def _failures_named(count: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, TypeError) as exc:
        raise EncodingFailed(f"the embedding model failed on {count} texts: {exc}") from exc


def _refuse_what_does_not_go_together(settings: IndexSettings, devices: Sequence[str]) -> None:
    backend, dtype = settings.encoder_backend, settings.encoder_dtype
    reason = ""
    if dtype == "int8" and backend != "openvino":
        reason = "int8 needs the backend openvino"
    elif backend == "onnx" and dtype != "float32":
        reason = "the backend onnx computes with float32"
    elif backend != "torch" and len(devices) > 1:
        reason = "several devices need the backend torch"
    elif backend == "openvino" and devices[0] not in {"", "cpu"}:
        reason = "the backend openvino runs on the device cpu"
    if reason:
        raise EncoderUnavailable(f"the embedding model cannot be loaded so: {reason}")


def _with_another_backend(
    model: "SentenceTransformer", settings: IndexSettings
) -> "SentenceTransformer":
    """The model once more, run by another library. Raises EncoderUnavailable."""
    import transformers
    from sentence_transformers import SentenceTransformer

    backend = settings.encoder_backend
    try:
        # They print tables and progress bars; standard output is the caller's.
        with contextlib.redirect_stdout(sys.stderr):
            other = SentenceTransformer(
                settings.encoder_model,
                revision=settings.encoder_revision,
                backend=backend,
                device=settings.encoder_device,
                model_kwargs=_backend_options(settings),
            )
    except Exception as exc:
        raise EncoderUnavailable(
            f"the backend {backend} could not be loaded: it needs {_PACKAGES[backend]}, of "
            f"versions that go with transformers {transformers.__version__}: {_first_line(exc)}"
        ) from exc
    # It may have been exported long ago, from other weights than those that we have identified.
    first, second = (np.asarray(each.encode(_PROBES), dtype=np.float32) for each in (model, other))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    if not ((first * second).sum(axis=1) > _PROBE_COSINE * norms).all():
        raise EncoderUnavailable(
            f"the files for {backend} of {settings.encoder_model!r} give other vectors than its "
            "weights: remove them, and they are made anew"
        )
    return other


def _backend_options(settings: IndexSettings) -> dict[str, Any]:
    if settings.encoder_backend == "onnx":
        is_gpu = (settings.encoder_device or "").startswith("cuda")
        return {"provider": "CUDAExecutionProvider" if is_gpu else "CPUExecutionProvider"}
    precision = _OPENVINO_PRECISIONS[settings.encoder_dtype]
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
    if settings.encoder_threads is not None:
        config["INFERENCE_NUM_THREADS"] = settings.encoder_threads
    options: dict[str, Any] = {"ov_config": config}
    if settings.encoder_dtype == "int8":
        options["quantization_config"] = {"bits": 8}
    return options


def _first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0] or type(exc).__name__
