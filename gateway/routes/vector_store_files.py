"""The files of OpenAI's vector stores, one at a time and in batches."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec
from litestar import MediaType, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.routes.documentation import documented
from gateway.routes.serving import AnyRequest, ByteStream, json_body, json_response
from gateway.routes.vector_stores import PATH
from gateway.schemas.store_files import (
    ATTACH_FILE,
    CANCEL_BATCH,
    CREATE_BATCH,
    DETACH_FILE,
    LIST_BATCH_FILES,
    LIST_STORE_FILES,
    RETRIEVE_BATCH,
    RETRIEVE_STORE_FILE,
    STORE_FILE_CONTENT,
    UPDATE_STORE_FILE,
)
from gateway.stores.batches import FileBatches
from gateway.stores.pages import FilesQuery
from gateway.stores.shapes import IN_PROGRESS
from gateway.stores.store_files import StoreFiles

FILES = f"{PATH}/{{store_id:str}}/files"
FILE = f"{FILES}/{{file_id:str}}"
BATCHES = f"{PATH}/{{store_id:str}}/file_batches"
BATCH = f"{BATCHES}/{{batch_id:str}}"
POLL_AFTER_MS = 500
"""When clients that wait for a file should ask again; the SDK's `create_and_poll` does."""


@get(FILES, **documented(LIST_STORE_FILES))
async def list_vector_store_files(
    store_id: FromPath[str], request: AnyRequest, store_files: NamedDependency[StoreFiles]
) -> Response[bytes]:
    """What is in a vector store, whether it is ready or not."""
    return json_response(await store_files.listed(store_id, FilesQuery.read(request.query_params)))


@post(FILES, status_code=200, **documented(ATTACH_FILE))
async def attach_file(
    store_id: FromPath[str], request: AnyRequest, store_files: NamedDependency[StoreFiles]
) -> Response[bytes]:
    """Put a file that was uploaded into a vector store; the indexer does the rest."""
    return _polled(await store_files.attach(store_id, await json_body(request)))


@get(FILE, **documented(RETRIEVE_STORE_FILE))
async def retrieve_vector_store_file(
    store_id: FromPath[str], file_id: FromPath[str], store_files: NamedDependency[StoreFiles]
) -> Response[bytes]:
    """One file of a vector store, and what became of it."""
    return _polled(await store_files.retrieve(store_id, file_id))


@post(FILE, status_code=200, **documented(UPDATE_STORE_FILE))
async def update_vector_store_file(
    store_id: FromPath[str],
    file_id: FromPath[str],
    request: AnyRequest,
    store_files: NamedDependency[StoreFiles],
) -> Response[bytes]:
    """Give a file of a vector store other attributes."""
    return _polled(await store_files.update(store_id, file_id, await json_body(request)))


@delete(FILE, status_code=200, **documented(DETACH_FILE))
async def detach_file(
    store_id: FromPath[str], file_id: FromPath[str], store_files: NamedDependency[StoreFiles]
) -> Response[bytes]:
    """Take a file out of a vector store; the file itself stays."""
    return json_response(await store_files.delete(store_id, file_id))


@get(f"{FILE}/content", **documented(STORE_FILE_CONTENT))
async def read_vector_store_file(
    store_id: FromPath[str], file_id: FromPath[str], store_files: NamedDependency[StoreFiles]
) -> ByteStream:
    """The text of a file of a vector store, as it was indexed."""
    page = _content_page(await _begun(await store_files.content(store_id, file_id)))
    return ByteStream(page, page.aclose, MediaType.JSON.value)


@post(BATCHES, status_code=200, **documented(CREATE_BATCH))
async def create_file_batch(
    store_id: FromPath[str], request: AnyRequest, file_batches: NamedDependency[FileBatches]
) -> Response[bytes]:
    """Put several files into a vector store."""
    return _polled(await file_batches.create(store_id, await json_body(request)))


@get(BATCH, **documented(RETRIEVE_BATCH))
async def retrieve_file_batch(
    store_id: FromPath[str], batch_id: FromPath[str], file_batches: NamedDependency[FileBatches]
) -> Response[bytes]:
    """How many files of a batch are ready."""
    return _polled(await file_batches.retrieve(store_id, batch_id))


@post(f"{BATCH}/cancel", status_code=200, **documented(CANCEL_BATCH))
async def cancel_file_batch(
    request: AnyRequest,
    store_id: FromPath[str],
    batch_id: FromPath[str],
    file_batches: NamedDependency[FileBatches],
) -> Response[bytes]:
    """Keep those files of a batch that are in progress from being indexed."""
    await json_body(request)
    return json_response(await file_batches.cancel(store_id, batch_id))


@get(f"{BATCH}/files", **documented(LIST_BATCH_FILES))
async def list_file_batch_files(
    store_id: FromPath[str],
    batch_id: FromPath[str],
    request: AnyRequest,
    file_batches: NamedDependency[FileBatches],
) -> Response[bytes]:
    """The files of a batch that are still in the vector store."""
    query = FilesQuery.read(request.query_params)
    return json_response(await file_batches.files(store_id, batch_id, query))


def _polled(told: dict[str, Any]) -> Response[bytes]:
    """`told`, and when to ask again where it is not yet what it will be."""
    headers = {"openai-poll-after-ms": str(POLL_AFTER_MS)}
    return json_response(told, headers=headers if told["status"] == IN_PROGRESS else {})


async def _begun(texts: AsyncIterator[str]) -> AsyncIterator[str]:
    """The same, where the first piece could be read. What cannot be read has a status then."""
    first = await anext(texts, None)

    async def all_of_them() -> AsyncIterator[str]:
        if first is not None:
            yield first
        async for text in texts:
            yield text

    return all_of_them()


async def _content_page(texts: AsyncIterator[str]) -> AsyncGenerator[bytes, None]:
    """OpenAI's page of a file's text, written piece by piece; one that breaks off is no JSON."""
    yield b'{"object":"vector_store.file_content.page","data":['
    separator = b""
    async for text in texts:
        yield separator + msgspec.json.encode({"type": "text", "text": text})
        separator = b","
    yield b'],"has_more":false,"next_page":null}'


ROUTES = [
    list_vector_store_files,
    attach_file,
    retrieve_vector_store_file,
    update_vector_store_file,
    detach_file,
    read_vector_store_file,
    create_file_batch,
    retrieve_file_batch,
    cancel_file_batch,
    list_file_batch_files,
]
