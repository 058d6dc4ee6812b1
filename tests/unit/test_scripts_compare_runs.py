"""The comparison with LangChain: real runs that are measured and killed, and its environment.

LangChain itself is not needed: a program that writes rows stands in for it, on a real Milvus Lite.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from stack import ROOT, compare_langchain
from stack.comparison import environment
from stack.comparison.bench import Bench, Kill, RunFailed
from stack.comparison.sides import Groundserve, LangChain
from stack.errors import InstallFailed
from stack.profiles import REQUIREMENTS

from indexer.settings import RunSettings

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
    requirements = [Requirement(line.rstrip("\\ ")) for line in lines if line[0] not in "# "]
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
    assert {"--no-deps", "--require-hashes"} <= set(installer.commands[1])
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
