"""Ties what the model wrote to the hits it was given, in the shapes that clients know.

`context` is what was retrieved (Azure OpenAI "On Your Data"), `annotations` is what the
model cited (OpenAI's url_citation). What the model did not cite is never presented as cited.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from indexer.index.records import Hit

_MARKER = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


def context(question: str, hits: Sequence[Hit]) -> dict[str, Any]:
    """The `context` field of a message: the query, and the hits best first.

    Hit number n of the prompt is entry n - 1 of `citations`.
    """
    return {
        "intent": msgspec.json.encode([question]).decode(),
        "citations": [
            {
                "content": hit.text,
                "title": hit.title,
                "url": hit.source,
                "filepath": hit.source.rsplit("/", 1)[-1],
                "chunk_id": hit.chunk_id,
            }
            for hit in hits
        ],
    }


def annotations(answer: str, hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """One url_citation for each number in a marker such as [1] or [2, 3] that names a hit.

    The indices are the marker's character places in `answer`.
    """
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": marker.start(),
                "end_index": marker.end(),
                "title": hits[number - 1].title,
                "url": hits[number - 1].source,
            },
        }
        for marker in _MARKER.finditer(answer)
        for number in map(int, marker[1].split(","))
        if 1 <= number <= len(hits)
    ]
