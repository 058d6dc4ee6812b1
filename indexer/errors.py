"""What can go wrong in a run, beside the contract's IndexFailure.

::

    IndexerFailure
    ├── SourceUnusable     the paths given to a run are not there or hold no documents: no run
    └── DocumentUnusable   one document cannot be read or parsed: skipped, the run goes on
"""


class IndexerFailure(Exception):
    """Base of the indexer's own errors."""


class SourceUnusable(IndexerFailure):
    """A path is missing, or holds no document of a known format."""


class DocumentUnusable(IndexerFailure):
    """One document cannot be read or parsed."""
