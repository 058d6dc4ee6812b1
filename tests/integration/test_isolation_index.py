"""What each tenant finds and reads of one collection on a Milvus Lite server, against an oracle.

Tenants share ids of documents, texts and attributes: only the tenant tells their rows apart.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access.callers import Caller, acting_as
from gateway.access.tenant_index import TenantIndex
from gateway.encoding import LocalEncoding
from gateway.errors import VectorStoreNotFound
from gateway.retrieval.options import Wanted
from gateway.retrieval.published import Published
from gateway.retrieval.retriever import Retriever
from gateway.retrieval.searches import Searches
from gateway.stages import Stages
from indexer.index.collection import DocumentEntry, Generation, IndexReader, IndexWriter
from indexer.index.errors import IndexUnavailable
from indexer.index.metadata_filters import parse_filter
from indexer.index.records import Chunk, Fingerprint, Hit, SearchMode, key
from indexer.index.searching import Query
from indexer.index.settings import IndexSettings
from tests.integration.test_metadata_filters import (
    DECLARED,
    HOSTILE,
    attributes_of,
    filters,
    matches,
)
from tests.unit.index_fakes import IDENTITY, FakeEncoder

NAME = "isolation"
TENANTS = [
    "acme",
    "ACME",
    "acme ",
    'acme" or tenant != "',
    'acme\\" or tenant != \\"',
    "' or 1 == 1 or tenant == '",
    '") or (chunk_id != "',
    "acme%",
    "\\",
    '"',
    "line\nfeed\r\ttab\0null\x07\x1b",
    "{tenant}",
    "日本 🦙 e\u0301",
    "\U0001f999" * 128,
]
DOCUMENTS = ["guide", 'x" or tenant != "', "日本/../🦙.md", "%2e%2e", "é\\n"]
CHUNKS = 3
WORDS = "llama grass secret"
MODES: list[SearchMode] = ["dense", "bm25", "hybrid"]
ASKED = st.sampled_from([WORDS, "llama", *HOSTILE[:8]]).map(lambda words: f"{words} llama")


def chunk_of(tenant: str, document: str, ordinal: int) -> Chunk:
    """What it says is the same for every tenant but for who tells it."""
    number = DOCUMENTS.index(document) * CHUNKS + ordinal
    return Chunk(
        chunk_id=key(tenant, document, ordinal),
        tenant=tenant,
        document_id=document,
        document_hash="the same",
        chunk_hash=key("chunk", tenant, document, ordinal),
        version="1",
        run=1,
        source=f"docs/{document}",
        title=document,
        heading_path="",
        ordinal=ordinal,
        chunk_count=CHUNKS,
        start=ordinal * 100,
        end=ordinal * 100 + 90,
        text=f"{WORDS} {number} told by {TENANTS.index(tenant)}.",
        attributes=attributes_of(Random(number)),
    )


CHUNKS_OF = {
    tenant: [
        chunk_of(tenant, document, ordinal) for document in DOCUMENTS for ordinal in range(CHUNKS)
    ]
    for tenant in TENANTS
}
EVERYTHING = [chunk for chunks in CHUNKS_OF.values() for chunk in chunks]


class Reading:
    """The published collection, and a loop in which tenants ask for it."""

    def __init__(self, index: TenantIndex, retriever: Retriever, loop: asyncio.Runner) -> None:
        self.index = index
        self.retriever = retriever
        self._loop = loop
        self.generation = self.ask("acme", index.ask(NAME, self._itself))

    def ask(self, tenant: str, question: Coroutine[Any, Any, Any]) -> Any:
        """The answer for a caller of `tenant`."""
        return self._loop.run(self.asked(tenant, question))

    async def asked(self, tenant: str, question: Coroutine[Any, Any, Any]) -> Any:
        with acting_as(Caller(name="x", tenant=tenant)):
            return await question

    def together(self, questions: list[tuple[str, Coroutine[Any, Any, Any]]]) -> list[Any]:
        """The answers to what several tenants ask at the same moment."""

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(self.asked(*each) for each in questions))

        return self._loop.run(all_of_them())

    async def hits(self, wanted: Wanted, text: str = WORDS) -> list[Hit]:
        [vector] = FakeEncoder().encode_queries([text])
        [found] = await self.index.search(
            self.generation, [Query(text, vector)], wanted, len(EVERYTHING)
        )
        return found

    @staticmethod
    async def _itself(generation: Generation) -> Generation:
        return generation


@pytest.fixture(scope="module")
def reading(milvus_uri: str) -> Iterator[Reading]:
    settings = IndexSettings(milvus_uri=milvus_uri, knowledge_base=NAME)
    writer = IndexWriter(settings)
    with writer.lease(60):
        generation = writer.create(
            Fingerprint(encoder=IDENTITY, chunker="c", attributes=dict(sorted(DECLARED.items())))
        )
        vectors = FakeEncoder().encode_passages([chunk.text for chunk in EVERYTHING])
        writer.upsert(generation, EVERYTHING, np.asarray(vectors))
        writer.flush(generation)
        writer.publish(generation)
    writer.close()
    with asyncio.Runner() as loop:
        reader = loop.run(_made(settings))
        encoding = LocalEncoding(FakeEncoder)
        published = Published(reader, encoding, 60, NAME)
        loop.run(encoding.start())
        index = TenantIndex(reader, Searches(reader), published, [NAME])
        yield Reading(index, Retriever(index, encoding, published), loop)
        loop.run(encoding.close())
        loop.run(reader.close())


async def _made(settings: IndexSettings) -> IndexReader:
    return IndexReader(settings)


tenants = st.sampled_from(TENANTS)
modes = st.sampled_from(MODES)
nobodys = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=150)
@given(tenant=tenants, mode=modes, said=st.none() | filters(), text=ASKED)
def test_a_search_finds_the_tenants_own_rows_that_match_and_all_of_them(
    reading: Reading, tenant: str, mode: SearchMode, said: dict[str, Any] | None, text: str
) -> None:
    wanted = None if said is None else parse_filter(said)
    found = reading.ask(tenant, reading.hits(Wanted(mode=mode, filters=wanted), text))

    assert {hit.chunk_id for hit in found} == {
        chunk.chunk_id
        for chunk in CHUNKS_OF[tenant]
        if wanted is None or matches(wanted, chunk.attributes)
    }
    assert {hit.text.rpartition("told by ")[2] for hit in found} <= {f"{TENANTS.index(tenant)}."}


@settings(max_examples=30)
@given(tenant=nobodys.filter(lambda name: name not in TENANTS), mode=modes)
def test_a_tenant_that_has_nothing_finds_nothing(
    reading: Reading, tenant: str, mode: SearchMode
) -> None:
    index, generation = reading.index, reading.generation
    theirs = reading.ask(TENANTS[0], reading.hits(Wanted()))

    assert reading.ask(tenant, reading.hits(Wanted(mode=mode))) == []
    assert reading.ask(tenant, index.neighbours(generation, theirs, 5)) == []
    assert reading.ask(tenant, index.count_documents(generation)) == 0
    assert reading.ask(tenant, index.documents(generation, 100)) == []


@settings(max_examples=20)
@given(asking=st.lists(st.tuples(tenants, modes), min_size=2, max_size=32))
def test_tenants_that_ask_at_the_same_moment_each_find_their_own(
    reading: Reading, asking: list[tuple[str, SearchMode]]
) -> None:
    """Searches that wait together go to Milvus in one call."""
    found = reading.together([(tenant, reading.hits(Wanted(mode=mode))) for tenant, mode in asking])

    for (tenant, _), hits in zip(asking, found, strict=True):
        assert {hit.chunk_id for hit in hits} == {chunk.chunk_id for chunk in CHUNKS_OF[tenant]}


@settings(max_examples=20)
@given(asking=st.lists(st.tuples(tenants, modes, st.sampled_from([0, 2])), min_size=2, max_size=12))
def test_everything_that_a_retrieval_tells_is_the_tenants_own(
    reading: Reading, asking: list[tuple[str, SearchMode, int]]
) -> None:
    """Candidates, the scores of each leg, neighbours, and what is compared with a threshold."""

    def retrieval(mode: SearchMode, neighbours: int) -> Coroutine[Any, Any, Any]:
        wanted = Wanted(
            mode=mode,
            limit=5,
            candidates=20,
            explain=True,
            neighbours=neighbours,
            relevance_threshold=0.01,
        )
        return reading.retriever.retrieve([WORDS, "grass"], wanted, Stages())

    results = reading.together(
        [(tenant, retrieval(mode, neighbours)) for tenant, mode, neighbours in asking]
    )
    for (tenant, _, _), result in zip(asking, results, strict=True):
        own = {chunk.chunk_id for chunk in CHUNKS_OF[tenant]}
        looked_at = {candidate.hit.chunk_id for candidate in result.candidates}
        assert result.hits
        assert looked_at | set(result.scores) <= own
        for hit in [*result.hits, *(candidate.hit for candidate in result.candidates)]:
            tellers = {line.partition("told by ")[2].split(".")[0] for line in _sentences(hit.text)}
            assert tellers == {str(TENANTS.index(tenant))}


def _sentences(text: str) -> list[str]:
    return [f"{WORDS}{part}" for part in text.split(WORDS) if part.strip()]


@settings(max_examples=60)
@given(tenant=tenants, other=tenants, distance=st.integers(0, 5), data=st.data())
def test_neighbours_of_anybodys_hits_are_the_tenants_own(
    reading: Reading, tenant: str, other: str, distance: int, data: st.DataObject
) -> None:
    chunks = data.draw(st.lists(st.sampled_from(CHUNKS_OF[other]), min_size=1, max_size=3))
    hits = [_hit(chunk) for chunk in chunks]
    found = reading.ask(tenant, reading.index.neighbours(reading.generation, hits, distance))

    assert {hit.chunk_id for hit in found} == {
        chunk.chunk_id
        for chunk in CHUNKS_OF[tenant]
        for near in chunks
        if chunk.document_id == near.document_id and abs(chunk.ordinal - near.ordinal) <= distance
    }


def _hit(chunk: Chunk) -> Hit:
    known = {name: getattr(chunk, name, None) for name in Hit.__struct_fields__}
    return msgspec.convert(known | {"chunks": 1, "score": 0.5, "knowledge_base": ""}, Hit)


@settings(max_examples=60)
@given(tenant=tenants, other=tenants, document=st.sampled_from(DOCUMENTS) | nobodys)
def test_documents_are_listed_and_read_by_whose_they_are(
    reading: Reading, tenant: str, other: str, document: str
) -> None:
    index, generation = reading.index, reading.generation
    own = [chunk for chunk in CHUNKS_OF[tenant] if chunk.document_id == document]
    found: DocumentEntry | None = reading.ask(tenant, index.document(generation, document))
    assert (found.chunk_id if found else None) == (own[0].chunk_id if own else None)
    assert reading.ask(tenant, index.count_documents(generation)) == len(DOCUMENTS)
    listed = reading.ask(tenant, index.documents(generation, 100))
    firsts = sorted(chunk.chunk_id for chunk in CHUNKS_OF[tenant] if chunk.ordinal == 0)
    assert [entry.chunk_id for entry in listed] == firsts
    # What was somebody else's to know is of no use: it leads to one's own.
    theirs = reading.ask(other, index.documents(generation, 1))[0]
    behind = reading.ask(tenant, index.documents(generation, 100, theirs.chunk_id))
    assert [entry.chunk_id for entry in behind] == [
        each for each in firsts if each > theirs.chunk_id
    ]
    text = reading.ask(tenant, _text(index, generation, theirs))
    assert text == "\n\n".join(
        chunk.text for chunk in CHUNKS_OF[tenant] if chunk.document_id == theirs.document_id
    )


async def _text(index: TenantIndex, generation: Generation, document: DocumentEntry) -> str:
    return "".join([piece async for piece in index.texts(generation, document)])


@settings(max_examples=30)
@given(after=nobodys, tenant=tenants)
def test_a_cursor_is_no_way_out(reading: Reading, after: str, tenant: str) -> None:
    listed = reading.ask(tenant, reading.index.documents(reading.generation, 100, after))

    assert {entry.chunk_id for entry in listed} == {
        chunk.chunk_id
        for chunk in CHUNKS_OF[tenant]
        if chunk.ordinal == 0 and chunk.chunk_id > after
    }


def test_a_text_that_is_nobodys_is_not_there(reading: Reading) -> None:
    entry = reading.ask(TENANTS[0], reading.index.documents(reading.generation, 1))[0]

    with pytest.raises(IndexUnavailable):
        reading.ask("nobody", _text(reading.index, reading.generation, entry))


def test_a_knowledge_base_that_a_key_may_not_use_is_not_asked(reading: Reading) -> None:
    async def never(_: Generation) -> None:
        raise AssertionError("it was asked")

    async def asked() -> None:
        with acting_as(Caller(name="x", tenant=TENANTS[0], knowledge_bases=("other",))):
            await reading.index.ask(NAME, never)

    with pytest.raises(VectorStoreNotFound):
        reading.ask(TENANTS[0], asked())


def test_outside_of_a_request_nothing_is_found(reading: Reading) -> None:
    questions: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        lambda: reading.hits(Wanted()),
        lambda: reading.index.neighbours(reading.generation, [], 1),
        lambda: reading.index.documents(reading.generation, 1),
    ]
    for question in questions:
        with pytest.raises(LookupError):
            asyncio.run(question())
