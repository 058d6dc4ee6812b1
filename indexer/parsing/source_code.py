"""Reads source code and configuration as one code block. Knows text, not the languages."""

import re

from indexer.documents import Content, Document
from indexer.errors import DocumentUnusable
from indexer.parsing import CODE_LANGUAGES
from indexer.parsing.decoding import decode


def parse(content: Content) -> Document:
    """The code in a fence, for a comment that begins with "#" is no heading.

    Raises DocumentUnusable when it is binary, or written for machines only.
    """
    code = decode(content.data).strip("\n")
    if not code.strip():
        return Document(title="", text="")
    if len(code) > _SHORT and len(code) > _LONGEST_MEAN_LINE * (1 + code.count("\n")):
        raise DocumentUnusable("its lines are too long for code that people read")
    fence = "`" * max(3, 1 + max(map(len, _FENCES.findall(code)), default=0))
    return Document(title="", text=f"{fence}{CODE_LANGUAGES[content.format]}\n{code}\n{fence}\n")


_SHORT = 10_000
_LONGEST_MEAN_LINE = 300
_FENCES = re.compile(r"^[ \t]*(`{3,})", re.MULTILINE)
