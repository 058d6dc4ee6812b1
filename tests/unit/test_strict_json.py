"""Bodies that every reader reads in the same way, against the standard library as an oracle."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.strict_json import strict

NESTED = 12
BLANK = 1000
OBJECTS = 1000

# Few keys, so that they repeat, and what could be taken for a key, a colon, or a bracket.
KEYS = st.sampled_from(["a", "b", "", ":", '":', "\\u003a", "[{", '"'])
TEXTS = st.text(alphabet='a:"\\[]{} \nuU03Aé\u2028😀', max_size=8)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS


def pairs_of(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Objects, whose keys may stand twice, as JSON."""
    pairs = st.lists(st.tuples(written(KEYS), values), max_size=4)
    joined = pairs.map(lambda said: ",".join(f"{key} :{value}" for key, value in said))
    return joined.map(lambda said: f"{{{said}}}")


@st.composite
def written(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> str:
    """A value as JSON; its characters are escaped or not, as one may choose."""
    value = draw(values)
    if not isinstance(value, str):
        return json.dumps(value)
    plain = json.dumps(value, ensure_ascii=draw(st.booleans()))
    return plain.replace(":", draw(st.sampled_from([":", "\\u003a", "\\u003A"])))


JSON = st.recursive(
    written(SCALARS),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda said: f"[{', '.join(said)}]") | pairs_of(inner)
    ),
    max_leaves=12,
)


def read(content: bytes) -> dict[str, Any]:
    return strict(content, most_nested=NESTED, most_whitespace_bytes=BLANK, most_objects=OBJECTS)


def has_twins(content: bytes) -> bool:
    found = False

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        found = found or len(dict(pairs)) < len(pairs)
        return dict(pairs)

    json.loads(content, object_pairs_hook=look)
    return found


def depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth, inside), default=0) if isinstance(value, dict | list) else 0


@settings(max_examples=300)
@given(pairs_of(JSON))
@example('{"a":1,"a":2}')
@example('{"a":1,"\\u0061":2}')
@example('{"a":"\\u003a","a":1}')
@example('{"a":"\\\\u003a"}')
def test_what_is_taken_is_what_every_reader_reads(text: str) -> None:
    content = text.encode()
    if has_twins(content):
        with pytest.raises(InvalidRequest, match="stands twice"):
            read(content)
    else:
        assert read(content) == json.loads(content) == msgspec.json.decode(content)


@settings(max_examples=300)
@given(JSON, st.integers(0, 8))
@example('"[{"', 8)
@example('["]", "[", "\\"["]', 5)
def test_depth_is_counted_outside_of_texts(text: str, more: int) -> None:
    content = b'{"a":%b}' % (b"[" * more + text.encode() + b"]" * more)
    assume(not has_twins(content))  # the oracle would not see what the first one holds
    value = json.loads(content)

    def refused(most: int) -> bool:
        try:
            strict(content, most_nested=most, most_whitespace_bytes=BLANK, most_objects=OBJECTS)
        except InvalidRequest as exc:
            return "nested deeper" in str(exc)
        return False

    assert refused(depth(value) - 1)
    assert not refused(depth(value))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"a"',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":1}x',
        b'{"a":1}{"a":1}',
        b'{"a":1}\x00',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":NaN}',
        b'{"a":[{"b":-Infinity}]}',
        b'{"a":1e999}',
        b'{"a":01}',
        b'{"a":%b}' % (b"9" * 10_000),
        b'{"a":"\xff"}',
        b'{"a":["\xc0\x80"]}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00"}',
        b'{"\\ud800":1}',
        b'{"a":"\x00"}',
        b'{"a":1/*x*/}',
        b'{"a":%b}' % (b"[" * 100_000),
        b'{"a":%b}' % (b"[" * 100_000 + b"]" * 100_000),
        b'{"a":%b}' % (b'{"a":' * 5_000 + b"1" + b"}" * 5_000),
        b" " * (1 << 20),
        b'{"a":%b1}' % (b" \n\t\r" * (1 << 18)),
        b'%b{"a":1}' % (b"\n" * BLANK),
        b'{"a":1}%b' % (b" " * BLANK),
    ],
)
def test_whatever_else_there_may_be_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(content)


def objects(value: Any) -> tuple[int, int]:
    """How many lists and objects there are in `value`, and how many keys."""
    inside = [*value.values()] if isinstance(value, dict) else value
    if not isinstance(inside, list):
        return 0, 0
    counts = [objects(each) for each in inside]
    keys = len(inside) if isinstance(value, dict) else 0
    return 1 + sum(each for each, _ in counts), keys + sum(each for _, each in counts)


@settings(max_examples=300)
@given(pairs_of(JSON))
@example('{"[{::":"\\"[{::","a":[[],{}]}')
@example('{"a":"","b":["",":"]}')
def test_lists_objects_and_keys_are_counted_outside_of_texts(text: str) -> None:
    content = text.encode()
    assume(not has_twins(content))
    most = max(objects(json.loads(content)))

    def read(most: int) -> None:
        strict(content, most_nested=100, most_whitespace_bytes=BLANK, most_objects=most)

    read(most)
    with pytest.raises(InvalidRequest, match="lists and objects"):
        read(most - 1)


@pytest.mark.parametrize("unit", [b"[]", b"{}", b'{"a":1}', b"[[1]]"])
def test_they_are_counted_before_one_of_them_is_made(unit: bytes) -> None:
    with pytest.raises(InvalidRequest, match="lists and objects"):
        read(b'{"a":[%b and this is no JSON' % ((unit + b",") * (OBJECTS + 1)))


@pytest.mark.parametrize("number", [b"1e308", b"-4.9E-324", b"true,1e+5", b"null,false,1E1"])
def test_numbers_with_an_exponent_are_counted_before_one_is_read(number: bytes) -> None:
    few = b'{"a":"%b","b":[%b]}' % (b"1e5," * 9_000, b",".join([number] * 5_000))
    assert read(few) == json.loads(few)

    with pytest.raises(InvalidRequest, match="with an exponent"):
        read(b'{"b":[%b,1e5, true re tt and this is no JSON' % b",".join([number] * 5_000))


def test_a_number_of_hundreds_of_digits_is_refused_where_there_may_be_many() -> None:
    digits = b"1" * 300
    for content in (b'{"a":%b,"b":"%b"}' % (digits, b"x" * 1000), b'{"a":"%b"}' % (digits * 500)):
        assert read(content) == json.loads(content)

    for number in (digits, b"0.%b" % digits, b'"\\"",%b' % digits):
        with pytest.raises(InvalidRequest, match="digits"):
            read(b'{"b":"%b","a":[%b]}' % (b"x" * 1_000_000, number))


def test_the_key_that_stands_twice_is_named_wherever_it_is() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(b'{"x":[{"b":1},{"c":{"d":1,"d":2}}]}')

    assert refused.value.param == "d"


def test_in_a_long_body_it_is_found_and_not_named() -> None:
    with pytest.raises(InvalidRequest, match="A key stands twice"):
        read(b'{"x":"%b","x":1}' % (b"a" * 200_000))


def test_whitespace_between_values_is_free_where_it_is_not_in_a_row() -> None:
    content = json.dumps({"a": list(range(5_000))}, indent=2).encode()

    assert read(content) == json.loads(content)
