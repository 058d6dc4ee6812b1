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
    return strict(content, most_nested=NESTED, most_whitespace_bytes=BLANK)


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
            strict(content, most_nested=most, most_whitespace_bytes=BLANK)
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
