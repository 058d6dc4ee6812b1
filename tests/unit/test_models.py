"""Which model a name means, while vLLM is swapped behind it."""

import asyncio
from typing import Any

import pytest

from gateway.breaker import Breakers
from gateway.errors import ModelNotFound, UpstreamBroken, UpstreamUnavailable
from gateway.models import Models
from gateway.retry_budget import RetryBudget
from gateway.routing import Care
from gateway.upstream import ServedModel
from tests.unit.conftest import FakeUpstream

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("acting")]


@pytest.fixture
def models(upstream: FakeUpstream) -> Models:
    return Models([upstream], poll_interval_s=0.001)


async def name_of(models: Models, requested: str | None) -> str:
    return (await models.loaded(requested)).name


@pytest.mark.parametrize("requested", [None, "default"])
async def test_default_is_whatever_is_served(models: Models, requested: str | None) -> None:
    assert await name_of(models, requested) == "org/model-a"


async def test_a_model_is_found_by_its_name(models: Models, upstream: FakeUpstream) -> None:
    upstream.served = ["base", "adapter"]

    assert await name_of(models, "adapter") == "adapter"
    assert await name_of(models, None) == "base"


async def test_what_is_known_is_not_asked_again(models: Models, upstream: FakeUpstream) -> None:
    for _ in range(5):
        await name_of(models, None)
        await name_of(models, "org/model-a")

    assert upstream.asked == 1


async def test_an_unknown_name_is_asked_for_once_more_and_then_refused_with_those_there_are(
    models: Models, upstream: FakeUpstream
) -> None:
    await name_of(models, None)
    with pytest.raises(ModelNotFound, match=r"'gpt-4'.*default, org/model-a") as refused:
        await name_of(models, "gpt-4")

    assert refused.value.param == "model"
    assert upstream.asked == 2


async def test_a_swapped_model_is_found_by_its_name_at_once(
    models: Models, upstream: FakeUpstream
) -> None:
    await name_of(models, None)
    upstream.served = ["org/model-b"]

    assert await name_of(models, "org/model-b") == "org/model-b"
    assert await name_of(models, "default") == "org/model-b"


async def test_while_nothing_is_loaded_the_model_server_is_unavailable_and_no_name_wrong(
    models: Models, upstream: FakeUpstream
) -> None:
    upstream.served = []

    for requested in (None, "org/model-a"):
        with pytest.raises(UpstreamUnavailable, match="no model loaded"):
            await name_of(models, requested)


@pytest.mark.parametrize("failure", [UpstreamUnavailable("away"), UpstreamBroken("odd")])
async def test_what_was_served_is_forgotten_when_vllm_fails(
    models: Models, upstream: FakeUpstream, failure: Exception
) -> None:
    await name_of(models, None)
    upstream.failure = failure
    with pytest.raises(type(failure)):
        await models.refresh()
    with pytest.raises(type(failure)):
        await name_of(models, None)

    upstream.failure = None
    assert await name_of(models, None) == "org/model-a"


async def test_watching_notices_a_swap_even_after_a_failure(
    models: Models, upstream: FakeUpstream
) -> None:
    watching = asyncio.create_task(models.watch())
    try:
        upstream.failure = UpstreamUnavailable("restarting")
        await _asked(upstream, 2)
        upstream.served, upstream.failure = ["org/model-b"], None
        await _asked(upstream, 2)
        asked = upstream.asked
        assert await name_of(models, None) == "org/model-b"
        assert upstream.asked == asked
    finally:
        watching.cancel()


async def _asked(upstream: FakeUpstream, times: int) -> None:
    """Wait until vLLM was asked `times` more."""
    async with asyncio.timeout(10):
        for _ in range(times):
            upstream.was_asked.clear()
            await upstream.was_asked.wait()


class ListedUpstream(FakeUpstream):
    """Serves entries as vLLM lists them."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        super().__init__()
        self.entries = entries

    async def models(self) -> list[ServedModel]:
        return [ServedModel(entry["id"], entry) for entry in self.entries]


@pytest.mark.parametrize(
    ("requested", "name", "length"),
    [
        (None, "base", 16384),
        ("default", "base", 16384),
        ("other", "other", 1000),
        ("adapter", "adapter", 16384),
        ("adapter of the other", "adapter of the other", 1000),
        ("orphan", "orphan", None),
        ("silent", "silent", None),
        ("odd", "odd", None),
    ],
)
async def test_a_model_is_as_long_as_vllm_says_an_adapter_as_long_as_its_model(
    requested: str | None, name: str, length: int | None
) -> None:
    upstream = ListedUpstream(
        {"id": "base", "max_model_len": 16384},
        {"id": "adapter", "parent": "base", "max_model_len": None},
        {"id": "other", "max_model_len": 1000},
        {"id": "adapter of the other", "parent": "other"},
        {"id": "orphan", "parent": "gone"},
        {"id": "silent"},
        {"id": "odd", "max_model_len": "long"},
    )

    loaded = await Models([upstream], poll_interval_s=1).loaded(requested)
    assert (loaded.name, loaded.max_model_len) == (name, length)


async def test_a_server_that_failed_is_to_be_asked_again_when_its_time_is_over(
    upstream: FakeUpstream,
) -> None:
    breakers = Breakers(most_failures=1, open_s=0.05)
    models = Models([upstream], poll_interval_s=1, care=Care(1, breakers, RetryBudget("models")))
    await models.refresh()
    breakers.of(upstream).failed(UpstreamBroken("silent", was_silent=True))
    assert models.none_may_be_asked

    await asyncio.sleep(0.1)
    await models.refresh()
    assert not models.none_may_be_asked


class Hanging(FakeUpstream):
    """Does not say what it serves, as a process that is stopped."""

    async def models(self) -> list[ServedModel]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


async def test_a_server_that_hangs_is_not_waited_for_where_another_one_serves(
    upstream: FakeUpstream,
) -> None:
    models = Models([Hanging(), upstream, FakeUpstream()], poll_interval_s=1)
    before = asyncio.all_tasks()
    async with asyncio.timeout(10):
        await models.until_served()

    assert [model.id for model in models.served] == ["org/model-a"]
    await asyncio.sleep(0)  # where the others end
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("failure", [None, UpstreamUnavailable("no model loaded yet")])
async def test_where_no_server_serves_anything_the_reason_is_told(
    upstream: FakeUpstream, failure: Exception | None
) -> None:
    upstream.served, upstream.failure = [], failure
    with pytest.raises(UpstreamUnavailable, match="no model loaded yet"):
        await Models([upstream, upstream], poll_interval_s=1).until_served()
