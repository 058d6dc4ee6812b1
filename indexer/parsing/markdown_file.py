"""Reads a Markdown file with its front matter. Knows Markdown files, not what is done with them."""

import datetime as dt
import math
import re
import tomllib
from typing import Any

import yaml

from indexer.documents import Content, Document
from indexer.parsing.decoding import decode
from indexer.parsing.markdown import first_title


def parse(content: Content) -> Document:
    """The text below the front matter, whose keys become attributes, but for the title.

    What cannot be read as front matter is text: a line of dashes at the top is not always
    the beginning of one. Raises DocumentUnusable when it is binary.
    """
    text = decode(content.data)
    attributes, body = _front_matter(text)
    if content.format == ".mdx":
        body = _MODULE_LINES.sub("", body, count=1)
    title = attributes.pop("title", None)
    return Document(
        title=str(title).strip() if isinstance(title, str | int | float) else first_title(body),
        text=body,
        attributes=attributes,
        has_slugs=True,
    )


def _front_matter(text: str) -> tuple[dict[str, Any], str]:
    try:
        if block := _TOML.match(text):
            found = tomllib.loads(block[1])
        elif block := _YAML.match(text):
            found = yaml.load(block[1], yaml.CSafeLoader)
        else:
            return {}, text
        return (
            (_Json().mapping(found), text[block.end() :]) if isinstance(found, dict) else ({}, text)
        )
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, text


class _Json:
    """Turns what YAML and TOML yield into JSON values, up to a number of them.

    Ten lines of YAML that refer to each other stand for a billion values.
    """

    def __init__(self) -> None:
        self._left = _MOST_VALUES

    def mapping(self, values: dict[Any, Any]) -> dict[str, Any]:
        """Raises ValueError when there are too many values in it."""
        return {str(key): self._value(value) for key, value in values.items()}

    def _value(self, value: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many values")
        if isinstance(value, dict):
            return self.mapping(value)
        if isinstance(value, list | tuple | set):
            return [self._value(item) for item in value]
        if isinstance(value, dt.date | dt.time):
            return value.isoformat()
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        return str(value).encode(errors="replace").decode()


_MOST_VALUES = 10_000
# What is longer is no front matter.
_YAML = re.compile(r"\s*---[ \t]*\n(.{0,65536}?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_TOML = re.compile(r"\s*\+{3}[ \t]*\n(.{0,65536}?)\n\+{3}[ \t]*(?:\n|\Z)", re.DOTALL)
_MODULE_LINES = re.compile(r"\A(?:\s*\n|(?:import|export)\b[^\n]*\n)+")
