"""Every route of the gateway, asked by one tenant for what another has.

Milvus Lite, the encoder, the library and the keys are real. vLLM is one that answers with all that
it was told, so that what reaches a prompt reaches the answer. A route that is not in the table of
requests fails the test: whoever adds one says here what can be asked of it.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from litestar.routes import HTTPRoute
from litestar.testing import TestClient
from pydantic import SecretStr

from gateway.access.keys import Key, digest, written
from gateway.admission import OPEN
from gateway.app import create_app
from gateway.settings import GatewaySettings
from indexer.index.collection import IndexWriter
from indexer.index.embedding import Encoder
from indexer.index.library import Library
from indexer.index.settings import IndexSettings
from indexer.parts import chunker_settings, fingerprint_of
from indexer.settings import WatchSettings
from indexer.uploads.indexing import Indexing
from indexer.uploads.means import Means
from tests.integration.conftest import RunIndexer
from tests.integration.isolation_requests import (
    CHAT,
    MODEL,
    QUESTION,
    RESPONSE,
    RESTRICTED,
    STORES,
    Asked,
    Ids,
    Said,
    grounded,
    requests_of,
)
from tests.integration.telling_vllm import Telling
from tests.unit.conftest import FakeReader
from tests.unit.index_fakes import FakeEncoder
from tests.unit.upload_fakes import UploadsInThisProcess

OWNER, OTHER = 'quokka" or tenant != "', "wombat"
"""Tenants. The first one has secrets, each of which has its name in it."""
SECRET = "quokka"
STATIC = "/docs"
"""A page and what belongs to it, which know nothing of anybody."""


class Gateway:
    """One that serves both tenants, and what the owner has on it."""

    def __init__(self, client: TestClient[Any], ids: Ids, secrets: set[str]) -> None:
        self.client = client
        self.ids = ids
        self.secrets = secrets
        """Strings of which none may reach anybody else."""

    def routes(self) -> list[tuple[str, str]]:
        """Methods and paths of all that can be asked."""
        return [
            (method, route.path)
            for route in self.client.app.routes
            if isinstance(route, HTTPRoute)
            for method in route.route_handler_map
            if method != "OPTIONS" and not route.path.startswith(STATIC)
        ]

    def asked(self, method: str, path: str) -> list[Asked]:
        """What is asked of a route. It fails for one that the table does not have."""
        return requests_of(self.ids, method, path)

    def answer(self, who: str, method: str, asked: Asked) -> Any:
        headers = {"authorization": f"Bearer gs-{who}"}
        return self.client.request(method, asked.path, headers=headers, **asked.said)

    def told(self, got: Any) -> set[str]:
        """The secrets in an answer."""
        told = got.text + repr(dict(got.headers))
        return {secret for secret in self.secrets if secret in told}

    def leaked(self, asked: Asked, got: Any) -> set[str]:
        """The same, but for those that the request itself said."""
        said = asked.path + repr(asked.said)
        return {secret for secret in self.told(got) if secret not in said}


def key(name: str, tenant: str, **said: Any) -> Key:
    sha256 = digest(f"gs-{name}".encode()).hex()
    return Key(name=name, tenant=tenant, sha256=sha256, created_at=0, **said)


@pytest.fixture
def gateway(
    tmp_path: Path,
    run_indexer: RunIndexer,
    index_settings: IndexSettings,
    encoder: Encoder,
) -> Iterator[Gateway]:
    """Another tenant's key may use one of the two knowledge bases, and has documents in both."""
    restricted = index_settings.model_copy(update={"knowledge_base": RESTRICTED})
    for number, (settings, tenant) in enumerate(
        [(index_settings, OWNER), (index_settings, OTHER), (restricted, OTHER)]
    ):
        is_secret = tenant == OWNER or settings is restricted
        folder = tmp_path / f"docs{number}"
        folder.mkdir()
        word = SECRET if is_secret else "wombat"
        (folder / f"{word}-map.md").write_text(f"# The {word}\n\nThe {word} buried treasure.\n")
        run_indexer(folder, tenant=tenant, settings=settings)
    keys = [
        key("owner", OWNER),
        key("reader", OWNER, may_write=False),
        key("nothing", OWNER, knowledge_bases=()),
        key("other", OTHER, knowledge_bases=(index_settings.knowledge_base,)),
    ]
    app = create_app(
        GatewaySettings(
            **index_settings.model_dump(include={"milvus_uri", "encoder_model", "knowledge_base"}),
            knowledge_bases=RESTRICTED,
            library_url=str(tmp_path / "library"),
            open_access=False,
            api_keys=SecretStr(written(keys).decode()),
            tenant=OTHER,
            answer_cache_mib=1,
            temperature=0,
        ),
        servers=[Telling(MODEL)],
        load_encoder=lambda: encoder,
    )
    with TestClient(app, base_url="http://127.0.0.1") as client:
        while client.get("/health/ready").status_code != 200:
            pass
        indexed = _indexing(Library(str(tmp_path / "library")), index_settings, encoder)
        ids = owned(client, index_settings.knowledge_base, indexed)
        yield Gateway(client, ids, {SECRET, ids.store, ids.file, ids.batch, ids.response})
    _removed(index_settings, ids.store)
    _removed(index_settings, RESTRICTED)


@pytest.fixture
def table() -> Gateway:
    """One that was not started: it lets nobody in and knows its routes."""
    keys = SecretStr(written([key("owner", OWNER)]).decode())
    app = create_app(
        GatewaySettings(open_access=False, api_keys=keys),
        servers=[Telling(MODEL)],
        reader=FakeReader([]),
        load_encoder=FakeEncoder,
    )
    names = {name: name for name in Ids.__struct_fields__}
    return Gateway(TestClient(app, base_url="http://127.0.0.1"), Ids(**names), set())


def owned(client: TestClient[Any], knowledge_base: str, index: Callable[[str], None]) -> Ids:
    """What the owner makes: a file in a store, a batch, and a response; all of it is ready."""

    def made(path: str, **said: Any) -> str:
        got = client.post(path, headers={"authorization": "Bearer gs-owner"}, **said)
        assert got.status_code == 200, got.text
        return str(got.json()["id"])

    content = io.BytesIO(
        b"# Treasure\n\nThe treasure of the quokka lies under the old quokka tree."
    )
    file = made(
        "/v1/files",
        files={"file": ("quokka-treasure.md", content)},
        data={"purpose": "assistants"},
    )
    said: Said = {"name": "quokka store", "metadata": {"quokka": "quokka"}}
    store = made(STORES, json=said)
    attributes = {"place": "quokka island"}
    batch = made(
        f"{STORES}/{store}/file_batches",
        json={"files": [{"file_id": file, "attributes": attributes}]},
    )
    index(store)
    response = made("/v1/responses", json={"model": "default", "input": QUESTION})
    listed = client.get(
        f"{STORES}/{knowledge_base}/files", headers={"authorization": "Bearer gs-owner"}
    )
    return Ids(
        store=store,
        file=file,
        batch=batch,
        response=response,
        document=listed.json()["data"][0]["id"],
        knowledge_base=knowledge_base,
    )


def _indexing(
    library: Library, index_settings: IndexSettings, encoder: Encoder
) -> Callable[[str], None]:
    """Indexes a store of the owner as the watching indexer does."""
    settings = WatchSettings(
        milvus_uri=index_settings.milvus_uri, encoder_model=index_settings.encoder_model
    )
    chunker = chunker_settings(settings, encoder)

    @contextmanager
    def writer(name: str) -> Iterator[IndexWriter]:
        opened = IndexWriter(settings.model_copy(update={"knowledge_base": name}))
        try:
            yield opened
        finally:
            opened.close()

    means = Means(
        library=library,
        encoder=encoder,
        workers=UploadsInThisProcess(chunker),
        chunker=chunker,
        fingerprint=lambda attributes, cut: fingerprint_of(settings, attributes, encoder, cut),
        writer=writer,
        lease_duration_s=60,
        keep_generations=1,
    )

    def index(store: str) -> None:
        done = Indexing(means).process(OWNER, store)
        assert done is not None
        assert done.completed == 1

    return index


def _removed(index_settings: IndexSettings, name: str) -> None:
    writer = IndexWriter(index_settings.model_copy(update={"knowledge_base": name}))
    with writer.lease(60):
        writer.remove()
    writer.close()


def test_nothing_of_a_tenant_reaches_another_by_any_route(gateway: Gateway) -> None:
    for method, path in gateway.routes():
        for asked in gateway.asked(method, path):
            got = gateway.answer("other", method, asked)
            assert got.status_code < 500, (path, got.text)
            assert gateway.leaked(asked, got) == set(), (method, asked, got.text)
    # All of it is still there for its owner, and nobody has changed it.
    seen: set[str] = set()
    for method, path in gateway.routes():
        for asked in gateway.asked(method, path):
            if not asked.is_write:
                got = gateway.answer("owner", method, asked)
                seen |= gateway.told(got)
                assert "taken" not in got.text
    assert seen == gateway.secrets


def test_a_key_without_knowledge_bases_gets_nothing_out_of_them(gateway: Gateway) -> None:
    """But for what its own tenant has uploaded, which has another name."""
    gateway.secrets = {"map.md", "buried", RESTRICTED, gateway.ids.knowledge_base}
    for method, path in gateway.routes():
        # A response is its tenant's, whichever of its keys has asked for it.
        if path.endswith(("/ready", "/metrics")) or RESPONSE in path:
            continue
        for asked in gateway.asked(method, path):
            if not asked.is_write and QUESTION not in repr(asked.said):
                assert gateway.leaked(asked, gateway.answer("nothing", method, asked)) == set()
    for said in (grounded(**CHAT), grounded(gateway.ids.store, **CHAT)):
        told = gateway.answer(
            "nothing", "POST", Asked(path="/v1/chat/completions", said={"json": said})
        )
        assert told.status_code == 200
        assert "map.md" not in told.text


def test_who_may_only_read_changes_nothing_and_reads_everything(gateway: Gateway) -> None:
    for method, path in gateway.routes():
        for asked in gateway.asked(method, path):
            got = gateway.answer("reader", method, asked)
            code = got.json()["error"].get("code") if got.status_code == 403 else None
            assert (code == "permission_denied") is asked.is_write, (method, asked, got.text)
    file = gateway.answer("reader", "GET", Asked(path=f"/v1/files/{gateway.ids.file}/content"))
    assert file.status_code == 200


def test_what_changes_something_is_asked_as_a_write(table: Gateway) -> None:
    """So that the test before this one knows of every route that does."""
    reads = ("/search", "completions", "messages", "count_tokens", "/responses", "embeddings")
    others = ("rerank", "{deployment:path}", "{response_id:str}/cancel")
    for method, path in table.routes():
        is_write = method != "GET" and not path.endswith((*reads, *others))
        assert all(asked.is_write is is_write for asked in table.asked(method, path)), path


def test_without_a_key_nothing_but_what_is_open_answers(table: Gateway) -> None:
    for route in table.client.app.routes:
        if not isinstance(route, HTTPRoute) or route.path.startswith(STATIC):
            continue
        for method, (handler, _) in route.route_handler_map.items():
            if method == "OPTIONS":
                continue
            for asked in table.asked(method, route.path):
                got = table.client.request(method, asked.path, **asked.said)
                assert (got.status_code == 401) is not bool(handler.opt.get(OPEN)), asked.path


def test_a_route_that_is_not_in_the_table_is_noticed(table: Gateway) -> None:
    with pytest.raises(KeyError):
        table.asked("GET", "/v1/new")
