"""Which vector stores a request may name, and how soon a change is noticed."""

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from gateway.access.callers import Caller, acting_as
from gateway.errors import UploadsDisabled, VectorStoreNotFound, VectorStoreReadOnly
from gateway.retrieval.catalogue import REMEMBERED_S, Catalogue
from gateway.uploads import Uploads
from indexer.index.errors import LibraryUnavailable
from indexer.index.library import ExpiresAfter, Library, StoreOutcome, VectorStore, new_id

pytestmark = pytest.mark.usefixtures("acting")

TENANT = "acme"
PARAM = "tools[0].vector_store_ids"


class Shelf:
    """A catalogue, what is behind it, and the stores that it has noticed."""

    def __init__(self, folder: Path | None) -> None:
        self.library = None if folder is None else Library(str(folder))
        self.uploads = Uploads(self.library)
        self.changed: list[str] = []
        self.catalogue = Catalogue(["handbook", "tickets"], self.uploads, self.changed.append)

    def store(self, *, is_published: bool, expires_after: ExpiresAfter | None = None) -> str:
        assert self.library is not None
        now = int(time.time())
        store = VectorStore(
            id=new_id("vector store"),
            name="",
            created_at=now,
            last_active_at=now,
            expires_after=expires_after,
        )
        self.library.add_store(TENANT, store)
        self.tell(store.id, is_published=is_published)
        return store.id

    def tell(self, store: str, *, is_published: bool, at: int = 1) -> None:
        assert self.library is not None
        outcome = StoreOutcome(is_published=is_published, finished_at=at)
        self.library.write_outcome(TENANT, store, outcome)


MakeShelf = Callable[..., Shelf]


@pytest.fixture
async def make_shelf(tmp_path: Path) -> AsyncIterator[MakeShelf]:
    made: list[Shelf] = []

    def make(folder: Path | None = tmp_path) -> Shelf:
        made.append(Shelf(folder))
        return made[-1]

    yield make
    for shelf in made:
        await shelf.uploads.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """One number: what the monotonic clock shows."""
    now = [1000.0]
    monkeypatch.setattr("gateway.retrieval.catalogue.time.monotonic", lambda: now[0])
    return now


@pytest.mark.anyio
async def test_a_request_that_names_no_store_means_the_configured_one(
    make_shelf: MakeShelf,
) -> None:
    for ids in (None, list[str]()):
        assert await make_shelf().catalogue.searchable(ids, PARAM) == ("handbook",)


@pytest.mark.anyio
async def test_stores_are_searched_in_the_order_in_which_they_are_named_each_once(
    make_shelf: MakeShelf,
) -> None:
    shelf = make_shelf()
    store = shelf.store(is_published=True)
    named = ["tickets", store, "handbook", store, "tickets"]

    assert await shelf.catalogue.searchable(named, PARAM) == ("tickets", store, "handbook")


@pytest.mark.anyio
async def test_a_store_without_a_file_that_is_ready_contributes_nothing(
    make_shelf: MakeShelf,
) -> None:
    shelf = make_shelf()
    empty = shelf.store(is_published=False)

    assert await shelf.catalogue.searchable([empty], PARAM) == ()
    assert await shelf.catalogue.searchable([empty, "handbook"], PARAM) == ("handbook",)


@pytest.mark.anyio
async def test_a_store_that_is_not_there_is_named_with_its_place(make_shelf: MakeShelf) -> None:
    for shelf in (make_shelf(), make_shelf(None)):
        for missing in ("vs_1", new_id("vector store"), "HANDBOOK", "", "x" * 5000):
            with pytest.raises(VectorStoreNotFound) as failure:
                await shelf.catalogue.searchable(["handbook", missing], PARAM)
            assert failure.value.param == f"{PARAM}[1]"
            assert len(str(failure.value)) < 200


@pytest.mark.anyio
async def test_a_store_of_another_tenant_does_not_exist(make_shelf: MakeShelf) -> None:
    """Also a moment after its owner has asked for it, on the same gateway."""
    shelf = make_shelf()
    store = shelf.store(is_published=True)
    assert await shelf.catalogue.is_published(store)

    with acting_as(Caller(name="other", tenant="other")), pytest.raises(VectorStoreNotFound):
        await shelf.catalogue.searchable([store], PARAM)


@pytest.mark.anyio
async def test_a_store_that_has_expired_does_not_exist(make_shelf: MakeShelf) -> None:
    shelf = make_shelf()
    store = shelf.store(is_published=True, expires_after=ExpiresAfter(days=1))
    assert shelf.library is not None
    kept = shelf.library.store(TENANT, store)
    old = msgspec.structs.replace(kept, last_active_at=kept.last_active_at - 90_000)
    shelf.library.change_store(TENANT, old)

    with pytest.raises(VectorStoreNotFound):
        await shelf.catalogue.searchable([store], PARAM)


@pytest.mark.anyio
async def test_the_library_is_not_asked_for_each_request(
    make_shelf: MakeShelf, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = make_shelf()
    store = shelf.store(is_published=True)
    await shelf.catalogue.searchable([store], PARAM)

    def away(*_: object) -> None:
        raise LibraryUnavailable("the storage is away")

    monkeypatch.setattr(Library, "store", away)
    clock[0] += REMEMBERED_S - 0.01
    assert await shelf.catalogue.searchable([store], PARAM) == (store,)
    with pytest.raises(LibraryUnavailable):
        await shelf.catalogue.is_published(store, anew=True)
    clock[0] += 0.02
    with pytest.raises(LibraryUnavailable):
        await shelf.catalogue.searchable([store], PARAM)


@pytest.mark.anyio
async def test_a_first_index_is_noticed_at_once_and_a_later_one_soon(
    make_shelf: MakeShelf, clock: list[float]
) -> None:
    shelf = make_shelf()
    store = shelf.store(is_published=False)
    assert await shelf.catalogue.searchable([store], PARAM) == ()

    shelf.tell(store, is_published=True, at=2)
    assert await shelf.catalogue.searchable([store], PARAM) == (store,)
    noticed = len(shelf.changed)
    shelf.tell(store, is_published=True, at=3)
    await shelf.catalogue.searchable([store], PARAM)
    assert len(shelf.changed) == noticed
    clock[0] += REMEMBERED_S
    await shelf.catalogue.searchable([store], PARAM)
    await shelf.catalogue.is_published(store, anew=True)
    assert shelf.changed[noticed:] == [store]


@pytest.mark.anyio
async def test_a_deleted_store_is_gone_as_soon_as_it_is_forgotten(make_shelf: MakeShelf) -> None:
    shelf = make_shelf()
    store = shelf.store(is_published=True)
    await shelf.catalogue.searchable([store], PARAM)
    assert shelf.library is not None
    shelf.library.delete_store(TENANT, store)

    shelf.catalogue.forget(store)
    with pytest.raises(VectorStoreNotFound):
        await shelf.catalogue.searchable([store], PARAM)


@pytest.mark.anyio
async def test_what_the_indexer_fills_cannot_be_changed(make_shelf: MakeShelf) -> None:
    with pytest.raises(VectorStoreReadOnly, match="'handbook'"):
        make_shelf().catalogue.check_writable("handbook")
    make_shelf().catalogue.check_writable(new_id("vector store"))
    with pytest.raises(UploadsDisabled, match="GROUNDSERVE_LIBRARY_URL"):
        make_shelf(None).catalogue.check_writable(new_id("vector store"))
