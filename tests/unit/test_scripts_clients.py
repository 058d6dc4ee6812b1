"""The clients of the end-to-end tests: installed once, from lists that name no machine."""

import json
import re
from pathlib import Path

import pytest
from stack import clients
from stack.environment import Environment
from stack.errors import InstallFailed


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "scripts"
    folder.mkdir()
    for name in ("package.json", "package-lock.json", "a.mjs", "b.py"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The arguments of npm at each of its runs, which do nothing."""
    runs: list[tuple[str, ...]] = []

    def run(command: list[str], log: Path, folder: Path) -> int:
        assert log.name == "npm.log"
        assert (folder / "package-lock.json").exists()
        runs.append(tuple(command[3:]))
        return 0

    monkeypatch.setattr(clients, "run", run)
    return runs


def test_openai_node_is_installed_when_its_lock_file_changes(
    scripts: Path, tmp_path: Path, installed: list[tuple[str, ...]]
) -> None:
    for _ in range(2):
        folder = clients.javascript(Path("python"), scripts, tmp_path / "node")
    assert [arguments[0] for arguments in installed] == ["ci"]

    (scripts / "package-lock.json").write_text("newer")
    clients.javascript(Path("python"), scripts, tmp_path / "node")
    assert len(installed) == 2
    assert (folder / "package-lock.json").read_text() == "newer"


def test_a_changed_script_is_copied_without_installing_anything(
    scripts: Path, tmp_path: Path, installed: list[tuple[str, ...]]
) -> None:
    clients.javascript(Path("python"), scripts, tmp_path / "node")
    (scripts / "a.mjs").write_text("changed")
    folder = clients.javascript(Path("python"), scripts, tmp_path / "node")
    assert len(installed) == 1
    assert (folder / "a.mjs").read_text() == "changed"
    assert not (folder / "b.py").exists()


def test_a_failure_of_npm_is_told_and_tried_again(
    scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "run", lambda *_, **__: 1)
    for _ in range(2):
        with pytest.raises(InstallFailed, match="npm could not install openai-node"):
            clients.javascript(Path("python"), scripts, tmp_path / "node")


def test_the_environment_of_clients_gets_their_list_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, list[Path]]] = []
    monkeypatch.setattr(
        Environment, "ensure", lambda self, lists, _: asked.append((self.folder, lists))
    )
    python = clients.python(tmp_path / "state" / "clients")
    assert asked == [(tmp_path / "state" / "clients", [clients.LIST])]
    assert python.is_relative_to(tmp_path / "state" / "clients")


def test_the_lock_file_is_exact_and_names_no_registry() -> None:
    package = json.loads((clients.SCRIPTS / "package.json").read_text())
    text = (clients.SCRIPTS / "package-lock.json").read_text()
    locked = json.loads(text)["packages"]
    assert not re.search(r"https?://|resolved", text)
    assert locked[""]["dependencies"] == package["dependencies"]
    for name, version in package["dependencies"].items():
        assert locked[f"node_modules/{name}"]["version"] == version
        assert locked[f"node_modules/{name}"]["integrity"].startswith("sha512-")
