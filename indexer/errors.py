"""What can go wrong in a run, beside the contract's IndexFailure.

::

    IndexerFailure
    ├── SourceUnusable     a source cannot be listed, or lists nothing: nothing is deleted
    │   └── ConfigurationUnusable   the file that names the sources is wrong: nothing is run
    ├── DocumentUnusable   one document cannot be read or parsed: skipped, the run goes on
    │   └── DocumentGone   it was listed but is not there any more: its chunks are deleted
    ├── EngineUnavailable  the engine that was asked for is not installed or cannot be reached
    └── MetricsNotTold     the run is done, but Prometheus cannot be told of it
"""


class IndexerFailure(Exception):
    """Base of the indexer's own errors."""


class SourceUnusable(IndexerFailure):
    """A source cannot be listed, or lists no document of a known format."""


class ConfigurationUnusable(SourceUnusable):
    """The sources are configured wrongly; the message names file, entry and field."""


class DocumentUnusable(IndexerFailure):
    """One document cannot be read or parsed."""


class DocumentGone(DocumentUnusable):
    """One document was listed but is not there any more."""


class EngineUnavailable(IndexerFailure):
    """The engine that was asked for is not installed, cannot be reached, or broke off."""


class MetricsNotTold(IndexerFailure):
    """Prometheus' file or gateway could not be written; the run itself is done."""
