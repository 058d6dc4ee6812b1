"""Where documents come from: folders, web pages and sitemaps, object stores, files of records.

Importing it is cheap: what only some sources need is imported when such a source is used.
"""

from indexer.sources.configuration import (
    Configuration,
    Source,
    WebRules,
    load_configuration,
    sources_of,
)
from indexer.sources.listing import Listing, can_be_listed_twice

__all__ = [
    "Configuration",
    "Listing",
    "Source",
    "WebRules",
    "can_be_listed_twice",
    "load_configuration",
    "sources_of",
]
