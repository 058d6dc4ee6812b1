"""What titles and headings in front of each chunk give, measured on questions with known answers.

The same chunks are embedded in every variant. The interval says whether the difference from the
text alone is more than chance: 95 % of the means of questions drawn anew lie within it.
"""

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
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
from stack.models import minilm

_T = TypeVar("_T")
RESULTS = 10
RESAMPLES = 10_000
SEED = 415


class Document(NamedTuple):
    """A document as it is searched."""

    name: str
    title: str
    text: str


class Chunk(NamedTuple):
    """A chunk as it is searched."""

    document: str
    title: str
    heading_path: str
    text: str


class Question(NamedTuple):
    """A question and its answers."""

    query: str
    documents: dict[str, int]
    """Gain of each document that answers it; empty where a chunk does."""
    expect: str = ""
    """What the chunk contains that answers it."""


class Scores(NamedTuple):
    """One number from 0 to 1 for each question, shape (n_questions,)."""

    ndcg: NDArray[np.float64]
    reciprocal_rank: NDArray[np.float64]
    found_in_5: NDArray[np.float64]


class _Row(msgspec.Struct, rename={"id": "_id"}):
    """A line of corpus.jsonl or of queries.jsonl."""

    id: str
    text: str
    title: str = ""


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
    documents, questions = beir(given) if given.questions is None else _folder(given)
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
        ideal = sorted(question.documents.values(), reverse=True) or [1]
        rank = next((rank for rank, gain in enumerate(gains, start=1) if gain), 0)
        rows.append((_dcg(gains) / _dcg(ideal[:RESULTS]), 1 / rank if rank else 0, 0 < rank <= 5))
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


def _dcg(gains: Sequence[int]) -> float:
    """Discounted cumulative gain, as in Järvelin and Kekäläinen (2002) and in trec_eval."""
    return float(sum(gain / np.log2(rank + 1) for rank, gain in enumerate(gains, start=1)))


def difference(first: Scores, other: Scores) -> str:
    """Mean of the paired differences, with the percentile interval of its bootstrap."""
    differences = other.ndcg - first.ndcg
    if not differences.any():
        return "-"
    drawn = np.random.default_rng(SEED).integers(
        len(differences), size=(RESAMPLES, len(differences))
    )
    low, high = np.percentile(differences[drawn].mean(axis=1), [2.5, 97.5])
    return f"{differences.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def _joined(separator: str, *parts: str) -> str:
    return separator.join(part for part in parts if part)


def beir(given: argparse.Namespace) -> tuple[list[Document], list[Question]]:
    """A BEIR folder, or all documents that answer a question and some of the others."""
    answers: dict[str, dict[str, int]] = defaultdict(dict)
    lines = (given.folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    for query, document, gain in (line.split("\t") for line in lines):
        if int(gain) > 0:
            answers[query][document] = int(gain)
    relevant = {document for documents in answers.values() for document in documents}
    corpus = [
        Document(row.id, row.title, row.text) for row in _lines(given.folder / "corpus.jsonl", _Row)
    ]
    others = [document.name for document in corpus if document.name not in relevant]
    wanted = min(len(others), max(0, given.documents - len(relevant)))
    chosen = relevant | set(random.Random(SEED).sample(others, wanted))  # noqa: S311
    return (
        [document for document in corpus if document.name in chosen],
        [
            Question(row.text, answers[row.id])
            for row in _lines(given.folder / "queries.jsonl", _Row)
            if answers[row.id]
        ],
    )


def _folder(given: argparse.Namespace) -> tuple[list[Document], list[Question]]:
    """Markdown files, and questions in the form of golden queries, one a line."""
    documents = []
    for path in sorted(given.folder.rglob("*.md")):
        parsed = parse(Content(data=path.read_bytes(), format=".md"))
        documents.append(Document(path.name, parsed.title or path.stem, parsed.text))
    golden = _lines(given.questions, GoldenQuery)
    return documents, [Question(row.query, {}, row.expect) for row in golden]


def _lines(path: Path, kind: type[_T]) -> list[_T]:
    try:
        return msgspec.json.Decoder(kind).decode_lines(path.read_bytes())
    except msgspec.DecodeError as exc:
        raise Unsuitable(f"{path} is not what was expected: {exc}") from exc


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
