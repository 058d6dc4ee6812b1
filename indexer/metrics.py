"""Tells Prometheus what a run did, since a job that exits cannot be asked.

Through a file for the node exporter's textfile collector, a Pushgateway, or both.
"""

import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, pushadd_to_gateway, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families

from indexer.errors import MetricsNotTold
from indexer.report import DONE, Report

JOB = "groundserve_indexer"
_SUCCESS = f"{JOB}_last_success_timestamp_seconds"
_COUNTS = {
    "added": "Documents that were added.",
    "changed": "Documents that had changed.",
    "kept": "Documents that had not changed.",
    "deleted": "Documents that were deleted.",
    "withheld": "Documents that seem to be gone and were not deleted.",
    "chunks_embedded": "Chunks that were embedded.",
    "chunks_reused": "Chunks that were written with a vector that was known.",
    "chunks_written": "Chunks that were written.",
    "seconds": "Seconds that the run took.",
    "encode_seconds": "Seconds in which the encoder worked.",
}


def tell(
    report: Report,
    exit_code: int,
    knowledge_base: str,
    textfile: Path | None,
    pushgateway_url: str | None,
) -> None:
    """Write the figures of a run that ended with `exit_code`. Raises MetricsNotTold."""
    registry = CollectorRegistry()
    _figures(registry, report, exit_code, knowledge_base)
    try:
        if pushgateway_url is not None:
            # Adds to what is there, so that the last success outlives a failure.
            grouping = {"knowledge_base": knowledge_base}
            pushadd_to_gateway(pushgateway_url, JOB, registry, grouping, timeout=10)
        if textfile is not None:
            if exit_code != DONE and (last := _last_success(textfile, knowledge_base)):
                _success(registry, knowledge_base).set(last)
            write_to_textfile(str(textfile), registry)
    except (OSError, ValueError) as exc:
        raise MetricsNotTold(f"the metrics could not be written: {exc}") from exc


def _figures(
    registry: CollectorRegistry, report: Report, exit_code: int, knowledge_base: str
) -> None:
    def gauge(name: str, about: str, value: float) -> None:
        labelled = Gauge(f"{JOB}_{name}", about, ["knowledge_base"], registry=registry)
        labelled.labels(knowledge_base).set(value)

    for name, about in _COUNTS.items():
        gauge(f"last_run_{name}", about, getattr(report, name))
    gauge("last_run_skipped", "Documents that could not be used.", len(report.skipped))
    gauge("last_run_failed_sources", "Sources without a list.", len(report.failed_sources))
    gauge("last_run_exit_code", "Exit code of the last run.", exit_code)
    gauge("last_run_timestamp_seconds", "When the last run ended.", time.time())
    if exit_code == DONE:
        _success(registry, knowledge_base).set_to_current_time()


def _success(registry: CollectorRegistry, knowledge_base: str) -> Gauge:
    about = "When a run last ended with exit code 0."
    return Gauge(_SUCCESS, about, ["knowledge_base"], registry=registry).labels(knowledge_base)


def _last_success(textfile: Path, knowledge_base: str) -> float:
    """What the file of an earlier run says; 0 where it says nothing."""
    if not textfile.is_file():
        return 0.0
    for family in text_string_to_metric_families(textfile.read_text(encoding="utf-8")):
        for sample in family.samples:
            if sample.name == _SUCCESS and sample.labels == {"knowledge_base": knowledge_base}:
                return float(sample.value)
    return 0.0
