"""Which candidates the model gets, and how chunks that belong together become one text."""

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.retrieval.selection import Chosen, choose, covers, widen
from indexer.chunking import Chunker, ChunkerSettings
from indexer.index.records import Hit

PROSE = " ".join(f"Sentence {n} says what llama {n * 7} does on day {n * n}." for n in range(40))
DOCUMENTS = {
    "prose.md": PROSE,
    "wrapped.md": PROSE.replace(" says", "\nsays"),
    "sections.md": "\n\n".join(f"## Part {n}\n\n{PROSE[n * 90 : n * 130]}" for n in range(1, 9)),
    "list.md": "\n".join(f"- item {n} of the list weighs {n * 3} kg" for n in range(40)),
    "code.md": "# Code\n\n```python\n" + "\n".join(f"v_{n} = {n}" for n in range(60)) + "\n```\n",
    "table.md": "| a | b |\n|---|---|\n" + "\n".join(f"| {n} | row {n} |" for n in range(40)),
    "chinese.md": "".join(f"大羊驼{n}是一种驯化的骆驼科动物。" for n in range(40)),
    "rules.md": "\n\n---\n\n".join(f"Between rules stands text {n}, and more." for n in range(20)),
}
ABOUT = ["grass and hay", "wool that is shorn", "the height of the Andes", "a caravan of salt"]


def cut(name: str, size: int = 200, overlap_percent: int = 20) -> list[Hit]:
    """The chunks of a document as a search would give them, all with one score."""
    settings = ChunkerSettings(size=size, overlap_percent=overlap_percent)
    spans = Chunker(settings).split(title="", text=DOCUMENTS[name])
    return [
        Hit(
            chunk_id=f"{name}#{ordinal}", document_id=name, document_hash="1", source=name,
            title=name, heading_path=span.heading_path, anchor=span.anchor, ordinal=ordinal,
            start=span.start, end=span.start + len(span.text), text=span.text, score=0.5,
        )
        for ordinal, span in enumerate(spans)
    ]  # fmt: skip


def hit(name: str, text: str, score: float = 0.5, **stated: object) -> Hit:
    fields: dict[str, object] = {
        "chunk_id": name, "document_id": name, "source": name, "title": name, "heading_path": "",
        "start": 0, "end": len(text), "text": text, "score": score,
    }  # fmt: skip
    return msgspec.convert(fields | stated, Hit)


def chosen(
    found: Sequence[Hit], limit: int = 9, score_threshold: float = 0, document_share: float = 1
) -> Chosen:
    return choose(
        found, limit=limit, score_threshold=score_threshold, document_share=document_share
    )


def squeezed(text: str) -> str:
    return "".join(text.split())


names = st.sampled_from(sorted(DOCUMENTS))


@st.composite
def searches(draw: st.DrawFn) -> list[Hit]:
    """Some chunks of some documents, best first."""
    overlap = draw(st.sampled_from([0, 10, 30, 50]))
    size = draw(st.sampled_from([80, 200, 400]))
    chunks = [
        chunk
        for name in draw(st.lists(names, min_size=1, max_size=3, unique=True))
        for chunk in cut(name, size, overlap)
    ]
    found = draw(st.lists(st.sampled_from(chunks), max_size=25, unique_by=lambda c: c.chunk_id))
    scores = sorted(draw(st.lists(st.floats(0, 1), min_size=len(found), max_size=len(found))))
    return [
        msgspec.structs.replace(chunk, score=score)
        for chunk, score in zip(found, reversed(scores), strict=True)
    ]


@given(searches(), st.integers(1, 8), st.floats(0, 1), st.floats(0.01, 1))
def test_whatever_is_found_the_rules_hold(
    found: list[Hit], limit: int, threshold: float, share: float
) -> None:
    result = chosen(found, limit, threshold, share)

    assert [each.hit for each in result.candidates] == found
    assert len(result.hits) <= limit
    scores = [each.score for each in result.hits]
    assert scores == sorted(scores, reverse=True)
    assert all(score >= threshold for score in scores)
    places = max(1, int(limit * share))
    for name in {each.document_id for each in result.hits}:
        taken = [
            each.hit
            for each in result.candidates
            if each.hit.document_id == name and (not each.dropped or "joined" in each.dropped)
        ]
        assert len(taken) <= places
        assert all(any(covers(whole, chunk) for whole in result.hits) for chunk in taken)
    for each in result.hits:
        assert each.text == DOCUMENTS[each.document_id][each.start : each.end]
    by_place = sorted(result.hits, key=lambda each: (each.document_id, each.start))
    for one, other in pairwise(by_place):
        assert one.document_id != other.document_id or one.end <= other.start


@given(searches(), st.integers(1, 3))
def test_neighbours_make_one_text_of_what_stands_together_and_double_nothing(
    found: list[Hit], distance: int
) -> None:
    hits = chosen(found, limit=4).hits
    size = max((each.end - each.start for each in found), default=0)
    around = [
        msgspec.structs.replace(chunk, score=0.0)
        for name in {each.document_id for each in hits}
        # Cut in the same way: the one in which every chunk that was found is.
        for chunk in _same_cut(name, found, size)
        if any(
            chunk.document_id == each.document_id
            and each.ordinal - distance <= chunk.ordinal < each.ordinal + each.chunks + distance
            for each in hits
        )
    ]
    wide = widen(hits, around)

    assert len(wide) <= len(hits)
    for each in hits:
        assert sum(covers(whole, each) for whole in wide) == 1
    for chunk in around:
        assert sum(covers(whole, chunk) for whole in wide) == 1
    assert [each.chunk_id for each in wide] == [
        each.chunk_id for each in hits if each.chunk_id in {one.chunk_id for one in wide}
    ]
    for each in wide:
        chunks = [chunk for chunk in (*hits, *around) if covers(each, chunk)]
        # White space, rules and headings may stand between chunks and be in none of them.
        places = {place for chunk in chunks for place in range(chunk.start, chunk.end)}
        text = "".join(DOCUMENTS[each.document_id][place] for place in sorted(places))
        assert squeezed(each.text) == squeezed(text)
        if len(places) == each.end - each.start:
            assert each.text == text
        assert (each.start, each.end) == (min(places), max(places) + 1)
        assert each.score == next(one.score for one in hits if one.chunk_id == each.chunk_id)


def _same_cut(name: str, found: Sequence[Hit], longest: int) -> list[Hit]:
    wanted = {(each.chunk_id, each.start, each.text) for each in found if each.document_id == name}
    for size in (80, 200, 400):
        for overlap in (0, 10, 30, 50):
            chunks = cut(name, size, overlap)
            if wanted <= {(each.chunk_id, each.start, each.text) for each in chunks}:
                return chunks
    raise AssertionError(f"no cut of {name} gives these chunks, of up to {longest} characters")


def test_chunks_that_overlap_become_one_hit_under_the_name_of_the_better_one() -> None:
    first, second, *_ = cut("prose.md", overlap_percent=40)
    assert second.start < first.end, "the example must overlap"
    better = msgspec.structs.replace(second, score=0.9)
    result = chosen([better, first])

    [joined] = result.hits
    assert (joined.chunk_id, joined.score) == (second.chunk_id, 0.9)
    assert (joined.ordinal, joined.chunks) == (0, 2)
    assert (joined.start, joined.end) == (first.start, second.end)
    assert joined.text == PROSE[first.start : second.end]
    assert [each.dropped for each in result.candidates] == [
        "", "joined to a better one that it overlaps",
    ]  # fmt: skip


def test_a_chunk_between_two_that_were_kept_joins_all_three_and_frees_a_place() -> None:
    chunks = cut("prose.md", overlap_percent=40)
    other = hit("other", "Bread rises with yeast over night.", 0.1)
    result = chosen([chunks[0], chunks[2], chunks[1], other], limit=3)

    assert [(each.chunk_id, each.chunks) for each in result.hits] == [
        ("prose.md#0", 3), ("other", 1),
    ]  # fmt: skip
    assert result.hits[0].text == PROSE[: chunks[2].end]


def test_a_long_passage_found_in_all_its_chunks_does_not_grow_beyond_the_share() -> None:
    chunks = cut("prose.md", overlap_percent=40)
    [joined] = chosen(chunks, limit=3).hits

    assert joined.chunks == 3
    assert chosen(chunks, limit=4, document_share=0.5).hits[0].chunks == 2


def test_nothing_is_joined_once_all_places_are_taken() -> None:
    chunks = cut("prose.md", overlap_percent=40)
    other = hit("other", "Bread rises with yeast over night.")
    result = chosen([chunks[0], other, chunks[1]], limit=2)

    assert [each.chunks for each in result.hits] == [1, 1]
    assert "places are taken" in result.candidates[2].dropped


def test_chunks_of_two_versions_of_a_document_are_never_joined() -> None:
    first, second, *_ = cut("prose.md", overlap_percent=40)
    newer = msgspec.structs.replace(second, document_hash="2")

    assert [each.chunks for each in chosen([first, newer]).hits] == [1, 1]
    assert [each.chunks for each in widen([first], [newer])] == [1]


@pytest.mark.parametrize(
    ("threshold", "kept"), [(0.0, 3), (0.3, 3), (0.31, 2), (0.5, 2), (0.91, 0)]
)
def test_a_hit_at_the_threshold_stays_and_one_below_it_is_named(
    threshold: float, kept: int
) -> None:
    scores = {"a": 0.9, "b": 0.5, "c": 0.3}
    found = [hit(word, f"All about the {word}.", score) for word, score in scores.items()]
    result = chosen(found, score_threshold=threshold)

    assert [each.chunk_id for each in result.hits] == list("abc")[:kept]
    assert all(
        each.dropped == f"its score is below {threshold}" for each in result.candidates[kept:]
    )


def test_one_document_gets_no_more_than_its_share_and_one_place_at_least() -> None:
    llamas = [
        hit(f"l{n}", f"This is about {about}.", document_id="llamas", start=n * 100,
            end=n * 100 + 50, ordinal=n)
        for n, about in enumerate(ABOUT)
    ]  # fmt: skip
    bread = hit("bread", "Sourdough rises over night.")
    result = chosen([*llamas, bread], limit=4, document_share=0.5)

    assert [each.chunk_id for each in result.hits] == ["l0", "l1", "bread"]
    assert result.candidates[2].dropped == "2 better ones of its document were found"
    assert [each.chunk_id for each in chosen([*llamas, bread], 2, 0, 0.1).hits] == ["l0", "bread"]


TEXT = "A llama is a domesticated camelid that has lived in South America for thousands of years."


@pytest.mark.parametrize(
    ("better", "worse", "is_dropped"),
    [
        (TEXT, TEXT, True),
        (TEXT, TEXT.upper().replace(".", " !"), True),
        (f"{TEXT} It eats grass, hay and little else.", TEXT, True),
        (TEXT, f"{TEXT} It eats grass. Its wool is soft, and is shorn every year.", False),
        (TEXT, "A geostationary orbit lies 35,786 km above the equator.", False),
        ("Llama 7 weighs 130 kg.", "Llama 9 weighs 145 kg.", False),
        ("大羊驼是一种动物。", "大羊驼是一种动物。", True),
        ("大羊驼是一种动物。", "面包是一种食物。", False),
    ],
)  # fmt: skip
def test_what_says_nothing_new_is_dropped(better: str, worse: str, is_dropped: bool) -> None:
    result = chosen([hit("a", better), hit("b", worse)])

    assert (len(result.hits) == 1) is is_dropped
    assert result.candidates[1].dropped == ("says the same as a better one" if is_dropped else "")


def test_a_hit_is_widened_up_to_the_ends_of_its_document() -> None:
    chunks = cut("sections.md")
    first, last = widen([chunks[0], chunks[-1]], [chunks[0], chunks[1], chunks[-2], chunks[-1]])

    assert (first.ordinal, first.chunks, first.start) == (0, 2, chunks[0].start)
    assert (last.ordinal, last.chunks) == (len(chunks) - 2, 2)
    assert last.end == chunks[-1].end


def test_hits_that_meet_when_they_are_widened_become_one_in_the_place_of_the_better() -> None:
    chunks = cut("prose.md")
    other = hit("other", "Bread rises with yeast over night.", 0.6)
    hits = [
        msgspec.structs.replace(chunks[4], score=0.9),
        other,
        msgspec.structs.replace(chunks[2], score=0.4),
    ]
    wide = widen(hits, chunks[1:6])

    assert [(each.chunk_id, each.chunks) for each in wide] == [("prose.md#4", 5), ("other", 1)]
    assert squeezed(wide[0].text) == squeezed(PROSE[chunks[1].start : chunks[5].end])


def test_a_neighbour_of_one_document_is_never_put_to_another() -> None:
    one, other = cut("prose.md"), cut("list.md")
    wide = widen([one[1]], [*other[:3], one[2]])

    assert [(each.chunk_id, each.chunks) for each in wide] == [("prose.md#1", 2)]


def test_a_neighbour_that_is_missing_leaves_a_gap_that_nothing_jumps() -> None:
    chunks = cut("prose.md")
    [wide] = widen([chunks[1]], [chunks[3], chunks[4]])

    assert wide == chunks[1]


def test_without_neighbours_hits_stay_as_they_are() -> None:
    hits = [hit("a", "One text."), hit("b", "Another one."), hit("c", "The third.")]

    assert widen(hits, []) == hits
    assert widen([], []) == []
