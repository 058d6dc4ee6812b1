"""The question for a gated model, asked of a small hub on a real port."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from stack import hub
from stack.errors import Unsuitable

MODEL = "meta-llama/Llama-3.1-8B-Instruct"


class Hub(ThreadingHTTPServer):
    """Answers every request with `status`, and remembers what it was asked."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        assert isinstance(self.server, Hub)
        self.server.requests.append((self.command, self.path, self.headers["Authorization"]))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.fixture
def a_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_model_that_is_open_to_this_user_passes(
    a_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    hub.check_access(MODEL)
    assert a_hub.requests == [("HEAD", f"/{MODEL}/resolve/main/config.json", "Bearer hf_mine")]


def test_without_a_token_it_says_how_to_get_one(a_hub: Hub) -> None:
    a_hub.status = 401
    with pytest.raises(Unsuitable) as refused:
        hub.check_access(MODEL)
    message = str(refused.value)
    assert f"accept the licence on {a_hub.url}/{MODEL}" in message
    assert f"make a token on {a_hub.url}/settings/tokens" in message
    assert "HF_TOKEN" in message
    assert "\n" not in message
    assert a_hub.requests[0][2] is None


def test_a_refused_token_is_not_called_missing(a_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    a_hub.status = 401
    with pytest.raises(Unsuitable, match=r"refused your token .* make a new one") as refused:
        hub.check_access(MODEL)
    assert "hf_expired" not in str(refused.value)


def test_a_licence_that_was_not_accepted_is_named(
    a_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    a_hub.status = 403
    with pytest.raises(Unsuitable, match=rf"accept its licence on {a_hub.url}/{MODEL}"):
        hub.check_access(MODEL)


def test_another_answer_is_passed_on(a_hub: Hub) -> None:
    a_hub.status = 503
    with pytest.raises(Unsuitable, match="answered 503"):
        hub.check_access(MODEL)


def test_a_hub_that_cannot_be_reached_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        Unsuitable, match=r"127\.0\.0\.1:9 cannot be reached .*refused.*--profile local"
    ):
        hub.check_access(MODEL)


def test_an_endpoint_that_is_no_address_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "mirror")
    with pytest.raises(Unsuitable, match="mirror cannot be reached"):
        hub.check_access(MODEL)


def test_the_token_of_a_login_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_login\n")
    assert hub.token() == "hf_login"
    (tmp_path / "elsewhere").write_text("hf_path\n")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "elsewhere"))
    assert hub.token() == "hf_path"
    monkeypatch.setenv("HF_TOKEN", " hf_variable ")
    assert hub.token() == "hf_variable"


@pytest.fixture
def put_in_cache() -> Callable[[str], None]:
    def put(name: str) -> None:
        file = hub.cache_folder(MODEL) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    return put


def test_a_model_in_the_cache_needs_no_hub(a_hub: Hub, put_in_cache: Callable[[str], None]) -> None:
    a_hub.status = 401
    put_in_cache("snapshots/abc/config.json")
    put_in_cache("snapshots/abc/model-00001-of-00001.safetensors")
    hub.check_access(MODEL)
    assert a_hub.requests == []


def test_half_a_download_is_not_in_the_cache(put_in_cache: Callable[[str], None]) -> None:
    put_in_cache("snapshots/abc/config.json")
    assert not hub.is_cached(MODEL)
    put_in_cache("snapshots/abc/model-00001-of-00002.safetensors")
    put_in_cache("blobs/123.incomplete")
    assert not hub.is_cached(MODEL)
