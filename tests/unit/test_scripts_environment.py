"""The environment that the scripts make: what is installed, when, and what is not."""

import hashlib
import os
import zipfile
from pathlib import Path

import pytest
from stack.environment import Environment
from stack.errors import InstallFailed
from stack.profiles import GPU, LOCAL, REQUIREMENTS

PIN = f"typing-extensions==4.16.0 --hash=sha256:{'0' * 64}\n"


def test_without_a_network_pip_is_quoted_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    (tmp_path / "some.txt").write_text(f"# A list\n{PIN}")
    environment = Environment(tmp_path / ".venv")
    with pytest.raises(InstallFailed) as failed:
        environment.ensure([tmp_path / "some.txt"], tmp_path / "logs")
    message = str(failed.value)
    assert (
        "No matching distribution found for typing-extensions==4.16.0; check the network" in message
    )
    assert message.endswith(f"full log: {tmp_path / 'logs' / 'pip.log'}")
    assert "\n" not in message
    assert not environment.is_current([tmp_path / "some.txt"])


def test_an_environment_is_current_until_a_list_changes_or_it_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = [tmp_path / "local.txt", tmp_path / "dev.txt"]
    for file in lists:
        file.write_text("typing-extensions==4.16.0\n")
    steps: list[str] = []
    installing = ["_check_index", "_prefer_torch_for_cpus", "_install", "_complete_torch"]
    for step in ("_create", *installing):
        monkeypatch.setattr(Environment, step, lambda *_, step=step: steps.append(step))
    monkeypatch.setattr(Environment, "_is_usable", lambda _: True)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    (tmp_path / ".venv" / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    environment = Environment(tmp_path / ".venv")

    environment.ensure(lists[:1], tmp_path)
    assert steps == installing
    assert environment.is_current(lists[:1])
    assert not environment.is_current(lists)
    environment.ensure(lists, tmp_path)
    assert environment.is_current(lists[:1]), "quickstart must not undo what scripts/test added"

    steps.clear()
    environment.ensure(lists, tmp_path)
    assert steps == []
    lists[1].write_text("typing-extensions==4.17.0\n")
    assert not environment.is_current(lists)

    gpu = tmp_path / "gpu.txt"
    gpu.write_text("vllm==0.32.0\n")
    environment.ensure([gpu], tmp_path)
    assert steps[0] == "_create", "two builds of vLLM do not mix"
    assert not environment.is_current(lists[:1])

    (tmp_path / ".venv").rename(tmp_path / "moved")
    assert not Environment(tmp_path / ".venv").is_current([gpu])


def test_what_is_not_what_the_list_says_is_not_installed(tmp_path: Path) -> None:
    wheel = tmp_path / "some_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {
            "some_package.py": "",
            "some_package-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: some-package\n"
            "Version: 1.0\n",
            "some_package-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\n"
            "Root-Is-Purelib: true\nTag: py3-none-any\n",
            "some_package-1.0.dist-info/RECORD": "",
        }.items():
            archive.writestr(name, text)
    (tmp_path / "some.txt").write_text(f"some-package==1.0 --hash=sha256:{'0' * 64}\n")
    environment = Environment(tmp_path / ".venv")
    environment._create(tmp_path / "venv.log")
    arguments = ["--no-index", "--find-links", str(tmp_path), "-r", str(tmp_path / "some.txt")]

    with pytest.raises(InstallFailed):
        environment._pip(arguments, tmp_path / "pip.log")
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in (tmp_path / "pip.log").read_text()
    assert not list(environment._packages().glob("some_package*"))

    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (tmp_path / "some.txt").write_text(f"some-package==1.0 --hash=sha256:{digest}\n")
    environment._pip(arguments, tmp_path / "pip.log")
    assert list(environment._packages().glob("some_package*"))


@pytest.mark.parametrize(
    ("list_file", "offered", "asked"),
    [
        (LOCAL.requirements, True, ["torch-cpu.txt"]),
        (LOCAL.requirements, False, ["torch-cpu.txt"]),
        (GPU.requirements, True, []),
        (REQUIREMENTS / "clients.txt", True, []),
    ],
)
def test_torch_for_cpus_comes_first_where_a_list_takes_it_and_an_index_has_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    list_file: Path,
    offered: bool,
    asked: list[str],
) -> None:
    installed: list[str] = []

    def pip(_: Environment, arguments: list[str], log: Path) -> None:
        assert log == tmp_path / "pip.log"
        installed.append(Path(arguments[-1]).name)
        if not offered:
            raise InstallFailed("no such build")

    monkeypatch.setattr(Environment, "_pip", pip)
    Environment(tmp_path)._prefer_torch_for_cpus([list_file], tmp_path / "pip.log")

    assert installed == asked


@pytest.mark.parametrize(
    ("loads", "expected"), [([True], []), ([False, True], [["-r", str(REQUIREMENTS / "cuda.txt")]])]
)
def test_torch_gets_its_libraries_only_where_it_does_not_load_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: list[bool], expected: list[list[str]]
) -> None:
    installed: list[list[str]] = []
    answers = iter(loads)

    def pip(_: Environment, arguments: list[str], log: Path) -> None:
        assert log == tmp_path / "pip.log"
        installed.append(arguments)

    monkeypatch.setattr(Environment, "_torch_loads", lambda *_: next(answers))
    monkeypatch.setattr(Environment, "_pip", pip)
    Environment(tmp_path)._complete_torch([LOCAL.requirements], tmp_path)

    assert installed == expected


def test_torch_is_not_looked_for_where_no_list_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Environment, "_torch_loads", lambda *_: pytest.fail("it was looked for"))
    (tmp_path / "some.txt").write_text("typing-extensions==4.16.0\n")

    Environment(tmp_path)._complete_torch([tmp_path / "some.txt"], tmp_path)


def test_a_torch_that_never_loads_ends_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.log").write_text("ImportError: no libgomp\n")
    monkeypatch.setattr(Environment, "_torch_loads", lambda *_: False)
    monkeypatch.setattr(Environment, "_pip", lambda *_, **__: None)

    with pytest.raises(InstallFailed, match="torch does not load: ImportError: no libgomp"):
        Environment(tmp_path)._complete_torch([LOCAL.requirements], tmp_path)
