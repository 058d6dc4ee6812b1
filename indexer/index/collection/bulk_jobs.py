"""Tells Milvus to import files, and waits, with pymilvus' own calls to its REST interface.

Importing it takes a second, and packages that nothing else needs: `bulk` does it when it must.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from pymilvus import MilvusException
from pymilvus.bulk_writer import bulk_import, get_import_progress

from indexer.index.collection.connecting import rest_certificates
from indexer.index.errors import IndexRefused, IndexUnavailable
from indexer.index.settings import IndexSettings

FILES_PER_JOB = 1024
"""Milvus' dataCoord.import.maxImportFileNumPerReq."""
POLL_INTERVAL_S = 2.0
_COMPLETE = 100


class ImportJobs:
    """Import jobs of one Milvus, through its REST interface."""

    def __init__(
        self,
        settings: IndexSettings,
        held: Callable[[], object],
        on_progress: Callable[[int], None] = lambda _: None,
        poll_interval_s: float = POLL_INTERVAL_S,
    ) -> None:
        """`held` raises LeaseLost; `on_progress` is told percents."""
        self._request: dict[str, Any] = {
            "url": settings.milvus_uri.rstrip("/"),
            "api_key": settings.milvus_token.get_secret_value(),
            "timeout": settings.milvus_timeout_s,
            **rest_certificates(settings),
        }
        self._held = held
        self._on_progress = on_progress
        self._poll_interval_s = poll_interval_s

    def run(self, collection: str, files: Sequence[list[str]]) -> None:
        """Import `files` and wait for the end. Raises IndexUnavailable, IndexRefused, LeaseLost."""
        jobs = [
            self._start(collection, files[first : first + FILES_PER_JOB])
            for first in range(0, len(files), FILES_PER_JOB)
        ]
        for number, job in enumerate(jobs):
            while (progress := self._progress(job)) < _COMPLETE:
                self._on_progress((100 * number + progress) // len(jobs))
                time.sleep(self._poll_interval_s)
        self._on_progress(100)

    def _start(self, collection: str, files: Sequence[list[str]]) -> str:
        self._held()
        answer = _answered(
            lambda: bulk_import(collection_name=collection, files=list(files), **self._request)
        )
        return str(answer["jobId"])

    def _progress(self, job: str) -> int:
        """In percent; _COMPLETE when readers may have the rows."""
        self._held()
        try:
            answer = _answered(lambda: get_import_progress(job_id=job, **self._request))
        except IndexUnavailable:
            return 0  # for as long as the lease can be renewed it has not gone for good
        if answer["state"] == "Failed":
            raise IndexRefused(f"Milvus could not import the rows: {answer.get('reason', '')}")
        if answer["state"] == "Completed":
            return _COMPLETE
        return min(99, int(answer.get("progress", 0)))


def _answered(call: Callable[[], Any]) -> dict[str, Any]:
    """The `data` of an answer. pymilvus makes one exception of whatever goes wrong."""
    try:
        answer: dict[str, Any] = call().json()["data"]
    except MilvusException as exc:
        if isinstance(exc.__context__, OSError):  # what requests raises is one
            raise IndexUnavailable(
                "Milvus does not answer requests to import; Milvus Lite has no import"
            ) from exc
        raise IndexRefused(f"Milvus refused the import: {exc.message}") from exc
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise IndexRefused(f"Milvus answered the import with something else: {exc}") from exc
    return answer
