"""The commands of the indexer: what they print, for people and for machines, and exit codes."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import indexer.__main__ as command_line
from indexer.index.embedding import Encoder
from indexer.index.errors import (
    EncoderUnavailable,
    FingerprintMismatch,
    IndexFailure,
    IndexRefused,
    IndexUnavailable,
    LeaseFailure,
    LeaseHeld,
)
from indexer.index.records import Hit
from indexer.preparation import Preparation
from indexer.progress import DocumentProgress
from tests.unit.conftest import FakeReader
from tests.unit.index_fakes import FakeEncoder, FakeWriter, InThisProcess


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("Llamas eat grass.")
    return folder


@pytest.fixture
def parts(
    monkeypatch: pytest.MonkeyPatch, writer: FakeWriter, encoder: FakeEncoder, reader: FakeReader
) -> dict[str, Any]:
    """What the composition root takes in place of Milvus and the model; it may be exchanged."""
    parts: dict[str, Any] = {"writer": writer, "encoder": encoder, "reader": reader}

    def built(name: str) -> Any:
        if isinstance(parts[name], BaseException):
            raise parts[name]
        return parts[name]

    @contextmanager
    def workers(preparation: Preparation, **_: Any) -> Iterator[InThisProcess]:
        yield InThisProcess(preparation._settings)

    monkeypatch.setattr(command_line, "IndexWriter", lambda _: built("writer"))
    monkeypatch.setattr(command_line, "IndexReader", lambda _: built("reader"))
    monkeypatch.setattr(command_line, "Workers", workers)
    monkeypatch.setattr(Encoder, "load", lambda _, **__: built("encoder"))
    return parts


@pytest.mark.usefixtures("parts")
def test_a_run_tells_what_it_did_and_exits_with_0(
    docs: Path, capsys: pytest.CaptureFixture[str], writer: FakeWriter
) -> None:
    assert command_line.main(["run", str(docs)]) == 0

    told = capsys.readouterr()
    assert "documents: 1 added, 0 changed, 0 kept, 0 deleted, 0 skipped" in told.out
    assert told.err == ""
    assert writer.texts() == ["Llamas eat grass."]
    assert writer.calls[-1] == "close"


@pytest.mark.usefixtures("parts")
def test_a_run_tells_machines_one_json_object(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (docs / "b.txt").write_bytes(b"\0")
    assert command_line.main(["run", str(docs), "--json"]) == 4

    told = json.loads(capsys.readouterr().out)
    assert (told["added"], told["published"], told["chunks_written"]) == (1, True, 1)
    assert [name for name, _ in told["skipped"]] == ["docs/b.txt"]


@pytest.mark.usefixtures("parts")
def test_a_run_that_skipped_a_document_names_it_and_exits_with_4(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (docs / "b.txt").write_bytes(b"\0")

    assert command_line.main(["run", str(docs)]) == 4
    assert "skipped docs/b.txt: it is binary\n" in capsys.readouterr().out


@pytest.mark.usefixtures("parts")
def test_a_refused_deletion_exits_with_6_and_says_what_to_do(
    docs: Path, capsys: pytest.CaptureFixture[str], writer: FakeWriter
) -> None:
    (docs / "b.txt").write_text("Bread.")
    assert command_line.main(["run", str(docs)]) == 0
    (docs / "b.txt").unlink()
    assert command_line.main(["run", str(docs)]) == 6

    told = capsys.readouterr()
    assert told.err.startswith("error: 1 of 2 documents would be gone")
    assert "--allow-mass-deletion" in told.err
    assert "1 documents that seem to be gone were not deleted" in told.out
    assert len(writer.rows()) == 2
    assert command_line.main(["run", str(docs), "--allow-mass-deletion"]) == 0
    assert writer.texts() == ["Llamas eat grass."]


@pytest.mark.parametrize(
    ("part", "failure", "exit_code", "told"),
    [
        ("writer", IndexUnavailable("Milvus is away"), 3, "Milvus is away"),
        ("writer", IndexRefused("Milvus said no"), 3, "Milvus said no"),
        ("writer", FingerprintMismatch("not ours"), 2, "not ours"),
        ("writer", LeaseHeld("another run has the lease"), 5, "another run has the lease"),
        ("encoder", EncoderUnavailable("no such model"), 3, "no such model"),
        ("encoder", KeyboardInterrupt(), 130, "interrupted; the next run goes on from here"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan", "verify", "repair"])
def test_a_command_that_failed_says_why_in_one_line(
    command: str,
    part: str,
    failure: BaseException,
    exit_code: int,
    told: str,
    docs: Path,
    parts: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts[part] = failure

    assert command_line.main([command, str(docs)]) == exit_code
    assert capsys.readouterr().err == f"error: {told}\n"


def every(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(child for direct in kind.__subclasses__() for child in every(direct))]


@pytest.mark.parametrize("kind", [*every(IndexFailure), *every(LeaseFailure)])
def test_every_failure_of_the_contract_has_an_exit_code(
    kind: type[Exception], docs: Path, parts: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    parts["writer"] = kind("it went wrong")

    assert command_line.main(["run", str(docs)]) in (2, 3, 5)
    assert capsys.readouterr().err == "error: it went wrong\n"


def test_the_connection_is_closed_after_a_failure(
    docs: Path, parts: dict[str, Any], writer: FakeWriter
) -> None:
    parts["encoder"] = EncoderUnavailable("no such model")
    command_line.main(["run", str(docs)])

    assert writer.calls == ["close"]


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("command", ["run", "plan"])
def test_no_source_at_all_exits_with_2(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main([command]) == 2
    assert "--config" in capsys.readouterr().err


@pytest.mark.usefixtures("parts")
def test_a_path_that_is_not_there_exits_with_2(
    docs: Path, capsys: pytest.CaptureFixture[str], writer: FakeWriter
) -> None:
    assert command_line.main(["run", str(docs / "gone")]) == 2
    assert f"{docs / 'gone'}" in capsys.readouterr().err
    assert writer.alias is None


def test_being_told_to_end_is_an_interruption(
    docs: Path, parts: dict[str, Any], capsys: pytest.CaptureFixture[str], writer: FakeWriter
) -> None:
    class Ends(FakeEncoder):
        def encode_passages(self, _texts: Any) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(5)
            raise AssertionError("the signal was lost")

    parts["encoder"] = Ends()
    before = signal.getsignal(signal.SIGTERM)
    assert command_line.main(["run", str(docs)]) == 130
    assert capsys.readouterr().err.startswith("error: interrupted")
    assert writer.calls[-1] == "close"
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.usefixtures("parts")
def test_a_plan_names_what_would_change_and_changes_nothing(
    docs: Path, capsys: pytest.CaptureFixture[str], writer: FakeWriter
) -> None:
    command_line.main(["run", str(docs)])
    (docs / "b.txt").write_text("Bread.")
    before = writer.rows()
    capsys.readouterr()

    assert command_line.main(["plan", str(docs)]) == 0
    told = capsys.readouterr().out
    assert "add docs/b.txt\n" in told
    assert "1 to add, 0 to change, 0 to delete, 1 to keep; 1 chunks to embed" in told
    assert writer.rows() == before
    assert command_line.main(["plan", str(docs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["add"] == ["docs/b.txt"]


@pytest.mark.usefixtures("parts")
def test_drift_is_named_with_exit_code_7_and_a_repair_ends_it(
    docs: Path, capsys: pytest.CaptureFixture[str], writer: FakeWriter
) -> None:
    command_line.main(["run", str(docs)])
    [(key, (chunk, vector))] = writer.collections["kb__g1"].items()
    writer.collections["kb__g1"][key] = (chunk, vector * 3)
    capsys.readouterr()

    assert command_line.main(["verify", str(docs)]) == 7
    assert capsys.readouterr().out.startswith("wrong vector: docs/a.txt")
    assert command_line.main(["repair", str(docs)]) == 0
    capsys.readouterr()
    assert command_line.main(["verify", str(docs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["drifts"] == []


@pytest.mark.usefixtures("parts")
def test_verifying_what_was_never_published_exits_with_3(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["verify", str(docs)]) == 3
    assert "nothing is published as 'documents' yet" in capsys.readouterr().err


@pytest.mark.usefixtures("parts")
def test_the_status_tells_generations_and_tenants(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["status"]) == 0
    assert "nothing is published" in capsys.readouterr().out
    command_line.main(["run", str(docs), "--tenant", "acme"])
    capsys.readouterr()

    assert command_line.main(["status"]) == 0
    told = capsys.readouterr().out
    assert "kb__g1 (published): 1 documents in 1 chunks" in told
    assert "tenant acme: 1 chunks" in told
    assert command_line.main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chunks_by_tenant"] == {"acme": 1}


@pytest.mark.usefixtures("parts")
def test_a_search_prints_hits_with_their_places(
    capsys: pytest.CaptureFixture[str], hits: list[Hit]
) -> None:
    assert command_line.main(["search", "what do llamas eat?", "--max-num-results", "2"]) == 0

    told = capsys.readouterr().out
    assert told.startswith("[1] 0.900 https://example.org/guide/llamas.html (0-5) Llamas")
    assert "    Llamas eat grass." in told
    assert "[3]" not in told
    assert command_line.main(["search", "llamas", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == len(hits)


@pytest.mark.usefixtures("parts")
def test_a_rollback_and_a_pruning_say_what_they_did(
    docs: Path, capsys: pytest.CaptureFixture[str], writer: FakeWriter
) -> None:
    assert command_line.main(["rollback"]) == 3
    assert "no earlier generation" in capsys.readouterr().err
    command_line.main(["run", str(docs)])
    command_line.main(["run", str(docs), "--chunk-size-chars", "100"])
    capsys.readouterr()

    assert command_line.main(["rollback"]) == 0
    assert "is published again" in capsys.readouterr().out
    assert command_line.main(["prune", "--keep-generations", "0"]) == 0
    assert capsys.readouterr().out.startswith("documents: dropped kb__g")
    assert list(writer.collections) == [writer.alias]


@pytest.mark.usefixtures("parts", "docs")
def test_the_configuration_file_and_the_command_line_add_up(
    tmp_path: Path, writer: FakeWriter
) -> None:
    (tmp_path / "more.txt").write_text("More.")
    (tmp_path / "sources.toml").write_text(
        '[[source]]\nlocation = "docs"\ntenant = "acme"\nattributes = { team = "a" }\n'
    )
    arguments = ["run", str(tmp_path / "more.txt"), "--config", str(tmp_path / "sources.toml")]
    assert command_line.main(arguments) == 0

    assert [(row.tenant, row.text, row.attributes) for row in writer.rows()] == [
        ("acme", "Llamas eat grass.", {"team": "a"}),
        ("default", "More.", {}),
    ]


METRICS = "groundserve_indexer_last_run"


@pytest.mark.usefixtures("parts")
def test_prometheus_is_told_in_a_file(docs: Path, tmp_path: Path) -> None:
    textfile = tmp_path / "groundserve.prom"
    flags = ["--metrics-file", str(textfile)]
    assert command_line.main(["run", str(docs), *flags]) == 0

    told = textfile.read_text()
    assert f'{METRICS}_added{{knowledge_base="documents"}} 1.0' in told
    assert f'{METRICS}_exit_code{{knowledge_base="documents"}} 0.0' in told


def test_a_failure_is_told_too_and_the_last_success_is_remembered(
    docs: Path, tmp_path: Path, parts: dict[str, Any]
) -> None:
    textfile = tmp_path / "groundserve.prom"
    flags = ["--metrics-file", str(textfile)]
    command_line.main(["run", str(docs), *flags])
    [success] = [line for line in textfile.read_text().splitlines() if "last_success" in line][2:]
    parts["writer"] = IndexUnavailable("Milvus is away")
    assert command_line.main(["run", str(docs), *flags]) == 3

    assert f'{METRICS}_exit_code{{knowledge_base="documents"}} 3.0' in textfile.read_text()
    assert success in textfile.read_text()


@pytest.mark.usefixtures("parts")
def test_a_gateway_that_cannot_be_told_is_a_warning(
    docs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flags = ["--metrics-file", str(tmp_path / "no/such/folder/x.prom")]
    assert command_line.main(["run", str(docs), *flags]) == 0
    assert capsys.readouterr().err.startswith("warning: the metrics could not be written")


@pytest.mark.usefixtures("parts")
def test_a_tenant_that_is_forgotten_is_gone_from_every_generation(
    docs: Path, capsys: pytest.CaptureFixture[str], writer: FakeWriter
) -> None:
    both = docs.parent / "both.toml"
    both.write_text(
        '[[source]]\nlocation = "docs"\n[[source]]\nlocation = "docs"\ntenant = "left"\n'
    )
    assert command_line.main(["run", "--config", str(both)]) == 0
    assert command_line.main(["run", "--config", str(both), "--chunk-size-chars", "100"]) == 0
    assert len(writer.generations()) == 2
    capsys.readouterr()

    assert command_line.main(["forget", "left", "--json"]) == 0

    assert json.loads(capsys.readouterr().out) == {"deleted_chunks": 2}
    assert [writer.tenants(each) for each in writer.generations()] == [{"default": 1}] * 2
    assert command_line.main(["forget", "left"]) == 0
    assert capsys.readouterr().out == "documents: 0 chunks of tenant left deleted\n"


@pytest.mark.parametrize("command", ["run", "plan", "verify", "repair"])
@pytest.mark.usefixtures("parts")
def test_the_progress_in_a_log_knows_how_many_documents_there_are(
    command: str,
    docs: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ["b", "c"]:
        (docs / f"{name}.txt").write_text(name)
    assert command_line.main(["run", str(docs)]) == 0
    capsys.readouterr()
    monkeypatch.setattr("indexer.progress.SECONDS_BETWEEN_LINES", 0.0)
    begin = DocumentProgress.begin

    def begun(self: DocumentProgress, expected: Any) -> None:
        """The count is there before the first document, as in a run that takes longer than it."""
        begin(self, expected)
        assert self._counting is not None
        self._counting.join(10)

    monkeypatch.setattr(DocumentProgress, "begin", begun)

    assert command_line.main([command, str(docs)]) == 0

    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" documents, ")[0].split(": ")[1] for line in lines[-3:]] == [
        "1 of 3",
        "2 of 3",
        "3 of 3",
    ]
