"""An index of one's own for a measurement, and questions that go through the gateway's retrieval.

The index is made by the indexer's own command, on a Milvus Lite server that is gone afterwards.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from gateway.access.callers import Caller, acting_as
from gateway.access.tenant_index import TenantIndex
from gateway.encoding import LocalEncoding
from gateway.retrieval.options import Wanted
from gateway.retrieval.published import Published
from gateway.retrieval.retriever import Retrieved, Retriever
from gateway.retrieval.searches import Searches
from gateway.settings import GatewaySettings
from gateway.stages import Stages
from indexer.index.collection import IndexReader, IndexWriter
from indexer.index.embedding import Encoder
from indexer.index.errors import IndexFailure
from indexer.index.settings import ENV_PREFIX
from indexer.report import DONE, DONE_IN_PART
from stack import ROOT, servers
from stack.errors import StackError
from stack.models import minilm
from stack.processes import clean_environment, run, tail
from stack.report import Step

_T = TypeVar("_T")


class Found(NamedTuple):
    """A chunk that was found: where it stands."""

    source: str
    start: int
    """First character in the text of its document."""
    end: int
    """One past its last character."""


class Asked(NamedTuple):
    """What the questions found in one way of searching."""

    found: list[list[Found]]
    """Of each question, best first: all that was looked at, before the best are chosen."""
    milliseconds: float
    """Mean for one question, embedding included; one is asked after the other."""


def configured(encoder_model: str | None, **settings: str) -> GatewaySettings:
    """The gateway's settings with these over them; all-MiniLM-L6-v2 where no model is named."""
    environment = GatewaySettings()
    if encoder_model is None and "encoder_model" not in environment.model_fields_set:
        encoder_model = str(minilm())
    return GatewaySettings.model_validate(
        environment.model_dump(exclude_unset=True)
        | settings
        | ({"encoder_model": encoder_model} if encoder_model else {})
    )


@contextmanager
def milvus_for_now() -> Iterator[str]:
    """The address of a Milvus Lite server that lives as long as the block. Raises ServerFailed."""
    with tempfile.TemporaryDirectory(prefix="evaluate-") as name:
        port = servers.free_port()
        with servers.milvus(port, Path(name, "data"), Path(name, "logs")) as server:
            server.wait_ready()
            yield f"http://{servers.HOST}:{port}"


def index(
    folder: Path, settings: GatewaySettings, chunk_size: int, overlap_percent: int = 10
) -> None:
    """Make the index of a BEIR corpus, or else of a folder of documents. Raises StackError."""
    corpus = folder / "corpus.jsonl"
    with (
        Step(f"indexing {folder.name} in chunks of {chunk_size} characters") as step,
        tempfile.TemporaryDirectory() as name,
    ):
        sources, log = Path(name, "sources.toml"), Path(name, "log")
        lines = ["[[source]]", f"location = {json.dumps(str(folder.absolute()))}"]
        if corpus.exists():
            lines[1] = f"location = {json.dumps(str(corpus.absolute()))}"
            lines += ['text_field = "text"', 'title_field = "title"', 'id_field = "_id"']
        sources.write_text("\n".join(lines), encoding="utf-8")
        options = ["--config", str(sources), "--chunk-size-chars", str(chunk_size)]
        options += ["--chunk-overlap-percent", str(overlap_percent)]
        exit_code = run(
            [sys.executable, "-m", "indexer", "run", *options],
            log,
            clean_environment(_variables(settings)),
            ROOT,
        )
        step.outcome = tail(log, 1)
        if exit_code not in (DONE, DONE_IN_PART):
            raise StackError(f"the indexer ended with exit code {exit_code}: {step.outcome}")


def ask(
    settings: GatewaySettings, questions: Sequence[str], ways: Mapping[str, Wanted]
) -> dict[str, Asked]:
    """What `questions` find in each of `ways`. Raises StackError."""

    async def each_way(retriever: Retriever) -> dict[str, Asked]:
        asked = {}
        for name, wanted in ways.items():
            await retriever.retrieve(questions[:1], wanted, Stages())  # the first one warms up
            with Step(f"asking {len(questions)} questions, {name}") as step:
                answers = [await retriever.retrieve([each], wanted, Stages()) for each in questions]
                milliseconds = step.elapsed_s() / len(questions) * 1000
            asked[name] = Asked([_found(each) for each in answers], milliseconds)
        return asked

    return _retrieving(settings, each_way)


def relevances(settings: GatewaySettings, questions: Sequence[str]) -> list[float]:
    """For each question what the gateway compares with its relevance threshold, in 0..1.

    Raises StackError.
    """
    # It is computed where a threshold asks for it; this one nothing falls below.
    wanted = Wanted(mode=settings.search_mode, relevance_threshold=1e-9)

    async def each_question(retriever: Retriever) -> list[float]:
        answers = [await retriever.retrieve([each], wanted, Stages()) for each in questions]
        return [answer.relevance or 0.0 for answer in answers]

    return _retrieving(settings, each_question)


def exact(settings: GatewaySettings, questions: Sequence[str], results: int) -> list[list[Found]]:
    """What is nearest among the very vectors of the index, computed here. Raises StackError."""
    with _translated():
        encoder = Encoder.load(settings)
        writer = IndexWriter(settings)
        try:
            generation = writer.published()
            rows = list(writer.stored_rows(generation, [settings.tenant])) if generation else []
        finally:
            writer.close()
        similarity = encoder.encode_queries(questions) @ np.stack([row.vector for row in rows]).T
    chunks = [Found(row.chunk.source, row.chunk.start, row.chunk.end) for row in rows]
    return [[chunks[place] for place in np.argsort(-row)[:results]] for row in similarity]


def exact_whole(
    settings: GatewaySettings, documents: Mapping[str, str], questions: Sequence[str]
) -> list[list[str]]:
    """The names of all documents, nearest first, each as one vector of as much as is read.

    Raises StackError.
    """
    with _translated():
        encoder = Encoder.load(settings)
        vectors = encoder.encode_passages(list(documents.values()))
        similarity = encoder.encode_queries(questions) @ vectors.T
    names = list(documents)
    return [[names[place] for place in np.argsort(-row)] for row in similarity]


def _retrieving(
    settings: GatewaySettings, work: Callable[[Retriever], Coroutine[Any, Any, _T]]
) -> _T:
    async def with_retriever() -> _T:
        encoder = Encoder.load(settings)
        reader, encoding = IndexReader(settings), LocalEncoding(lambda: encoder)
        published = Published(reader, encoding, settings.poll_interval_s, settings.knowledge_base)
        try:
            await encoding.start()
            searches = Searches(reader)
            index = TenantIndex(reader, searches, published, settings.all_knowledge_bases)
            with acting_as(Caller(name="script", tenant=settings.tenant)):
                return await work(Retriever(index, encoding, published))
        finally:
            await encoding.close()
            await reader.close()

    with _translated():
        return asyncio.run(with_retriever())


def _found(retrieved: Retrieved) -> list[Found]:
    hits = [candidate.hit for candidate in retrieved.candidates]
    return [Found(hit.source, hit.start, hit.end) for hit in hits]


def _variables(settings: GatewaySettings) -> dict[str, str]:
    """What the indexer has to know to make the index that these settings read."""
    names = ("milvus_uri", "knowledge_base", "tenant", "encoder_model")
    return {f"{ENV_PREFIX}{name.upper()}": str(getattr(settings, name)) for name in names}


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IndexFailure as exc:
        raise StackError(str(exc)) from exc
