"""The comparison with LangChain: its documents, its kills, its verdicts and its table.

LangChain itself is not needed: a program that writes rows stands in for it, on a real Milvus Lite.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from stack import ROOT, compare_langchain
from stack.comparison import corpus, environment, scenarios, table
from stack.comparison.bench import Bench, Figures, Kill, RunFailed
from stack.comparison.corpus import Variant
from stack.comparison.scenarios import SCENARIOS, Outcome, Trial
from stack.comparison.sides import Groundserve, LangChain, Row, Side
from stack.errors import InstallFailed, Unsuitable
from stack.profiles import REQUIREMENTS

from indexer.settings import RunSettings

PROSE = "A paragraph of prose that is long enough to be one, with words in it"
FIGURES = Figures(seconds=1.0, encoding_s=0.5, process_seconds=2.0, embedded=3, writes=4)

FAKE_SENTENCE_TRANSFORMERS = """
class SentenceTransformer:
    def __init__(self, name):
        import time
        time.sleep(0.2)
    def get_embedding_dimension(self):
        return 2
    def encode(self, texts):
        return [[float(len(text)), 1.0] for text in texts]
"""

WRITER = """
import sys
from pathlib import Path
from pymilvus import DataType, MilvusClient
from sentence_transformers import SentenceTransformer

client, model = MilvusClient(sys.argv[2]), SentenceTransformer("m")
if not client.has_collection("documents"):
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("pk", DataType.VARCHAR, max_length=100, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=1000)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    index = MilvusClient.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="L2")
    client.create_collection("documents", schema=schema, index_params=index)
for path in sorted(Path(sys.argv[1]).iterdir()):
    text = path.read_text()
    [vector] = model.encode([text])
    row = {"pk": path.name, "source": path.name, "text": text, "vector": vector}
    client.insert("documents", [row])
if list(Path(sys.argv[1]).glob("bad*")):
    sys.exit("this file is bad")
"""


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    for number in range(5):
        parts = [
            "# Title",
            f"{PROSE} {number}.",
            "```\ncode that is longer than forty characters\n```",
        ]
        (folder / f"{number}.md").write_text("\n\n".join([*parts, f"{PROSE}, the last."]))
    (folder / "sub" / "page.html").write_text(f"<nav><p>Menu</p></nav><p>{PROSE}.</p>")
    (folder / "image.png").write_bytes(b"\x89PNG")
    return folder


@pytest.fixture
def prepared(docs: Path, tmp_path: Path) -> corpus.Corpus:
    return corpus.prepare(docs, tmp_path / "corpus")


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# Documents


def test_only_formats_that_both_sides_read_are_compared(prepared: corpus.Corpus) -> None:
    assert names(prepared.folder) == {*(f"{number}.md" for number in range(5)), "sub/page.html"}
    assert len(prepared.paths()) == 6


def test_the_changed_document_has_one_other_paragraph(
    prepared: corpus.Corpus, tmp_path: Path
) -> None:
    prepared.show(Variant.CHANGED, tmp_path / "shown")
    before = (prepared.folder / prepared.changed).read_text().split("\n\n")
    after = (tmp_path / "shown" / prepared.changed).read_text().split("\n\n")
    assert len(after) == len(before)
    assert [index for index, part in enumerate(before) if part != after[index]] == [3]


def test_each_variant_differs_from_the_original_in_one_document(
    prepared: corpus.Corpus, tmp_path: Path
) -> None:
    shown = tmp_path / "shown"
    original = names(prepared.folder)
    prepared.show(Variant.REMOVED, shown)
    assert original - names(shown) == {str(prepared.removed)}
    prepared.show(Variant.RENAMED, shown)
    assert original - names(shown) == {str(prepared.renamed)}
    assert len(names(shown)) == len(original)
    prepared.show(Variant.ORIGINAL, shown)
    assert names(shown) == original
    assert len({prepared.changed, prepared.removed, prepared.renamed}) == 3


def test_of_a_page_the_text_between_paragraph_tags_is_changed() -> None:
    page = f"<P class='a'>{PROSE} one.</P><p><b>no</b></p><p>{PROSE} two.</p>"
    changed = corpus.rewritten(page, ".html")
    assert changed is not None
    assert changed.startswith(f"<P class='a'>{PROSE} one.</P><p><b>no</b></p><p>This paragraph")
    assert changed.endswith("</p>")
    assert PROSE + " two" not in changed


@pytest.mark.parametrize(
    "text", ["", "# Title", "```\n" + "code " * 20 + "\n```", "| a | b |\n" * 9]
)
def test_markup_is_not_taken_for_a_paragraph(text: str) -> None:
    assert corpus.rewritten(text, ".md") is None


def test_a_long_text_is_searched_for_paragraphs_quickly() -> None:
    changed = corpus.rewritten(f"{PROSE}. " * 20_000, ".txt")
    assert changed is not None
    assert changed.startswith("This paragraph")


def test_each_line_of_a_jsonl_file_is_a_document(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    records = [{"_id": f"a/{n}", "title": f"T{n}", "text": f"{PROSE} {n}."} for n in range(9)]
    file.write_text("\n".join(json.dumps(record) for record in records))
    made = corpus.prepare(file, tmp_path / "corpus", limit=6)
    assert names(made.folder) == {f"a_{number}.txt" for number in range(6)}
    assert (made.folder / "a_0.txt").read_text() == f"T0\n\n{PROSE} 0."


@pytest.mark.parametrize("line", ["no json", "[1]", '{"title": "no text"}'])
def test_a_line_that_is_no_document_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_text('{"text": "good"}\n' + line)
    with pytest.raises(Unsuitable, match="line 2, is no JSON with a text"):
        corpus.prepare(file, tmp_path / "corpus")


def test_documents_that_make_no_comparison_are_refused(docs: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsuitable, match="does not exist"):
        corpus.prepare(tmp_path / "none", tmp_path / "a")
    with pytest.raises(Unsuitable, match=r"holds 4 documents .* needs 5"):
        corpus.prepare(docs, tmp_path / "b", limit=4)
    for path in docs.glob("**/*.*"):
        path.write_text("# Only a heading")
    with pytest.raises(Unsuitable, match=r"no document of .* has a paragraph"):
        corpus.prepare(docs, tmp_path / "c")


# Verdicts


def test_chunks_that_are_missing_double_or_stale_are_counted() -> None:
    clean = Counter({("a", "1"): 1, ("a", "2"): 1})
    assert scenarios.difference(clean, clean) == ""
    assert scenarios.difference(Counter({("a", "1"): 2}), clean) == (
        "1 chunk missing, 1 chunk too many"
    )
    assert scenarios.difference(Counter(), clean) == "2 chunks missing"
    other_source = Counter({("b", "1"): 1, ("a", "1"): 1, ("a", "2"): 1})
    assert scenarios.difference(other_source, clean) == "1 chunk too many"


def test_what_a_reader_finds_is_told_in_documents() -> None:
    clean = Counter({("a", "1"): 1, ("a", "2"): 1, ("b", "1"): 1})
    assert scenarios.found([], clean) == "nothing"
    assert scenarios.found([Row("b", "1")], clean) == "1 of 2 documents"
    assert scenarios.found([Row("b", "1"), Row("a", "2")], clean) == (
        "1 of 2 documents and 1 in part"
    )


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([["old", "x"], ["new", "old"]], "both versions in one answer"),
        ([["old"], ["new", "x"]], "one version in an answer, which one depends on the question"),
        ([["new"], ["x"]], "the new version"),
        ([["old"], ["x"]], "the old version"),
        ([["x"]], "neither version"),
        ([], "neither version"),
    ],
)
def test_a_mixture_of_versions_is_told(answers: list[list[str]], told: str) -> None:
    assert scenarios.versions(answers, {"old"}, {"new"}) == told


def test_of_a_document_that_is_being_replaced_groundserve_serves_the_later_run() -> None:
    side = Groundserve(Path(sys.executable), "m")
    rows = [
        Row("a", "old", "a", (1, "f")),
        Row("a", "new", "a", (2, "b")),
        Row("b", "kept", "b", (1, "c")),
    ]
    assert [row.text for row in side.served(rows)] == ["new", "kept"]


class FakeBench(Bench):
    """Stores the last paragraph of each document as a row. Killed, it has stored everything."""

    forgets_to_delete = False
    reads = slice(None)
    """Of the text."""

    def __init__(self, folder: Path, side: Side) -> None:
        super().__init__(side, folder)
        self.kills: list[Kill] = []
        self._stored: list[Row] = []
        self._saved: list[Row] = []

    @contextmanager
    def started(self, saved: str = "", lost: str = "") -> Iterator[None]:
        self._stored = list(self._saved) if saved and lost != "milvus" else []
        yield

    def save(self, name: str) -> None:  # noqa: ARG002
        self._saved = list(self._stored)

    def run(self, kill: Kill | None = None, *, pretend: bool = False) -> Figures | None:  # noqa: ARG002
        rows = [
            Row(str(path.relative_to(self.documents)), path.read_text()[self.reads])
            for path in sorted(self.documents.rglob("*.*"))
        ]
        known = self._stored if kill is not None or self.forgets_to_delete else []
        self._stored = [*known, *(row for row in rows if row not in known)]
        if kill is None:
            return FIGURES
        self.kills.append(kill)
        return None

    def rows(self, *, with_vectors: bool = False) -> list[Row]:  # noqa: ARG002
        return self._stored

    def answers(self, questions: list[Row]) -> list[list[str]]:
        return [[row.text for row in questions]]


def play(bench: FakeBench, prepared: corpus.Corpus) -> list[Outcome | None]:
    trial = Trial(bench, prepared)
    trial.learn()
    return [scenario.play(trial) for scenario in SCENARIOS]


def test_an_index_that_equals_its_sources_is_right_everywhere(
    prepared: corpus.Corpus, tmp_path: Path
) -> None:
    bench = FakeBench(tmp_path / "bench", LangChain(Path("python"), "m"))
    outcomes = play(bench, prepared)
    assert [outcome and outcome.wrong for outcome in outcomes] == [""] * len(SCENARIOS)
    assert [outcome and outcome.rows for outcome in outcomes][:5] == [6, 6, 6, 5, 6]
    assert [outcome and outcome.meanwhile for outcome in outcomes][5:10] == [
        *["6 of 6 documents"] * 2,
        *["both versions in one answer"] * 3,
    ]


def test_kills_come_in_the_middle_of_what_the_first_run_took(
    prepared: corpus.Corpus, tmp_path: Path
) -> None:
    bench = FakeBench(tmp_path / "bench", LangChain(Path("python"), "m"))
    play(bench, prepared)
    assert bench.kills == [
        Kill(after_s=0.5),
        Kill(after_writes=2),
        Kill(after_writes=1),
        Kill(after_writes=2),
        Kill(after_writes=1),
    ]


def test_an_index_that_keeps_what_is_gone_is_wrong(prepared: corpus.Corpus, tmp_path: Path) -> None:
    bench = FakeBench(tmp_path / "bench", LangChain(Path("python"), "m"))
    bench.forgets_to_delete = True
    found = {
        scenario.title: outcome and outcome.wrong
        for scenario, outcome in zip(SCENARIOS, play(bench, prepared), strict=True)
    }
    assert found["nothing changed"] == ""
    assert found["one paragraph changed"] == "1 chunk too many"
    assert found["one document removed"] == "1 chunk too many"
    assert found["Milvus' data lost"] == ""


def test_a_side_without_a_second_store_cannot_lose_it(
    prepared: corpus.Corpus, tmp_path: Path
) -> None:
    bench = FakeBench(tmp_path / "bench", Groundserve(Path("python"), "m"))
    assert [outcome is None for outcome in play(bench, prepared)] == [
        scenario.title.startswith("record manager") for scenario in SCENARIOS
    ]


def test_a_change_that_a_side_does_not_index_is_no_comparison(
    prepared: corpus.Corpus, tmp_path: Path
) -> None:
    bench = FakeBench(tmp_path / "bench", LangChain(Path("python"), "m"))
    bench.reads = slice(7)
    with pytest.raises(Unsuitable, match="LangChain does not index the paragraph"):
        Trial(bench, prepared).learn()


# Real runs


class WriterSide(LangChain):
    """A program that writes a row for each document, and deletes nothing, in LangChain's place."""

    imports: ClassVar[Sequence[str]] = ("pymilvus",)

    def command(self, documents: Path, uri: str, state: Path) -> list[str]:  # noqa: ARG002
        return ["writer", str(documents), uri]

    def environment(self, uri: str) -> dict[str, str]:  # noqa: ARG002
        return {"PYTHONPATH": f"{self.encoder}:{ROOT}:{ROOT / 'scripts'}"}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sentence_transformers.py").write_text(FAKE_SENTENCE_TRANSFORMERS)
    (modules / "writer.py").write_text(WRITER)
    bench = Bench(WriterSide(Path(sys.executable), str(modules)), tmp_path / "bench")
    bench.documents.mkdir()
    for name in "abcd":
        (bench.documents / f"{name}.txt").write_text(name * (1 + ord(name) % 7))
    return bench


def sources(bench: Bench) -> list[str]:
    return sorted(row.source for row in bench.rows())


def test_a_run_is_measured_killed_and_its_stores_are_put_back(bench: Bench, tmp_path: Path) -> None:
    records = tmp_path / "bench" / "state" / "records.sqlite"
    with bench.started():
        assert sources(bench) == []
        assert bench.run(Kill(after_writes=3)) is None
        assert sources(bench) == ["a.txt", "b.txt", "c.txt"]
        figures = bench.complete()
        assert (figures.embedded, figures.writes) == (4, 4)
        assert 0 < figures.seconds < figures.process_seconds - 0.2  # which loading the model took
        (bench.documents / "bad.txt").write_text("x")
        with pytest.raises(RunFailed, match="LangChain ended with exit code 1") as failed:
            bench.run()
        assert failed.value.detail.endswith("this file is bad")
    records.touch()
    bench.save("done")
    with bench.started("done", lost="records.sqlite"):
        assert not records.exists()
        assert sources(bench) == ["a.txt", "b.txt", "bad.txt", "c.txt", "d.txt"]
        [question] = [row for row in bench.rows(with_vectors=True) if row.source == "b.txt"]
        [answer] = bench.answers([question])
        assert answer[0] == question.text


PROBED = """
import sys, time
from pymilvus import MilvusClient
from sentence_transformers import SentenceTransformer
model = SentenceTransformer("m")
print(*model.encode(["one", "two"])[0], flush=True)
for number in range(3):
    MilvusClient().upsert(number)
time.sleep(float(sys.argv[1]))
sys.exit(4)
"""


def probed(
    tmp_path: Path, *options: str, sleeps_s: float = 0.0
) -> subprocess.CompletedProcess[str]:
    (tmp_path / "sentence_transformers.py").write_text(FAKE_SENTENCE_TRANSFORMERS)
    (tmp_path / "pymilvus.py").write_text(
        "class MilvusClient:\n"
        "    insert = upsert = delete = lambda *_: print('wrote', flush=True)\n"
    )
    (tmp_path / "probed.py").write_text(PROBED)
    command = [sys.executable, "-m", "stack.comparison.probe", "--report", str(tmp_path / "report")]
    return subprocess.run(
        [*command, *options, "probed", str(sleeps_s)],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT / 'scripts'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_the_probe_reports_and_keeps_the_exit_code(tmp_path: Path) -> None:
    done = probed(tmp_path)
    assert (done.returncode, done.stdout) == (4, "3.0 1.0\nwrote\nwrote\nwrote\n"), done.stderr
    report = json.loads((tmp_path / "report").read_text())
    assert (report["embedded"], report["writes"]) == (2, 3)
    assert report["seconds"] < 0.2


def test_the_probe_kills_right_after_a_write(tmp_path: Path) -> None:
    done = probed(tmp_path, "--kill-after-writes", "2")
    assert (done.returncode, done.stdout) == (-9, "3.0 1.0\nwrote\nwrote\n"), done.stderr
    assert not (tmp_path / "report").exists()


def test_the_probe_kills_after_a_time_with_the_model(tmp_path: Path) -> None:
    done = probed(tmp_path, "--kill-after-s", "0.5", sleeps_s=20)
    assert (done.returncode, done.stdout.count("wrote")) == (-9, 3), done.stderr


def test_made_up_vectors_tell_texts_apart(tmp_path: Path) -> None:
    one, other = probed(tmp_path, "--pretend"), probed(tmp_path, "--pretend")
    [first] = one.stdout.splitlines()[:1]
    assert first == other.stdout.splitlines()[0] != "3.0 1.0"
    assert np.linalg.norm([float(part) for part in first.split()]) == pytest.approx(1)


# Both sides' programs and packages


def test_what_groundserve_is_told_are_settings_that_it_has() -> None:
    side = Groundserve(Path("python"), "m")
    told = side.environment("http://127.0.0.1:1")
    assert told.keys() <= {f"GROUNDSERVE_{name.upper()}" for name in RunSettings.model_fields}
    assert side.command(Path("/docs"), "", Path("/state")) == ["indexer", "run", "/docs", "--json"]


def test_the_scripts_are_importable_without_langchain() -> None:
    assert "stack.langchain_side" in sys.modules
    assert not [name for name in sys.modules if name.startswith("langchain")]


def pinned(name: str) -> dict[str, str]:
    lines = (REQUIREMENTS / name).read_text().splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(one.name): str(one.specifier) for one in requirements}


def test_langchain_brings_no_other_version_of_what_both_sides_run() -> None:
    theirs = pinned("langchain.txt")
    assert {"langchain-core", "langchain-classic", "langchain-milvus"} <= theirs.keys()
    assert not theirs.keys() & pinned("local.txt").keys()
    assert {"torch", "pymilvus", "milvus-lite", "sentence-transformers"}.isdisjoint(theirs)
    assert all(version.startswith("==") for version in theirs.values())


class Installer:
    """What environment runs: makes the folder, installs nothing."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.codes = {"venv": 0, "pip": 0}

    def __call__(self, command: list[str], log: Path, *_: object) -> int:
        self.commands.append(command)
        module = command[2]
        if module == "venv":
            (Path(command[3]) / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
            (Path(command[3]) / "bin").mkdir()
            (Path(command[3]) / "bin" / "python").touch()
        log.parent.mkdir(exist_ok=True)
        log.write_text("ERROR: no such package")
        return self.codes[module]


@pytest.fixture
def installer(monkeypatch: pytest.MonkeyPatch) -> Installer:
    installer = Installer()
    monkeypatch.setattr(environment, "run", installer)
    return installer


def test_the_environment_is_made_once(installer: Installer, tmp_path: Path) -> None:
    folder, pins = tmp_path / "langchain", tmp_path / "pins.txt"
    pins.write_text("a==1\n")
    python = environment.ensure(folder, pins)
    assert [command[2] for command in installer.commands] == ["venv", "pip"]
    assert "--no-deps" in installer.commands[1]
    below = (folder / "lib/python3.11/site-packages/below.pth").read_text()
    assert str(Path(np.__file__).parents[1]) in below
    assert environment.ensure(folder, pins) == python == folder / "bin" / "python"
    assert len(installer.commands) == 2
    pins.write_text("a==2\n")
    environment.ensure(folder, pins)
    assert len(installer.commands) == 4


def test_an_installation_that_failed_is_begun_anew(installer: Installer, tmp_path: Path) -> None:
    folder, pins = tmp_path / "langchain", tmp_path / "pins.txt"
    pins.write_text("a==1\n")
    installer.codes["pip"] = 1
    with pytest.raises(InstallFailed, match="could not install LangChain: ERROR: no such package"):
        environment.ensure(folder, pins)
    installer.codes["pip"] = 0
    environment.ensure(folder, pins)
    assert [command[2] for command in installer.commands] == ["venv", "pip"] * 2


def test_the_script_is_executable_and_explains_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ROOT / "scripts" / "compare-langchain"
    assert os.access(file, os.X_OK)
    subprocess.run(["/bin/sh", "-n", str(file)], check=True)
    monkeypatch.setattr(sys, "argv", ["compare-langchain", "docs", "--rounds", "0"])
    with pytest.raises(SystemExit, match="2"):
        compare_langchain.main()
    assert "scripts/compare-langchain: error: argument --rounds" in capsys.readouterr().err


class FailingBench(FakeBench):
    """Fails when a second run finds nothing new."""

    def run(self, kill: Kill | None = None, *, pretend: bool = False) -> Figures | None:
        before = list(self._stored)
        figures = super().run(kill, pretend=pretend)
        if before == self._stored:
            raise RunFailed("a run of LangChain ended with exit code 1")
        return figures


def test_a_run_that_fails_is_a_result_and_ends_nothing(
    prepared: corpus.Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = Trial(FailingBench(tmp_path / "bench", LangChain(Path("python"), "m")), prepared)
    trial.learn()
    outcomes = compare_langchain._round(["LangChain"], [trial], 1)
    assert [outcome.wrong for [outcome] in outcomes[:3] if outcome] == [
        "",
        "a run of LangChain ended with exit code 1",
        "",
    ]
    assert capsys.readouterr().err.count("ended with exit code 1") >= 1


# The table


def outcomes_of(make: Callable[[int, int], Outcome | None]) -> table.Outcomes:
    return [[make(row, side) for side in range(2)] for row in range(len(SCENARIOS))]


def test_every_line_of_the_table_has_the_same_columns() -> None:
    outcomes = outcomes_of(
        lambda row, side: None if (row, side) == (10, 0) else Outcome(FIGURES, 7, "", "nothing")
    )
    lines = list(table.lines(["Groundserve", "LangChain"], outcomes, 22, 1))
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == len(SCENARIOS) + 2
    assert {line.count("|") for line in rows} == {14}
    assert "22 documents" in lines[0]
    assert f"langchain-milvus {version_of('langchain-milvus')}" in lines[0]
    assert rows[2] == "| first run" + " | 1.0 (2.0) | 0.5 | 3 | 7 | nothing | yes" * 2 + " |"
    assert "killed" in rows[7]
    assert rows[12].count("| - ") == 6


def test_what_was_wrong_in_one_round_is_wrong() -> None:
    def of_round(seconds: float, wrong: str) -> table.Outcomes:
        figures = replace(FIGURES, seconds=seconds, process_seconds=2 * seconds)
        return [[Outcome(figures, 7, wrong), None]]

    merged = table.merged([of_round(1.0, ""), of_round(9.0, "2 chunks missing"), of_round(2.0, "")])
    assert merged == of_round(2.0, "2 chunks missing")


def version_of(package: str) -> str:
    [line] = [
        line for line in environment.PINS.read_text().splitlines() if line.startswith(package)
    ]
    return line.split("==")[1]
