"""Documents of a generation, read from rows that a fake of Milvus gives."""

from typing import Any

import pytest

from indexer.index.collection import DocumentEntry, Generation, documents
from indexer.index.collection.documents import Documents
from indexer.index.errors import IndexUnavailable
from indexer.index.records import Fingerprint
from tests.unit.index_fakes import IDENTITY
from tests.unit.stores_fakes import entry

GENERATION = Generation("kb__g1", Fingerprint(encoder=IDENTITY, chunker="c"))


class FakeClient:
    """Answers each query with the next rows."""

    def __init__(self, *answers: list[dict[str, Any]]) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    async def query(self, collection: str, **said: Any) -> list[dict[str, Any]]:
        assert collection == GENERATION.collection
        self.asked.append(said)
        return self.answers.pop(0)


def documents_of(client: FakeClient) -> Documents:
    known: Any = client
    return Documents(known, 1.0)


def chunk(ordinal: int, start: int, text: str) -> dict[str, Any]:
    return {"ordinal": ordinal, "start": start, "end": start + len(text), "text": text}


def row(found: DocumentEntry, **stated: Any) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__struct_fields__} | stated


async def text_of(client: FakeClient, chunk_count: int) -> list[str]:
    document = entry("d1", "k1", chunk_count=chunk_count)
    return [piece async for piece in documents_of(client).texts(GENERATION, "acme", document)]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([chunk(0, 0, "one ")], "one "),
        ([chunk(0, 0, "one"), chunk(1, 3, "two")], "onetwo"),
        ([chunk(0, 0, "one two"), chunk(1, 4, "two three")], "one two three"),
        ([chunk(1, 4, "two three"), chunk(0, 0, "one two")], "one two three"),
        ([chunk(0, 0, "one"), chunk(1, 4, "two")], "one\ntwo"),
        ([chunk(0, 0, "one"), chunk(1, 9, "two")], "one\n\ntwo"),
        ([chunk(0, 0, "one two three"), chunk(1, 4, "two")], "one two three"),
        ([chunk(0, 7, "begins late")], "begins late"),
    ],
)
async def test_the_text_of_a_document_has_what_chunks_share_once(
    chunks: list[dict[str, Any]], text: str
) -> None:
    assert await text_of(FakeClient(chunks), len(chunks)) == [text]


@pytest.mark.anyio
async def test_a_long_document_is_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "CHUNKS_AT_ONCE", 2)
    client = FakeClient([chunk(0, 0, "one "), chunk(1, 4, "two ")], [chunk(2, 6, "o three")])

    assert await text_of(client, 3) == ["one two ", "three"]
    first, second = (each["filter"] for each in client.asked)
    assert "(0 <= ordinal and ordinal <= 1)" in first
    assert "(2 <= ordinal and ordinal <= 2)" in second
    assert all('(tenant == "acme")' in each["filter"] for each in client.asked)


@pytest.mark.anyio
async def test_a_document_of_which_chunks_are_missing_is_not_told_as_a_shorter_one() -> None:
    with pytest.raises(IndexUnavailable, match="being replaced"):
        await text_of(FakeClient([chunk(0, 0, "one"), chunk(2, 8, "three")]), 3)


@pytest.mark.anyio
async def test_the_newest_version_of_a_document_counts() -> None:
    old, new = entry("d1", "k1", run=3), entry("d1", "k9", run=4)
    client = FakeClient([row(new), row(old)], [])

    assert await documents_of(client).document(GENERATION, "acme", "d1") == new
    assert await documents_of(client).document(GENERATION, "acme", "d2") is None


@pytest.mark.anyio
async def test_what_a_client_names_is_a_literal_in_the_question() -> None:
    client = FakeClient([], [])
    await documents_of(client).document(GENERATION, "acme", '" or tenant != "')
    await documents_of(client).documents(GENERATION, "acme", 5, after='"')

    assert r'(document_id == "\" or tenant != \"")' in client.asked[0]["filter"]
    assert r'(chunk_id > "\"")' in client.asked[1]["filter"]
    # Without these Milvus gives rows in no order, and some twice.
    assert client.asked[1]["iterator"] == client.asked[1]["reduce_stop_for_best"] == "True"
