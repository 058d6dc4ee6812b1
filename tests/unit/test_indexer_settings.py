"""Settings and command line of the indexer: variables, flags, exit codes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from pydantic_settings import CliApp

import indexer.__main__ as command_line
from indexer.index.embedding import Encoder
from indexer.index.errors import (
    EncoderUnavailable,
    FingerprintMismatch,
    IndexRefused,
    IndexUnavailable,
)
from indexer.index.settings import explain
from indexer.settings import IndexerSettings, RunSettings

if TYPE_CHECKING:
    from tests.unit.conftest import FakeEncoder, FakeWriter

ROOT = Path(__file__).parents[2]

VALUES = {
    "chunk_size_chars": (64, 16_000),
    "chunk_overlap_percent": (0, 50),
    "encoder_batch_size": (1, 4096),
}


def run_settings(*flags: str) -> RunSettings:
    return CliApp.run(RunSettings, cli_args=[*flags, "docs"])


def test_every_setting_of_the_indexer_alone_is_tried_here() -> None:
    assert set(VALUES) == set(IndexerSettings.__annotations__)


@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_setting_is_read_from_its_variable_and_its_flag_and_the_flag_wins(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable, flag = VALUES[name]
    flags = [f"--{name.replace('_', '-')}", str(flag)]
    assert getattr(run_settings(), name) not in VALUES[name]

    assert getattr(run_settings(*flags), name) == flag
    monkeypatch.setenv(f"GROUNDSERVE_{name.upper()}", str(variable))
    assert getattr(run_settings(), name) == variable
    assert getattr(run_settings(*flags), name) == flag


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
        ["--chunk-size-chars", "100", "a", "b/c"],
        ["a", "b/c", "--chunk-size-chars", "100"],
    ):
        settings = CliApp.run(RunSettings, cli_args=arguments)

        assert settings.paths == [Path("a"), Path("b/c")]
        assert settings.chunk_size_chars == 100


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


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("Llamas eat grass.")
    return tmp_path


@pytest.fixture
def parts(
    monkeypatch: pytest.MonkeyPatch, writer: "FakeWriter", encoder: "FakeEncoder"
) -> dict[str, Any]:
    """What the composition root takes in place of Milvus and the model; it may be exchanged."""
    parts: dict[str, Any] = {"writer": writer, "encoder": encoder}

    def built(name: str) -> Any:
        if isinstance(parts[name], BaseException):
            raise parts[name]
        return parts[name]

    monkeypatch.setattr(command_line, "IndexWriter", lambda _: built("writer"))
    monkeypatch.setattr(Encoder, "load", lambda _, **__: built("encoder"))
    return parts


@pytest.mark.usefixtures("parts")
def test_a_run_tells_what_it_did_and_exits_with_0(
    docs: Path, capsys: pytest.CaptureFixture[str], writer: "FakeWriter"
) -> None:
    assert command_line.main(["run", str(docs)]) == 0

    told = capsys.readouterr()
    assert "documents: 1 added, 0 changed, 0 kept, 0 deleted, 0 skipped" in told.out
    assert told.err == ""
    assert writer.texts() == ["Llamas eat grass."]
    assert writer.calls[-1] == "close"


@pytest.mark.usefixtures("parts")
def test_a_run_that_skipped_a_document_names_it_and_exits_with_4(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (docs / "b.txt").write_bytes(b"\0")

    assert command_line.main(["run", str(docs)]) == 4
    assert f"skipped {docs.name}/b.txt: it is binary\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("part", "failure", "exit_code", "told"),
    [
        ("writer", IndexUnavailable("Milvus is away"), 3, "Milvus is away"),
        ("writer", IndexRefused("Milvus said no"), 3, "Milvus said no"),
        ("writer", FingerprintMismatch("not ours"), 2, "not ours"),
        ("encoder", EncoderUnavailable("no such model"), 3, "no such model"),
        ("encoder", KeyboardInterrupt(), 130, "interrupted; the next run goes on from here"),
    ],
)
def test_a_run_that_failed_says_why_in_one_line(
    part: str,
    failure: BaseException,
    exit_code: int,
    told: str,
    docs: Path,
    parts: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts[part] = failure

    assert command_line.main(["run", str(docs)]) == exit_code
    assert capsys.readouterr().err == f"error: {told}\n"


def test_the_connection_is_closed_after_a_failure(
    docs: Path, parts: dict[str, Any], writer: "FakeWriter"
) -> None:
    parts["encoder"] = EncoderUnavailable("no such model")
    command_line.main(["run", str(docs)])

    assert writer.calls == ["close"]


@pytest.mark.usefixtures("parts")
def test_a_path_that_is_not_there_exits_with_2(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["run", str(docs / "gone")]) == 2
    assert capsys.readouterr().err == f"error: {docs / 'gone'} is not there\n"


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
