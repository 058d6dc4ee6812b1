"""The comparison with LangChain: its documents, its kills, its verdicts and its table.

LangChain itself is not needed: a program that writes rows stands in for it, on a real Milvus Lite.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from stack import compare_langchain
from stack.comparison import corpus, environment, scenarios, table
from stack.comparison.bench import Bench, Figures, Kill, RunFailed
from stack.comparison.corpus import Variant
from stack.comparison.scenarios import SCENARIOS, Outcome, Trial
from stack.comparison.sides import Groundserve, LangChain, Row, Side
from stack.errors import Unsuitable

PROSE = "A paragraph of prose that is long enough to be one, with words in it"
FIGURES = Figures(seconds=1.0, encoding_s=0.5, process_seconds=2.0, embedded=3, writes=4)


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
    return line.removesuffix(" \\").split("==")[1]
