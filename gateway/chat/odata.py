"""Filters as Azure AI Search takes them, in OData, read into OpenAI's grammar.

A subset: `year ge 2023 and (product eq 'router' or search.in(region, 'eu,us', ','))`.
"""

import re
from typing import Any

MOST_DEPTH = 10
"""Of parentheses inside each other."""
MOST_CHARS = 100_000
"""Of a whole filter."""
MOST_DIGITS = 100
"""Of a number; Python refuses to read much longer ones."""

_OPERATORS = {"eq": "eq", "ne": "ne", "gt": "gt", "ge": "gte", "lt": "lt", "le": "lte"}
_CONSTANTS = {"true": True, "false": False}
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])"
    r"|(?P<word>search\.in\b|[^\W\d]\w*)(?![\w/.])|(?P<sign>[(),]))"
)
_EXPECTED = {"word": "a name", "text": "a text in quotes"}
_END = ("", "")


class NotOData(ValueError):
    """What stands there is no such filter, or one of another kind."""


def parse_odata(said: str) -> dict[str, Any]:
    """The filter in `said` in OpenAI's grammar. Raises NotOData."""
    if len(said) > MOST_CHARS:
        raise NotOData(f"it has more than {MOST_CHARS} characters.")
    return _Parser(_tokens(said)).read()


class _Parser:
    """Reads tokens from the first to the last."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0

    def read(self) -> dict[str, Any]:
        found = self._joined("or", 0)
        if self._next != _END:
            raise NotOData(f"{self._next[1]!r} is not expected where it stands.")
        return found

    @property
    def _next(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _taken(self, *kinds: str) -> str:
        kind, token = self._next
        if kind not in kinds:
            expected = "a value" if "number" in kinds else _EXPECTED[kinds[0]]
            raise self._unexpected(expected)
        self._at += 1
        return token

    def _sign(self, sign: str) -> None:
        if self._next != ("sign", sign):
            raise self._unexpected(repr(sign))
        self._at += 1

    def _unexpected(self, expected: str) -> NotOData:
        token = self._next[1]
        return NotOData(
            f"{expected} is expected {f'instead of {token!r}' if token else 'at its end'}."
        )

    def _joined(self, connective: str, depth: int) -> dict[str, Any]:
        """Parts with `and` or `or` between them; `and` binds closer."""
        parts = [self._part(connective, depth)]
        while self._next == ("word", connective):
            self._at += 1
            parts.append(self._part(connective, depth))
        return parts[0] if len(parts) == 1 else {"type": connective, "filters": parts}

    def _part(self, connective: str, depth: int) -> dict[str, Any]:
        if connective == "or":
            return self._joined("and", depth)
        if self._next != ("sign", "("):
            return self._comparison()
        if depth == MOST_DEPTH:
            raise NotOData(f"its parentheses are nested deeper than {MOST_DEPTH} levels.")
        self._at += 1
        found = self._joined("or", depth + 1)
        self._sign(")")
        return found

    def _comparison(self) -> dict[str, Any]:
        key = self._taken("word")
        if key == "search.in":
            return self._list()
        operator = self._taken("word")
        if operator not in _OPERATORS:
            raise NotOData(f"{operator!r} is none of {', '.join(_OPERATORS)}.")
        return {"type": _OPERATORS[operator], "key": key, "value": self._value()}

    def _list(self) -> dict[str, Any]:
        """`search.in(key, 'one,two', ',')`; without the last part, commas and spaces divide."""
        self._sign("(")
        key = self._taken("word")
        self._sign(",")
        values, dividers = _unquoted(self._taken("text")), ", "
        if self._next == ("sign", ","):
            self._at += 1
            dividers = _unquoted(self._taken("text"))
        self._sign(")")
        parts = re.split(f"[{re.escape(dividers)}]", values) if dividers else [values]
        return {"type": "in", "key": key, "value": [part for part in parts if part]}

    def _value(self) -> Any:
        kind, _ = self._next
        token = self._taken("text", "number", "word")
        if kind == "text":
            return _unquoted(token)
        if kind == "number":
            if len(token) > MOST_DIGITS:
                raise NotOData(f"a number has more than {MOST_DIGITS} digits.")
            return int(token) if token.lstrip("-").isdigit() else float(token)
        if token not in _CONSTANTS:
            raise NotOData(f"{token!r} is no text in quotes, no number, and not true or false.")
        return _CONSTANTS[token]


def _tokens(said: str) -> list[tuple[str, str]]:
    """The kind of each token, and how it is written. Raises NotOData."""
    found: list[tuple[str, str]] = []
    place, end = 0, len(said.rstrip())
    while place < end:
        token = _TOKEN.match(said, place)
        if token is None or token.lastgroup is None:
            raise NotOData(
                f"what stands at {said[place : place + 20].strip()!r} is not understood."
            )
        found.append((token.lastgroup, token[token.lastgroup]))
        place = token.end()
    return found


def _unquoted(text: str) -> str:
    return text[1:-1].replace("''", "'")
