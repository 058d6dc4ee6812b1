"""What filters find on a Milvus Lite server, against an oracle in Python."""

import asyncio
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymilvus import MilvusClient

from indexer.index.attributes import columns, typed
from indexer.index.collection import Generation, IndexReader, IndexWriter
from indexer.index.collection.generation import GRPC_OPTIONS, schema
from indexer.index.collection.rows import Rows
from indexer.index.embedding import Encoder
from indexer.index.filters import equals
from indexer.index.metadata_filters import (
    MOST_CHARS,
    MOST_COMPARISONS,
    MOST_DEPTH,
    MOST_VALUES,
    Comparison,
    Compound,
    Filter,
    compile_filter,
    parse_filter,
)
from indexer.index.records import (
    AttributeType,
    Chunk,
    EncoderIdentity,
    Fingerprint,
    SearchMode,
)
from indexer.index.searching import Query, Search
from indexer.index.settings import IndexSettings
from indexer.report import DONE_IN_PART, Report

DECLARED: dict[str, AttributeType] = {
    "year": "integer",
    "price": "number",
    "public": "boolean",
    "product": "string",
    "字-größe.x": "string",
}
HOSTILE = [
    'x" or tenant != "',
    'x\\" or tenant != \\"',
    '") or (chunk_id != "',
    "' or ''=='",
    "ends with \\",
    '"',
    '\\"',
    "\\n",
    "\\u5b57",
    "字",
    "line\nfeed\r\n\ttab",
    "null\0byte",
    "\x07\x1b\x7f\x85\u2028",
    "50 % _ like",
    "{template}",
    "$meta",
    "🦙",
    "\uffff",
    "é",
    "e\u0301",
    "true",
    "2020",
    "2024-01-31",
    "Z",
    "a",
    "",
    "x" * 512,
]
VALUES: dict[AttributeType, list[Any]] = {
    "string": HOSTILE,
    "integer": [0, 1, -1, 2019, 2020, 2021, 2**53 - 1, -(2**53) + 1],
    "number": [0.0, 2020.0, 2020.5, -2.5, 0.1, 0.30000000000000004, 1e-320, 1e300, -1e300, 1e16],
    "boolean": [True, False],
}
ROWS = 150
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "in": lambda stored, wanted: stored in wanted,
}


def attributes_of(random: Random) -> dict[str, Any]:
    """Some of the declared attributes, and others beside them."""
    said: dict[str, Any] = {
        name: random.choice([*VALUES[kind], None])
        for name, kind in DECLARED.items()
        if random.random() < 0.7
    }
    return typed({**said, "tags": ["a", 1], "nested": {"year": 2020}}, DECLARED)


TENANTS = ["ours", 'theirs" or "']
STORED = [
    (f"{number:032x}", TENANTS[number % 2], attributes_of(Random(number))) for number in range(ROWS)
]


def matches(wanted: Filter, attributes: dict[str, Any]) -> bool:
    """What a filter means, in Python."""
    if isinstance(wanted, Compound):
        each = (matches(part, attributes) for part in wanted.filters)
        return all(each) if wanted.type == "and" else any(each)
    positive = {"ne": "eq", "nin": "in"}.get(wanted.type)
    if positive is not None:
        return not matches(Comparison(positive, wanted.key, wanted.value), attributes)  # type: ignore[arg-type]
    if wanted.key not in attributes:
        return False
    return COMPARE[wanted.type](attributes[wanted.key], wanted.value)


def values(kind: AttributeType) -> st.SearchStrategy[Any]:
    """Mostly what is stored somewhere, and whatever else there may be."""
    others: dict[AttributeType, st.SearchStrategy[Any]] = {
        "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        "integer": st.integers(-(2**53) + 1, 2**53 - 1),
        "number": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-3000, 3000),
        "boolean": st.booleans(),
    }
    return st.sampled_from(VALUES[kind]) | others[kind]


@st.composite
def comparisons(draw: st.DrawFn) -> dict[str, Any]:
    key, kind = draw(st.sampled_from(list(DECLARED.items())))
    ordered = [] if kind == "boolean" else ["gt", "gte", "lt", "lte"]
    name = draw(st.sampled_from(["eq", "ne", "in", "nin", *ordered]))
    of_kind = values(kind)
    value = draw(st.lists(of_kind, max_size=4) if name in ("in", "nin") else of_kind)
    return {"type": name, "key": key, "value": value}


def filters() -> st.SearchStrategy[dict[str, Any]]:
    def compounds(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
        return st.builds(
            lambda name, chosen: {"type": name, "filters": chosen},
            st.sampled_from(["and", "or"]),
            st.lists(parts, min_size=1, max_size=4),
        )

    return st.recursive(comparisons(), compounds, max_leaves=12)


FINGERPRINT = Fingerprint(
    encoder=EncoderIdentity.unknown(2), chunker="", attributes=dict(sorted(DECLARED.items()))
)


def chunk_of(key: str, tenant: str, attributes: dict[str, Any]) -> Chunk:
    empty: dict[str, Any] = {
        name: 0 if name in ("run", "ordinal", "chunk_count", "start", "end") else ""
        for name in Chunk.__struct_fields__
    }
    stated = {"chunk_id": key, "tenant": tenant, "attributes": attributes}
    return Chunk(**(empty | stated))


@pytest.fixture(scope="module")
def query(milvus_uri: str) -> Iterator[Callable[[str], set[str]]]:
    """Keys of the rows that an expression finds, in a collection as the indexer makes it."""
    client = MilvusClient(milvus_uri, grpc_options=GRPC_OPTIONS)
    generation = Generation("metadata_filters__g1", FINGERPRINT)
    index = client.prepare_index_params()
    index.add_index("dense", index_type="AUTOINDEX", metric_type="COSINE")
    index.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    for column in columns(DECLARED).values():
        index.add_index(column, index_type="INVERTED")
    client.create_collection(generation.collection, schema=schema(FINGERPRINT), index_params=index)
    chunks = [chunk_of(*row) for row in STORED]
    vectors = np.ones((len(chunks), 2), dtype=np.float32)
    client.insert(generation.collection, list(Rows(generation)(chunks, vectors)))
    client.flush(generation.collection)
    client.load_collection(generation.collection)
    yield lambda expression: {
        row["chunk_id"]
        for row in client.query(
            generation.collection, filter=expression, output_fields=["chunk_id"]
        )
    }
    client.drop_collection(generation.collection)
    client.close()


@settings(max_examples=500)
@given(said=filters(), tenant=st.sampled_from(TENANTS))
def test_a_filter_finds_what_the_oracle_finds_of_the_tenant_alone(
    query: Callable[[str], set[str]], said: dict[str, Any], tenant: str
) -> None:
    wanted = parse_filter(said)

    found = query(f"{equals('tenant', tenant)} and {compile_filter(wanted, DECLARED)}")

    assert found == {
        key for key, whose, attributes in STORED if whose == tenant and matches(wanted, attributes)
    }


@pytest.mark.parametrize("key", ["product", "字-größe.x"])
def test_each_hostile_value_is_found_by_itself(query: Callable[[str], set[str]], key: str) -> None:
    for value in HOSTILE:
        for name in ("eq", "ne", "in", "gte"):
            said = [value] if name == "in" else value
            wanted = parse_filter({"type": name, "key": key, "value": said})

            assert query(compile_filter(wanted, DECLARED)) == {
                row for row, _, attributes in STORED if matches(wanted, attributes)
            }, (name, value)


def test_the_largest_filters_are_taken(query: Callable[[str], set[str]]) -> None:
    years = {"type": "in", "key": "year", "value": list(range(1500, 1500 + MOST_VALUES))}
    longest = ["\\" * 512] * (MOST_CHARS // 512 - 1)
    texts = {"type": "nin", "key": "product", "value": longest}
    one = {"type": "gte", "key": "price", "value": 2020}
    deep: dict[str, Any] = one
    for _ in range(MOST_DEPTH):
        deep = {"type": "and", "filters": [deep, one]}
    for said in (years, texts, {"type": "or", "filters": [one] * MOST_COMPARISONS}, deep):
        wanted = parse_filter(said)

        assert query(compile_filter(wanted, DECLARED)) == {
            row for row, _, attributes in STORED if matches(wanted, attributes)
        }


@pytest.fixture
def dated(documents: Path) -> Path:
    """Documents of which one has what is declared, one has nothing, and one has another type."""
    (documents / "llama.md.meta.toml").write_text('year = "2019"\nsince = 2024-01-31\n')
    (documents / "orbit.html.meta.yaml").write_text("year: MMXX\n")
    return documents


OF_DOCUMENTS: dict[str, AttributeType] = {"since": "string", "year": "integer"}


def test_attributes_are_stored_in_their_types_and_a_document_of_another_is_skipped(
    dated: Path, run_indexer: Callable[..., Report], writer: IndexWriter
) -> None:
    report = run_indexer(dated, attributes=OF_DOCUMENTS)

    assert report.exit_code == DONE_IN_PART
    assert report.skipped == [
        ("docs/orbit.html", "attribute 'year' is 'MMXX', which is no integer")
    ]
    published = writer.published()
    assert published is not None
    assert published.fingerprint.attributes == OF_DOCUMENTS
    stored = {
        row.chunk.title: row.chunk.attributes for row in writer.stored_rows(published, ["default"])
    }
    assert stored == {"Llamas": {"since": "2024-01-31", "year": 2019}, "bread.txt": {}}


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
async def test_every_leg_of_a_search_has_the_filter_and_the_tenant(
    mode: SearchMode,
    dated: Path,
    tmp_path: Path,
    run_indexer: Callable[..., Report],
    encoder: Encoder,
    index_settings: IndexSettings,
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "alpaca.md").write_text("---\nyear: 2018\n---\n# Alpacas\n\nBread, grass and yeast.")
    await asyncio.to_thread(run_indexer, dated, attributes=OF_DOCUMENTS)
    await asyncio.to_thread(run_indexer, theirs, tenant="theirs", attributes=OF_DOCUMENTS)
    text = "Do llamas eat bread with yeast?"
    [vector] = encoder.encode_queries([text])
    reader = IndexReader(index_settings)

    async def titles(said: dict[str, Any]) -> set[str]:
        published = await reader.published(index_settings.knowledge_base)
        where = compile_filter(parse_filter(said), published.fingerprint.attributes)
        search = Search(tenant="default", limit=9, mode=mode, where=where)
        [hits] = await reader.search(published, [Query(text, vector)], search)
        return {hit.title for hit in hits}

    old = {"type": "lt", "key": "year", "value": 2020}
    other = {"type": "ne", "key": "year", "value": 2019}
    try:
        assert await titles(old) == {"Llamas"}
        assert await titles(other) == {"bread.txt"}
        assert await titles({"type": "or", "filters": [old, other]}) == {"Llamas", "bread.txt"}
        assert await titles({"type": "and", "filters": [old, other]}) == set()
    finally:
        await reader.close()
