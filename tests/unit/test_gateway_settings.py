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
    "encoder_timeout_s": ("1.5", "2.5"),
    "api_keys_file": ("/srv/keys.json", "keys.json"),
    "api_keys": ('{"keys": []}', '{"keys":[]}'),
    "requests_per_minute": ("10", "20"),
    "tokens_per_minute": ("10", "20"),
    "concurrent_requests": ("10", "20"),
    "max_answer_tokens": ("10", "20"),
    "key_requests_per_minute": ("10", "20"),
    "key_tokens_per_minute": ("10", "20"),
    "key_concurrent_requests": ("10", "20"),
    "key_answer_tokens": ("10", "20"),
    "limits_url": ("redis://a:6379/0", "rediss://:key@b"),
    "limits_timeout_s": ("0.5", "2.5"),
    "workers": ("2", "8"),
    "listen_host": ("0.0.0.0", "::1"),
    "listen_port": ("81", "82"),
    "shutdown_delay_s": ("0", "9"),
    "drain_timeout_s": ("0", "9"),
    "keep_alive_timeout_s": ("5", "120"),
    "client_timeout_s": ("5", "60"),
    "heartbeat_s": ("1", "20"),
    "log_level": ("debug", "error"),
    "max_body_bytes": ("10", "20"),
    "max_upload_bytes": ("10", "20"),
    "max_header_bytes": ("1024", "2048"),
    "max_whitespace_bytes": ("1000", "2000"),
    "max_nesting": ("8", "500"),
    "max_objects": ("1000", "2000"),
    "max_messages": ("1", "2"),
    "max_content_parts": ("1", "2"),
    "max_parts": ("1", "2"),
    "max_text_chars": ("1", "2"),
    "max_choices": ("1", "2"),
    "max_stops": ("1", "4"),
    "max_stop_chars": ("1", "2"),
    "max_logprobs": ("0", "5"),
    "max_logit_bias": ("0", "300"),
    "max_tools": ("1", "2"),
    "max_tools_bytes": ("1", "2"),
    "max_grammar_bytes": ("1", "2"),
    "media_hosts": ("a.example", "a.example:8443, [::1]"),
    "allowed_fields": ("chat_template", "chat_template, server_url"),
    "upstream_url": ("http://a/v1", "https://b/v1"),
    "upstream_api_key": ("key-a", "key-b"),
    "upstream_connect_timeout_s": ("0.1", "0.2"),
    "upstream_read_timeout_s": ("10", "20.5"),
    "upstream_stall_timeout_s": ("10", "20.5"),
    "upstream_attempts": ("1", "10"),
    "breaker_failures": ("1", "10"),
    "breaker_open_s": ("0.5", "60"),
    "request_timeout_s": ("10", "60.5"),
    "stream_timeout_s": ("10", "600.5"),
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
    "reranker_timeout_s": ("1.5", "2.5"),
    "embedding_model_name": ("text-embedding-3-small", "bge"),
    "embedding_dimensions": ("256", "512, 256"),
    "num_queries": ("2", "5"),
    "max_queue_length": ("1", "100"),
    "max_queue_wait_s": ("0.5", "30"),
    "rewrite_timeout_s": ("0", "1.5"),
    "answer_tokens": ("1", "1000"),
    "prompt_template": (__file__, str(ROOT / "pyproject.toml")),
    "answer_cache_mib": ("0.5", "64"),
    "answer_cache_ttl_s": ("10", "60"),
    "temperature": ("0", "2"),
    "top_p": ("0.1", "1"),
}
# What they may say hangs together: tests/unit/test_certificates.py.
CERTIFICATES = {
    *("milvus_ca_file", "milvus_client_cert_file", "milvus_client_key_file", "milvus_server_name"),
    *("upstream_ca_file", "upstream_client_cert_file", "upstream_client_key_file"),
    *("listen_cert_file", "listen_key_file", "listen_client_ca_file"),
}
SETTINGS: list[type[IndexSettings]] = [GatewaySettings, RunSettings, WatchSettings]
FIELDS = [(kind, name) for kind in SETTINGS for name in kind.model_fields]


def read(settings: IndexSettings, name: str) -> str:
    value = getattr(settings, name)
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def same(got: str, stated: str) -> bool:
    return got == stated or float(got) == float(stated)


def test_every_setting_is_tried_here() -> None:
    assert set(VALUES) | {
        "open_access",
        "retrieval",
        "trim_history",
        "when_unavailable",
        "library_storage_options",
        *CERTIFICATES,
    } == set(GatewaySettings.model_fields)


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
        ("MAX_NESTING", "501"),
        ("MEDIA_HOSTS", "https://a.example"),
        ("MEDIA_HOSTS", "a.example:99999"),
        ("ALLOWED_FIELDS", "temperature"),
        ("UPSTREAM_URL", "http://a/v1, http://me:hunter2@b/v1"),
        ("ENCODER_URL", "http://hunter2@a/v1"),
        ("RERANKER_URL", "http://me:hunter2@a/v1"),
        ("MILVUS_URI", "https://root:hunter2@milvus"),
        ("LIBRARY_URL", "ftp://me:hunter2@files/library"),
        ("PROMPT_TEMPLATE", "/no/such/file.j2"),
        ("PROMPT_TEMPLATE", "/"),
        ("TEMPERATURE", "2.1"),
        ("LIMITS_URL", "memcached://a"),
        ("REQUESTS_PER_MINUTE", "0"),
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


def test_workers_whose_sockets_have_no_place_exit_with_2_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (deep := tmp_path / ("d" * 80)).mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))

    done = started(WORKERS="2")

    assert done.returncode == 2
    assert re.fullmatch(
        rf"error: the path {deep} is too long for sockets: set TMPDIR to one of 73 bytes at most\n",
        done.stderr,
    )


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


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"OPEN_ACCESS": ""}, "nobody would be let in: "),
        ({"OPEN_ACCESS": "", "WORKERS": "2"}, "nobody would be let in: "),
        ({"LISTEN_HOST": "0.0.0.0"}, "GROUNDSERVE_OPEN_ACCESS is for a loopback address, "),
        ({"API_KEYS": "hunter2"}, "GROUNDSERVE_API_KEYS_FILE, .* exclude each other"),
        ({"OPEN_ACCESS": "", "API_KEYS": "hunter2"}, "GROUNDSERVE_API_KEYS: these are no keys: "),
        ({"OPEN_ACCESS": "", "API_KEYS_FILE": "/no/such.json", "WORKERS": "2"}, "/no/such.json is"),
    ],
)
def test_a_gateway_that_was_not_told_who_may_ask_exits_with_2_and_one_line(
    said: dict[str, str], told: str
) -> None:
    done = started(**said)

    assert done.returncode == 2
    assert re.fullmatch(rf"error: {told}[^\n]*\n", done.stderr), done.stderr
    assert "hunter2" not in done.stderr


def test_what_to_do_without_milvus_is_one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliApp.run(GatewaySettings, cli_args=[]).when_unavailable == "fail"
    monkeypatch.setenv(f"{ENV_PREFIX}WHEN_UNAVAILABLE", "degrade")
    assert CliApp.run(GatewaySettings, cli_args=[]).when_unavailable == "degrade"
    with pytest.raises(ValidationError):
        GatewaySettings(when_unavailable="never")  # type: ignore[arg-type]
