"""Vector stores, as they are documented. What requests may say is what the gateway reads."""

from typing import Any, Literal

import msgspec

from gateway.errors import (
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    UploadsDisabled,
    VectorStoreNotFound,
    VectorStoreReadOnly,
)
from gateway.schemas import failures
from gateway.schemas.documented import Documented
from gateway.schemas.lists import Deleted, Page, paged
from gateway.stores.requests import CreateStore, SearchStore, UpdateStore
from indexer.index.errors import FilterInvalid, LibraryUnavailable, NotInLibrary

TAG = "Vector stores"
READ_FAILURES = (
    InvalidRequest,
    VectorStoreNotFound,
    NotInLibrary,
    LibraryUnavailable,
    Overloaded,
    *failures.INDEX,
)
WRITE_FAILURES = (*READ_FAILURES, PermissionDenied, VectorStoreReadOnly, UploadsDisabled)


class FileCounts(msgspec.Struct):
    """How many files are in which state."""

    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class ExpiresAfter(msgspec.Struct):
    """When a store goes that nobody uses."""

    anchor: Literal["last_active_at"]
    days: int


class VectorStoreObject(msgspec.Struct, tag_field="object", tag="vector_store"):
    """A vector store: uploads, or a knowledge base that the indexer fills."""

    id: str
    created_at: int
    """Seconds since the epoch, here and elsewhere."""
    name: str | None
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["in_progress", "completed", "expired"]
    metadata: dict[str, str] | None
    description: str | None = None
    expires_after: ExpiresAfter | None = None
    expires_at: int | None = None
    last_active_at: int | None = None


class VectorStoreList(Page, kw_only=True):
    """Vector stores."""

    data: list[VectorStoreObject]


class ResultContent(msgspec.Struct, tag_field="type", tag="text"):
    """A text that was found."""

    text: str


class SearchResult(msgspec.Struct):
    """A chunk that was found."""

    file_id: str
    filename: str
    score: float
    """0 to 1, higher is better."""
    attributes: dict[str, Any] | None
    content: list[ResultContent]


class SearchResultsPage(msgspec.Struct, tag_field="object", tag="vector_store.search_results.page"):
    """Chunks, best first."""

    search_query: list[str]
    """What was searched for."""
    data: list[SearchResult]
    has_more: bool
    next_page: str | None


LIST_VECTOR_STORES = Documented(
    id="listVectorStores",
    tag=TAG,
    summary="List the vector stores",
    answers=(VectorStoreList,),
    parameters=paged(),
    failures=READ_FAILURES,
)
CREATE_VECTOR_STORE = Documented(
    id="createVectorStore",
    tag=TAG,
    summary="Create a vector store",
    requests=(CreateStore,),
    example={"name": "Llamas"},
    answers=(VectorStoreObject,),
    failures=WRITE_FAILURES,
)
RETRIEVE_VECTOR_STORE = Documented(
    id="getVectorStore",
    tag=TAG,
    summary="Retrieve a vector store",
    answers=(VectorStoreObject,),
    failures=READ_FAILURES,
)
UPDATE_VECTOR_STORE = Documented(
    id="modifyVectorStore",
    tag=TAG,
    summary="Modify a vector store",
    requests=(UpdateStore,),
    example={"name": "Camelids"},
    answers=(VectorStoreObject,),
    failures=WRITE_FAILURES,
)
DELETE_VECTOR_STORE = Documented(
    id="deleteVectorStore",
    tag=TAG,
    summary="Delete a vector store; its files stay",
    answers=(Deleted,),
    failures=WRITE_FAILURES,
)
SEARCH_VECTOR_STORE = Documented(
    id="searchVectorStore",
    tag=TAG,
    summary="Search a vector store",
    requests=(SearchStore,),
    example={"query": "What do llamas eat?", "max_num_results": 3},
    answers=(SearchResultsPage,),
    failures=(*READ_FAILURES, FilterInvalid, *failures.ENCODER, *failures.UPSTREAM),
)
