"""What scripts/audit makes of findings, and the lists of what is in the images."""

import datetime as dt
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from stack import ROOT, audit, sbom
from stack.audit import Answer, answers, judged
from stack.errors import StackError
from stack.profiles import REQUIREMENTS

TODAY = dt.date(2026, 11, 26)
WEAK = {
    "name": "weak",
    "version": "1.0",
    "vulns": [
        {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "fix_versions": ["1.1"]},
        {"id": "PYSEC-2026-2", "aliases": [], "fix_versions": []},
    ],
}
TOLD = {"dependencies": [WEAK, {"name": "sound", "version": "2", "vulns": []}], "fixes": []}


def answer(weakness: str, package: str = "weak", days: int = 0) -> Answer:
    return Answer(weakness, package, TODAY - dt.timedelta(days), "It is never called.")


def test_a_finding_names_the_package_all_ids_and_what_mends_it() -> None:
    assert judged(TOLD, [], TODAY).findings == [
        "weak 1.0: CVE-2026-1, PYSEC-2026-1; mended in 1.1",
        "weak 1.0: PYSEC-2026-2; mended in no version",
    ]


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ([answer("PYSEC-2026-1")], ["PYSEC-2026-2"]),
        ([answer("CVE-2026-1"), answer("PYSEC-2026-2", days=180)], []),
        ([answer("CVE-2026-1", days=181)], ["PYSEC-2026-1", "PYSEC-2026-2"]),
        ([answer("PYSEC-2026-1", package="other")], ["PYSEC-2026-1", "PYSEC-2026-2"]),
    ],
)
def test_an_answer_is_for_one_weakness_of_one_package_and_holds_for_a_time(
    given: list[Answer], left: list[str]
) -> None:
    findings = judged(TOLD, given, TODAY).findings

    assert [re.findall(r"PYSEC-\d+-\d", finding)[0] for finding in findings] == left


def test_a_package_that_nobody_could_tell_about_is_not_one_without_weaknesses() -> None:
    told: dict[str, Any] = {"dependencies": [{"name": "some", "skip_reason": "not found"}]}

    assert judged(told, [], TODAY) == ([], ["some"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "answered = [{ id = 'A' }]",
        "[[answered]]\nid = 'A'\npackage = 'b'\ndate = 2026-11-26\nreason = ' '",
        "[[answered",
    ],
)
def test_an_answer_without_a_reason_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "advisories.toml").write_text(text)

    with pytest.raises(StackError, match=r"advisories\.toml"):
        answers(tmp_path / "advisories.toml")


def test_the_answers_of_the_project_can_be_read() -> None:
    pinned = "".join(file.read_text() for file in REQUIREMENTS.glob("*.txt"))

    assert [each for each in answers(audit.ADVISORIES) if f"{each.package}==" not in pinned] == []


def test_every_list_is_audited() -> None:
    # Its one package is in other lists as well, by the release.
    others = {"torch-cpu", "cpu-overrides"}

    assert {file.stem for file in REQUIREMENTS.glob("*.txt")} == {*audit.LISTS, *others}


def test_an_unreachable_database_is_a_problem_and_not_a_clean_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    skipped = {"dependencies": [{"name": "some", "skip_reason": "not found"}], "fixes": []}

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        said = json.dumps(skipped) if "gateway" in str(command) else ""
        return subprocess.CompletedProcess(command, 0, said, "ConnectionError: no route\n")

    monkeypatch.setattr(sys, "argv", ["audit"])
    monkeypatch.setattr(audit, "_run", run)

    assert audit.main() == 1
    said = capsys.readouterr().out
    assert "gateway.txt: the database of advisories told nothing about 1 packages" in said
    assert "indexer.txt: pip-audit failed, so nothing is known of it: ConnectionError" in said


@pytest.mark.parametrize("image", sbom.IMAGES)
def test_an_image_is_told_to_hold_what_its_list_pins(image: str) -> None:
    assert image not in sbom.stale(), "run scripts/lock"
    told = json.loads(sbom.file(image).read_text())
    text = (REQUIREMENTS / f"{image}.txt").read_text()
    pins = [Requirement(pin) for pin in re.findall(r"^[\w.-]+==[^\\\n]*", text, re.MULTILINE)]

    assert {each["purl"] for each in told["components"]} == {
        f"pkg:pypi/{canonicalize_name(pin.name)}@{str(pin.specifier)[2:]}" for pin in pins
    }
    [whole] = [each for each in told["dependencies"] if each["ref"] == f"groundserve-{image}"]
    assert len(whole["dependsOn"]) == len(told["components"]) > 50
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    # Nothing that would be another one tomorrow.
    assert "timestamp" not in told["metadata"]
    assert sbom.text(image) == sbom.text(image)


def test_another_list_has_another_serial_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sbom, "REQUIREMENTS", tmp_path)
    numbers = []
    for version in ("1.0", "1.1"):
        (tmp_path / "gateway.txt").write_text(
            f"a=={version} ; python_version >= '3' \\\n    --hash=x\n"
        )
        told = json.loads(sbom.text("gateway"))
        numbers.append(told["serialNumber"])

    assert numbers[0] != numbers[1]
    assert told["components"][0]["properties"][0]["value"] == 'python_version >= "3"'


@pytest.mark.parametrize("script", ["audit", "lock", "measure-injections"])
def test_the_scripts_are_executable_and_in_order(script: str) -> None:
    file = ROOT / "scripts" / script

    assert os.access(file, os.X_OK)
    subprocess.run(["/bin/sh", "-n", str(file)], check=True)
