"""Turns the bytes of a document into its title and text. Knows formats, not files or chunks.

Importing this package imports no parser: each format's module is imported when the first
document of that format is parsed.
"""

import re
from importlib import import_module
from types import MappingProxyType
from typing import Protocol, cast

from indexer.documents import Content, Document
from indexer.errors import DocumentUnusable

PARSER_VERSION = 2
"""Part of the fingerprint: a change in what parsing yields makes a new generation."""

MAX_CHARACTERS = 20_000_000
"""Of the text of one document."""

CODE_LANGUAGES = MappingProxyType(
    {
        ".bash": "bash",
        ".bat": "batch",
        ".c": "c",
        ".cc": "cpp",
        ".cfg": "ini",
        ".clj": "clojure",
        ".cmake": "cmake",
        ".conf": "ini",
        ".cpp": "cpp",
        ".cs": "csharp",
        ".cu": "cuda",
        ".cxx": "cpp",
        ".dart": "dart",
        ".ex": "elixir",
        ".exs": "elixir",
        ".erl": "erlang",
        ".f90": "fortran",
        ".fs": "fsharp",
        ".go": "go",
        ".gradle": "groovy",
        ".graphql": "graphql",
        ".groovy": "groovy",
        ".h": "c",
        ".hcl": "hcl",
        ".hh": "cpp",
        ".hpp": "cpp",
        ".hs": "haskell",
        ".ini": "ini",
        ".java": "java",
        ".jl": "julia",
        ".js": "javascript",
        ".jsx": "jsx",
        ".kt": "kotlin",
        ".kts": "kotlin",
        ".lua": "lua",
        ".m": "objectivec",
        ".mjs": "javascript",
        ".ml": "ocaml",
        ".mm": "objectivec",
        ".nix": "nix",
        ".php": "php",
        ".pl": "perl",
        ".pm": "perl",
        ".proto": "protobuf",
        ".ps1": "powershell",
        ".py": "python",
        ".pyi": "python",
        ".r": "r",
        ".rb": "ruby",
        ".rs": "rust",
        ".scala": "scala",
        ".sh": "bash",
        ".sol": "solidity",
        ".sql": "sql",
        ".svelte": "svelte",
        ".swift": "swift",
        ".tf": "hcl",
        ".toml": "toml",
        ".ts": "typescript",
        ".tsx": "tsx",
        ".vb": "vbnet",
        ".vue": "vue",
        ".yaml": "yaml",
        ".yml": "yaml",
        ".zig": "zig",
        ".zsh": "zsh",
    }
)
"""The suffixes of source code and of configuration, each with its name on a code block.

Left out is what mostly programs write, and any folder with web pages is full of: JSON, XML, CSS.
"""

FORMATS = MappingProxyType(
    {
        ".html": "webpage",
        ".htm": "webpage",
        ".xhtml": "webpage",
        ".md": "markdown_file",
        ".markdown": "markdown_file",
        ".mdx": "markdown_file",
        ".txt": "plain",
        ".text": "plain",
        ".log": "plain",
        ".rst": "restructured",
        ".pdf": "pdf",
        ".docx": "word",
        ".pptx": "slides",
        ".xlsx": "spreadsheet",
        ".csv": "delimited",
        ".tsv": "delimited",
        ".epub": "epub",
        **dict.fromkeys(CODE_LANGUAGES, "source_code"),
    }
)
"""Every suffix that can be parsed, in lower case, with the module here that does it."""


class _Parser(Protocol):
    def parse(self, content: Content) -> Document: ...


def parse(content: Content) -> Document:
    """The document in `content`. Its text and title can be encoded as UTF-8.

    Raises DocumentUnusable when it is damaged, encrypted, not of the format it is said to be,
    or when its text is empty or longer than MAX_CHARACTERS.
    """
    module = FORMATS.get(content.format)
    if module is None:
        raise DocumentUnusable(f"its format is not known: {content.format!r}")
    parser = cast("_Parser", import_module(f"{__name__}.{module}"))
    try:
        document = parser.parse(content)
    except (DocumentUnusable, MemoryError):
        raise
    except RecursionError:
        raise DocumentUnusable("it is nested too deeply") from None
    except Exception as exc:  # on broken input, a parser raises whatever it stumbles over
        raise DocumentUnusable(f"its parser failed: {type(exc).__name__}: {exc}"[:300]) from exc
    text = _encodable(document.text)
    if not text.strip():
        raise DocumentUnusable("there is no text in it")
    if len(text) > MAX_CHARACTERS:
        raise DocumentUnusable(f"its text is longer than {MAX_CHARACTERS:,} characters")
    return Document(
        title=_short(_encodable(document.title)),
        canonical_url=_encodable(document.canonical_url),
        text=text,
        attributes=document.attributes,
        anchors=[(_encodable(words), _encodable(anchor)) for words, anchor in document.anchors],
        has_slugs=document.has_slugs,
    )


def _encodable(text: str) -> str:
    """Without what UTF-8 or a database cannot hold: halves of surrogate pairs, zeros."""
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text.replace("\0", ""))


def _short(title: str) -> str:
    title = " ".join(title[: 4 * _TITLE_CHARACTERS].split())
    return title if len(title) <= _TITLE_CHARACTERS else title[: _TITLE_CHARACTERS - 1] + "…"


_NO_TEXT = re.compile("[\ud800-\udfff]")
_TITLE_CHARACTERS = 300
