"""Turns pymilvus' errors into the contract's, for calls that block and for calls that do not."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import grpc
from pymilvus import MilvusException

from indexer.index.errors import (
    IndexFailure,
    IndexRefused,
    IndexUnavailable,
    KnowledgeBaseMissing,
)

# It logs each failed call with a traceback before raising it; we report what we raise.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

_NOT_THERE = {100, 1600}  # collection, alias; Milvus' pkg/util/merr
_NOT_LOADED = 101
_LAST_SERVICE_CODE = 99  # merr: below 100 the service is to blame, from 100 on the request


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raises IndexUnavailable, KnowledgeBaseMissing or IndexRefused for what pymilvus raises."""
    try:
        yield
    except MilvusException as exc:
        raise _translate(exc) from exc
    except grpc.RpcError as exc:  # pymilvus lets a timeout through as it is
        raise IndexUnavailable(f"Milvus did not answer: {exc}") from exc


@asynccontextmanager
async def answered_within(timeout_s: float) -> AsyncIterator[None]:
    """The same for calls that do not block, and that take no longer than `timeout_s` together.

    The timeout that pymilvus itself is given does not count what it does about a connection that
    was lost. Raises CancelledError where pymilvus lost one: a cancellation that comes while it
    connects ends in an error of its own or in nothing at all, and a task that goes on after it
    never ends. Raises IndexUnavailable where nobody has cancelled the task: pymilvus gave up the
    connection that others found broken.
    """
    try:
        with translated_errors():
            async with asyncio.timeout(timeout_s):
                yield
    except TimeoutError as exc:
        raise IndexUnavailable(f"Milvus did not answer within {timeout_s:g} s") from exc
    except asyncio.CancelledError as exc:
        raise IndexUnavailable("the connection to Milvus was given up") from exc
    finally:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError


def _translate(exc: MilvusException) -> IndexFailure:
    message = " ".join(str(exc.message).split()) or "no reason given"
    if exc.code in _NOT_THERE:
        return KnowledgeBaseMissing(f"Milvus has no such collection or alias: {message}")
    is_of_grpc = not isinstance(exc.code, int)  # one of its statuses stands there then
    if is_of_grpc or exc.code == _NOT_LOADED or exc.code <= _LAST_SERVICE_CODE:
        return IndexUnavailable(f"Milvus is not available: {message}")
    return IndexRefused(f"Milvus refused the request (code {exc.code}): {message}")
