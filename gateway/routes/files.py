"""OpenAI's files."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.errors import InvalidRequest, Refused
from gateway.routes.documentation import documented
from gateway.routes.serving import AnyRequest, ByteStream, json_response, refuse_compressed
from gateway.schemas.files import (
    DELETE_FILE,
    DOWNLOAD_FILE,
    LIST_FILES,
    RETRIEVE_FILE,
    UPLOAD_FILE,
)
from gateway.stores.forms import Form
from gateway.stores.pages import PageQuery
from gateway.stores.uploaded import MOST, Files

PATH = "/v1/files"
_FORM = "multipart/form-data"


@get(PATH, **documented(LIST_FILES))
async def list_files(request: AnyRequest, files: NamedDependency[Files]) -> Response[bytes]:
    """What was uploaded."""
    query = PageQuery.read(request.query_params, limit=MOST, most=MOST)
    return json_response(await files.listed(query, request.query_params.get("purpose")))


# How long it may be is told by a setting of its own, which `_body` looks at.
@post(PATH, status_code=200, request_max_body_size=None, **documented(UPLOAD_FILE))
async def upload_file(
    request: AnyRequest, files: NamedDependency[Files], max_upload_bytes: NamedDependency[int]
) -> Response[bytes]:
    """Store a file, to be put into vector stores."""
    files.check_change()
    refuse_compressed(request)
    kind, options = request.content_type
    if kind != _FORM or not options.get("boundary"):
        raise InvalidRequest(
            f"The content type is {kind!r}: send a form, as {_FORM} with a boundary.",
            "content-type",
        )
    form = Form()
    try:
        await form.read(_body(request, max_upload_bytes), options["boundary"])
        return json_response(await files.upload(form))
    finally:
        form.close()


@get(f"{PATH}/{{file_id:str}}", **documented(RETRIEVE_FILE))
async def retrieve_file(file_id: FromPath[str], files: NamedDependency[Files]) -> Response[bytes]:
    """What is known of a file."""
    return json_response(await files.retrieve(file_id))


@delete(f"{PATH}/{{file_id:str}}", status_code=200, **documented(DELETE_FILE))
async def delete_file(file_id: FromPath[str], files: NamedDependency[Files]) -> Response[bytes]:
    """Delete a file; it leaves every vector store."""
    return json_response(await files.delete(file_id))


@get(f"{PATH}/{{file_id:str}}/content", **documented(DOWNLOAD_FILE))
async def download_file(file_id: FromPath[str], files: NamedDependency[Files]) -> ByteStream:
    """The bytes of a file, as they came."""
    download = await files.content(file_id)
    name = quote(download.file.filename, safe="", errors="replace")
    return ByteStream(
        download.pieces(),
        download.close,
        "application/octet-stream",
        headers={
            "content-length": str(download.file.bytes),
            # Whatever is in it, no browser shows it as a page of this server.
            "content-disposition": f"attachment; filename*=UTF-8''{name}",
            "x-content-type-options": "nosniff",
            "content-security-policy": "sandbox",
        },
    )


async def _body(request: AnyRequest, most_bytes: int) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Refused where it is too long."""
    announced = request.content_length or 0
    came = 0
    async for piece in request.stream():
        came += len(piece)
        if max(announced, came) > most_bytes:
            raise Refused(
                f"The upload is longer than {most_bytes} bytes.", 413, "request_too_large"
            )
        yield piece


ROUTES: list[Any] = [list_files, upload_file, retrieve_file, delete_file, download_file]
