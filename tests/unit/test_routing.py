"""Several vLLM servers: where a request goes, and where it goes when one fails."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from gateway.errors import (
    ModelNotFound,
    UpstreamBroken,
    UpstreamFailure,
    UpstreamRejected,
    UpstreamUnavailable,
)
from gateway.models import Models
from gateway.routing import Route, by_affinity
from gateway.upstream import Upstream
from tests.unit.conftest import FakeAnswer, FakeUpstream

pytestmark = pytest.mark.anyio

PATH = "/chat/completions"


def server(name: str, *served: str) -> FakeUpstream:
    made = FakeUpstream(*(served or ("m",)))
    made.url = f"http://{name}.test/v1/"
    return made


def names(servers: list[Upstream]) -> list[str]:
    return [each.name for each in servers]


@pytest.fixture
def fleet() -> list[FakeUpstream]:
    return [server(name) for name in ("a", "b", "c")]


async def read(route: Route) -> bytes:
    answer = await route.post(PATH, b"{}")
    try:
        return await answer.read()
    finally:
        await answer.close()


async def test_a_conversation_stays_with_its_server_and_conversations_spread(
    fleet: list[FakeUpstream],
) -> None:
    first = {
        number: by_affinity(fleet, f"opening {number}".encode())[0].name for number in range(300)
    }

    assert first == {
        number: by_affinity(fleet[::-1], f"opening {number}".encode())[0].name
        for number in range(300)
    }
    assert min(Counter(first.values()).values()) > 70


async def test_where_a_server_goes_only_its_own_conversations_move(
    fleet: list[FakeUpstream],
) -> None:
    for number in range(100):
        opening = f"opening {number}".encode()
        before = names(by_affinity(fleet, opening))
        after = names(by_affinity(fleet[:2], opening))

        assert after == [name for name in before if name != fleet[2].name]


@pytest.mark.parametrize(
    "failure",
    [
        UpstreamUnavailable("refused"),
        UpstreamRejected("the engine died", 500),
        UpstreamBroken("broke off"),
    ],
)
async def test_a_request_that_fails_before_its_first_byte_goes_to_another_server(
    fleet: list[FakeUpstream], failure: UpstreamFailure
) -> None:
    fleet[0].answers = [failure]
    fleet[1].answers = [FakeAnswer([b"ok"])]

    assert await read(Route(fleet)) == b"ok"
    assert [len(each.posted) for each in fleet] == [1, 1, 0]


async def test_a_stream_that_breaks_off_before_its_first_byte_is_asked_of_another_server(
    fleet: list[FakeUpstream],
) -> None:
    broken = FakeAnswer([], UpstreamBroken("killed"))
    fleet[0].answers, fleet[1].answers = [broken], [FakeAnswer([b"a", b"b"])]

    assert await read(Route(fleet)) == b"ab"
    assert broken.closed == 1


async def test_what_one_server_does_not_have_is_asked_of_each_other_once(
    fleet: list[FakeUpstream],
) -> None:
    unknown = UpstreamRejected("Response with id 'resp_1' not found.", 404, "response_id")
    for each in fleet:
        each.answers = [unknown]

    with pytest.raises(UpstreamRejected, match="not found"):
        await read(Route(fleet, attempts=5))
    assert [len(each.posted) for each in fleet] == [1, 1, 1]

    fleet[0].answers, fleet[1].answers = [unknown], [FakeAnswer([b"kept"])]
    assert await read(Route(fleet)) == b"kept"


async def test_after_the_first_byte_nothing_is_asked_again(fleet: list[FakeUpstream]) -> None:
    fleet[0].answers = [FakeAnswer([b"half"], UpstreamBroken("killed"))]
    with pytest.raises(UpstreamBroken, match="killed"):
        await read(Route(fleet))

    assert [len(each.posted) for each in fleet] == [1, 0, 0]


@pytest.mark.parametrize(
    "failure",
    [
        UpstreamRejected("wrong temperature", 400),
        UpstreamRejected("too many", 429),
        UpstreamBroken("silence", was_silent=True),
    ],
)
async def test_what_another_server_would_say_as_well_is_not_asked_again(
    fleet: list[FakeUpstream], failure: UpstreamFailure
) -> None:
    fleet[0].answers = [failure]
    with pytest.raises(type(failure)):
        await read(Route(fleet, attempts=3))

    assert [len(each.posted) for each in fleet] == [1, 0, 0]


@pytest.mark.parametrize("failure", [UpstreamRejected("died", 500), UpstreamBroken("broke off")])
async def test_one_server_alone_is_not_asked_again_for_what_it_failed_at(
    fleet: list[FakeUpstream], failure: UpstreamFailure
) -> None:
    fleet[0].answers = [failure]
    with pytest.raises(type(failure)):
        await read(Route(fleet[:1], attempts=3))

    assert len(fleet[0].posted) == 1


async def test_a_server_that_answers_slowly_is_handed_on_before_its_first_byte(
    monkeypatch: pytest.MonkeyPatch, fleet: list[FakeUpstream]
) -> None:
    class Slow(FakeAnswer):
        async def iter_bytes(self) -> AsyncIterator[bytes]:
            await asyncio.sleep(0.05)
            yield b"late"

    monkeypatch.setattr("gateway.routing.PATIENCE_S", 0.001)
    fleet[0].answers = [Slow([])]

    assert await read(Route(fleet)) == b"late"


class TestModelsOfSeveralServers:
    async def test_requests_go_to_who_serves_the_model(self) -> None:
        servers = [server("a", "small"), server("b", "large", "small"), server("c", "other")]
        models = Models(servers, poll_interval_s=1)

        assert set(names([*(await models.loaded("small")).route.servers])) == {
            "http://a.test/v1/",
            "http://b.test/v1/",
        }
        assert names([*(await models.loaded("other")).route.servers]) == ["http://c.test/v1/"]
        assert (await models.loaded("default")).name == "small"
        with pytest.raises(ModelNotFound, match="default, small, large, other"):
            await models.loaded("none")

    async def test_who_is_away_is_passed_over_until_it_is_back(self) -> None:
        servers = [server("a"), server("b")]
        models = Models(servers, poll_interval_s=1)
        servers[0].failure = UpstreamUnavailable("away")
        await models.refresh()

        assert names([*(await models.loaded("m")).route.servers]) == ["http://b.test/v1/"]
        servers[0].failure = None
        await models.refresh()
        assert len((await models.loaded("m")).route.servers) == 2

    async def test_who_fails_at_a_request_is_passed_over_by_the_next(self) -> None:
        servers = [server("a"), server("b")]
        models = Models(servers, poll_interval_s=1)
        route = (await models.loaded("m")).route
        for each in servers:
            each.answers = [FakeAnswer([b"ok"])]
        first = route.servers[0]
        assert isinstance(first, FakeUpstream)
        first.answers = [UpstreamUnavailable("gone")]

        assert await read(route) == b"ok"
        assert first.name not in names([*(await models.loaded("m")).route.servers])

    async def test_where_all_are_away_the_first_reason_is_told(self) -> None:
        servers = [server("a"), server("b")]
        for each in servers:
            each.failure = UpstreamUnavailable(f"{each.name} is away")
        with pytest.raises(UpstreamUnavailable, match=r"a\.test"):
            await Models(servers, poll_interval_s=1).refresh()

    async def test_the_shortest_context_of_all_counts(self) -> None:
        servers = [server("a"), server("b")]
        models = Models(servers, poll_interval_s=1)
        await models.refresh()
        models._served[servers[1]][0].fields["max_model_len"] = 1000

        assert (await models.loaded("m")).max_model_len == 1000


class TestWaiting:
    async def test_a_request_waits_while_a_model_is_loading(self) -> None:
        loading = server("a")
        loading.served = []
        models = Models([loading], poll_interval_s=1, wait_s=5)
        waiting = [asyncio.create_task(models.loaded("default")) for _ in range(20)]
        await asyncio.sleep(0.1)
        asked = loading.asked
        loading.served = ["m"]

        assert {(await each).name for each in waiting} == {"m"}
        assert asked == 1  # for all of them together

    async def test_a_request_waits_no_longer_than_it_may(self) -> None:
        away = server("a")
        away.failure = UpstreamUnavailable("refused")
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(UpstreamUnavailable, match="refused"):
            await Models([away], poll_interval_s=1, wait_s=0.4).loaded("default")

        assert 0.2 < loop.time() - began < 2

    async def test_a_model_whose_server_may_be_away_is_not_called_unknown(self) -> None:
        servers = [server("a", "small"), server("b", "large")]
        models = Models(servers, poll_interval_s=1)
        servers[1].failure = UpstreamUnavailable("away")
        with pytest.raises(UpstreamUnavailable):
            await models.loaded("large")

        servers[1].failure = None
        assert (await models.loaded("large")).name == "large"

    async def test_a_name_that_is_wrong_is_not_waited_for(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(ModelNotFound):
            await Models([server("a")], poll_interval_s=1, wait_s=60).loaded("none")

        assert loop.time() - began < 1


async def test_default_and_aliases_are_listed_with_their_length() -> None:
    models = Models(
        [server("a", "org/m")],
        poll_interval_s=1,
        aliases={"gpt-4o": "default", "plain": "org/m:no-retrieval", "none": "org/gone"},
    )

    listed = {entry["id"]: entry["max_model_len"] for entry in await models.listed()}
    assert listed == dict.fromkeys(["org/m", "default", "gpt-4o", "plain"], 4096)
    assert (await models.entry("plain"))["id"] == "plain"
    assert (await models.loaded("plain")).name == "org/m"
