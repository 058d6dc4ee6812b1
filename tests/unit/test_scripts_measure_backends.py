"""The script that measures the encoder's backends: what it counts."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from stack.measure_backends import milliseconds, shared

from indexer.index.embedding import Vectors
from tests.unit.index_fakes import IDENTITY


class Counting:
    """An encoder that notes how many texts come at once."""

    identity = IDENTITY

    def __init__(self) -> None:
        self.calls: list[int] = []

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(len(texts))
        return np.ones((len(texts), 4), dtype=np.float32)

    encode_passages = encode_queries


@pytest.mark.parametrize(("at_once", "calls"), [(1, [1] * 20), (8, [8, 8]), (20, [20])])
def test_questions_come_together_and_those_left_over_are_not_timed(
    at_once: int, calls: list[int]
) -> None:
    encoder = Counting()

    assert 0 < milliseconds(encoder, ["q"] * 20, at_once) < 1000
    assert encoder.calls == calls


def test_of_fewer_questions_than_come_together_nothing_is_known() -> None:
    assert math.isnan(milliseconds(Counting(), ["q"] * 20, 32))


def test_what_is_shared_is_counted_whatever_its_rank() -> None:
    first, other = np.array([[1, 2], [3, 4]]), np.array([[2, 1], [3, 9]])

    assert shared(first, first) == 1
    assert shared(first, other) == 0.75
