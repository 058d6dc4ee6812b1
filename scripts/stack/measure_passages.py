"""What titles and headings in front of each chunk give, measured on questions with known answers.

The same chunks are embedded in every variant. The interval says whether the difference from the
text alone is more than chance.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.chunking import Chunker, ChunkerSettings, passage
from indexer.documents import Content
from indexer.gate import GoldenQuery
from indexer.index.embedding import Encoder
from indexer.index.errors import EncoderUnavailable
from indexer.index.settings import IndexSettings
from indexer.parsing import parse
from stack import report
from stack.errors import Unsuitable
from stack.judging import (
    RESULTS,
    Document,
    Question,
    Scores,
    beir,
    difference,
    lines,
    ndcg,
    reciprocal_rank,
)
from stack.models import minilm


class Chunk(NamedTuple):
    """A chunk as it is searched."""

    document: str
    title: str
    heading_path: str
    text: str


Variant = Callable[[Chunk], str]
VARIANTS: dict[str, Variant] = {
    "text": lambda chunk: chunk.text,
    "title, text": lambda chunk: _joined("\n", chunk.title, chunk.text),
    "headings, text": lambda chunk: _joined("\n", chunk.heading_path, chunk.text),
    "title, headings, text": lambda chunk: _joined("\n", *chunk[1:]),
    "the same joined by >": lambda chunk: _joined(" > ", *chunk[1:]),
    "as the indexer does": lambda chunk: passage(*chunk[1:]),
}


def main() -> int:
    """Print a table with one line for each variant."""
    given = _arguments()
    encoder = _encoder(given)
    documents, questions = (
        beir(given.folder, given.documents) if given.questions is None else _folder(given)
    )
    chunks = list(cut(documents, encoder, given))
    report.say(
        f"{len(documents)} documents in {len(chunks)} chunks, {len(questions)} questions, "
        f"{encoder.identity.model}"
    )
    compare(encoder, chunks, questions, VARIANTS)
    return 0


def cut(
    documents: Sequence[Document], encoder: Encoder, given: argparse.Namespace
) -> Iterator[Chunk]:
    """The chunks of `documents`, as the indexer makes them."""
    chunker = Chunker(
        ChunkerSettings(
            size=given.size,
            overlap_percent=given.overlap_percent,
            tokenizer=encoder.tokenizer,
            max_tokens=encoder.max_tokens,
            passage_prefix=encoder.identity.passage_prefix,
        )
    )
    for document in documents:
        for span in chunker.split(title=document.title, text=document.text):
            yield Chunk(document.name, document.title, span.heading_path, span.text)


def compare(
    encoder: Encoder,
    chunks: Sequence[Chunk],
    questions: Sequence[Question],
    variants: dict[str, Variant],
) -> dict[str, Scores]:
    """Print and return the scores of each variant; the first is what the others differ from."""
    report.say(f"{'embedded':24}{'nDCG@10':>9}{'MRR@10':>9}{'found@5':>9}   difference in nDCG@10")
    queries = encoder.encode_queries([question.query for question in questions])
    scores: dict[str, Scores] = {}
    for name, variant in variants.items():
        passages = sorted({variant(chunk) for chunk in chunks}, key=len)
        vectors = dict(zip(passages, encoder.encode_passages(passages), strict=True))
        matrix = np.stack([vectors[variant(chunk)] for chunk in chunks])
        scores[name] = judge(questions, chunks, queries @ matrix.T)
        first = next(iter(scores.values()))
        means = "".join(f"{values.mean():9.4f}" for values in scores[name])
        report.say(f"{name:24}{means}   {difference(first, scores[name])}")
    return scores


def judge(
    questions: Sequence[Question], chunks: Sequence[Chunk], similarity: NDArray[np.float32]
) -> Scores:
    """Scores of the chunks in the order of `similarity`, shape (n_questions, n_chunks).

    A document is where its best chunk is.
    """
    rows = []
    for question, row in zip(questions, similarity, strict=True):
        gains = list(_gains(question, (chunks[place] for place in np.argsort(-row))))
        possible = list(question.documents.values()) or [1]
        rank = reciprocal_rank(gains)
        rows.append((ndcg(gains, possible), rank, rank >= 1 / 5))
    return Scores(*np.array(rows, dtype=np.float64).T)


def _gains(question: Question, ranked: Iterator[Chunk]) -> Iterator[int]:
    """Gain of each of the first results. Of the chunks that answer, the first one counts."""
    seen: set[str] = set()
    answered = False
    places = 0
    for chunk in ranked:
        if question.documents and chunk.document in seen:
            continue
        seen.add(chunk.document)
        if question.documents:
            yield question.documents.get(chunk.document, 0)
        else:
            answers = not answered and question.expect in chunk.text
            answered |= answers
            yield int(answers)
        places += 1
        if places == RESULTS:
            return


def _joined(separator: str, *parts: str) -> str:
    return separator.join(part for part in parts if part)


def _folder(given: argparse.Namespace) -> tuple[list[Document], list[Question]]:
    """Markdown files, and questions in the form of golden queries, one a line."""
    documents = []
    for path in sorted(given.folder.rglob("*.md")):
        parsed = parse(Content(data=path.read_bytes(), format=".md"))
        documents.append(Document(path.name, parsed.title or path.stem, parsed.text))
    golden = lines(given.questions, GoldenQuery)
    return documents, [Question(row.query, {}, row.expect) for row in golden]


def _encoder(given: argparse.Namespace) -> Encoder:
    model = given.encoder_model or str(minilm())
    try:
        return Encoder.load(
            IndexSettings(encoder_model=model, encoder_threads=given.encoder_threads)
        )
    except EncoderUnavailable as exc:
        raise Unsuitable(str(exc)) from exc


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/measure-passages", description=__doc__)
    parser.add_argument("folder", type=Path, help="BEIR layout; with --questions, Markdown files")
    parser.add_argument("--questions", type=Path, help='lines of {"query": …, "expect": …}')
    parser.add_argument("--documents", type=int, default=sys.maxsize, help="so many of BEIR's")
    return parsed(parser)


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, those of encoder and chunks among them. Raises Unsuitable."""
    parser.add_argument("--encoder-model", help="a name on the hub or a folder; all-MiniLM-L6-v2")
    parser.add_argument("--encoder-threads", type=int)
    parser.add_argument("--size", type=int, default=512, help="of a chunk, in characters")
    parser.add_argument("--overlap-percent", type=int, default=10)
    given = parser.parse_args()
    if not given.folder.is_dir():
        raise Unsuitable(f"{given.folder} is not a folder")
    return given


if __name__ == "__main__":
    sys.exit(report.run(main))
