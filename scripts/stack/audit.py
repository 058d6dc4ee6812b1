"""Looks for known weaknesses of pinned packages and code, and whether the SBOMs are up to date.

pip-audit asks a public database of advisories, so it needs a network; bandit reads the code; the
SBOMs have to be those of the pinned lists. deploy/advisories.toml answers what is found and stays.
"""

import argparse
import datetime as dt
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stack import ROOT, report, sbom
from stack.errors import StackError
from stack.processes import clean_environment
from stack.profiles import REQUIREMENTS
from stack.report import Step
from stack.verify import BANDIT

ADVISORIES = ROOT / "deploy" / "advisories.toml"
HOLDS_DAYS = 180
LISTS = ("gateway", "indexer", "local", "gpu", "cuda", "dev", "clients", "langchain")


class Answer(NamedTuple):
    """Why an advisory does no harm here."""

    id: str
    package: str
    date: dt.date
    reason: str


class Audited(NamedTuple):
    """What the database knows about the packages of one list."""

    findings: list[str]
    unknown: list[str]
    """Packages that it was not able to tell about; nothing is known of them."""


def main() -> int:
    """Print what was found; 1 where anything was, or where nothing could be asked."""
    parser = argparse.ArgumentParser(prog="scripts/audit", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=["all", "sbom"], default="all", help="sbom writes the SBOMs"
    )
    if parser.parse_args().what == "sbom":
        sbom.write()
        return 0
    today = dt.datetime.now(tz=dt.UTC).date()
    problems = [*_stale_sboms(), *_bandit(), *_packages(answers(ADVISORIES), today)]
    for problem in problems:
        report.say(problem)
    return 1 if problems else 0


def answers(file: Path) -> list[Answer]:
    """Those of a file like deploy/advisories.toml. Raises StackError."""
    try:
        entries = tomllib.loads(file.read_text(encoding="utf-8"))["answered"]
        found = [Answer(**entry) for entry in entries]
    except (ValueError, TypeError, KeyError) as exc:
        raise StackError(f"{file} cannot be read: {exc}") from exc
    if unfounded := [each.id for each in found if not each.reason.strip()]:
        raise StackError(f"{file} gives no reason for {', '.join(unfounded)}")
    return found


def judged(told: dict[str, Any], given: list[Answer], today: dt.date) -> Audited:
    """What is left of pip-audit's JSON when the answers that still hold are taken off."""
    holding = {(each.package, each.id) for each in given if (today - each.date).days <= HOLDS_DAYS}
    findings, unknown = [], []
    for package in told["dependencies"]:
        if "skip_reason" in package:
            unknown.append(package["name"])
        for weakness in package.get("vulns", ()):
            ids = {weakness["id"], *weakness["aliases"]}
            if not any((package["name"], one) in holding for one in ids):
                mended = ", ".join(weakness["fix_versions"]) or "no version"
                findings.append(
                    f"{package['name']} {package['version']}: {', '.join(sorted(ids))}; "
                    f"mended in {mended}"
                )
    return Audited(findings, unknown)


def _stale_sboms() -> Iterator[str]:
    for image in sbom.stale():
        yield f"{sbom.file(image).relative_to(ROOT)} is not what the list says: run scripts/lock"


def _bandit() -> Iterator[str]:
    with Step("reading the code with bandit"):
        told = _run([*BANDIT])
    if told.returncode != 0:
        yield told.stdout.strip() or told.stderr.strip()


def _packages(given: list[Answer], today: dt.date) -> Iterator[str]:
    for name in LISTS:
        with Step(f"asking for advisories on {name}.txt") as step:
            told = _run([
                "pip-audit", "--requirement", str(REQUIREMENTS / f"{name}.txt"), "--disable-pip",
                "--require-hashes", "--format", "json", "--progress-spinner", "off",
            ])  # fmt: skip
            try:
                found = judged(json.loads(told.stdout), given, today)
            except (ValueError, KeyError):
                step.outcome = "failed"
                reason = (told.stderr.strip().splitlines() or ["it said nothing"])[-1]
                yield f"{name}.txt: pip-audit failed, so nothing is known of it: {reason}"
                continue
            step.outcome = f"{len(found.findings)} found, {len(found.unknown)} not known of"
        yield from (f"{name}.txt: {finding}" for finding in found.findings)
        if found.unknown:
            yield (
                f"{name}.txt: the database of advisories told nothing about {len(found.unknown)} "
                f"packages, such as {found.unknown[0]}: is it reached from here?"
            )


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name(command[0]))
    return subprocess.run(
        [program, *command[1:]],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(report.run(main))
