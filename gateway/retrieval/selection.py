"""Chooses among candidates, and joins chunks that belong together. Pure functions.

A hit covers one or more neighbouring chunks of a document; its text is what stands there.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial

import msgspec

from indexer.index.records import Hit

DUPLICATE_SHARE = 0.8
"""A text that has so many of its shingles in common with a better one says nothing new."""
SHINGLE_WORDS = 3

Shingles = set[tuple[str, ...]]

_WORD = re.compile(r"\w+")


class Candidate(msgspec.Struct, frozen=True):
    """A chunk that was found, and what became of it."""

    hit: Hit
    dropped: str = ""
    """Why the model does not get it; empty where it does."""


class Chosen(msgspec.Struct, frozen=True):
    """What came of the candidates."""

    hits: list[Hit]
    """Best first."""
    candidates: list[Candidate]
    """All of them, in the order in which they were ranked."""


def choose(
    found: Sequence[Hit], *, limit: int, score_threshold: float, document_share: float
) -> Chosen:
    """The best `limit` of `found`, which are best first, without what says the same twice.

    A chunk that overlaps a better one of its document is joined to it and takes no place of its
    own. One document gets as many chunks, joined or not, as `document_share` of the places, and
    one at least: else a long passage that is found in many chunks would grow into one huge hit.
    """
    kept: list[Hit] = []
    candidates: list[Candidate] = []
    places = max(1, math.floor(limit * document_share))
    shingles = cache(_shingles)  # each text meets many others
    for hit in found:
        reason = _reason(hit, kept, limit, score_threshold, places)
        if (
            not reason
            and kept
            and _repeats(shingles(hit.text), (shingles(each.text) for each in kept))
        ):
            reason = "says the same as a better one"
        if not reason:
            kept.append(hit)
        elif reason == _JOINED:
            kept = _joined(kept, hit)
        candidates.append(Candidate(hit, reason))
    return Chosen(kept, candidates)


def widen(hits: Sequence[Hit], neighbours: Iterable[Hit]) -> list[Hit]:
    """`hits` with the chunks around them, best first; those that then meet become one."""
    ranks = {hit.chunk_id: rank for rank, hit in enumerate(hits)}
    rank = partial(_rank, ranks)
    # In the order of the text what is joined last is always as it was stored.
    pieces = sorted(
        [*hits, *neighbours],
        key=lambda hit: (hit.document_id, hit.document_hash, hit.start, -hit.end, rank(hit)),
    )
    wide: list[Hit] = []
    for piece in pieces:
        if wide and _adjoin(wide[-1], piece):
            wide[-1] = _join(*sorted([wide[-1], piece], key=rank))
        else:
            wide.append(piece)
    return sorted((hit for hit in wide if hit.chunk_id in ranks), key=rank)


def covers(hit: Hit, chunk: Hit) -> bool:
    """Whether the text of `chunk` is in `hit`."""
    return (
        _is_one_document(hit, chunk)
        and hit.ordinal <= chunk.ordinal
        and chunk.ordinal + chunk.chunks <= hit.ordinal + hit.chunks
    )


_JOINED = "joined to a better one that it overlaps"


def _reason(hit: Hit, kept: Sequence[Hit], limit: int, threshold: float, places: int) -> str:
    if hit.score < threshold:
        return f"its score is below {threshold}"
    if len(kept) >= limit:
        return f"all places are taken by better ones, {limit} of {limit}"
    of_document = sum(other.chunks for other in kept if other.document_id == hit.document_id)
    if of_document >= places:
        return f"{of_document} better ones of its document were found"
    if any(_overlap(hit, other) for other in kept):
        return _JOINED
    return ""


def _overlap(one: Hit, other: Hit) -> bool:
    """Whether both have some text of one version of a document."""
    return _is_one_document(one, other) and max(one.start, other.start) < min(one.end, other.end)


def _adjoin(one: Hit, other: Hit) -> bool:
    """Whether no chunk of their document stands between them."""
    return (
        _is_one_document(one, other)
        and one.ordinal <= other.ordinal + other.chunks
        and other.ordinal <= one.ordinal + one.chunks
    )


def _is_one_document(one: Hit, other: Hit) -> bool:
    return (one.document_id, one.document_hash) == (other.document_id, other.document_hash)


def _rank(ranks: Mapping[str, int], hit: Hit) -> int:
    """Of a hit its own, from 0; of a neighbour one behind them all."""
    return ranks.get(hit.chunk_id, len(ranks))


def _joined(kept: Sequence[Hit], hit: Hit) -> list[Hit]:
    """`kept` with `hit` in the first that it touches, and whatever that then overlaps as well."""
    joined: list[Hit] = []
    whole = hit
    place: int | None = None
    for other in kept:
        if not _overlap(other, whole):
            joined.append(other)
        elif place is None:
            place, whole = len(joined), _join(other, whole)
        else:
            whole = _join(whole, other)
    joined.insert(len(joined) if place is None else place, whole)
    return joined


def _join(better: Hit, other: Hit) -> Hit:
    """One hit that covers both. It is known by the chunk that ranks better."""
    first, last = sorted([better, other], key=lambda hit: (hit.start, -hit.end))
    between = "\n" * min(2, max(0, last.start - first.end))  # a chunk has no blank edges
    text = first.text + between + last.text[max(0, first.end - last.start) :]
    ordinal = min(better.ordinal, other.ordinal)
    return msgspec.structs.replace(
        better,
        ordinal=ordinal,
        chunks=max(better.ordinal + better.chunks, other.ordinal + other.chunks) - ordinal,
        start=first.start,
        end=max(first.end, last.end),
        text=text,
        heading_path=first.heading_path,
        anchor=first.anchor,
    )


def _repeats(said: Shingles, better: Iterable[Shingles]) -> bool:
    enough = DUPLICATE_SHARE * len(said)
    return any(len(said & other) >= enough for other in better)


def _shingles(text: str) -> Shingles:
    words = _WORD.findall(text.casefold())
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    return {tuple(words[at : at + SHINGLE_WORDS]) for at in range(count)}
