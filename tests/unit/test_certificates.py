"""Settings that name certificates: what is wrong with them is said at start, in one line."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.settings import GatewaySettings
from indexer.index.collection.connecting import connection, rest_certificates
from indexer.index.settings import IndexSettings, explain
from tests.certificates import Authority

PAIRS = ["upstream_client", "listen"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def refusal(**said: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        GatewaySettings(**said)
    return explain(refused.value)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_certificate_and_its_key_are_taken(pair: str, authority: Authority) -> None:
    certificate, key = authority.issue("localhost")
    said: dict[str, Any] = {f"{pair}_cert_file": certificate, f"{pair}_key_file": key}
    settings = GatewaySettings(**said)

    assert getattr(settings, f"{pair}_key_file") == key


@pytest.mark.parametrize("pair", PAIRS)
def test_a_certificate_or_a_key_alone_is_refused(pair: str, authority: Authority) -> None:
    certificate, key = authority.issue("localhost")
    alone = "a certificate and its key are set together, or neither is"
    variable = f"GROUNDSERVE_{pair.upper()}_KEY_FILE: "

    assert refusal(**{f"{pair}_cert_file": certificate}).startswith(variable)
    assert alone in refusal(**{f"{pair}_key_file": key})


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("wrong", ["another's key", "no PEM", "a password"])
def test_a_key_that_does_not_fit_is_refused_in_one_line(
    pair: str, wrong: str, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue("localhost", password=b"pw" if "pass" in wrong else None)
    if wrong == "another's key":
        _, key = authority.issue("localhost")
    if wrong == "no PEM":
        key = tmp_path / "key.pem"
        key.write_text("hello")

    line = refusal(**{f"{pair}_cert_file": certificate, f"{pair}_key_file": key})
    assert line.startswith(f"GROUNDSERVE_{pair.upper()}_KEY_FILE: ")
    assert f"{key} is not the key, without a password, of {certificate}" in line
    assert "\n" not in line


@pytest.mark.parametrize("name", ["upstream_ca_file", "listen_client_ca_file", "milvus_ca_file"])
def test_a_file_without_authorities_is_refused(
    name: str, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "empty.pem").write_text("")
    certificate, key = authority.issue("localhost")
    others = {
        "milvus_uri": "https://milvus",
        "listen_cert_file": certificate,
        "listen_key_file": key,
    }

    for file, reason in (("empty.pem", "no certificates"), ("missing.pem", "does not point")):
        line = refusal(**{**others, name: tmp_path / file})
        assert line.startswith(f"GROUNDSERVE_{name.upper()}: ")
        assert reason in line


def test_clients_need_certificates_only_where_the_gateway_has_one(authority: Authority) -> None:
    assert "GROUNDSERVE_LISTEN_CLIENT_CA_FILE" in refusal(listen_client_ca_file=authority.file)


@pytest.mark.parametrize("name", ["milvus_ca_file", "milvus_server_name"])
def test_milvus_is_checked_only_where_it_is_asked_by_https(name: str, authority: Authority) -> None:
    line = refusal(milvus_uri="http://milvus", **{name: str(authority.file)})

    assert f"GROUNDSERVE_{name.upper()}: " in line
    assert "has to begin with https://" in line


def test_a_certificate_for_milvus_needs_authorities_as_well(authority: Authority) -> None:
    certificate, key = authority.issue("gateway")
    line = refusal(
        milvus_uri="https://milvus", milvus_client_cert_file=certificate, milvus_client_key_file=key
    )

    assert "GROUNDSERVE_MILVUS_CA_FILE has to be set as well" in line


def test_milvus_is_told_what_the_settings_say(authority: Authority) -> None:
    certificate, key = authority.issue("gateway")
    plain = IndexSettings(milvus_uri="https://milvus")
    trusting = IndexSettings(
        milvus_uri="https://milvus", milvus_ca_file=authority.file, milvus_server_name="m"
    )
    known = IndexSettings(
        milvus_uri="https://milvus",
        milvus_ca_file=authority.file,
        milvus_client_cert_file=certificate,
        milvus_client_key_file=key,
    )

    def said(settings: IndexSettings) -> dict[str, str]:
        return {name: file for name, file in connection(settings).items() if "_pem" in name}

    assert said(plain) == rest_certificates(plain) == {}
    assert said(trusting) == {"server_pem_path": str(authority.file)}
    assert connection(trusting)["server_name"] == "m"
    assert rest_certificates(trusting) == {"verify": str(authority.file)}
    assert said(known) == {"ca_pem_path": str(authority.file), "client_pem_path": str(certificate)}
    assert connection(known)["client_key_path"] == str(key)
    assert rest_certificates(known)["cert"] == (str(certificate), str(key))
