"""How fields of a collection that another program made are named."""

import pytest

from indexer.index.foreign_fields import parsed_fields
from indexer.index.records import EncoderIdentity
from tests.unit.index_fakes import IDENTITY


def test_a_mapping_is_read_with_and_without_spaces() -> None:
    assert parsed_fields("text=chunk,vector = v , source=source,") == {
        "text": "chunk",
        "vector": "v",
        "source": "source",
    }


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "text and vector must be mapped"),
        ("text=chunk", "vector must be mapped"),
        ("text=chunk, vector=v, body=b", "body cannot be mapped"),
        ("text=chunk, vector=v, title=", "title is mapped to nothing"),
        ("text, vector", "text and vector must be mapped"),
    ],
)
def test_what_is_wrong_with_a_mapping_is_told(said: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parsed_fields(said)


def test_of_an_unknown_encoder_only_the_dimension_counts() -> None:
    assert EncoderIdentity.unknown(IDENTITY.dimension).differences(IDENTITY) == []
    [difference] = EncoderIdentity.unknown(IDENTITY.dimension + 1).differences(IDENTITY)
    assert difference == f"dimension {IDENTITY.dimension + 1} is not {IDENTITY.dimension}"
