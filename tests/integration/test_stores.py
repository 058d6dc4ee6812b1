"""Vector stores from the SDK to Milvus: gateways, a watching indexer in a process of its own, and a
folder that they share."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient
from openai import BadRequestError, NotFoundError, OpenAI
from stack import servers

from gateway.app import create_app
from gateway.settings import GatewaySettings
from indexer.index.collection import documents
from indexer.index.embedding import Encoder
from indexer.index.settings import IndexSettings
from indexer.report import Report
from tests.unit.conftest import FakeUpstream

SENTENCES = [f"Sentence {at} tells of guanaco {at * 7} in the Andes." for at in range(150)]
LONG = "\n\n".join(" ".join(SENTENCES[at : at + 5]) for at in range(0, len(SENTENCES), 5))
LLAMAS = b"# Llamas\n\nLlamas eat grass and hay, and need little water.\n"
ORBITS = b"# Orbits\n\nA geostationary orbit lies 35,786 km above the equator.\n"
BREAD = b"Sourdough bread rises with wild yeast and bacteria.\n"
DEADLINE_S = 60.0

Gateway = Callable[[], Any]


class Place:
    """Where everything is, and how to start what works on it."""

    def __init__(
        self, milvus_uri: str, encoder_folder: Path, encoder: Encoder, folder: Path
    ) -> None:
        self._encoder = encoder
        self._folder = folder
        self._said: dict[str, Any] = {
            "milvus_uri": milvus_uri,
            "encoder_model": str(encoder_folder),
            "library_url": f"file://{folder}/library",
            "tenant": "acme",
        }

    @contextmanager
    def gateway(self, **said: Any) -> Iterator[OpenAI]:
        """A client of a gateway of its own, which has nothing in memory."""
        settings = GatewaySettings(**(self._said | said))
        app = create_app(
            settings, servers=[FakeUpstream("org/model-a")], load_encoder=lambda: self._encoder
        )
        with TestClient(app, base_url="http://127.0.0.1") as client:
            while "encoder" in client.get("/health/ready").json().get("missing", {}):
                time.sleep(0.01)
            http_client: Any = client
            yield OpenAI(
                base_url="http://127.0.0.1/v1",
                api_key="none",
                max_retries=0,
                http_client=http_client,
            )

    @contextmanager
    def watcher(self) -> Iterator[None]:
        """An indexer that waits for uploads."""
        said = self._said | {"encoder_threads": 1, "watch_interval_s": 0.1, "lease_duration_s": 5}
        environment = {f"GROUNDSERVE_{name.upper()}": str(value) for name, value in said.items()}
        with servers.watcher(environment, self._folder):
            yield


@pytest.fixture
def place(milvus_uri: str, encoder_folder: Path, encoder: Encoder, tmp_path: Path) -> Place:
    return Place(milvus_uri, encoder_folder, encoder, tmp_path)


def found(client: OpenAI, store: str, query: str, **said: Any) -> list[str]:
    """Names of the files that a search finds, best first."""
    page = client.vector_stores.search(store, query=query, **said)
    return [result.filename for result in page]


def eventually(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_what_is_uploaded_is_found_by_every_gateway_until_it_is_deleted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.gateway() as one, place.gateway() as other:
        with place.watcher():
            store = one.vector_stores.create(name="Manuals").id
            assert found(other, store, "What do llamas eat?") == []
            uploaded = one.vector_stores.files.upload_and_poll(
                vector_store_id=store, file=("llamas.md", LLAMAS), max_wait_seconds=DEADLINE_S
            )
            assert (uploaded.status, uploaded.usage_bytes > 40) == ("completed", True)
            for client in (one, other):
                assert found(client, store, "What do llamas eat?") == ["llamas.md"]
            # Attributes that no file had before make another generation.
            batch = _batch(other, store)
            assert (batch.status, batch.file_counts.completed) == ("completed", 3)
            assert batch.file_counts.failed == 1
            _check_filters(one, store)
            _check_text(other, store, monkeypatch)
        # The indexer is away: nothing is lost, and what was ready is served.
        late = one.vector_stores.files.upload(vector_store_id=store, file=("bread.txt", BREAD))
        assert late.status == "in_progress"
    with place.gateway() as one, place.gateway() as other:
        assert found(one, store, "orbit")[0] == "orbits.md"
        assert one.vector_stores.retrieve(store).status == "in_progress"
        with place.watcher():
            other.vector_stores.files.poll(
                late.id, vector_store_id=store, max_wait_seconds=DEADLINE_S
            )
            assert found(one, store, "How does bread rise?")[0] == "bread.txt"
            _check_deletion(one, other, store, uploaded.id)


def _batch(client: OpenAI, store: str) -> Any:
    names = {
        "orbits.md": ORBITS,
        "copy.md": LLAMAS,
        "long.txt": LONG.encode(),
        "broken.pdf": b"no PDF",
    }
    files = [
        {
            "file_id": client.files.create(file=(name, content), purpose="assistants").id,
            "attributes": {"year": 2020 + at, "product": name},
        }
        for at, (name, content) in enumerate(names.items())
    ]
    return client.vector_stores.file_batches.create_and_poll(store, files=files)  # type: ignore[arg-type]


def _check_filters(client: OpenAI, store: str) -> None:
    late: Any = {"type": "eq", "key": "year", "value": 2021}
    assert found(client, store, "What do llamas eat?", filters=late) == ["copy.md"]
    none: Any = {"type": "eq", "key": "product", "value": "nothing"}
    assert found(client, store, "What do llamas eat?", filters=none) == []
    with pytest.raises(BadRequestError, match="color"):
        found(client, store, "x", filters={"type": "eq", "key": "color", "value": "red"})
    [failed] = client.vector_stores.files.list(store, filter="failed").data
    assert failed.last_error is not None
    assert failed.last_error.code == "invalid_file"


def _check_text(client: OpenAI, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What chunks have in common is in the text once, also between two questions of Milvus."""
    monkeypatch.setattr(documents, "CHUNKS_AT_ONCE", 4)
    files = client.vector_stores.files.list(store, filter="completed")
    [long] = [file for file in files if (file.attributes or {}).get("product") == "long.txt"]
    parts = client.vector_stores.files.content(long.id, vector_store_id=store).data
    assert len(parts) > 2
    assert "".join(part.text or "" for part in parts) == LONG


def _check_deletion(one: OpenAI, other: OpenAI, store: str, file: str) -> None:
    one.files.delete(file)
    with pytest.raises(NotFoundError):
        other.vector_stores.files.retrieve(file, vector_store_id=store)
    eventually(lambda: "llamas.md" not in found(other, store, "What do llamas eat?"))
    one.vector_stores.delete(store)
    with pytest.raises(NotFoundError):
        found(one, store, "x")
    eventually(lambda: _is_gone(other, store))


def _is_gone(client: OpenAI, store: str) -> bool:
    """Another gateway may believe for a moment that a store is there."""
    try:
        client.vector_stores.retrieve(store)
    except NotFoundError:
        return True
    return False


def test_the_documents_of_a_knowledge_base_are_listed_each_once(
    place: Place,
    tmp_path: Path,
    index_settings: IndexSettings,
    run_indexer: Callable[..., Report],
) -> None:
    folder, others = tmp_path / "docs", tmp_path / "others"
    for at, owner in [(at, folder) for at in range(45)] + [(at, others) for at in range(5)]:
        owner.mkdir(exist_ok=True)
        (owner / f"{at}.md").write_text(f"# Page {at}\n\nLlama number {at} eats grass.\n")
    run_indexer(folder, tenant="acme")
    run_indexer(others, tenant="other")
    name = index_settings.knowledge_base

    with place.gateway(knowledge_base=name) as client:
        store = client.vector_stores.retrieve(name)
        assert (store.status, store.file_counts.completed) == ("completed", 45)
        assert [each.id for each in client.vector_stores.list()] == [name]
        listed = list(client.vector_stores.files.list(name, limit=7))
        shown = [str((file.model_extra or {})["filename"]) for file in listed]
        assert sorted(shown) == sorted(f"{at}.md" for at in range(45))
        assert len({file.id for file in listed}) == 45
        file = listed[shown.index("7.md")]
        assert client.vector_stores.files.retrieve(file.id, vector_store_id=name) == file
        [part] = client.vector_stores.files.content(file.id, vector_store_id=name)
        assert part.text is not None
        assert part.text.endswith("Llama number 7 eats grass.")
        [best] = client.vector_stores.search(name, query="Llama number 7", max_num_results=1)
        assert best.filename == "7.md"
    with place.gateway(knowledge_base=name, tenant="other") as client:
        assert client.vector_stores.retrieve(name).file_counts.total == 5
        with pytest.raises(NotFoundError):
            client.vector_stores.files.content(file.id, vector_store_id=name)
