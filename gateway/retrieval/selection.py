"""Chooses among candidates, and joins chunks that belong together. Pure functions.

A hit covers one or more neighbouring chunks of a document; its text is what stands there.
"""

import math
import re
from collections.abc import Iterable, Sequence

import msgspec

from indexer.index.records import Hit

DUPLICATE_SHARE = 0.8
"""Two texts with so much in common, of all their shingles, say the same."""
SHINGLE_WORDS = 3

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
    own. One document gets `document_share` of the places, and one at least.
    """
    kept: list[Hit] = []
    candidates: list[Candidate] = []
    places = max(1, math.floor(limit * document_share))
    for hit in found:
        reason = _reason(hit, kept, limit, score_threshold, places)
        if not reason:
            kept.append(hit)
        elif reason == _JOINED:
            kept = _joined(kept, hit)
        candidates.append(Candidate(hit, reason))
    return Chosen(kept, candidates)


def widen(hits: Sequence[Hit], neighbours: Iterable[Hit]) -> list[Hit]:
    """`hits` with the chunks around them, best first; those that then meet become one."""
    around = sorted(neighbours, key=lambda hit: (hit.document_id, hit.start))
    wide: list[Hit] = []
    for hit in hits:
        whole = hit
        before = [each for each in around if _is_before(each, hit)]
        for chunk in [*reversed(before), *(each for each in around if _is_behind(each, hit))]:
            if _adjoin(whole, chunk):
                whole = _join(whole, chunk)
        place = next((at for at, other in enumerate(wide) if _adjoin(other, whole)), None)
        if place is None:
            wide.append(whole)
        else:
            wide[place] = _join(wide[place], whole)
    return wide


_JOINED = "joined to a better one that it overlaps"


def _reason(hit: Hit, kept: Sequence[Hit], limit: int, threshold: float, places: int) -> str:
    if hit.score < threshold:
        return f"its score is below {threshold}"
    if any(_overlap(hit, other) for other in kept):
        return _JOINED
    if any(_says_the_same(hit, other) for other in kept):
        return "says the same as a better one"
    if len(kept) >= limit:
        return f"{limit} better ones were found"
    if sum(other.document_id == hit.document_id for other in kept) >= places:
        return f"its document has {places} already"
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


def _is_before(chunk: Hit, hit: Hit) -> bool:
    return chunk.document_id == hit.document_id and chunk.ordinal < hit.ordinal


def _is_behind(chunk: Hit, hit: Hit) -> bool:
    return chunk.document_id == hit.document_id and chunk.ordinal >= hit.ordinal + hit.chunks


def _joined(kept: Sequence[Hit], hit: Hit) -> list[Hit]:
    """`kept` with `hit` in the first that it touches, and whatever that then overlaps as well."""
    joined: list[Hit] = []
    whole = hit
    place: int | None = None
    for other in kept:
        if _overlap(other, whole):
            whole = _join(other, whole)
            place = len(joined) if place is None else place
        else:
            joined.append(other)
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


def _says_the_same(one: Hit, other: Hit) -> bool:
    ours, theirs = _shingles(one.text), _shingles(other.text)
    return len(ours & theirs) >= DUPLICATE_SHARE * len(ours | theirs)


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    return {tuple(words[at : at + SHINGLE_WORDS]) for at in range(count)}
