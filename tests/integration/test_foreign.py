"""The gateway's search in a collection that another program made."""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import pytest
from pymilvus import DataType, MilvusClient

from gateway.retrieval.options import Wanted
from gateway.retrieval.retriever import Retriever
from gateway.stages import Stages
from indexer.index.collection import ForeignReader
from indexer.index.collection.generation import GRPC_OPTIONS
from indexer.index.embedding import Encoder
from indexer.index.errors import FingerprintMismatch, IndexRefused, KnowledgeBaseMissing
from indexer.index.settings import IndexSettings
from tests.searching import searching

TEXTS = {
    "guide/llamas.html": "Llamas eat grass and hay.",
    "guide/orbits.html": "A geostationary orbit is 35,786 kilometres high.",
}
FIELDS = {"text": "chunk", "source": "source", "vector": "vector"}


@pytest.fixture(params=["COSINE", "IP", "L2"])
def collection(
    request: pytest.FixtureRequest, index_settings: IndexSettings, encoder: Encoder
) -> Iterator[IndexSettings]:
    """As the seed example makes it: chunk, source, vector, and keys of Milvus' own."""
    client = MilvusClient(index_settings.milvus_uri, grpc_options=GRPC_OPTIONS)
    schema = MilvusClient.create_schema(auto_id=True, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=encoder.identity.dimension)
    schema.add_field("chunk", DataType.VARCHAR, max_length=2000)
    schema.add_field("source", DataType.VARCHAR, max_length=200)
    index = MilvusClient.prepare_index_params()
    index.add_index("vector", index_type="AUTOINDEX", metric_type=request.param)
    name = f"{index_settings.knowledge_base}_seed"
    client.create_collection(name, schema=schema, index_params=index)
    vectors = encoder.encode_passages(list(TEXTS.values()))
    client.insert(
        name,
        [
            {"vector": vector, "chunk": text, "source": source}
            for vector, (source, text) in zip(vectors, TEXTS.items(), strict=True)
        ],
    )
    client.flush(name)
    yield index_settings.model_copy(update={"knowledge_base": name})
    client.drop_collection(name)
    client.close()


def _retriever(
    settings: IndexSettings, encoder: Encoder, fields: dict[str, str], tenant: str = "default"
) -> AbstractAsyncContextManager[Retriever]:
    return searching(
        ForeignReader(settings, fields),
        lambda: encoder,
        tenant=tenant,
        knowledge_base=settings.knowledge_base,
    )


@pytest.mark.anyio
async def test_the_seed_examples_own_collection_is_searched(
    collection: IndexSettings, encoder: Encoder
) -> None:
    async with _retriever(collection, encoder, FIELDS) as retriever:
        found = await retriever.retrieve(
            ["How high is a geostationary orbit?"], Wanted(limit=2, neighbours=1), Stages()
        )

    assert [hit.text for hit in found.hits] == list(TEXTS.values())[::-1]
    best, other = found.hits
    assert (best.source, best.title) == ("guide/orbits.html", "orbits.html")
    assert (best.start, best.end) == (0, len(best.text))
    assert best.chunk_id.isdigit()
    [query] = encoder.encode_queries(["How high is a geostationary orbit?"])
    [vector] = encoder.encode_passages([best.text])
    assert best.score == pytest.approx(float(query @ vector), abs=1e-4)
    assert 0 <= other.score < best.score <= 1


@pytest.mark.anyio
async def test_rows_that_do_not_say_whose_they_are_are_not_everybodys(
    collection: IndexSettings, encoder: Encoder
) -> None:
    async with _retriever(collection, encoder, FIELDS, tenant="mallory") as retriever:
        found = await retriever.retrieve(["orbit", "llamas"], Wanted(limit=2), Stages())

    assert found.hits == []


@pytest.mark.anyio
async def test_a_field_that_is_missing_is_named_with_those_that_are_there(
    collection: IndexSettings, encoder: Encoder
) -> None:
    async with _retriever(collection, encoder, FIELDS | {"title": "name"}) as retriever:
        with pytest.raises(FingerprintMismatch, match=r"no field 'name'; it has .*chunk"):
            await retriever.published.refresh(collection.knowledge_base)


@pytest.mark.anyio
async def test_what_such_a_collection_cannot_do_is_refused(
    collection: IndexSettings, encoder: Encoder
) -> None:
    async with _retriever(collection, encoder, FIELDS) as retriever:
        with pytest.raises(IndexRefused, match="by meaning alone"):
            await retriever.retrieve(["orbit"], Wanted(mode="bm25"), Stages())


@pytest.mark.anyio
async def test_a_collection_that_is_not_there_is_missing(
    index_settings: IndexSettings, encoder: Encoder
) -> None:
    settings = index_settings.model_copy(update={"knowledge_base": "no_such_collection"})
    async with _retriever(settings, encoder, FIELDS) as retriever:
        with pytest.raises(KnowledgeBaseMissing):
            await retriever.published.refresh(settings.knowledge_base)
