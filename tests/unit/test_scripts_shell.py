"""The shell scripts: which Python they take, and what they say when there is none."""

import os
import subprocess
from pathlib import Path

import pytest
from stack import ROOT

SCRIPTS = ("quickstart", "test")


def fake_python(folder: Path, name: str, version: tuple[int, int]) -> Path:
    """A program that answers the scripts' question as a Python of that version would."""
    program = folder / name
    ok = 0 if (3, 11) <= version <= (3, 14) else 1
    program.write_text(
        "#!/bin/sh\n"
        'case "$2" in\n'
        f'*print*) echo "Python {version[0]}.{version[1]}.0" ;;\n'
        f"*sys.exit*) exit {ok} ;;\n"
        "esac\n"
        f'[ "$1" = -m ] && echo "{name} $*"; exit 0\n'
    )
    program.chmod(0o755)
    return program


def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    tools = ("dirname", "pwd", "uname")
    bare = Path(variables["PATH"])
    for tool in tools:
        for folder in ("/usr/bin", "/bin"):
            if Path(folder, tool).exists() and not (bare / tool).exists():
                (bare / tool).symlink_to(Path(folder, tool))
    return subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / script), *arguments],
        capture_output=True,
        text=True,
        env=variables,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_python_is_one_line_and_code_1(script: str, tmp_path: Path) -> None:
    done = run(script, PATH=str(tmp_path))
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: no Python 3.11 to 3.14 on the PATH: install one, or name it in PYTHON\n"
    )
    assert done.stdout == ""


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_old_python_is_no_python(script: str, tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", (3, 9))
    done = run(script, PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Python 3.11 to 3.14")


def test_a_named_python_that_is_too_old_is_not_replaced_silently(tmp_path: Path) -> None:
    old = fake_python(tmp_path, "old", (3, 9))
    fake_python(tmp_path, "python3", (3, 12))
    done = run("quickstart", PATH=str(tmp_path), PYTHON=str(old))
    assert done.returncode == 1
    assert done.stderr == (
        f"error: PYTHON={old} is Python 3.9.0; Groundserve needs Python 3.11 to 3.14: "
        "name one in PYTHON\n"
    )


def test_a_named_python_that_does_not_run_is_said_so(tmp_path: Path) -> None:
    done = run("quickstart", PATH=str(tmp_path), PYTHON="/nowhere/python")
    assert done.returncode == 1
    assert "is not a Python that runs" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_new_python_is_found_under_its_plain_name(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3.11", (3, 9))
    fake_python(tmp_path, "python3", (3, 13))
    done = run("quickstart", "--ask", "two words", PATH=str(tmp_path))
    assert done.stdout == "python3 -m stack.bootstrap quickstart --ask two words\n"


@pytest.mark.parametrize("script", ["quickstart", "test", "serve-model", "lock"])
def test_every_script_is_executable_and_valid(script: str) -> None:
    file = ROOT / "scripts" / script
    assert os.access(file, os.X_OK)
    subprocess.run(["/bin/sh", "-n", str(file)], check=True)


def test_continuous_integration_runs_what_developers_run() -> None:
    file = ROOT / ".ci" / "run"
    assert os.access(file, os.X_OK)
    assert "/scripts/test" in file.read_text()
