"""Answers marked by character range: where in which document stands what answers a question.

The questions name a piece of the text. Its range is looked up in the documents as the indexer
parses them, so that it says the same whatever the size of the chunks.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from indexer.errors import DocumentUnusable, SourceUnusable
from indexer.gate import GoldenQuery
from indexer.parsing import parse
from indexer.sources import Listing, sources_of
from stack.asking import Found
from stack.errors import Unsuitable
from stack.judging import lines


class Marked(NamedTuple):
    """A question, and where its answer stands: in any of these places."""

    query: str
    answers: list[Found]


def marked(folder: Path, questions: Path, tenant: str) -> list[Marked]:
    """The questions of a file, answered by the documents of `folder`. Raises Unsuitable."""
    texts = dict(_texts(folder, tenant))
    found = []
    for golden in lines(questions, GoldenQuery):
        answers = ranges(texts, golden.expect)
        if not answers:
            raise Unsuitable(f"{golden.expect!r} of {questions} is in no document of {folder}")
        found.append(Marked(golden.query, answers))
    return found


def ranges(texts: Mapping[str, str], expect: str) -> list[Found]:
    """Where `expect` stands in the texts of documents, which are known by their sources."""
    return [
        Found(source, start, start + len(expect))
        for source, text in texts.items()
        for start in _places(text, expect)
    ]


def covers(chunk: Found, answers: Sequence[Found]) -> bool:
    """Whether all of one of the answers stands in `chunk`."""
    return any(
        chunk.source == answer.source and chunk.start <= answer.start and answer.end <= chunk.end
        for answer in answers
    )


def gains_of_chunks(found: Sequence[Found], answers: Sequence[Found]) -> list[int]:
    """1 for the first chunk that covers an answer, 0 for each other."""
    first = next((place for place, chunk in enumerate(found) if covers(chunk, answers)), None)
    return [int(place == first) for place in range(len(found))]


def is_within(found: Sequence[Found], answers: Sequence[Found], characters: int) -> bool:
    """Whether an answer is in the first chunks, of which so many `characters` are read.

    It compares chunks of different sizes at equal cost.
    """
    reach = accumulate(chunk.end - chunk.start for chunk in found)
    return any(
        read <= characters and covers(chunk, answers)
        for chunk, read in zip(found, reach, strict=True)
    )


def _texts(folder: Path, tenant: str) -> Iterator[tuple[str, str]]:
    """Source and text of each document, as the indexer has them; it too skips what is none."""
    try:
        for document in Listing(sources_of([str(folder.absolute())], tenant)):
            with suppress(DocumentUnusable):
                content = document.read()
                if content is not None:
                    parsed = parse(content)
                    yield parsed.canonical_url or document.name, parsed.text
    except SourceUnusable as exc:
        raise Unsuitable(str(exc)) from exc


def _places(text: str, expect: str) -> Iterator[int]:
    place = text.find(expect)
    while place >= 0:
        yield place
        place = text.find(expect, place + 1)
