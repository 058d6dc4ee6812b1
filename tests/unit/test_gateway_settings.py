"""Settings of the gateway: each one by variable and by flag, and wrong ones refused."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import CliApp

from gateway.settings import GatewaySettings
from indexer.index.settings import ENV_PREFIX, IndexSettings, explain
from indexer.settings import RunSettings, WatchSettings

ROOT = Path(__file__).parents[2]

# Two values for each setting: by variable, and by flag.
VALUES: dict[str, tuple[str, str]] = {
    "milvus_uri": ("http://a:1", "https://b:2"),
    "milvus_token": ("root:a", "root:b"),
    "milvus_timeout_s": ("1.5", "2.5"),
    "knowledge_base": ("docs_a", "docs_b"),
    "tenant": ("acme", "other tenant"),
    "encoder_model": ("org/a", "/models/b"),
    "encoder_revision": ("main", "v2"),
    "encoder_query_prefix": ("query: ", "q: "),
    "encoder_passage_prefix": ("passage: ", "p: "),
    "encoder_device": ("cpu", "cuda:1"),
    "encoder_backend": ("onnx", "openvino"),
    "encoder_dtype": ("bfloat16", "int8"),
    "encoder_url": ("http://a/v1", "https://b/v1"),
    "encoder_api_key": ("key-a", "key-b"),
    "workers": ("2", "8"),
    "listen_host": ("0.0.0.0", "::1"),
    "listen_port": ("81", "82"),
    "drain_timeout_s": ("0", "9"),
    "log_level": ("debug", "error"),
    "max_body_bytes": ("10", "20"),
    "max_upload_bytes": ("10", "20"),
    "upstream_url": ("http://a/v1", "https://b/v1"),
    "upstream_api_key": ("key-a", "key-b"),
    "upstream_connect_timeout_s": ("0.1", "0.2"),
    "upstream_read_timeout_s": ("10", "20.5"),
    "upstream_attempts": ("1", "10"),
    "poll_interval_s": ("0.5", "5"),
    "model_wait_s": ("0", "10"),
    "model_aliases": ("gpt-4o=default", "plain=default:no-retrieval, a=b"),
    "knowledge_bases": ("handbook", "handbook, tickets"),
    "encoder_threads": ("1", "8"),
    "library_url": ("/srv/library", "s3://bucket/library"),
    "max_num_results": ("1", "50"),
    "search_mode": ("dense", "bm25"),
    "foreign_fields": ("text=a,vector=b", "text=chunk, vector=vector, source=source"),
    "candidates": ("1", "200"),
    "text_weight": ("0", "1"),
    "score_threshold": ("0.5", "1"),
    "relevance_threshold": ("0.5", "1"),
    "when_nothing_found": ("refuse", "fail"),
    "refusal": ("No.", "Not in the documents."),
    "neighbours": ("1", "5"),
    "document_share": ("0.1", "0.5"),
    "reranker_model": ("org/reranker", "/models/reranker"),
    "reranker_url": ("http://a/v1", "https://b/v1"),
    "reranker_api_key": ("key-a", "key-b"),
    "embedding_model_name": ("text-embedding-3-small", "bge"),
    "embedding_dimensions": ("256", "512, 256"),
    "num_queries": ("2", "5"),
    "rewrite_timeout_s": ("0", "1.5"),
    "answer_tokens": ("1", "1000"),
    "prompt_template": (__file__, str(ROOT / "pyproject.toml")),
    "answer_cache_mib": ("0.5", "64"),
    "answer_cache_ttl_s": ("10", "60"),
    "temperature": ("0", "2"),
    "top_p": ("0.1", "1"),
}
SETTINGS: list[type[IndexSettings]] = [GatewaySettings, RunSettings, WatchSettings]
FIELDS = [(kind, name) for kind in SETTINGS for name in kind.model_fields]


def read(settings: IndexSettings, name: str) -> str:
    value = getattr(settings, name)
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def same(got: str, stated: str) -> bool:
    return got == stated or float(got) == float(stated)


def test_every_setting_is_tried_here() -> None:
    assert set(VALUES) | {"retrieval", "trim_history", "library_storage_options"} == set(
        GatewaySettings.model_fields
    )


@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_setting_is_read_from_its_variable_and_its_flag_and_the_flag_wins(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable, flag = VALUES[name]
    flags = [f"--{name.replace('_', '-')}={flag}"]
    default = read(CliApp.run(GatewaySettings, cli_args=[]), name)
    assert default not in (variable, flag)

    assert same(read(CliApp.run(GatewaySettings, cli_args=flags), name), flag)
    monkeypatch.setenv(ENV_PREFIX + name.upper(), variable)
    assert same(read(CliApp.run(GatewaySettings, cli_args=[]), name), variable)
    assert same(read(CliApp.run(GatewaySettings, cli_args=flags), name), flag)


def test_retrieval_is_switched_by_variable_and_by_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    def retrieval(*flags: str) -> bool:
        return CliApp.run(GatewaySettings, cli_args=list(flags)).retrieval

    assert retrieval() is True
    assert retrieval("--no-retrieval") is False
    monkeypatch.setenv("GROUNDSERVE_RETRIEVAL", "false")
    assert retrieval() is False
    assert retrieval("--retrieval") is True


@pytest.mark.parametrize("name", sorted(VALUES))
def test_an_empty_variable_means_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = read(GatewaySettings(), name)
    monkeypatch.setenv(ENV_PREFIX + name.upper(), "")

    assert read(GatewaySettings(), name) == default


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_setting_is_explained_in_a_sentence(kind: type[IndexSettings], name: str) -> None:
    description = kind.model_fields[name].description or ""

    assert re.fullmatch(r"[A-Zc].{10,}[.]", description), description


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_duration_or_a_size_has_its_unit_in_its_name(
    kind: type[IndexSettings], name: str
) -> None:
    field = kind.model_fields[name]
    words = f"{name} {field.description}".lower()
    suffix = "_s" if re.search(r"second|timeout|interval", words) else ""
    suffix = "_bytes" if "in bytes" in words else suffix
    suffix = "_percent" if "percent" in words else suffix
    is_number = {int, float} & {field.annotation, *get_args(field.annotation)}

    assert name.endswith(suffix)
    assert is_number or not suffix


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WORKERS", "0"),
        ("ENCODER_URL", "localhost:8001"),
        ("LISTEN_PORT", "0"),
        ("LISTEN_PORT", "65536"),
        ("LOG_LEVEL", "loud"),
        ("MILVUS_URI", "milvus.db"),
        ("UPSTREAM_URL", "localhost:8000"),
        ("UPSTREAM_ATTEMPTS", "0"),
        ("UPSTREAM_READ_TIMEOUT_S", "0"),
        ("POLL_INTERVAL_S", "-1"),
        ("MILVUS_TIMEOUT_S", "soon"),
        ("KNOWLEDGE_BASE", "my docs"),
        ("KNOWLEDGE_BASE", "1st"),
        ("KNOWLEDGE_BASES", "my docs"),
        ("MODEL_ALIASES", "gpt-4o"),
        ("UPSTREAM_URL", "http://a/v1, localhost:8000"),
        ("TENANT", "x" * 129),
        ("MAX_NUM_RESULTS", "51"),
        ("MAX_BODY_BYTES", "0"),
        ("PROMPT_TEMPLATE", "/no/such/file.j2"),
        ("PROMPT_TEMPLATE", "/"),
        ("TEMPERATURE", "2.1"),
        ("TOP_P", "0"),
        ("RETRIEVAL", "perhaps"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable_and_not_repeated(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_PREFIX + variable, value)
    with pytest.raises(ValidationError) as refused:
        GatewaySettings()

    line = explain(refused.value)
    assert line.startswith(f"{ENV_PREFIX}{variable}: ")
    assert "\n" not in line
    assert f"'{value}'" not in line


def test_every_wrong_setting_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDSERVE_TOP_P", "x")
    monkeypatch.setenv("GROUNDSERVE_TEMPERATURE", "x")
    with pytest.raises(ValidationError) as refused:
        GatewaySettings()

    assert re.fullmatch(
        r"GROUNDSERVE_TEMPERATURE: .+; GROUNDSERVE_TOP_P: .+", explain(refused.value)
    )


def test_secrets_are_not_shown() -> None:
    settings = GatewaySettings(
        milvus_token=SecretStr("hunter2"), upstream_api_key=SecretStr("hunter3")
    )

    assert "hunter" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def started(**environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "gateway"],
        env=os.environ | {ENV_PREFIX + name: value for name, value in environment.items()},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_gateway_with_wrong_settings_exits_with_2_and_one_line_without_secrets() -> None:
    done = started(LISTEN_PORT="abc", MILVUS_URI="root:hunter2@milvus", UPSTREAM_API_KEY="hunter3")

    assert done.returncode == 2
    assert re.fullmatch(
        r"error: GROUNDSERVE_MILVUS_URI: [^\n]+; GROUNDSERVE_LISTEN_PORT: [^\n]+\n", done.stderr
    )
    assert "hunter" not in done.stdout + done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_gateway_with_a_broken_template_exits_with_2_and_one_line(
    tmp_path: Path, workers: str
) -> None:
    (tmp_path / "bad.j2").write_text("{{ question")
    done = started(PROMPT_TEMPLATE=str(tmp_path / "bad.j2"), WORKERS=workers)

    assert done.returncode == 2
    assert re.fullmatch(r"error: the prompt template [^\n]+bad\.j2 cannot [^\n]+\n", done.stderr)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_gateway_with_uploads_that_have_no_place_exits_with_2_and_one_line(workers: str) -> None:
    done = started(LIBRARY_URL="nosuchprotocol://bucket", WORKERS=workers)

    assert done.returncode == 2
    assert re.fullmatch(r"error: nosuchprotocol:[^\n]+\n", done.stderr)
