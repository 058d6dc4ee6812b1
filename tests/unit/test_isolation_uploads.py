"""Files and vector stores of several tenants on one gateway, against a model of whose is what.

Everything goes over HTTP, with ids of everybody and of nobody, to the real library of uploads.
"""

import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

import fsspec
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from litestar.testing import TestClient
from pydantic import SecretStr

from gateway.access.keys import Key, digest, written
from gateway.app import create_app
from gateway.settings import GatewaySettings
from indexer.index.library import Library, new_id
from tests.unit.conftest import FakeUpstream
from tests.unit.index_fakes import FakeEncoder
from tests.unit.stores_fakes import FakeIndex

TENANTS = [
    "acme",
    "ACME",
    "acme/",
    "../acme",
    "%61cme",
    "ac.me",
    'acme" or tenant != "',
    "=0123456789abcdef0123456789abcdef",
    "ünï\t日本\0",
    "\U0001f999" * 128,
]
HOSTILE = [
    "",
    ".",
    "..",
    "*",
    "file-*",
    "../acme/files/x",
    "x' or '1'='1",
    'x" or tenant != "',
    "%2e%2e%2f",
    "null\0byte",
    "日本 🦙",
    "x" * 3000,
]
ROOT = "/isolation"
SECRET = "the-secret-of-{}-"
STORES = "/v1/vector_stores"
FILES = "/v1/files"


class Store(msgspec.Struct):
    owner: int
    files: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)


who = st.integers(0, len(TENANTS) - 1)
NAMES = st.sampled_from([name for name in HOSTILE if name.isprintable() and name.strip(".")]).map(
    lambda name: name[:40]
)
VALUES = st.sampled_from([value[:500] for value in HOSTILE]) | st.booleans() | st.floats(0, 9)


class Isolation(RuleBasedStateMachine):
    """What each tenant has, and what the gateway tells each."""

    def __init__(self, client: TestClient[Any], library: Library) -> None:
        super().__init__()
        self.client = client
        self.library = library
        self.files: dict[str, int] = {}
        self.stores: dict[str, Store] = {}
        self.batches: dict[str, str] = {}
        self.gone: list[str] = []

    def teardown(self) -> None:
        empty_library()

    @rule(tenant=who, name=NAMES)
    def upload(self, tenant: int, name: str) -> None:
        content = f"{SECRET.format(tenant)}{time.time_ns()}".encode()
        filename = f"{SECRET.format(tenant)}{name}.md"
        got = self.ask(
            tenant,
            "POST",
            FILES,
            files={"file": (filename, content)},
            data={"purpose": "assistants"},
        )
        assert got.status_code == 200, got.text
        self.files[got.json()["id"]] = tenant

    @rule(data=st.data())
    def create_store(self, data: st.DataObject) -> None:
        tenant, _, file = self.draw_all(data)
        named = [file] * data.draw(st.booleans())
        name = SECRET.format(tenant) + data.draw(NAMES)
        got = self.ask(tenant, "POST", STORES, json={"name": name, "file_ids": named})
        if self.expect(got, all(self.files.get(each) == tenant for each in named)):
            self.stores[got.json()["id"]] = Store(tenant, {each: {} for each in named})

    @rule(data=st.data())
    def attach(self, data: st.DataObject) -> None:
        tenant, store, file = self.draw_all(data)
        said = {SECRET.format(tenant): data.draw(VALUES)}
        body = {"file_id": file, "attributes": said}
        got = self.ask(tenant, "POST", f"{STORES}/{part(store)}/files", json=body)
        if self.expect(got, self.owns(tenant, store, file)):
            self.stores[store].files[file] = said

    @rule(data=st.data())
    def attach_batch(self, data: st.DataObject) -> None:
        tenant, store, file = self.draw_all(data)
        path = f"{STORES}/{part(store)}/file_batches"
        got = self.ask(tenant, "POST", path, json={"file_ids": [file]})
        if self.expect(got, self.owns(tenant, store, file)):
            self.batches[got.json()["id"]] = store
            self.stores[store].files[file] = {}

    @rule(data=st.data(), cancels=st.booleans())
    def look_at_batch(self, data: st.DataObject, *, cancels: bool) -> None:
        batch = self.draw(data, self.batches)
        store = self.batches.get(batch) or self.draw(data, self.stores)
        tenant = self.draw_who(data, self.owner(store))
        path = f"{STORES}/{part(store)}/file_batches/{part(batch)}"
        if cancels:
            got = self.ask(tenant, "POST", f"{path}/cancel")
        else:
            got = self.ask(tenant, "GET", f"{path}{data.draw(st.sampled_from(['', '/files']))}")
        self.expect(got, self.is_of(tenant, store) and self.batches.get(batch) == store)

    @rule(data=st.data())
    def change_attributes(self, data: st.DataObject) -> None:
        tenant, store, file = self.draw_all(data)
        said = {SECRET.format(tenant): data.draw(VALUES)}
        path = f"{STORES}/{part(store)}/files/{part(file)}"
        got = self.ask(tenant, "POST", path, json={"attributes": said})
        if self.expect(got, self.is_of(tenant, store) and file in self.stores[store].files):
            self.stores[store].files[file] = said

    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        tenant, store, file = self.draw_all(data)
        got = self.ask(tenant, "DELETE", f"{STORES}/{part(store)}/files/{part(file)}")
        if self.expect(got, self.is_of(tenant, store) and file in self.stores[store].files):
            del self.stores[store].files[file]

    @rule(data=st.data())
    def rename_store(self, data: st.DataObject) -> None:
        tenant, store, _ = self.draw_all(data)
        body = {"name": SECRET.format(tenant), "metadata": {"x": data.draw(NAMES)}}
        got = self.ask(tenant, "POST", f"{STORES}/{part(store)}", json=body)
        self.expect(got, self.is_of(tenant, store))

    @rule(data=st.data())
    def delete_store(self, data: st.DataObject) -> None:
        tenant, store, _ = self.draw_all(data)
        got = self.ask(tenant, "DELETE", f"{STORES}/{part(store)}")
        if self.expect(got, self.is_of(tenant, store)):
            del self.stores[store]
            self.gone.append(store)

    @rule(data=st.data())
    def delete_file(self, data: st.DataObject) -> None:
        file = self.draw(data, self.files)
        tenant = self.draw_who(data, self.files.get(file))
        got = self.ask(tenant, "DELETE", f"{FILES}/{part(file)}")
        if self.expect(got, self.files.get(file) == tenant):
            del self.files[file]
            for store in self.stores.values():
                store.files.pop(file, None)
            self.gone.append(file)

    @rule(data=st.data())
    def look_at_file(self, data: st.DataObject) -> None:
        file = self.draw(data, self.files)
        tenant = self.draw_who(data, self.files.get(file))
        is_own = self.files.get(file) == tenant
        self.expect(self.ask(tenant, "GET", f"{FILES}/{part(file)}"), is_own)
        got = self.ask(tenant, "GET", f"{FILES}/{part(file)}/content")
        if self.expect(got, is_own):
            assert got.text.startswith(SECRET.format(tenant))

    @rule(data=st.data())
    def look_at_store(self, data: st.DataObject) -> None:
        tenant, store, file = self.draw_all(data)
        is_own = self.is_of(tenant, store)
        self.expect(self.ask(tenant, "GET", f"{STORES}/{part(store)}"), is_own)
        searched = {"query": "secret"}
        got = self.ask(tenant, "POST", f"{STORES}/{part(store)}/search", json=searched)
        self.expect(got, is_own)
        got = self.ask(tenant, "GET", f"{STORES}/{part(store)}/files")
        if self.expect(got, is_own):
            assert {each["id"] for each in got.json()["data"]} == set(self.stores[store].files)
        path = f"{STORES}/{part(store)}/files/{part(file)}"
        got = self.ask(tenant, "GET", path)
        if self.expect(got, is_own and file in self.stores[store].files):
            assert got.json()["attributes"] == self.stores[store].files[file]
            assert self.ask(tenant, "GET", f"{path}/content").status_code == 400  # not indexed

    @rule(data=st.data())
    def page_behind_somebodys(self, data: st.DataObject) -> None:
        cursor, tenant = self.draw(data, [*self.files, *self.stores]), data.draw(who)
        for path in (FILES, STORES):
            query = f"?{data.draw(st.sampled_from(['after', 'before']))}={part(cursor)}"
            assert self.ask(tenant, "GET", path + query).status_code in (200, 400)

    @invariant()
    def each_sees_its_own_alone(self) -> None:
        asked = {0, *self.files.values(), *(store.owner for store in self.stores.values())}
        for tenant in asked:
            files = self.ask(tenant, "GET", f"{FILES}?limit=10000").json()["data"]
            assert {each["id"] for each in files} == self.of(tenant, self.files)
            stores = self.ask(tenant, "GET", f"{STORES}?limit=100").json()["data"]
            own = {name for name, store in self.stores.items() if store.owner == tenant}
            assert {each["id"] for each in stores} - {"documents"} == own
        known = {TENANTS[tenant] for tenant in asked}
        assert set(self.library.tenants()) >= known - {TENANTS[0]}

    def ask(self, tenant: int, method: str, path: str, **said: Any) -> Any:
        """The answer, in which nothing is that is another's."""
        headers = {"authorization": f"Bearer {token(tenant).decode()}"}
        got = self.client.request(method, path, headers=headers, **said)
        told = got.text + repr(got.headers)
        for other in range(len(TENANTS)):
            assert other == tenant or SECRET.format(other) not in told
        assert got.status_code in (200, 400, 404, 405), (got.status_code, got.text)
        return got

    def expect(self, got: Any, is_own: bool) -> bool:
        """Whether it worked, which it does for whose it is alone."""
        if not is_own:
            assert got.status_code != 200, got.text
        else:
            assert got.status_code == 200, got.text
        return is_own

    def draw_all(self, data: st.DataObject) -> tuple[int, str, str]:
        """Who asks, for a store and a file: mostly of one tenant."""
        store = self.draw(data, self.stores)
        tenant = self.draw_who(data, self.owner(store))
        own = [*self.of(tenant, self.files)]
        is_own = bool(own) and data.draw(st.booleans())
        file = self.draw(data, own if is_own else self.files)
        return tenant, store, file

    def draw_who(self, data: st.DataObject, owner: int | None) -> int:
        """The owner of something, or anybody."""
        chosen: int = data.draw(who if owner is None else st.just(owner) | who)
        return chosen

    def draw(self, data: st.DataObject, ids: Iterable[str]) -> str:
        """One of those that somebody has, or one that was, or never will be."""
        others = [*self.gone, new_id("file"), new_id("vector store"), *HOSTILE]
        chosen = [*ids] or others
        return data.draw(st.sampled_from(chosen if data.draw(st.integers(0, 3)) else others))

    def owner(self, store: str) -> int | None:
        return self.stores[store].owner if store in self.stores else None

    def is_of(self, tenant: int, store: str) -> bool:
        return store in self.stores and self.stores[store].owner == tenant

    def owns(self, tenant: int, store: str, file: str) -> bool:
        return self.is_of(tenant, store) and self.files.get(file) == tenant

    @staticmethod
    def of(tenant: int, owners: dict[str, int]) -> set[str]:
        return {name for name, owner in owners.items() if owner == tenant}


def token(tenant: int) -> bytes:
    return f"gs-key-{tenant}".encode()


def part(identity: str) -> str:
    """`identity` as one part of a path, or as a value in a query; dots alone lead elsewhere."""
    return quote(identity, safe="") if identity.strip(".") else "%20"


def empty_library() -> None:
    memory = fsspec.filesystem("memory")
    if memory.exists(ROOT):
        memory.rm(ROOT, recursive=True)


@pytest.fixture
def library() -> Iterator[Library]:
    yield Library(f"memory:/{ROOT}")
    empty_library()


@pytest.fixture
def client(library: Library) -> Iterator[TestClient[Any]]:
    """Of a gateway with a key for each tenant. It stays, whoever has come and gone."""
    assert library.tenants() == []
    keys = [
        Key(name=f"k{at}", tenant=tenant, sha256=digest(token(at)).hex(), created_at=0)
        for at, tenant in enumerate(TENANTS)
    ]
    app = create_app(
        GatewaySettings(
            library_url=f"memory:/{ROOT}",
            open_access=False,
            api_keys=SecretStr(written(keys).decode()),
            tenant=TENANTS[0],
        ),
        servers=[FakeUpstream("org/model-a")],
        reader=FakeIndex(),
        load_encoder=FakeEncoder,
    )
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def test_every_tenant_has_what_it_has_made_and_nothing_else(
    client: TestClient[Any], library: Library
) -> None:
    run_state_machine_as_test(
        partial(Isolation, client, library),  # type: ignore[arg-type]  # it takes what makes one
        settings=settings(
            max_examples=15,
            stateful_step_count=30,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
