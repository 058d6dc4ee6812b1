"""Milvus filter expressions: a value can never become syntax."""

import re

import pytest

from indexer.index.filters import equals, literal, one_of

HOSTILE = [
    'zzz" or tenant != "',
    'a\\" or 1 == 1 or "',
    "ends with a backslash\\",
    '\\\\"',
    'line\nbreak"\r\t',
    "') or true or ('",
    "naïve café 漢字 🦙",
    "{template}",
    "",
]
_STRING = re.compile(r'"((?:[^"\\\n\r]|\\.)*)"')
_MEANING = {"n": "\n", "r": "\r", "t": "\t"}


def read_back(expression: str) -> str:
    """The value of a string literal, read after the rules of the expression language."""
    whole = _STRING.fullmatch(expression)
    assert whole is not None, f"{expression} is not one string literal"
    return re.sub(r"\\(.)", lambda escape: _MEANING.get(escape[1], escape[1]), whole[1])


@pytest.mark.parametrize("value", HOSTILE)
def test_a_literal_reads_back_as_the_value(value: str) -> None:
    assert read_back(literal(value)) == value


@pytest.mark.parametrize("value", HOSTILE)
def test_a_literal_uses_no_escape_that_milvus_lite_refuses(value: str) -> None:
    assert set(re.findall(r"\\(.)", literal(value))) <= {"\\", '"', "n", "r", "t"}


@pytest.mark.parametrize("value", HOSTILE)
def test_equals_holds_one_literal_in_parentheses(value: str) -> None:
    expression = equals("tenant", value)

    assert expression.startswith("(tenant == ")
    assert expression.endswith(")")
    assert read_back(expression[len("(tenant == ") : -1]) == value


def test_one_of_lists_every_value_in_order() -> None:
    assert one_of("chunk_id", ["a", 'b"', "c"]) == r'(chunk_id in ["a", "b\"", "c"])'


def test_one_of_nothing_matches_nothing() -> None:
    assert one_of("chunk_id", []) == "(chunk_id in [])"
