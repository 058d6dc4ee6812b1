"""OpenAI's objects. Each function makes one, as JSON is made of it."""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

from indexer.index.attributes import within_limits
from indexer.index.collection import DocumentEntry, Generation
from indexer.index.library import (
    Batch,
    Chunking,
    Membership,
    Outcome,
    StoredFile,
    StoreOutcome,
    VectorStore,
)

Status = Literal["in_progress", "completed", "failed", "cancelled"]
IN_PROGRESS: Status = "in_progress"


def status_of(member: Membership, outcome: StoreOutcome) -> Status:
    """What is to be told of a file in a store. An outcome of another version says nothing."""
    if member.is_cancelled:
        return "cancelled"
    found = outcome.of(member)
    return IN_PROGRESS if found is None else found.status


def file_counts(statuses: Iterable[Status]) -> dict[str, int]:
    """How many files are in which state."""
    counts = Counter(statuses)
    names: tuple[Status, ...] = ("in_progress", "completed", "failed", "cancelled")
    return {**{name: counts[name] for name in names}, "total": counts.total()}


def vector_store(
    store: VectorStore, members: Iterable[Membership], outcome: StoreOutcome
) -> dict[str, Any]:
    """A vector store of the library."""
    listed = list(members)
    counts = file_counts(status_of(member, outcome) for member in listed)
    is_expired = store.expires_at is not None and store.expires_at <= time.time()
    ready = "in_progress" if counts["in_progress"] else "completed"
    found = [each for member in listed if (each := outcome.of(member)) is not None]
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": store.created_at,
        "name": store.name,
        "description": store.description,
        "usage_bytes": sum(each.usage_bytes for each in found),
        "file_counts": counts,
        "status": "expired" if is_expired else ready,
        "expires_after": None
        if store.expires_after is None
        else {"anchor": store.expires_after.anchor, "days": store.expires_after.days},
        "expires_at": store.expires_at,
        "last_active_at": store.last_active_at,
        "metadata": store.metadata,
    }


def knowledge_base(name: str, generation: Generation | None, documents: int) -> dict[str, Any]:
    """A vector store that the indexer fills from sources of its own; None before the first time.

    How many bytes its texts have is not known.
    """
    return {
        "id": name,
        "object": "vector_store",
        "created_at": indexed_at(generation),
        "name": name,
        "description": None,
        "usage_bytes": 0,
        "file_counts": file_counts(["completed"] * documents),
        "status": "in_progress" if generation is None else "completed",
        "expires_after": None,
        "expires_at": None,
        "last_active_at": indexed_at(generation),
        "metadata": {},
    }


def indexed_at(generation: Generation | None) -> int:
    """When a run was last done with a generation, in seconds since the epoch; 0 if unknown."""
    if generation is None or generation.last_run is None:
        return 0
    return int(generation.last_run.finished_at)


def store_file(
    member: Membership, outcome: StoreOutcome, store: VectorStore, file: StoredFile | None
) -> dict[str, Any]:
    """A file in a vector store of the library."""
    found = outcome.of(member) or Outcome(version="", status="completed")
    error = None
    if status_of(member, outcome) == "failed":
        error = {"code": found.error_code or "server_error", "message": found.error_message}
    return {
        "id": member.file_id,
        "object": "vector_store.file",
        "created_at": member.created_at,
        "vector_store_id": member.store_id,
        "status": status_of(member, outcome),
        "last_error": error,
        "usage_bytes": found.usage_bytes,
        "attributes": member.attributes,
        "chunking_strategy": chunking_strategy(store.chunking),
        "filename": None if file is None else file.filename,
    }


def document_file(
    store_id: str, generation: Generation, document: DocumentEntry, filename: str
) -> dict[str, Any]:
    """A document of a knowledge base, as a file of it."""
    return {
        "id": document.document_id,
        "object": "vector_store.file",
        "created_at": indexed_at(generation),
        "vector_store_id": store_id,
        "status": "completed",
        "last_error": None,
        "usage_bytes": 0,
        "attributes": within_limits(document.attributes),
        "chunking_strategy": chunking_strategy(None),
        "filename": filename,
    }


def chunking_strategy(chunking: Chunking | None) -> dict[str, Any]:
    """How files are cut; OpenAI has no word for what the indexer does by itself."""
    if chunking is None:
        return {"type": "other"}
    return {
        "type": "static",
        "static": {
            "max_chunk_size_tokens": chunking.max_chunk_size_tokens,
            "chunk_overlap_tokens": chunking.chunk_overlap_tokens,
        },
    }


def files_batch(batch: Batch, statuses: Iterable[Status]) -> dict[str, Any]:
    """A batch of files in a vector store; it has failed where every file of it has.

    `statuses` are those of the files that are still in the store.
    """
    counts = file_counts(statuses)
    status = "completed"
    if counts["in_progress"]:
        status = "in_progress"
    elif counts["cancelled"]:
        status = "cancelled"
    elif 0 < counts["failed"] == counts["total"]:
        status = "failed"
    return {
        "id": batch.id,
        "object": "vector_store.files_batch",
        "created_at": batch.created_at,
        "vector_store_id": batch.store_id,
        "status": status,
        "file_counts": counts,
    }


def uploaded_file(file: StoredFile) -> dict[str, Any]:
    """A file that was uploaded."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def deleted(identity: str, kind: str) -> dict[str, Any]:
    """What is told of an object that is gone."""
    return {"id": identity, "object": kind, "deleted": True}
