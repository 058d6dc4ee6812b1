"""The index contract: what is stored and how it is found.

The one part of ``indexer`` that ``gateway`` may import. It knows no web framework, no
document format and no command line. Importing it stays cheap: torch is loaded with the
first model, pymilvus with the collection module.
"""

__version__ = "0.1.0"
