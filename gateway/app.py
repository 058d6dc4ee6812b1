"""Puts the gateway together: the one place in it where clients are constructed."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.access.keyring import configured_keyring
from gateway.access.ledger import Ledger
from gateway.access.limits import Limiter
from gateway.access.local_ledger import LocalLedger
from gateway.access.machine_ledger import MachineLedger
from gateway.access.open_access import anybody_here
from gateway.access.request_guard import RequestGuard
from gateway.access.shared_ledger import SharedLedger
from gateway.access.tenant_index import TenantIndex
from gateway.admission import admission, in_time
from gateway.answer_cache import AnswerCache
from gateway.answers import Answers
from gateway.bounds import Bounds
from gateway.breaker import Breakers
from gateway.budget import Budget
from gateway.deadline import Deadlines
from gateway.edge import add_request_id, error_response
from gateway.embeddings import Embeddings
from gateway.embeddings_server import EmbeddingsServer
from gateway.encoding import Encoding, LocalEncoding
from gateway.exchanges import Exchanges
from gateway.grounding import Grounder
from gateway.health import Health
from gateway.models import Models
from gateway.names import parsed_aliases
from gateway.processes import encoder_socket, ledger_socket
from gateway.prompt import PromptTemplate
from gateway.remote_encoding import RemoteEncoding
from gateway.rerank import Ranking
from gateway.retrieval.catalogue import Catalogue
from gateway.retrieval.cross_encoder import CrossEncoder
from gateway.retrieval.published import Published
from gateway.retrieval.reranking import LocalReranker, RemoteReranker, Reranker
from gateway.retrieval.retriever import Retriever
from gateway.retrieval.searches import Searches
from gateway.retry_budget import RetryBudget
from gateway.routes import ROUTES
from gateway.routes.documentation import openapi_config
from gateway.routing import Care
from gateway.settings import GatewaySettings
from gateway.stores.batches import FileBatches
from gateway.stores.knowledge_bases import KnowledgeBases
from gateway.stores.search import StoreSearch
from gateway.stores.store_files import StoreFiles
from gateway.stores.uploaded import Files
from gateway.stores.vector_stores import VectorStores
from gateway.understanding import Understanding
from gateway.uploads import Uploads
from gateway.upstream import Upstream
from gateway.watching import kept_going
from indexer.index.collection import ForeignReader, IndexReader
from indexer.index.embedding import EmbeddingModel, Encoder
from indexer.index.errors import EncoderUnavailable
from indexer.index.foreign_fields import parsed_fields
from indexer.index.library import Library


def create_app(  # noqa: PLR0913 - whatever may be another one has a keyword
    settings: GatewaySettings,
    *,
    servers: Sequence[Upstream] | None = None,
    reader: IndexReader | None = None,
    load_encoder: Callable[[], EmbeddingModel] | None = None,
    reranker: Reranker | None = None,
    shared: Path | None = None,
    exchanges: Exchanges | None = None,
) -> Litestar:
    """The application; a test passes its own parts as keywords.

    Several processes may serve it: `shared` is the folder with the socket of the one that has the
    encoder, and with the metrics of all.

    Raises KeysUnusable where nobody said who may ask, BadTemplate, and LibraryUnavailable for a URL
    of uploads that cannot be used.
    """
    keyring = configured_keyring(settings)
    exchanges = exchanges or Exchanges(settings.heartbeat_s)
    servers = servers or [
        Upstream.connect(settings, url, settings.upstream_api_key) for url in settings.upstream_urls
    ]
    reader = reader or _reader(settings)
    reranker = reranker or _reranker(settings)
    encoding = _encoding(settings, load_encoder, shared)
    published = Published(
        reader,
        encoding,
        settings.poll_interval_s,
        settings.knowledge_base,
        settings.milvus_timeout_s,
    )
    uploads = Uploads(_library(settings), settings.queue_bounds)
    catalogue = Catalogue(settings.all_knowledge_bases, uploads, published.forget)
    searches = Searches(reader, settings.queue_bounds)
    index = TenantIndex(reader, searches, published, settings.all_knowledge_bases)
    knowledge_bases = KnowledgeBases(index)
    guard = RequestGuard(settings.tenant)
    understanding = Understanding(settings.rewrite_timeout_s, guard)
    retriever = Retriever(index, encoding, published, reranker, settings.reranker_timeout_s)
    models = Models(
        servers,
        poll_interval_s=settings.poll_interval_s,
        wait_s=settings.model_wait_s,
        care=_care(settings, "model"),
        aliases=parsed_aliases(settings.model_aliases),
    )
    grounder = Grounder(
        settings,
        retriever,
        catalogue,
        understanding,
        Budget(
            PromptTemplate(settings.prompt_template),
            answer_tokens=settings.answer_tokens,
            trim_history=settings.trim_history,
        ),
    )
    cache = AnswerCache(settings.answer_cache_mib, settings.answer_cache_ttl_s)
    parts = {
        "answers": Answers(settings, models, grounder, cache, guard),
        "models": models,
        "embeddings": Embeddings(settings, encoding),
        "ranking": Ranking(settings, reranker),
        "vector_stores": VectorStores(uploads, catalogue, knowledge_bases, published),
        "store_files": StoreFiles(uploads, catalogue, knowledge_bases),
        "file_batches": FileBatches(uploads, catalogue),
        "store_search": StoreSearch(settings, retriever, catalogue, models, understanding),
        "files": Files(uploads),
        "max_upload_bytes": settings.max_upload_bytes,
        "health": Health(models, encoding, published, reranker),
        "exchanges": exchanges,
        "metrics_registry": _metrics_registry(shared),
    }

    ledger = _ledger(settings, shared)
    admitted = keyring.caller if keyring else anybody_here(settings.tenant)

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        work: dict[str, Callable[[], Awaitable[None]]] = {
            "the embedding model": encoding.start,
            "what the collector is spared": partial(_spare_the_collector, encoding),
            "the watch of Milvus": published.watch,
            "the watch of vLLM": models.watch,
            "counting limits": ledger.run,
        }
        if reranker is not None:
            work["the reranking model"] = reranker.start
        if keyring is not None:
            work["the watch of the keys"] = keyring.watch
        tasks = [asyncio.create_task(kept_going(what, each)) for what, each in work.items()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if reranker is not None:
                await reranker.close()
            for server in servers:
                await server.close()
            await ledger.close()
            await encoding.close()
            await uploads.close()
            await reader.close()

    return Litestar(
        route_handlers=ROUTES,
        dependencies={name: _provided(part) for name, part in parts.items()},
        exception_handlers={Exception: error_response},
        before_send=[add_request_id],
        middleware=[
            exchanges.middleware,
            in_time(Deadlines(settings.request_timeout_s, settings.stream_timeout_s)),
            admission(admitted, Limiter(settings, ledger)),
        ],
        lifespan=[lifespan],
        request_max_body_size=settings.max_body_bytes,
        state=State({"bounds": Bounds(settings)}),
        openapi_config=openapi_config(),
        logging_config=None,
    )


def _encoding(
    settings: GatewaySettings, load: Callable[[], EmbeddingModel] | None, shared: Path | None
) -> Encoding:
    """Where a URL is set, there; where workers share a process, there; otherwise here."""
    if settings.encoder_url is not None:
        server = Upstream.connect(settings, settings.encoder_url, settings.encoder_api_key)
    elif shared is not None:
        server = Upstream.connect(settings, "http://encoder/v1", socket=encoder_socket(shared))
    else:
        return LocalEncoding(load or partial(Encoder.load, settings), settings.queue_bounds)
    asked = EmbeddingsServer(server, settings.encoder_model, _care(settings, "encoder"))
    return RemoteEncoding(asked, settings, is_ours=settings.encoder_url is None)


def _ledger(settings: GatewaySettings, shared: Path | None) -> Ledger:
    """Where a URL is set, there; where workers share a process, there; otherwise here."""
    if settings.limits_url is not None:
        # Only who shares limits among hosts needs it, and it takes a while to load.
        from gateway.access.redis_ledger import RedisLedger  # noqa: PLC0415

        redis = RedisLedger(settings.limits_url.get_secret_value(), settings.limits_timeout_s)
        return SharedLedger(redis.ask, redis.close, settings.limits_timeout_s)
    if shared is None:
        return LocalLedger()
    machine = MachineLedger(ledger_socket(shared))
    return SharedLedger(machine.ask, machine.close, settings.limits_timeout_s)


def _metrics_registry(shared: Path | None) -> CollectorRegistry:
    if shared is None:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(shared))  # type: ignore[no-untyped-call]
    return registry


async def _spare_the_collector(encoding: Encoding) -> None:
    """Keep the garbage collector away from what lives as long as the process.

    That is half a million objects once the encoder is loaded, and it would look at them again and
    again.
    """
    while True:
        try:
            encoding.check()
            break
        except EncoderUnavailable:
            await asyncio.sleep(1)
    gc.collect()
    gc.freeze()


def _reader(settings: GatewaySettings) -> IndexReader:
    if settings.foreign_fields is None:
        return IndexReader(settings)
    return ForeignReader(settings, parsed_fields(settings.foreign_fields))


def _library(settings: GatewaySettings) -> Library | None:
    if settings.library_url is None:
        return None
    return Library(settings.library_url, settings.library_storage_options)


def _reranker(settings: GatewaySettings) -> Reranker | None:
    if settings.reranker_model is None:
        return None
    if settings.reranker_url is None:
        return LocalReranker(
            partial(CrossEncoder, settings.reranker_model, settings.encoder_device),
            settings.queue_bounds,
        )
    server = Upstream.connect(settings, settings.reranker_url, settings.reranker_api_key)
    return RemoteReranker(
        server, settings.reranker_model, _care(settings, "reranker"), settings.queue_bounds
    )


def _care(settings: GatewaySettings, upstream: str) -> Care:
    """Each kind of upstream has a budget of its own: one in trouble takes nothing from another."""
    breakers = Breakers(settings.breaker_failures, settings.breaker_open_s)
    return Care(settings.upstream_attempts, breakers, RetryBudget(upstream))


def _provided(part: Any) -> Provide:
    def provider() -> Any:
        return part

    return Provide(provider, sync_to_thread=False)
