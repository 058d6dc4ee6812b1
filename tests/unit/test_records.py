"""Keys, hashes and fingerprints."""

import re
from itertools import combinations
from typing import Any

import msgspec
import pytest

from indexer.index.records import EncoderIdentity, Fingerprint, content_hash, key

IDENTITY = EncoderIdentity(
    model="BAAI/bge-large-en-v1.5",
    revision="sha256:00",
    dimension=1024,
    pooling="cls",
    normalised=True,
    query_prefix="Represent this sentence for searching relevant passages: ",
    passage_prefix="",
)
FINGERPRINT = Fingerprint(encoder=IDENTITY, chunker="splitter 512 characters “10 %” overlap")

OTHER_VALUES: dict[str, Any] = {
    "model": "/models/bge",
    "revision": "sha256:11",
    "dimension": 384,
    "pooling": "mean",
    "normalised": False,
    "query_prefix": "",
    "passage_prefix": "passage: ",
}

PARTS: list[tuple[str | int, ...]] = [
    ("a", "bc"),
    ("ab", "c"),
    ("abc",),
    ("a", "b", "c"),
    ("abc", ""),
    ("", "abc"),
    ("a,b", "c"),
    ('a","b', "c"),
    ("a", "b\0c"),
    ("a", 1),
    ("a", "1"),
    ("a1",),
    (),
    ("",),
]


@pytest.mark.parametrize(("one", "other"), list(combinations(PARTS, 2)))
def test_different_parts_have_different_keys(
    one: tuple[str | int, ...], other: tuple[str | int, ...]
) -> None:
    assert key(*one) != key(*other)


@pytest.mark.parametrize("parts", PARTS)
def test_a_key_is_the_same_every_time_and_fits_its_column(parts: tuple[str | int, ...]) -> None:
    assert key(*parts) == key(*parts)
    assert re.fullmatch("[0-9a-f]{32}", key(*parts))


def test_keys_are_what_they_were_when_rows_were_stored() -> None:
    assert key("default", "document", 0, "Grüße") == "8206629297bb244cf808db649b3b4dd4"


def test_a_content_hash_is_blake2b() -> None:
    # The first 32 digits of `b2sum -l 128` of nothing.
    assert content_hash(b"") == "cae66941d9efbd404e4d88758ea67670"
    assert content_hash(b"a") != content_hash(b"b")


def test_an_encoder_does_not_differ_from_itself() -> None:
    assert IDENTITY.differences(msgspec.structs.replace(IDENTITY)) == []


def test_the_place_a_model_came_from_is_no_difference() -> None:
    moved = msgspec.structs.replace(IDENTITY, model="/models/bge")

    assert IDENTITY.differences(moved) == []


@pytest.mark.parametrize("field", sorted(set(EncoderIdentity.__struct_fields__) - {"model"}))
def test_every_other_part_of_an_encoder_is_a_difference_told_with_both_values(field: str) -> None:
    other = msgspec.structs.replace(IDENTITY, **{field: OTHER_VALUES[field]})

    [told] = IDENTITY.differences(other)

    assert told == f"{field} {getattr(IDENTITY, field)!r} is not {OTHER_VALUES[field]!r}"


def test_all_differences_are_told() -> None:
    other = msgspec.structs.replace(IDENTITY, **OTHER_VALUES)

    assert len(IDENTITY.differences(other)) == len(OTHER_VALUES) - 1


def test_a_fingerprint_comes_back_from_json_as_it_was() -> None:
    stored = msgspec.json.encode(FINGERPRINT).decode()

    assert msgspec.json.decode(stored, type=Fingerprint) == FINGERPRINT


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": msgspec.structs.replace(IDENTITY, dimension=2)},
        {"chunker": "another"},
        {"metric": "IP"},
        {"attributes": {"year": "integer"}},
        {"schema_version": -1},
    ],
)
def test_a_fingerprint_with_another_part_is_another(change: dict[str, Any]) -> None:
    assert msgspec.structs.replace(FINGERPRINT, **change) != FINGERPRINT
