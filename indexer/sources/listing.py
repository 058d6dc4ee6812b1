"""Lists the documents of all sources, one by one. Knows which module lists which kind of source."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeGuard

from indexer.documents import SourceDocument
from indexer.errors import SourceUnusable
from indexer.sources import local
from indexer.sources.configuration import Source, scheme_of
from indexer.sources.formats import RECORD_FORMATS
from indexer.sources.records import RecordFile, records


class Listing:
    """The documents of all sources in a stable order, each uri once for each tenant.

    Memory holds a digest of 16 bytes for each document, and nothing else that grows with them.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._seen: set[bytes] = set()
        self.failures: list[tuple[str, str]] = []
        """Locations and reasons: what could not be listed, wholly or in part, and each source
        that listed nothing, for an empty folder is more often a mount that failed than a wish
        to empty the index. Complete after iteration; where it is not empty, nothing may be
        deleted, since documents that are still there may be missing from the listing."""

    def __iter__(self) -> Iterator[SourceDocument]:
        """Lists anew. Raises SourceUnusable, with all reasons, when no source lists anything."""
        self._seen.clear()
        self.failures.clear()
        is_empty = True
        for source in self._sources:
            for document in self._documents_of(source):
                is_empty = False
                yield document
        if is_empty:
            reasons = [reason for _, reason in self.failures]
            raise SourceUnusable("; ".join(reasons) or "there is no source")

    def _documents_of(self, source: Source) -> Iterator[SourceDocument]:
        failures_before = len(self.failures)

        def problem(reason: str) -> None:
            self.failures.append((source.location, reason))

        def is_new(uri: str) -> bool:
            return self._is_new(source.tenant, uri)

        is_empty = True
        try:
            for document in _listed(source, problem):
                if not is_new(document.uri):
                    is_empty = False
                elif _holds_records(document):
                    for record in _records(document, source, is_new, problem):
                        is_empty = False
                        yield record
                else:
                    is_empty = False
                    yield document
        except SourceUnusable as exc:
            problem(str(exc))
        if is_empty and len(self.failures) == failures_before:
            problem(f"{source.location} holds no document of a known format")

    def _is_new(self, tenant: str, uri: str) -> bool:
        whole = f"{tenant}\0{uri}".encode(errors="surrogatepass")
        digest = hashlib.blake2b(whole, digest_size=16).digest()
        if digest in self._seen:
            return False
        self._seen.add(digest)
        return True


def can_be_listed_twice(sources: Sequence[Source]) -> bool:
    """Whether listing costs little: all are on this machine, so that nobody is asked for it."""
    return all(scheme_of(source.location) in ("", "file") for source in sources)


def _listed(source: Source, problem: Callable[[str], None]) -> Iterator[SourceDocument]:
    """Documents, and files of records. Importing httpx2 or fsspec takes 0.1 s, and more."""
    match scheme_of(source.location):
        case "" | "file":
            return local.find_files(source, problem)
        case "http" | "https":
            from indexer.sources.web import pages

            return pages.find_pages(source, problem)
        case _:
            from indexer.sources import remote

            return remote.find_files(source, problem)


def _holds_records(document: SourceDocument) -> TypeGuard[RecordFile]:
    return getattr(document, "format", "") in RECORD_FORMATS


def _records(
    file: RecordFile,
    source: Source,
    is_new: Callable[[str], bool],
    problem: Callable[[str], None],
) -> Iterator[SourceDocument]:
    try:
        yield from records(file, source, is_new)
    except SourceUnusable as exc:
        problem(str(exc))
