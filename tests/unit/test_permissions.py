"""What a caller may use, and that what it may not use looks like what is not there."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.testing import TestClient
from pydantic import SecretStr

from gateway.access.callers import Caller, acting_as, caller
from gateway.access.keys import Key, digest, written
from gateway.access.permissions import may_ask, usable, usual_model
from gateway.app import create_app
from gateway.settings import GatewaySettings
from tests.unit.conftest import COMPLETION, FakeAnswer, FakeUpstream
from tests.unit.index_fakes import FakeEncoder
from tests.unit.stores_fakes import FakeIndex

CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "What do llamas eat?"}]}
KNOWN = ["handbook", "sales", "tickets"]
Client = TestClient[Any]


def key(name: str, **said: Any) -> Key:
    sha256 = digest(f"gs-{name}".encode()).hex()
    return Key(name=name, tenant="acme", sha256=sha256, created_at=0, **said)


class Gateway:
    """One with three knowledge bases, and a key for each that is made."""

    def __init__(self, folder: Path, *keys: Key, **settings: Any) -> None:
        self.index, self.upstream = FakeIndex(), FakeUpstream("org/model-a")
        for name in KNOWN:
            self.index.publish(name, {f"{name}-1": f"Text of {name}."})
        settings = {"encoder_model": "org/encoder", **settings}
        self.app = create_app(
            GatewaySettings(
                knowledge_base=KNOWN[0],
                knowledge_bases=", ".join(KNOWN[1:]),
                library_url=str(folder),
                open_access=False,
                api_keys=SecretStr(written(keys).decode()),
                model_aliases="gpt-4o=default, plain=default:no-retrieval",
                poll_interval_s=60,
                **settings,
            ),
            servers=[self.upstream],
            reader=self.index,
            load_encoder=FakeEncoder,
        )

    def asked(self, client: Client, who: str, method: str, path: str, **said: Any) -> Any:
        self.upstream.answers = [FakeAnswer([COMPLETION])]
        headers = {"authorization": f"Bearer gs-{who}"}
        return client.request(method, path, headers=headers, **said)

    def searched(self) -> list[str]:
        """The knowledge bases that were searched since this was asked last."""
        names = [collection.partition("__")[0] for collection, _, _ in self.index.searches]
        self.index.searches.clear()
        return names


def told(answer: Any) -> tuple[int, str]:
    """Status and body, without what differs between two requests that are the same."""
    assert "x-request-id" in answer.headers
    return answer.status_code, answer.text


def same_but_for(name: str, other: str, one: Any, two: Any) -> bool:
    """Whether two answers differ in the name alone that was asked for."""
    (status, body), (other_status, other_body) = told(one), told(two)
    return status == other_status and body.replace(name, other) == other_body


PATHS: list[tuple[str, str, Any]] = [
    ("GET", "/v1/vector_stores/{}", None),
    ("POST", "/v1/vector_stores/{}", {"name": "x"}),
    ("DELETE", "/v1/vector_stores/{}", None),
    ("POST", "/v1/vector_stores/{}/search", {"query": "x"}),
    ("GET", "/v1/vector_stores/{}/files", None),
    ("POST", "/v1/vector_stores/{}/files", {"file_id": "file-1"}),
    ("GET", "/v1/vector_stores/{}/files/sales-1", None),
    ("POST", "/v1/vector_stores/{}/files/sales-1", {"attributes": {}}),
    ("DELETE", "/v1/vector_stores/{}/files/sales-1", None),
    ("GET", "/v1/vector_stores/{}/files/sales-1/content", None),
    ("POST", "/v1/vector_stores/{}/file_batches", {"file_ids": ["file-1"]}),
    ("GET", "/v1/vector_stores/{}/file_batches/vsfb_1", None),
    ("POST", "/v1/vector_stores/{}/file_batches/vsfb_1/cancel", None),
    ("GET", "/v1/vector_stores/{}/file_batches/vsfb_1/files", None),
]


@pytest.mark.parametrize(("method", "path", "body"), PATHS)
def test_a_knowledge_base_that_a_key_may_not_use_looks_like_one_that_is_not_there(
    tmp_path: Path, method: str, path: str, body: Any
) -> None:
    """The path that both take is the same, and so is how long that takes."""
    gateway = Gateway(tmp_path, key("some", knowledge_bases=("tickets",)))
    with TestClient(gateway.app, base_url="http://127.0.0.1") as client:
        hidden, missing = (
            gateway.asked(client, "some", method, path.format(name), json=body)
            for name in ("sales", "nope_")
        )
        assert hidden.status_code == 404
        assert same_but_for("sales", "nope_", hidden, missing) or "sales-1" in path
        assert hidden.json()["error"] | {"message": ""} == missing.json()["error"] | {"message": ""}
        # Not the index but the library is asked, as for any other name.
        assert not {"sales", "handbook"} & set(gateway.index.resolved) - {KNOWN[0]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {**ASKED, "model": "default", "retrieval": {"vector_store_ids": ["{}"]}}),
        (
            CHAT,
            {
                **ASKED,
                "model": "default",
                "data_sources": [{"type": "azure_search", "parameters": {"index_name": "{}"}}],
            },
        ),
        (
            "/v1/responses",
            {
                "model": "default",
                "input": "x",
                "tools": [{"type": "file_search", "vector_store_ids": ["{}"]}],
            },
        ),
        (
            "/v1/completions",
            {"model": "default", "prompt": "x", "retrieval": {"vector_store_ids": ["{}"]}},
        ),
        (
            "/v1/messages",
            {
                **ASKED,
                "model": "default",
                "max_tokens": 5,
                "retrieval": {"vector_store_ids": ["{}"]},
            },
        ),
    ],
)
def test_no_dialect_searches_what_a_key_may_not_use(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    gateway = Gateway(tmp_path, key("some", knowledge_bases=("tickets",)), key("all"))

    def asked(who: str, name: str) -> Any:
        return gateway.asked(client, who, "POST", path, json=_with(body, name))

    with TestClient(gateway.app, base_url="http://127.0.0.1") as client:
        hidden, missing = asked("some", "sales"), asked("some", "nope_")
        assert hidden.status_code == 404
        hidden_error, missing_error = hidden.json()["error"], missing.json()["error"]
        for error in (hidden_error, missing_error):
            error["message"] = error["message"].replace("sales", "nope_")
        assert hidden_error == missing_error
        assert gateway.searched() == []
        for who, name in (("some", "tickets"), ("all", "sales")):
            asked(who, name)
            assert gateway.searched() == [name]


def _with(body: Any, name: str) -> Any:
    """`body` with `name` where it has {}."""
    match body:
        case dict():
            return {field: _with(value, name) for field, value in body.items()}
        case list():
            return [_with(value, name) for value in body]
    return name if body == "{}" else body


@pytest.mark.parametrize(
    ("allowed", "listed", "searched"),
    [
        (None, KNOWN, ["handbook"]),
        (("tickets", "sales"), ["tickets", "sales"], ["tickets"]),
        (("sales", "handbook"), ["sales", "handbook"], ["handbook"]),
        (("elsewhere",), [], []),
        ((), [], []),
    ],
)
def test_where_a_request_names_none_the_default_of_its_key_is_searched(
    tmp_path: Path, allowed: tuple[str, ...] | None, listed: list[str], searched: list[str]
) -> None:
    gateway = Gateway(tmp_path, key("some", knowledge_bases=allowed))
    with TestClient(gateway.app, base_url="http://127.0.0.1") as client:
        stores = gateway.asked(client, "some", "GET", "/v1/vector_stores").json()["data"]
        assert {store["id"] for store in stores} == set(listed)

        answer = gateway.asked(client, "some", "POST", CHAT, json={**ASKED, "model": "default"})
        assert answer.status_code == 200
        assert gateway.searched() == searched

        made = gateway.asked(client, "some", "POST", "/v1/vector_stores", json={}).json()["id"]
        stores = gateway.asked(client, "some", "GET", "/v1/vector_stores").json()["data"]
        assert {store["id"] for store in stores} == {made, *listed}


EMBEDDED: dict[str, Any] = {"input": "x"}
MODEL_PATHS: list[tuple[str, dict[str, Any]]] = [
    (CHAT, ASKED),
    ("/v1/responses", {"input": "x"}),
    ("/v1/completions", {"prompt": "x"}),
    ("/v1/messages", {**ASKED, "max_tokens": 5}),
    ("/v1/messages/count_tokens", ASKED),
    ("/v1/embeddings", EMBEDDED),
]


@pytest.mark.parametrize(("path", "body"), MODEL_PATHS)
def test_a_model_that_a_key_may_not_ask_looks_like_one_that_is_not_there(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    gateway = Gateway(tmp_path, key("some", models=("plain",)))
    names = ("default", "encoder") if body is EMBEDDED else ("default", "org/model-a", "gpt-4o")
    with TestClient(gateway.app, base_url="http://127.0.0.1") as client:
        missing = gateway.asked(client, "some", "POST", path, json={**body, "model": "nope"})
        for name in names:
            said = {**body, "model": name}
            hidden = gateway.asked(client, "some", "POST", path, json=said)
            assert hidden.status_code == 404
            assert hidden.text.replace(name, "nope") == missing.text or path.startswith(
                "/v1/messages"
            )
            assert name not in hidden.json()["error"]["message"].replace(repr(name), "")
        assert gateway.upstream.posted == []


def test_the_models_of_a_key_are_those_that_it_lists(tmp_path: Path) -> None:
    gateway = Gateway(
        tmp_path,
        key("all"),
        key("alias", models=("plain",)),
        key("real", models=("org/model-a",)),
        key("none", models=()),
    )

    def names(who: str) -> list[str]:
        told = gateway.asked(client, who, "GET", "/v1/models").json()["data"]
        return [entry["id"] for entry in told]

    with TestClient(gateway.app, base_url="http://127.0.0.1") as client:
        assert names("all") == ["org/model-a", "default", "gpt-4o", "plain"]
        assert (names("alias"), names("real"), names("none")) == (["plain"], ["org/model-a"], [])
        for who, name, status in (
            ("alias", "plain", 200),
            ("alias", "plain:retrieval", 200),
            ("alias", "default", 404),
            ("real", "org/model-a", 200),
            ("real", "default", 404),
            ("real", "gpt-4o", 404),
            ("none", "org/model-a", 404),
        ):
            answer = gateway.asked(client, who, "POST", CHAT, json={**ASKED, "model": name})
            assert answer.status_code == status, (who, name)
            if ":" not in name:
                entry = gateway.asked(client, who, "GET", f"/v1/models/{name}")
                assert entry.status_code == status, (who, name)


def test_a_question_is_put_anew_by_a_model_that_its_key_may_ask_or_by_none(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, key("real", models=("org/model-a",)), key("none", models=()))
    said = {"query": "llamas", "rewrite_query": True}
    with TestClient(gateway.app, base_url="http://127.0.0.1") as client:
        gateway.asked(client, "real", "GET", "/v1/models")
        for who, asked in (("real", 1), ("none", 0)):
            gateway.upstream.posted.clear()
            path = "/v1/vector_stores/handbook/search"
            assert gateway.asked(client, who, "POST", path, json=said).status_code == 200
            assert len(gateway.upstream.posted) == asked


def test_who_asks_is_known_in_a_request_alone() -> None:
    with pytest.raises(LookupError):
        caller()


NAMES = st.sampled_from([*KNOWN, "elsewhere", "", "HANDBOOK", "sales "])


@given(allowed=st.none() | st.lists(NAMES).map(tuple))
def test_what_a_key_may_use_is_what_both_its_list_and_the_gateway_name(
    allowed: tuple[str, ...] | None,
) -> None:
    with acting_as(Caller(name="x", tenant="t", knowledge_bases=allowed)):
        found = list(usable(KNOWN))
    wanted = KNOWN if allowed is None else [name for name in KNOWN if name in allowed]

    assert sorted(found) == wanted
    if found:
        default = KNOWN[0] in wanted
        assert found[0] == (
            KNOWN[0] if default else next(each for each in allowed or KNOWN if each in KNOWN)
        )


MODELS = st.sampled_from(["default", "gpt-4o", "org/model", "plain:retrieval", ""])
ENDINGS = st.sampled_from(["", ":retrieval", ":no-retrieval"])


@given(allowed=st.none() | st.lists(MODELS).map(tuple), name=MODELS, ending=ENDINGS)
def test_a_model_may_be_asked_by_each_listed_name_with_any_ending(
    allowed: tuple[str, ...] | None, name: str, ending: str
) -> None:
    with acting_as(Caller(name="x", tenant="t", models=allowed)):
        asked, usual = may_ask(name + ending), usual_model()

    assert asked or not (allowed is None or name in allowed)
    assert not asked or allowed is None or any(name.startswith(each) for each in allowed)
    assert usual == "" or allowed is None or usual in allowed
