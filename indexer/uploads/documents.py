"""An uploaded file as a document of a run."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import cached_property

import msgspec

from indexer.comparison import UPLOAD_SCHEME
from indexer.documents import Content, SourceDocument
from indexer.errors import DocumentGone
from indexer.index.errors import NotInLibrary
from indexer.index.library import Chunking, Library, Membership, StoredFile
from indexer.index.records import key
from indexer.preparation import Prepared
from indexer.sources.formats import format_of
from indexer.uploads.preparation import UploadedContent
from indexer.work import Prepares

READ_MAX_BYTES = 256 << 20
"""Of one file: what a source reads of one, if nothing else is configured."""
_AS_TEXT = {".css", ".json", ".jsonl", ".ndjson", ".tex", ".xml"}
"""What no folder is searched for, and yet is meant where somebody uploads it."""


class UploadedDocument:
    """A file in a vector store. It is read where it has not been stored with its attributes."""

    def __init__(
        self,
        library: Library,
        tenant: str,
        file: StoredFile,
        member: Membership,
        chunking: Chunking | None,
    ) -> None:
        self._library = library
        self._file = file
        self._member = member
        self._chunking = chunking
        self.tenant = tenant
        self.file_id = file.id
        self.uri = f"{UPLOAD_SCHEME}{file.id}"
        self.name = f"{file.id}/{file.filename}"

    @cached_property
    def version(self) -> str:
        """The same where it makes the same chunks: a file never changes, its attributes do."""
        attributes = msgspec.json.encode(self._member.attributes, order="sorted").decode()
        return key(self._file.id, attributes)

    def read(self, known_version: str = "") -> Content | None:
        """Its content; None where it has `known_version`.

        Raises DocumentGone where it was deleted meanwhile, and LibraryUnavailable.
        """
        if known_version == self.version:
            return None
        try:
            with self._library.open_file(self.tenant, self._file.id) as file:
                data = file.read()
        except NotInLibrary as exc:
            raise DocumentGone("was deleted") from exc
        return UploadedContent(
            data=data,
            format=format_of_upload(self._file.filename),
            version=self.version,
            attributes=dict(self._member.attributes),
            file_id=self._file.id,
            chunking=self._chunking,
        )


class Uploads:
    """The documents of one store, which may be none. See `work.Documents`."""

    def __init__(self, documents: Sequence[SourceDocument]) -> None:
        self._documents = documents
        self.failures: list[tuple[str, str]] = []

    def __iter__(self) -> Iterator[SourceDocument]:
        """Each of them."""
        return iter(self._documents)


class Measured:
    """Workers that remember how much text each file has come to."""

    def __init__(self, workers: Prepares) -> None:
        self._workers = workers
        self.texts: dict[str, list[int]] = {}
        """Bytes of each chunk, by the ids of the files."""

    def submit(self, content: Content) -> "Future[Prepared]":
        """See `Prepares.submit`."""
        future: Future[Prepared] = Future()

        def done(inner: "Future[Prepared]") -> None:
            if inner.cancelled():
                future.cancel()
            elif (failure := inner.exception()) is not None:
                future.set_exception(failure)
            else:
                prepared = inner.result()
                if isinstance(content, UploadedContent):
                    sizes = [len(span.text.encode()) for span in prepared.spans]
                    self.texts[content.file_id] = sizes
                future.set_result(prepared)

        self._workers.submit(content).add_done_callback(done)
        return future


def format_of_upload(filename: str) -> str:
    """The suffix that tells how a file is parsed; empty where it cannot be."""
    lower = filename.lower()
    if any(lower.endswith(suffix) for suffix in _AS_TEXT):
        return ".txt"
    found = format_of(lower)
    return "" if found.endswith(".gz") else found
