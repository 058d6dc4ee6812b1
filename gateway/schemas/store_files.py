"""Files of vector stores, and batches of them, as they are documented."""

from typing import Any

import msgspec

from gateway.schemas.documented import Documented, Parameter
from gateway.schemas.lists import Deleted, Page, paged
from gateway.schemas.vector_stores import (
    READ_FAILURES,
    TAG,
    WRITE_FAILURES,
    FileCounts,
    ResultContent,
)
from gateway.stores.requests import AttachFile, CreateBatch, UpdateFile
from gateway.stores.shapes import Status


class LastError(msgspec.Struct):
    """Why a file could not be indexed."""

    code: str
    message: str


class VectorStoreFile(msgspec.Struct, tag_field="object", tag="vector_store.file"):
    """A file in a vector store."""

    id: str
    created_at: int
    vector_store_id: str
    status: Status
    last_error: LastError | None
    usage_bytes: int
    attributes: dict[str, Any] | None = None
    chunking_strategy: dict[str, Any] | None = None
    filename: str | None = None


class VectorStoreFileList(Page, kw_only=True):
    """Files of a vector store."""

    data: list[VectorStoreFile]


class VectorStoreFileContent(
    msgspec.Struct, tag_field="object", tag="vector_store.file_content.page"
):
    """The text of a file, as it was indexed."""

    data: list[ResultContent]
    has_more: bool
    next_page: str | None


class VectorStoreFileBatch(msgspec.Struct, tag_field="object", tag="vector_store.files_batch"):
    """Files that were put into a vector store together."""

    id: str
    created_at: int
    vector_store_id: str
    status: Status
    file_counts: FileCounts


_PAGED = (
    *paged(),
    Parameter(name="filter", description="Only files in this state.", type=Status),
)
_FILE = {"file_id": "file-…"}

LIST_STORE_FILES = Documented(
    id="listVectorStoreFiles",
    tag=TAG,
    summary="List the files of a vector store",
    answers=(VectorStoreFileList,),
    parameters=_PAGED,
    failures=READ_FAILURES,
)
ATTACH_FILE = Documented(
    id="createVectorStoreFile",
    tag=TAG,
    summary="Put a file into a vector store",
    requests=(AttachFile,),
    example=_FILE,
    answers=(VectorStoreFile,),
    failures=WRITE_FAILURES,
)
RETRIEVE_STORE_FILE = Documented(
    id="getVectorStoreFile",
    tag=TAG,
    summary="Retrieve a file of a vector store",
    answers=(VectorStoreFile,),
    failures=READ_FAILURES,
)
UPDATE_STORE_FILE = Documented(
    id="updateVectorStoreFileAttributes",
    tag=TAG,
    summary="Give a file of a vector store other attributes",
    requests=(UpdateFile,),
    example={"attributes": {"year": 2024}},
    answers=(VectorStoreFile,),
    failures=WRITE_FAILURES,
)
DETACH_FILE = Documented(
    id="deleteVectorStoreFile",
    tag=TAG,
    summary="Take a file out of a vector store; it stays among the files",
    answers=(Deleted,),
    failures=WRITE_FAILURES,
)
STORE_FILE_CONTENT = Documented(
    id="retrieveVectorStoreFileContent",
    tag=TAG,
    summary="Retrieve the text of a file of a vector store",
    answers=(VectorStoreFileContent,),
    failures=READ_FAILURES,
)
CREATE_BATCH = Documented(
    id="createVectorStoreFileBatch",
    tag=TAG,
    summary="Put files into a vector store",
    requests=(CreateBatch,),
    example={"file_ids": ["file-…"]},
    answers=(VectorStoreFileBatch,),
    failures=WRITE_FAILURES,
)
RETRIEVE_BATCH = Documented(
    id="getVectorStoreFileBatch",
    tag=TAG,
    summary="Retrieve a batch",
    answers=(VectorStoreFileBatch,),
    failures=READ_FAILURES,
)
CANCEL_BATCH = Documented(
    id="cancelVectorStoreFileBatch",
    tag=TAG,
    summary="Keep what is in progress of a batch from being indexed",
    answers=(VectorStoreFileBatch,),
    failures=WRITE_FAILURES,
)
LIST_BATCH_FILES = Documented(
    id="listFilesInVectorStoreBatch",
    tag=TAG,
    summary="List the files of a batch",
    answers=(VectorStoreFileList,),
    parameters=_PAGED,
    failures=READ_FAILURES,
)
