"""What a file name says: a document of which format, a file of records, a sidecar, or nothing."""

from pathlib import PurePosixPath

from indexer.parsing import FORMATS

RECORD_FORMATS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
"""Of files whose every line is one document."""

_SIDECARS = (".meta.toml", ".meta.yaml", ".meta.yml", ".meta.json")


def format_of(name: str) -> str:
    """The suffix that tells the format, in lower case; empty where no format is known."""
    lower = name.lower()
    for suffix in RECORD_FORMATS:
        if lower.endswith(suffix):
            return suffix
    suffix = PurePosixPath(lower).suffix
    return suffix if suffix in FORMATS else ""


def described_by(name: str) -> str:
    """Name of the document that a sidecar file describes; empty when `name` is no sidecar's."""
    for suffix in _SIDECARS:
        if name.lower().endswith(suffix) and format_of(document := name[: -len(suffix)]):
            return document
    return ""


def sidecars_of(name: str) -> list[str]:
    """Names that a sidecar of `name` may have; the first that is there counts."""
    return [f"{name}{suffix}" for suffix in _SIDECARS]
