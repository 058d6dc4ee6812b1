"""Reads question and passage together and says how well they fit: sentence-transformers.

The one module of the gateway that knows it; imported when such a model is loaded, not before.
"""

from collections.abc import Sequence

from indexer.index.embedding import CHARS_FOR_A_TOKEN
from indexer.index.errors import EncoderUnavailable, EncodingFailed

Pair = tuple[str, str]
"""A question and a passage."""


class CrossEncoder:
    """A cross-encoder with one output. Not safe for two threads at once."""

    def __init__(self, name: str, device: str | None = None, batch_size: int = 32) -> None:
        """Load it; takes seconds. Raises EncoderUnavailable."""
        try:
            from sentence_transformers import CrossEncoder as Model
            from torch import nn
            from transformers.utils import logging as transformers_logging

            transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
            self._model = Model(name, device=device, activation_fn=nn.Sigmoid())
        except Exception as exc:
            told = " ".join(str(exc).split()) or type(exc).__name__
            raise EncoderUnavailable(
                f"the reranking model {name!r} could not be loaded: {told}"
            ) from exc
        if self._model.num_labels != 1:
            raise EncoderUnavailable(
                f"the reranking model {name!r} has {self._model.num_labels} outputs, not one score"
            )
        self._batch_size = batch_size
        longest = self._model.max_seq_length
        self._max_chars = longest * CHARS_FOR_A_TOKEN if isinstance(longest, int) else None

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        """One score in 0..1 for each pair. Raises EncodingFailed."""
        read = [(asked[: self._max_chars], told[: self._max_chars]) for asked, told in pairs]
        try:
            scores = self._model.predict(read, batch_size=self._batch_size, show_progress_bar=False)
        except Exception as exc:
            raise EncodingFailed(f"the reranking model failed: {exc}") from exc
        return [float(score) for score in scores]
