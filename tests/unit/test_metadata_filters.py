"""Filters by attributes: what is one, what Milvus is asked, how a wrong one is told."""

import json
from typing import Any

import msgspec
import pytest

from indexer.index.errors import FilterInvalid
from indexer.index.metadata_filters import (
    MOST_COMPARISONS,
    MOST_DEPTH,
    MOST_VALUES,
    Comparison,
    Compound,
    compile_filter,
    parse_filter,
)
from indexer.index.records import AttributeType

DECLARED: dict[str, AttributeType] = {
    "price": "number",
    "product": "string",
    "public": "boolean",
    "year": "integer",
}
HOSTILE = 'x" or tenant != "\\'
YEAR = {"type": "eq", "key": "year", "value": 2020}


def compiled(said: Any) -> str:
    return compile_filter(parse_filter(said), DECLARED)


def nested(depth: int) -> dict[str, Any]:
    """A comparison inside `depth` compounds."""
    said: dict[str, Any] = YEAR
    for _ in range(depth):
        said = {"type": "and", "filters": [said]}
    return said


def test_a_filter_is_read_decoded_or_not() -> None:
    said = {"type": "or", "filters": [YEAR, {"type": "in", "key": "product", "value": ["a"]}]}
    expected = Compound("or", [Comparison("eq", "year", 2020), Comparison("in", "product", ["a"])])

    assert parse_filter(said) == expected
    assert parse_filter(msgspec.Raw(json.dumps(said).encode())) == expected


@pytest.mark.parametrize(
    ("kind", "key", "value", "expression"),
    [
        ("eq", "year", 2020, "(attribute_3 == 2020)"),
        ("eq", "year", 2020.0, "(attribute_3 == 2020)"),
        ("gt", "year", -3, "(attribute_3 > -3)"),
        ("gte", "price", 2, "(attribute_0 >= 2.0)"),
        ("lt", "price", 1e-7, "(attribute_0 < 1e-07)"),
        ("lte", "price", -0.0, "(attribute_0 <= 0.0)"),
        ("eq", "public", True, "(attribute_2 == true)"),
        ("gt", "product", "2024-01-31", '(attribute_1 > "2024-01-31")'),
        ("eq", "product", HOSTILE, r'(attribute_1 == "x\" or tenant != \"\\")'),
        (
            "ne",
            "year",
            2020,
            "((attribute_3 is null) or (attribute_3 != 2020))",
        ),
        (
            "in",
            "public",
            [True, False],
            "(attribute_2 in [true, false])",
        ),
        ("in", "product", [HOSTILE], r'(attribute_1 in ["x\" or tenant != \"\\"])'),
        (
            "nin",
            "price",
            [1, 2.5],
            "((attribute_0 is null) or (not (attribute_0 in [1.0, 2.5])))",
        ),
        ("in", "year", [], '(chunk_id == "")'),
        (
            "nin",
            "year",
            [],
            '((attribute_3 is null) or (chunk_id != ""))',
        ),
    ],
)
def test_a_comparison_is_one_expression_in_parentheses(
    kind: str, key: str, value: Any, expression: str
) -> None:
    assert compiled({"type": kind, "key": key, "value": value}) == expression


def test_compounds_keep_their_parentheses() -> None:
    said = {"type": "and", "filters": [{"type": "or", "filters": [YEAR, YEAR]}, YEAR]}

    one = "(attribute_3 == 2020)"
    assert compiled(said) == f"(({one} or {one}) and {one})"


def test_a_compound_of_one_is_that_one() -> None:
    assert compiled(nested(2)) == "(((attribute_3 == 2020)))"


def test_a_name_is_never_in_the_expression() -> None:
    expression = compile_filter(Comparison("eq", HOSTILE, 1), {HOSTILE: "integer"})

    assert expression == "(attribute_0 == 1)"


@pytest.mark.parametrize(
    ("said", "param", "told"),
    [
        (None, "filters", "filters is no object with a type."),
        ([YEAR], "filters", "filters is no object with a type."),
        (
            {"key": "year", "value": 1},
            "filters.type",
            "filters.type is none of and, or, eq, ne, gt, gte, lt, lte, in, nin.",
        ),
        ({**YEAR, "type": ["eq"]}, "filters.type", "filters.type is none of"),
        ({**YEAR, "type": "EQ"}, "filters.type", "filters.type is none of"),
        ({**YEAR, "vale": 1}, "filters", "filters has no field 'vale'."),
        ({**YEAR, "key": 1}, "filters.key", "filters.key is no name of an attribute."),
        ({"type": "eq", "key": "year"}, "filters.value", "filters.value is no string, number or"),
        ({**YEAR, "value": None}, "filters.value", "filters.value is no string, number or"),
        ({**YEAR, "value": [1]}, "filters.value", "filters.value is no string, number or"),
        ({**YEAR, "type": "in"}, "filters.value", "filters.value is no list."),
        (
            {**YEAR, "type": "in", "value": [1, {}]},
            "filters.value[1]",
            "filters.value[1] is no string, number or boolean.",
        ),
        ({"type": "and"}, "filters.filters", "filters.filters is no list of at least one filter."),
        (
            {"type": "and", "filters": []},
            "filters.filters",
            "filters.filters is no list of at least one filter.",
        ),
        (
            {"type": "and", "filters": [YEAR, {"type": "or", "filters": [YEAR, 3]}]},
            "filters.filters[1].filters[1]",
            "filters.filters[1].filters[1] is no object with a type.",
        ),
        (
            {"type": "and", "filters": [YEAR], "key": "x"},
            "filters",
            "filters has no field 'key'.",
        ),
        (msgspec.Raw(b'{"type": '), "filters", "filters cannot be read: "),
        (msgspec.Raw(b"[" * 100_000), "filters", "filters cannot be read: "),
    ],
)
def test_what_is_no_filter_is_refused_by_name(said: Any, param: str, told: str) -> None:
    with pytest.raises(FilterInvalid) as refused:
        parse_filter(said)

    assert refused.value.param == param
    assert str(refused.value).startswith(told)


@pytest.mark.parametrize(
    ("said", "param", "told"),
    [
        (
            {**YEAR, "key": "colour"},
            "filters.key",
            (
                "filters.key is 'colour', which is no declared attribute; "
                "there are: price, product, public, year."
            ),
        ),
        (
            {"type": "or", "filters": [YEAR, {**YEAR, "key": 'year"] or true'}]},
            "filters.filters[1].key",
            "filters.filters[1].key is 'year\"] or true', which is no declared attribute",
        ),
        (
            {**YEAR, "value": "2020"},
            "filters.value",
            "filters.value is '2020', which is no integer; 'year' is declared as integer.",
        ),
        ({**YEAR, "value": 2020.5}, "filters.value", "filters.value is 2020.5, which is no"),
        ({**YEAR, "value": True}, "filters.value", "filters.value is True, which is no integer"),
        ({**YEAR, "value": 2**53}, "filters.value", "filters.value is 9007199254740992, which is"),
        (
            {"type": "nin", "key": "product", "value": ["a", 3]},
            "filters.value[1]",
            "filters.value[1] is 3, which is no string",
        ),
        (
            {"type": "eq", "key": "product", "value": "\ud800"},
            "filters.value",
            r"filters.value is '\ud800', which is no valid Unicode",
        ),
        (
            {"type": "eq", "key": "product", "value": "x" * 513},
            "filters.value",
            f"filters.value is '{'x' * 59}…, which is longer than 512 characters",
        ),
        (
            {"type": "lt", "key": "price", "value": float("nan")},
            "filters.value",
            "filters.value is nan, which is no finite number",
        ),
        (
            {"type": "lt", "key": "price", "value": 10**400},
            "filters.value",
            "filters.value is 1000",
        ),
        (
            {"type": "eq", "key": "public", "value": "true"},
            "filters.value",
            "filters.value is 'true', which is no boolean",
        ),
        (
            {"type": "gte", "key": "public", "value": True},
            "filters.type",
            "filters.type is 'gte', but 'public' is a boolean: it has no order.",
        ),
    ],
)
def test_what_does_not_fit_the_declaration_is_refused_by_name(
    said: Any, param: str, told: str
) -> None:
    with pytest.raises(FilterInvalid) as refused:
        compiled(said)

    assert refused.value.param == param
    assert str(refused.value).startswith(told)
    str(refused.value).encode()


def test_where_nothing_is_declared_that_is_told() -> None:
    with pytest.raises(FilterInvalid, match="no declared attribute; none is declared"):
        compile_filter(parse_filter(YEAR), {})


def test_the_request_may_have_another_name_for_it() -> None:
    said = {"type": "or", "filters": [{**YEAR, "key": "x"}]}

    with pytest.raises(FilterInvalid) as refused:
        compile_filter(parse_filter(said, "retrieval.filters"), DECLARED, "retrieval.filters")
    assert refused.value.param == "retrieval.filters.filters[0].key"


def test_as_much_as_is_allowed_is_allowed() -> None:
    years = {"type": "in", "key": "year", "value": list(range(MOST_VALUES))}

    assert compiled(nested(MOST_DEPTH)).count("(") == MOST_DEPTH + 1
    assert compiled({"type": "or", "filters": [YEAR] * MOST_COMPARISONS}).count("==") == 100
    assert compiled(years).count(",") == MOST_VALUES - 1


@pytest.mark.parametrize(
    ("said", "param"),
    [
        (nested(MOST_DEPTH + 1), f"filters{'.filters[0]' * MOST_DEPTH}"),
        (nested(5_000), f"filters{'.filters[0]' * MOST_DEPTH}"),
        (
            {"type": "or", "filters": [YEAR] * (MOST_COMPARISONS + 1)},
            f"filters.filters[{MOST_COMPARISONS}]",
        ),
        ({**YEAR, "type": "in", "value": [1] * (MOST_VALUES + 1)}, "filters.value"),
        (
            {"type": "or", "filters": [{**YEAR, "type": "in", "value": [1] * 501}] * 2},
            "filters.filters[1].value",
        ),
    ],
    ids=["depth", "far too deep", "comparisons", "values", "values in all"],
)
def test_more_than_that_is_refused(said: Any, param: str) -> None:
    with pytest.raises(FilterInvalid) as refused:
        parse_filter(said)

    assert refused.value.param == param
