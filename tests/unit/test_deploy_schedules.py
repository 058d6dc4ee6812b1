"""The schedules of the indexer for cron, systemd and Kubernetes."""

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from indexer import report
from indexer.index.settings import ENV_PREFIX
from indexer.settings import RunSettings, WatchSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILES = [
    "crontab.example",
    "systemd/groundserve-indexer.service",
    "systemd/groundserve-uploads.service",
    "kubernetes/indexer-cronjob.yaml",
]
VARIABLES = {
    ENV_PREFIX + name.upper()
    for settings in (RunSettings, WatchSettings)
    for name in settings.model_fields
}
NOT_WORTH_A_CALL = {report.DONE_IN_PART, report.LEASE_HELD}


def unit(name: str) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / "systemd" / name)
    return parser


def cronjob() -> dict[str, Any]:
    manifests = yaml.safe_load_all((DEPLOY / "kubernetes/indexer-cronjob.yaml").read_text())
    found: dict[str, Any] = next(each for each in manifests if each["kind"] == "CronJob")["spec"]
    return found


@pytest.mark.parametrize("file", FILES)
def test_every_variable_is_a_setting(file: str) -> None:
    named = set(re.findall(rf"{ENV_PREFIX}[A-Z_]+", (DEPLOY / file).read_text()))

    assert named
    assert named <= VARIABLES


def test_the_crontab_has_one_line_that_runs_the_indexer() -> None:
    lines = (DEPLOY / "crontab.example").read_text().splitlines()
    [schedule] = [line for line in lines if re.match(r"[*\d]", line)]
    fields = schedule.split(maxsplit=5)

    assert all(re.fullmatch(r"\*(/\d+)?|\d+(-\d+)?", field) for field in fields[:5])
    assert "python -m indexer run" in fields[5]
    assert "%" not in schedule, "cron takes it for a line end"


def test_the_timer_starts_the_service_which_runs_once() -> None:
    service = unit("groundserve-indexer.service")["Service"]

    assert "OnCalendar" in unit("groundserve-indexer.timer")["Timer"]
    assert service["Type"] == "oneshot"
    assert service["ExecStart"].endswith("python -m indexer run")
    assert {int(code) for code in service["SuccessExitStatus"].split()} == NOT_WORTH_A_CALL


def test_the_indexer_of_uploads_runs_all_the_time_and_may_write_where_they_are_kept() -> None:
    service = unit("groundserve-uploads.service")["Service"]
    library = service["Environment"].partition("GROUNDSERVE_LIBRARY_URL=")[2]

    assert service["ExecStart"].endswith("python -m indexer watch")
    assert service["Restart"] == "always"
    assert service["ReadWritePaths"] == library
    assert service["SuccessExitStatus"] == str(report.INTERRUPTED)


def test_kubernetes_does_not_retry_what_trying_again_does_not_mend() -> None:
    spec = cronjob()
    pod = spec["jobTemplate"]["spec"]
    [rule] = pod["podFailurePolicy"]["rules"]

    assert set(rule["onExitCodes"]["values"]) == NOT_WORTH_A_CALL | {report.REFUSED}
    assert spec["concurrencyPolicy"] == "Forbid"
    assert pod["template"]["spec"]["restartPolicy"] == "Never", "failure policies need it"


def test_the_job_of_kubernetes_mounts_what_it_names() -> None:
    pod = cronjob()["jobTemplate"]["spec"]["template"]["spec"]
    [container] = pod["containers"]

    assert container["image"].startswith("groundserve-indexer:")
    assert container["command"] == ["python", "-m", "indexer", "run"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }


def test_every_schedule_is_explained() -> None:
    explained = (DEPLOY / "README.md").read_text()

    assert [file for file in FILES if file.rpartition("/")[2] not in explained] == []
