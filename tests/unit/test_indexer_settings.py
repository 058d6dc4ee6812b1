"""Settings and usage of the indexer: variables, flags, refusals."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import CliApp

import indexer.__main__ as command_line
from indexer.index.settings import IndexSettings, explain
from indexer.settings import RunSettings, WatchSettings

ROOT = Path(__file__).parents[2]

VALUES: dict[str, tuple[float, float]] = {
    "chunk_size_chars": (64, 16_000),
    "chunk_size_tokens": (16, 8_192),
    "chunk_overlap_percent": (0, 50),
    "encoder_batch_size": (1, 4096),
    "parse_processes": (1, 256),
    "max_deletion_percent": (0, 100),
}
"""Numbers with a least and a greatest value."""
OTHERS: dict[str, tuple[str, str]] = {
    "config": ("a.toml", "b.toml"),
    "language": ("german", "none"),
    "passage_headings": ("false", "true"),
    "parse_timeout_s": ("5.0", "7.0"),
    "parse_memory_mib": ("512", "4096"),
    "lease_duration_s": ("30.0", "90.0"),
    "engine": ("local", "ray"),
    "ray_address": ("a:6379", "b:6379"),
    "ray_encoders": ("2", "3"),
    "ray_gpus_per_encoder": ("0.5", "2.0"),
    "ray_parsers": ("2", "3"),
    "bulk_s3_endpoint": ("a:9000", "b:9000"),
    "bulk_s3_bucket": ("a", "b"),
    "bulk_s3_secure": ("false", "true"),
    "keep_generations": ("0", "3"),
    "metrics_file": ("a.prom", "b.prom"),
    "pushgateway_url": ("http://a:9091", "http://b:9091"),
}
SECRETS = {"bulk_s3_access_key", "bulk_s3_secret_key"}
OF_WATCHING = {"watch_interval_s"}
OF_ONE_RUN = {"paths", "json_output", "allow_mass_deletion", "once"}
"""Said on the command line of one run, and in no table."""


def run_settings(*flags: str) -> RunSettings:
    return CliApp.run(RunSettings, cli_args=[*flags, "docs"])


def test_every_setting_of_the_indexer_alone_is_tried_here() -> None:
    fields = set(RunSettings.model_fields) | set(WatchSettings.model_fields)
    own = fields - set(IndexSettings.model_fields)

    assert set(VALUES) | set(OTHERS) | SECRETS | OF_WATCHING | OF_ONE_RUN == own


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_is_read_and_never_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"GROUNDSERVE_{name.upper()}", "hunter2")
    settings = run_settings()

    assert getattr(settings, name).get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize("name", sorted(VALUES | OTHERS))
def test_a_setting_is_read_from_its_variable_and_its_flag_and_the_flag_wins(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable, flag = (str(value) for value in (VALUES | OTHERS)[name])

    def told(settings: RunSettings) -> str:
        return str(getattr(settings, name)).lower()

    spelled = name.replace("_", "-")
    flags = [f"--{spelled}" if flag == "true" else f"--{spelled}={flag}"]
    assert told(run_settings(*flags)) == flag
    monkeypatch.setenv(f"GROUNDSERVE_{name.upper()}", variable)
    assert told(run_settings()) == variable
    assert told(run_settings(*flags)) == flag


@pytest.mark.parametrize("name", sorted(VALUES))
@pytest.mark.parametrize("step", [-1, 1])
def test_a_value_beyond_its_limits_is_refused_by_the_name_of_its_variable(
    name: str, step: int
) -> None:
    value = min(VALUES[name]) - 1 if step < 0 else max(VALUES[name]) + 1
    with pytest.raises(ValidationError) as refused:
        run_settings(f"--{name.replace('_', '-')}={value}")

    assert explain(refused.value).startswith(f"GROUNDSERVE_{name.upper()}: ")


def test_paths_may_stand_before_or_after_the_flags() -> None:
    for arguments in (
        ["--chunk-size-chars", "100", "--json", "a", "b/c"],
        ["a", "b/c", "--chunk-size-chars", "100", "--json"],
    ):
        settings = CliApp.run(RunSettings, cli_args=arguments)

        assert settings.paths == ["a", "b/c"]
        assert settings.chunk_size_chars == 100
        assert settings.json_output


def test_a_wrong_setting_ends_the_program_with_2_and_one_line_without_secrets() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "indexer", "run", "--chunk-size-chars", "3", "x"],
        env=os.environ | {"GROUNDSERVE_MILVUS_TOKEN": "root:hunter2"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr == (
        "error: GROUNDSERVE_CHUNK_SIZE_CHARS: Input should be greater than or equal to 64\n"
    )
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [[], ["walk"], ["--run"]])
def test_an_unknown_command_gets_the_usage_on_stderr_and_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(arguments) == 2

    told = capsys.readouterr()
    assert told.err.startswith("usage: ")
    assert told.out == ""


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_asking_for_help_is_no_error(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main([flag]) == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_the_usage_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    command_line.main(["--help"])
    usage = capsys.readouterr().out

    assert [name for name in command_line.COMMANDS if f"\n  {name} " not in usage] == []
