"""Turns pymilvus' errors into the contract's, for calls that block and for calls that do not."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def translated_async_errors() -> Iterator[None]:
    """The same for calls that do not block; raises CancelledError where pymilvus lost one.

    A cancellation that comes while it connects ends in an error of its own or in nothing at
    all, and a task that goes on after it never ends.
    """
    try:
        with translated_errors():
            yield
    finally:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError


def _translate(exc: MilvusException) -> IndexFailure:
    message = " ".join(str(exc.message).split()) or "no reason given"
    if exc.code in _NOT_THERE:
        return KnowledgeBaseMissing(f"Milvus has no such collection or alias: {message}")
    if exc.code == _NOT_LOADED or exc.code <= _LAST_SERVICE_CODE:
        return IndexUnavailable(f"Milvus is not available: {message}")
    return IndexRefused(f"Milvus refused the request (code {exc.code}): {message}")
