"""Files that clients upload, as they are documented."""

from typing import Annotated, Any, Literal

import msgspec

from gateway.errors import InvalidRequest, Overloaded, PermissionDenied, UploadsDisabled
from gateway.schemas.documented import FORM, Documented, Parameter
from gateway.schemas.lists import Deleted, Page, paged
from gateway.stores.uploaded import MOST, PURPOSES
from indexer.index.errors import LibraryUnavailable, NotInLibrary

TAG = "Files"
_FAILURES = (InvalidRequest, NotInLibrary, LibraryUnavailable, Overloaded)
_WRITE_FAILURES = (*_FAILURES, PermissionDenied, UploadsDisabled)


class UploadForm(msgspec.Struct):
    """A form with a file in it.

    `expires_after[anchor]`, which is `created_at`, and `expires_after[seconds]` make it go away.
    """

    file: Annotated[str, msgspec.Meta(extra_json_schema={"format": "binary"})]
    """What it is called tells how it is read."""
    purpose: Annotated[Any, msgspec.Meta(extra_json_schema={"enum": [*PURPOSES]})]
    """`assistants` for files that are to be in vector stores."""


class FileObject(msgspec.Struct, tag_field="object", tag="file"):
    """A file that was uploaded."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"]
    expires_at: int | None = None


class FileList(Page, kw_only=True):
    """Files."""

    data: list[FileObject]


UPLOAD_FILE = Documented(
    id="createFile",
    tag=TAG,
    summary="Upload a file",
    requests=(UploadForm,),
    request_type=FORM,
    answers=(FileObject,),
    failures=_WRITE_FAILURES,
)
LIST_FILES = Documented(
    id="listFiles",
    tag=TAG,
    summary="List the files",
    answers=(FileList,),
    parameters=(
        *paged(MOST, MOST),
        Parameter(name="purpose", description="Only files that are for this."),
    ),
    failures=_FAILURES,
)
RETRIEVE_FILE = Documented(
    id="retrieveFile",
    tag=TAG,
    summary="Retrieve what is known of a file",
    answers=(FileObject,),
    failures=_FAILURES,
)
DELETE_FILE = Documented(
    id="deleteFile",
    tag=TAG,
    summary="Delete a file; it leaves every vector store",
    answers=(Deleted,),
    failures=_WRITE_FAILURES,
)
DOWNLOAD_FILE = Documented(
    id="downloadFile",
    tag=TAG,
    summary="Download a file",
    answer_type="application/octet-stream",
    failures=_FAILURES,
)
