"""What pymilvus raises, and does not raise in time, as the contract's errors."""

import asyncio
import time

import grpc
import pytest
from pymilvus import MilvusException

from indexer.index.collection.failures import answered_within, translated_errors
from indexer.index.errors import (
    IndexFailure,
    IndexRefused,
    IndexUnavailable,
    KnowledgeBaseMissing,
)

pytestmark = pytest.mark.anyio


class Bare(grpc.RpcError):  # type: ignore[misc]  # it has no types
    """A timeout, as gRPC raises it."""


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (MilvusException(100, "collection not found"), KnowledgeBaseMissing),
        (MilvusException(1600, "alias not found"), KnowledgeBaseMissing),
        (MilvusException(101, "not loaded"), IndexUnavailable),
        (MilvusException(1, "Retry timeout: 3s"), IndexUnavailable),
        (MilvusException(2, "Fail connecting"), IndexUnavailable),
        (MilvusException(grpc.StatusCode.UNAVAILABLE, "Retry timeout: 3s"), IndexUnavailable),
        (MilvusException(1100, "bad filter"), IndexRefused),
        (Bare("DEADLINE_EXCEEDED"), IndexUnavailable),
    ],
)
async def test_each_error_is_one_of_the_contracts(
    raised: Exception, expected: type[IndexFailure]
) -> None:
    with pytest.raises(expected), translated_errors():
        raise raised
    with pytest.raises(expected):
        async with answered_within(5):
            raise raised


async def test_a_call_that_ignores_its_timeout_ends_all_the_same() -> None:
    started = time.monotonic()
    with pytest.raises(IndexUnavailable, match=r"within 0\.05 s"):
        async with answered_within(0.05):
            await asyncio.sleep(10)

    assert time.monotonic() - started < 8


async def test_a_call_whose_connection_pymilvus_gives_up_is_unavailable_and_not_cancelled() -> None:
    with pytest.raises(IndexUnavailable, match="was given up"):
        async with answered_within(5):
            raise asyncio.CancelledError


async def test_a_call_that_fails_on_being_cut_off_fails_as_it_says() -> None:
    with pytest.raises(IndexUnavailable, match="illegal connection params"):
        async with answered_within(0.05):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                raise MilvusException(2, "illegal connection params") from None


@pytest.mark.parametrize("loses", [True, False])
async def test_a_cancellation_is_one_whatever_pymilvus_makes_of_it(loses: bool) -> None:
    async def call() -> None:
        async with answered_within(5):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                if not loses:
                    raise MilvusException(2, "illegal connection params") from None

    task = asyncio.create_task(call())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
