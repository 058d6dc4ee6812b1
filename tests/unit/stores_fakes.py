"""The gateway with a real library in a folder, and an index in memory. No indexer runs: a test
plays its part with `Stores.index`."""

import io
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from litestar.testing import TestClient
from openai import OpenAI
from pydantic import BaseModel

from gateway.app import create_app
from gateway.settings import GatewaySettings
from indexer.index.collection import DocumentEntry, Generation, RunRecord
from indexer.index.errors import KnowledgeBaseMissing
from indexer.index.library import Attributes, Library, Outcome, StoredFile, StoreOutcome
from indexer.index.library.records import ErrorCode
from indexer.index.records import Fingerprint, Hit
from indexer.index.searching import Query, Search
from tests.unit.conftest import FakeReader, FakeUpstream
from tests.unit.index_fakes import IDENTITY, FakeEncoder

TENANT = "acme"
INDEXED_AT = 1_700_000_000
Model = TypeVar("Model", bound=BaseModel)


class FakeIndex(FakeReader):
    """Published generations by the names of knowledge bases, and the documents in each."""

    def __init__(self) -> None:
        super().__init__([])
        self.generations: dict[str, Generation] = {}
        self.listed: dict[str, list[tuple[DocumentEntry, list[str]]]] = {}
        """Documents of each collection with the pieces of their texts, in the order of keys."""
        self.found: dict[str, list[Hit]] = {}
        self.asked_for: list[str] = []
        """Tenants that documents were asked of."""

    def publish(self, name: str, documents: Mapping[str, str] | None = None) -> None:
        """Make a knowledge base searchable, with documents by their ids."""
        collection = f"{name}__g{len(self.generations) + 1}"
        types: Any = {"year": "number", "product": "string"}
        fingerprint = Fingerprint(encoder=IDENTITY, chunker="c", attributes=types)
        run = RunRecord(run=1, finished_at=INDEXED_AT + 0.5, seconds=1.0, documents=99, chunks=99)
        self.generations[name] = Generation(collection, fingerprint, run)
        self.listed[collection] = [
            (entry(document_id, f"key{at:03}"), [text])
            for at, (document_id, text) in enumerate((documents or {}).items())
        ]

    async def published(self, name: str) -> Generation:
        self.resolved.append(name)
        if self.failure is not None:
            raise self.failure
        if name not in self.generations:
            raise KnowledgeBaseMissing(f"nothing is published as {name!r}")
        return self.generations[name]

    async def search(
        self, generation: Generation, queries: Sequence[Query], search: Search
    ) -> list[list[Hit]]:
        self.hits = self.found.get(generation.collection.partition("__")[0], [])
        return await super().search(generation, queries, search)

    async def count_documents(self, generation: Generation, tenant: str) -> int:
        self.asked_for.append(tenant)
        if self.failure is not None:
            raise self.failure
        return len(self.listed[generation.collection])

    async def documents(
        self, generation: Generation, tenant: str, limit: int, after: str = ""
    ) -> list[DocumentEntry]:
        self.asked_for.append(tenant)
        entries = [each for each, _ in self.listed[generation.collection] if each.chunk_id > after]
        return entries[:limit]

    async def document(
        self, generation: Generation, tenant: str, document_id: str
    ) -> DocumentEntry | None:
        self.asked_for.append(tenant)
        entries = [each for each, _ in self.listed[generation.collection]]
        return next((each for each in entries if each.document_id == document_id), None)

    async def texts(
        self, generation: Generation, tenant: str, document: DocumentEntry
    ) -> AsyncIterator[str]:
        self.asked_for.append(tenant)
        for found, pieces in self.listed[generation.collection]:
            if found == document:
                for piece in pieces:
                    yield piece


def entry(document_id: str, chunk_id: str, **stated: Any) -> DocumentEntry:
    defaults: dict[str, Any] = {
        "document_hash": "h",
        "run": 1,
        "source": f"docs/{document_id}.md",
        "title": document_id,
        "chunk_count": 1,
        "attributes": {"year": 2024},
    }
    return msgspec.convert(
        {"document_id": document_id, "chunk_id": chunk_id, **defaults, **stated}, DocumentEntry
    )


class Stores:
    """A running gateway, and the parts behind it."""

    def __init__(
        self, client: TestClient[Any], library: Library, index: FakeIndex, upstream: FakeUpstream
    ) -> None:
        self.client = client
        self.library = library
        self.reader = index
        self.upstream = upstream
        http_client: Any = client  # a client of httpx, which the SDK takes as well
        self.sdk = OpenAI(
            base_url="http://127.0.0.1/v1",
            api_key="none",
            max_retries=0,
            http_client=http_client,
        )

    def file(self, name: str = "a.md", text: bytes = b"Llamas eat grass.") -> str:
        """Upload a file, past the gateway."""
        return self.library.add_file(TENANT, name, "assistants", io.BytesIO(text)).id

    def store(self, *file_ids: str, **said: Any) -> str:
        """Make a vector store with these files."""
        return self.sdk.vector_stores.create(file_ids=list(file_ids), **said).id

    def index(self, store_id: str, **failed: tuple[ErrorCode, str]) -> None:
        """Do what the indexer does: index the files of a store, but for those that fail."""
        there = self.library.members(TENANT, store_id)
        members = [each for each in there if not each.is_cancelled]
        outcomes = {}
        for member in members:
            error = failed.get(self.library.file(TENANT, member.file_id).filename.split(".")[0])
            outcomes[member.file_id] = Outcome(
                version=member.version,
                status="failed" if error else "completed",
                usage_bytes=0 if error else 17,
                chunks=0 if error else 1,
                error_code=error[0] if error else None,
                error_message=error[1] if error else "",
            )
        done = [file_id for file_id, each in outcomes.items() if each.status == "completed"]
        if done:
            self.reader.publish(store_id, dict.fromkeys(done, "Llamas eat grass."))
        self.library.write_outcome(
            TENANT,
            store_id,
            StoreOutcome(files=outcomes, is_published=bool(done), finished_at=int(time.time())),
        )

    def attributes(self, store_id: str, file_id: str) -> Attributes:
        """What the library knows that a client said of a file."""
        return self.library.member(TENANT, store_id, file_id).attributes


@contextmanager
def stores_in(folder: Path | None, **settings: Any) -> Iterator[Stores]:
    """A gateway whose library is in `folder`, if there is one, with a knowledge base `handbook`."""
    library = Library(str(folder or "memory://unused"))
    index, upstream, encoder = FakeIndex(), FakeUpstream("org/model-a"), FakeEncoder()
    index.publish("handbook", {f"d{at}": f"Text {at}." for at in range(5)})
    said = {"knowledge_base": "handbook", "tenant": TENANT, **settings}
    app = create_app(
        GatewaySettings(library_url=str(folder) if folder else None, **said),
        servers=[upstream],
        reader=index,
        load_encoder=lambda: encoder,
    )
    with TestClient(app, base_url="http://127.0.0.1") as client:
        ends = time.monotonic() + 10
        while client.get("/health/ready").status_code != 200:
            assert time.monotonic() < ends
        yield Stores(client, library, index, upstream)


def strict(kind: type[Model], response: Any) -> Model:
    """The body of a response as the SDK's type, with nothing converted."""
    assert response.status_code == 200, response.text
    return kind.model_validate_json(response.content, strict=True)


def error_of(response: Any, status: int) -> dict[str, Any]:
    """The inside of an OpenAI error body with that status."""
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert not error["message"].startswith("The gateway failed")
    return error


def stored(library: Library, file_id: str) -> StoredFile:
    return library.file(TENANT, file_id)
