"""How long a text is, in characters or in tokens. Knows tokenizers, not Markdown."""

from bisect import bisect_left
from functools import lru_cache
from typing import Protocol

from tokenizers import Tokenizer

_USUAL_CHARS_PER_TOKEN = 6
_MOST_CHARS_PER_TOKEN = 16
"""A tokenizer may take a megabyte without a space for one unknown word."""


class Size(Protocol):
    """The longest that a chunk may be."""

    def reach(self, text: str, start: int) -> int:
        """How far a chunk that begins at `start` goes at most."""

    def overlap(self, text: str, start: int, end: int) -> int:
        """Where the overlap with a chunk from `start` to `end` begins at the earliest."""

    def excess(self, text: str, start: int, end: int) -> float:
        """How many times too long the text from `start` to `end` is; at most 1 when it fits."""


class Characters:
    """A size in characters."""

    def __init__(self, size: int, overlap: int) -> None:
        self._size = size
        self._overlap = overlap

    def reach(self, text: str, start: int) -> int:
        """How far a chunk that begins at `start` goes at most."""
        return min(start + self._size, len(text))

    def overlap(self, _: str, start: int, end: int) -> int:
        """Where the overlap with a chunk from `start` to `end` begins at the earliest."""
        return max(start, end - self._overlap)

    def excess(self, _: str, start: int, end: int) -> float:
        """How many times too long the text from `start` to `end` is; at most 1 when it fits."""
        return (end - start) / self._size


class Tokens:
    """A size in the tokens of an encoder, as they are in the whole text.

    A text is read in windows that serve many chunks. Not safe for two threads at once.
    """

    def __init__(self, tokenizer: Tokenizer, size: int, overlap: int) -> None:
        self._tokenizer = tokenizer
        self._size = size
        self._overlap = overlap
        self._text = ""
        self._window = range(0)
        self._places: list[int] = []
        """Where each token in the window begins."""

    def reach(self, text: str, start: int) -> int:
        """How far a chunk that begins at `start` goes at most."""
        for chars_per_token in (_USUAL_CHARS_PER_TOKEN, _MOST_CHARS_PER_TOKEN):
            end = min(start + chars_per_token * self._size, len(text))
            self._read(text, start, end)
            last = bisect_left(self._places, start) + self._size
            if last < len(self._places):
                return min(self._places[last], start + _MOST_CHARS_PER_TOKEN * self._size)
        return end

    def overlap(self, text: str, start: int, end: int) -> int:
        """Where the overlap with a chunk from `start` to `end` begins at the earliest."""
        if not self._overlap or start >= end:
            return end
        self._read(text, start, end)
        first = bisect_left(self._places, end) - self._overlap
        return max(start, self._places[first]) if first >= 0 else start

    def excess(self, text: str, start: int, end: int) -> float:
        """How many times too long the text from `start` to `end` is; at most 1 when it fits."""
        chars = (end - start) / (_MOST_CHARS_PER_TOKEN * self._size)
        if chars > 1:
            return chars
        if _is_within_a_word(text, start) or _is_within_a_word(text, end):
            return len(self._encode(text[start:end])) / self._size
        self._read(text, start, end)
        return (bisect_left(self._places, end) - bisect_left(self._places, start)) / self._size

    def _read(self, text: str, start: int, end: int) -> None:
        if text is self._text and start >= self._window.start and end <= self._window.stop:
            return
        stop = min(max(end, start + _MOST_CHARS_PER_TOKEN * self._size), len(text))
        self._text = text
        self._window = range(start, stop)
        self._places = [start + place for place in self._encode(text[start:stop])]

    def _encode(self, text: str) -> list[int]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return [start for start, _ in encoding.offsets]


class Room:
    """What an encoder reads of a passage before it cuts the rest off."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, prefix: str) -> None:
        """`max_tokens` counts the encoder's `prefix` and the tokens that it puts around a text.

        Raises ValueError when the prefix leaves no room.
        """
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._prefix = prefix
        self._tokens_of_head = lru_cache(maxsize=256)(self._count)
        if self._count("") >= max_tokens:
            raise ValueError(f"the encoder reads {max_tokens} tokens: its prefix leaves no room")

    def share(self, head: str) -> float:
        """How much of the room `head` takes; 1 when it leaves none."""
        around = self._tokens_of_head("")
        return (self._tokens_of_head(head) - around) / (self._max_tokens - around)

    def excess(self, passage: str, head: str) -> float:
        """How many times too long the text below the `head` of `passage` is.

        At most 1 when the encoder reads all of the passage.
        """
        if self._is_surely_short(passage):
            return 0.0
        tokens, of_head = self._count(passage), self._tokens_of_head(head)
        if of_head >= self._max_tokens:
            return tokens / self._max_tokens
        return (tokens - of_head) / (self._max_tokens - of_head)

    def _is_surely_short(self, passage: str) -> bool:
        """Whether it needs no count: an ASCII character is one token at most."""
        chars = len(self._prefix) + len(passage) + _AROUND
        return chars <= self._max_tokens and passage.isascii() and self._prefix.isascii()

    def _count(self, passage: str) -> int:
        return len(self._tokenizer.encode(self._prefix + passage).ids)


def _is_within_a_word(text: str, place: int) -> bool:
    return 0 < place < len(text) and text[place - 1].isalnum() and text[place].isalnum()


def load_tokenizer(serialized: str) -> Tokenizer:
    """The tokenizer in a JSON, without the truncation and padding that models ship with it."""
    tokenizer = Tokenizer.from_str(serialized)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


_AROUND = 8
"""More tokens than any encoder puts around a text."""
