"""What a run did, or would do: the counts that people, machines and metrics are shown."""

import msgspec

DONE = 0
BAD_CONFIGURATION = 2
DEPENDENCY_DOWN = 3
DONE_IN_PART = 4  # not 1, which Python returns for an error that nobody expected
LEASE_HELD = 5
REFUSED = 6
DRIFT_FOUND = 7
INTERRUPTED = 130  # as shells have it: 128 + SIGINT


class Report(msgspec.Struct):
    """What a run did, in documents unless it says otherwise."""

    generation: str = ""
    published: bool = False
    """Whether this run made the generation that readers see from now on."""
    added: int = 0
    changed: int = 0
    kept: int = 0
    deleted: int = 0
    withheld: int = 0
    """Documents that are gone from the sources, or seem so, and were not deleted."""
    skipped: list[tuple[str, str]] = []
    """Names and reasons. What is stored of them stays as it was."""
    failed_sources: list[tuple[str, str]] = []
    """Locations that could not be listed, and why."""
    refused: str = ""
    """Why deletions or the publication were refused; empty where they were not."""
    chunks_embedded: int = 0
    chunks_reused: int = 0
    """Chunks that were written with a vector that was known already."""
    chunks_written: int = 0
    chunks_kept: int = 0
    """Chunks of kept and skipped documents: with the written ones, all that should be there."""
    documents_kept_unread: int = 0
    """Skipped documents of which an earlier version is stored."""
    seconds: float = 0.0
    encode_seconds: float = 0.0
    """Time in which the encoder worked."""
    pipeline_seconds: float = 0.0
    """From the first look at the sources to the last write."""

    @property
    def documents(self) -> int:
        """How many documents should be stored now, withheld ones aside."""
        return self.added + self.changed + self.kept + self.documents_kept_unread

    @property
    def chunks(self) -> int:
        """How many chunks should be stored now, those of withheld documents aside."""
        return self.chunks_written + self.chunks_kept

    @property
    def exit_code(self) -> int:
        """The code that the process returns."""
        if self.refused:
            return REFUSED
        return DONE_IN_PART if self.skipped or self.failed_sources else DONE

    def skip(self, name: str, reason: str, *, rows: int) -> None:
        """Count a document that could not be used, of which `rows` chunks are stored."""
        self.skipped.append((name, reason))
        self.chunks_kept += rows
        self.documents_kept_unread += rows > 0
