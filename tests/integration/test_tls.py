"""TLS on every connection, both sides known by certificates; and what is not trusted is not asked.

The gateway, Milvus Lite and vLLM's stand-in are real processes and sockets. Neither of the last two
has TLS of its own: it is put before them.
"""

import asyncio
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from pydantic import SecretStr
from stack import servers

from gateway.errors import UpstreamUnavailable
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from indexer.index.collection import IndexReader, IndexWriter
from indexer.index.errors import IndexUnavailable
from indexer.index.settings import IndexSettings
from tests.certificates import Authority
from tests.integration import fake_vllm, tls
from tests.integration.conftest import RunIndexer

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom nobody trusts."""
    return Authority(tmp_path_factory.mktemp("theirs"))


@pytest.fixture
def vllm_port(authority: Authority) -> Iterator[int]:
    """Of one that knows its clients by certificates."""
    certificate = authority.issue(HOST)
    with (
        fake_vllm.serving() as url,
        tls.forwarded(_port(url), tls.context(certificate, authority.file)) as port,
    ):
        yield port


@pytest.fixture
def secure_milvus(authority: Authority, milvus_uri: str) -> Iterator[str]:
    certificate = authority.issue("milvus.test")
    wrapped = tls.context(certificate, authority.file, alpn="h2")
    with tls.forwarded(_port(milvus_uri), wrapped) as port:
        yield f"https://{HOST}:{port}"


def _port(url: str) -> int:
    port = httpx2.URL(url).port
    assert port is not None
    return port


def _milvus(uri: str, authority: Authority, known_by: Authority) -> dict[str, Any]:
    certificate, key = known_by.issue("the gateway")
    return {
        "milvus_uri": uri,
        "milvus_ca_file": authority.file,
        "milvus_client_cert_file": certificate,
        "milvus_client_key_file": key,
        "milvus_server_name": "milvus.test",
        "milvus_timeout_s": 3,
    }


def test_an_answer_comes_through_tls_on_every_side(
    documents: Path,
    run_indexer: RunIndexer,
    index_settings: IndexSettings,
    secure_milvus: str,
    vllm_port: int,
    authority: Authority,
    stranger: Authority,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    run_indexer(documents)
    certificate, key = authority.issue("localhost")
    ours, our_key = authority.issue("the gateway")
    told = _milvus(secure_milvus, authority, authority) | {
        "encoder_model": index_settings.encoder_model,
        "encoder_threads": 1,
        "knowledge_base": index_settings.knowledge_base,
        "upstream_url": f"https://{HOST}:{vllm_port}/v1",
        "upstream_ca_file": authority.file,
        "upstream_client_cert_file": ours,
        "upstream_client_key_file": our_key,
        "listen_cert_file": certificate,
        "listen_key_file": key,
        "listen_client_ca_file": authority.file,
    }
    environment = {f"GROUNDSERVE_{name.upper()}": str(value) for name, value in told.items()}
    port = free_port()
    known = _client_context(authority, authority)
    with servers.gateway(port, environment, tmp_path / "logs") as gateway:
        gateway.probe = lambda: _trouble(port, known)
        gateway.wait_ready()
        with httpx2.Client(verify=known) as http:
            client = openai.OpenAI(
                base_url=f"https://localhost:{port}/v1", api_key="k", http_client=http
            )
            answer = client.chat.completions.create(
                model="default", messages=[{"role": "user", "content": "What do llamas eat?"}]
            )
        assert answer.choices[0].message.annotations
        for unknown in (_client_context(authority, stranger), _client_context(authority, None)):
            with pytest.raises((urllib.error.URLError, OSError)):
                _get(port, unknown)
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            _get(port, _client_context(stranger, authority))
        with pytest.raises((urllib.error.URLError, OSError)):
            urllib.request.urlopen(f"http://localhost:{port}/health/live", timeout=5)


def _client_context(trusted: Authority, known_by: Authority | None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=trusted.file)
    if known_by is not None:
        made.load_cert_chain(*known_by.issue("a client"))
    return made


def _get(port: int, context: ssl.SSLContext, path: str = "/health/live") -> int:
    with urllib.request.urlopen(
        f"https://localhost:{port}{path}", timeout=5, context=context
    ) as response:
        return int(response.status)


def _trouble(port: int, context: ssl.SSLContext) -> str | None:
    """Why the gateway is not ready; None where it is."""
    try:
        _get(port, context, "/health/ready")
    except OSError as exc:
        return str(exc)
    return None


def _connected(port: int, **said: Any) -> Upstream:
    return Upstream.connect(GatewaySettings(**said), f"https://{HOST}:{port}/v1")


async def _models(upstream: Upstream) -> list[str]:
    try:
        return [model.id for model in await upstream.models()]
    finally:
        await upstream.close()


def test_a_model_server_is_asked_only_where_both_know_each_other(
    vllm_port: int, authority: Authority, stranger: Authority
) -> None:
    certificate, key = authority.issue("the gateway")
    known = {"upstream_client_cert_file": certificate, "upstream_client_key_file": key}
    trusted = {"upstream_ca_file": authority.file}

    assert asyncio.run(_models(_connected(vllm_port, **known, **trusted))) == [fake_vllm.MODEL]
    for said in (known, known | {"upstream_ca_file": stranger.file}):
        with pytest.raises(UpstreamUnavailable, match="certificate verify failed"):
            asyncio.run(_models(_connected(vllm_port, **said)))
    with pytest.raises(UpstreamUnavailable):
        asyncio.run(_models(_connected(vllm_port, **trusted)))


def test_a_model_server_of_another_name_is_not_asked(authority: Authority) -> None:
    with (
        fake_vllm.serving() as url,
        tls.forwarded(_port(url), tls.context(authority.issue("vllm.test"))) as port,
        pytest.raises(UpstreamUnavailable, match="certificate verify failed: IP address mismatch"),
    ):
        asyncio.run(_models(_connected(port, upstream_ca_file=authority.file)))


async def _published(settings: IndexSettings) -> str:
    reader = IndexReader(settings)
    try:
        return (await reader.published(settings.knowledge_base)).collection
    finally:
        await reader.close()


def test_milvus_is_asked_only_where_both_know_each_other(
    documents: Path,
    run_indexer: RunIndexer,
    index_settings: IndexSettings,
    secure_milvus: str,
    authority: Authority,
    stranger: Authority,
) -> None:
    run_indexer(documents)
    right = _milvus(secure_milvus, authority, authority)
    wrong = [
        _milvus(secure_milvus, stranger, authority),
        _milvus(secure_milvus, authority, stranger),
        right | {"milvus_server_name": "other.test"},
        right | {"milvus_server_name": None},
        {"milvus_uri": secure_milvus, "milvus_timeout_s": 3},
    ]
    named: dict[str, Any] = {"knowledge_base": index_settings.knowledge_base}

    assert asyncio.run(_published(IndexSettings(**right, **named)))
    writer = IndexWriter(IndexSettings(**right, **named))
    assert writer.published() is not None
    writer.close()
    for number, said in enumerate(wrong):
        # One process has one connection for all clients with the same address and token.
        settings = IndexSettings(**said, **named, milvus_token=SecretStr(f"root:{number}"))
        with pytest.raises(IndexUnavailable):
            asyncio.run(_published(settings))
        with pytest.raises(IndexUnavailable):
            IndexWriter(settings)
