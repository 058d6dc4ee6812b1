"""LangChain's side: one run of its indexing API over a folder, written as its documentation does.

    python -m stack.langchain_side FOLDER --uri URI --records FILE --encoder MODEL

A SQLRecordManager in SQLite remembers what was written to Milvus, and "full" is the one cleanup
that also removes the documents that are gone. Needs the environment of stack.comparison.
"""

# ruff: noqa: PLC0415
# mypy: disable-error-code="import-not-found"
# LangChain is in an environment of its own, and this module can be imported without it.

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COLLECTION = "documents"
CHUNK_CHARS = 512
OVERLAP_CHARS = 51
BATCH_TEXTS = 32
"""Texts that the encoder takes at once, as on the other side."""
IMPORTS = (
    "bs4",
    "langchain_classic.indexes",
    "langchain_community.document_loaders.directory",
    "langchain_community.document_loaders.html_bs",
    "langchain_community.document_loaders.text",
    "langchain_huggingface",
    "langchain_milvus",
    "langchain_text_splitters",
)
"""What a run imports, for who wants to leave it out of the time."""


def run(folder: Path, uri: str, records_file: Path, encoder: str) -> dict[str, int]:
    """Make the collection equal to the files of `folder`; gives LangChain's own counts."""
    from langchain_classic.indexes import SQLRecordManager
    from langchain_core.indexing import index
    from langchain_huggingface import HuggingFaceEmbeddings
    from langchain_milvus import Milvus

    store = Milvus(
        embedding_function=HuggingFaceEmbeddings(
            model_name=encoder,
            encode_kwargs={"normalize_embeddings": True, "batch_size": BATCH_TEXTS},
        ),
        collection_name=COLLECTION,
        connection_args={"uri": uri},
        index_params={"index_type": "FLAT", "metric_type": "L2"},
        # Files of different formats have different metadata.
        enable_dynamic_field=True,
    )
    records = SQLRecordManager(f"milvus/{COLLECTION}", db_url=f"sqlite:///{records_file}")
    records.create_schema()
    counts: dict[str, int] = index(
        _chunks(folder),
        records,
        store,
        cleanup="full",
        source_id_key="source",
        key_encoder="sha256",
    )
    return counts


def _chunks(folder: Path) -> Iterator[Any]:
    """LangChain documents of at most 512 characters; one file at a time is in memory."""
    from langchain_community.document_loaders import BSHTMLLoader, DirectoryLoader, TextLoader
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(chunk_size=CHUNK_CHARS, chunk_overlap=OVERLAP_CHARS)
    for patterns, loader, options in (
        (["**/*.html", "**/*.htm"], BSHTMLLoader, {"open_encoding": "utf-8"}),
        (["**/*.md", "**/*.txt"], TextLoader, {"encoding": "utf-8"}),
    ):
        files = DirectoryLoader(
            str(folder), glob=patterns, loader_cls=loader, loader_kwargs=options
        )
        for document in files.lazy_load():
            yield from splitter.split_documents([document])


def main() -> int:
    """Run once and print the counts as JSON."""
    parser = argparse.ArgumentParser(prog="langchain_side", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--uri", required=True)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--encoder", required=True)
    given = parser.parse_args()
    print(json.dumps(run(given.folder, given.uri, given.records, given.encoder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
