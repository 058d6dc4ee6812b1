"""The time of each stage: for the client, for Prometheus, for traces."""

import time
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from gateway import stages
from gateway.stages import Stages


def _observed(stage: str) -> float:
    return REGISTRY.get_sample_value("groundserve_stage_seconds_count", {"stage": stage}) or 0.0


def test_a_stage_that_comes_twice_is_counted_together_and_in_its_first_place() -> None:
    measured = Stages()
    for name in ("search", "embed", "search"):
        with measured.measure(name):
            time.sleep(0.002)

    assert list(measured.seconds) == ["search", "embed"]
    assert measured.seconds["search"] >= 0.004
    assert measured.milliseconds()["search"] == pytest.approx(
        measured.seconds["search"] * 1000, abs=0.01
    )


def test_a_stage_that_fails_is_counted_too() -> None:
    measured, before = Stages(), _observed("fails")
    with pytest.raises(ValueError, match="no"), measured.measure("fails"):
        raise ValueError("no")

    assert measured.seconds["fails"] > 0
    assert _observed("fails") == before + 1


def test_each_stage_is_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(stages, "_TRACER", provider.get_tracer("test"))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)

    with Stages().measure("embed"):
        pass

    assert [span.name for span in spans.get_finished_spans()] == ["embed"]


@pytest.mark.usefixtures("answer")
def test_the_stages_of_a_chat_are_scraped(client: Any) -> None:
    before = {name: _observed(name) for name in ("rewrite", "embed", "search", "fit")}
    question = {
        "model": "default",
        "messages": [{"role": "user", "content": "What do llamas eat?"}],
    }
    assert client.post("/v1/chat/completions", json=question).status_code == 200

    scraped = client.get("/metrics")

    assert scraped.status_code == 200
    assert scraped.headers["content-type"].startswith("text/plain")
    for name, count in before.items():
        assert f'groundserve_stage_seconds_count{{stage="{name}"}} {count + 1}' in scraped.text
