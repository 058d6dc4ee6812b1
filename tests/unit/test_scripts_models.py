"""Getting the models: whole or not at all, and once."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from stack import models
from stack.errors import InstallFailed, Unsuitable
from stack.locks import sole_user
from stack.processes import clean_environment, keep_loopback_direct


def test_the_encoder_is_found_without_importing_its_package() -> None:
    assert (models.minilm() / "model.safetensors").is_file()


def test_a_failed_conversion_leaves_nothing_and_quotes_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: Sequence[str], log: Path, *_: object) -> int:
        Path(command[-1]).mkdir()
        Path(command[-1], "config.json").touch()
        log.parent.mkdir(parents=True)
        log.write_text("OSError: no space left\n")
        return 1

    monkeypatch.setattr(models, "run", fail)
    with pytest.raises(InstallFailed, match=r"no space left; full log: .*convert\.log"):
        models.smollm2(tmp_path)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_conversion_happens_once_and_clears_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []

    def convert(command: Sequence[str], *_: object) -> int:
        runs.append(command[-1])
        Path(command[-1]).mkdir()
        Path(command[-1], "config.json").touch()
        return 0

    monkeypatch.setattr(models, "run", convert)
    (tmp_path / "models" / ".converting-killed" / "half").mkdir(parents=True)
    folder = models.smollm2(tmp_path)
    assert models.smollm2(tmp_path) == folder
    assert len(runs) == 1
    assert (folder / "config.json").exists()
    assert list((tmp_path / "models").iterdir()) == [folder]


def test_two_conversions_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with sole_user(tmp_path / "models", "busy"), pytest.raises(Unsuitable, match="converting"):
        models.smollm2(tmp_path)


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.setenv("no_proxy", "")
    keep_loopback_direct()
    assert clean_environment()["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    assert clean_environment()["no_proxy"] == "127.0.0.1,localhost"


def test_another_python_environment_does_not_leak_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert "PYTHONPATH" not in clean_environment()
    assert clean_environment({"HF_HUB_OFFLINE": "1"})["HF_HUB_OFFLINE"] == "1"
