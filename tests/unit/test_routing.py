"""Several vLLM servers: where a request goes, and where it goes when one fails."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from gateway.breaker import Breakers
from gateway.errors import (
    ModelNotFound,
    UpstreamBroken,
    UpstreamFailure,
    UpstreamRejected,
    UpstreamUnavailable,
)
from gateway.models import Models
from gateway.routing import Care, Route, by_affinity
from gateway.upstream import ServedModel, Upstream
from gateway.upstream_answer import UpstreamAnswer
from tests.unit.conftest import FakeAnswer, FakeUpstream

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("acting")]

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
        await read(Route(fleet, Care(5)))
    assert [len(each.posted) for each in fleet] == [1, 1, 1]

    fleet[0].answers, fleet[1].answers = [unknown], [FakeAnswer([b"kept"])]
    assert await read(Route(fleet)) == b"kept"


TAKEN = UpstreamUnavailable("left", is_connected=True, may_run=True)
UNHEARD = UpstreamUnavailable("left", is_connected=True, may_run=True, was_unheard=True)
NOT_READY = UpstreamUnavailable("not ready", is_connected=True)
REFUSED = UpstreamUnavailable("refused")


@pytest.mark.parametrize(
    ("failure", "alone", "of_three"),
    [
        (REFUSED, 4, 4),
        (NOT_READY, 4, 4),
        (UNHEARD, 4, 4),
        (TAKEN, 1, 3),
        (UpstreamRejected("died", 500), 1, 3),
        (UpstreamBroken("broke off"), 1, 3),
        (UpstreamBroken("silence", was_silent=True), 1, 1),
    ],
)
async def test_what_a_server_may_be_at_is_asked_of_each_other_once_and_not_of_it_again(
    fleet: list[FakeUpstream], failure: UpstreamFailure, alone: int, of_three: int
) -> None:
    for servers, expected in ((fleet[:1], alone), (fleet, of_three)):
        for each in fleet:
            each.answers, each.posted = [failure] * 9, []
        with pytest.raises(type(failure)):
            await read(Route(servers, Care(4)))
        assert sum(len(each.posted) for each in fleet) == expected


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (REFUSED, 4),
        (NOT_READY, 4),
        (UNHEARD, 1),
        (TAKEN, 1),
        (UpstreamRejected("died", 500), 1),
        (UpstreamBroken("broke off"), 1),
    ],
)
async def test_what_may_not_be_repeated_is_sent_again_only_where_nobody_has_taken_it(
    fleet: list[FakeUpstream], failure: UpstreamFailure, expected: int
) -> None:
    for each in fleet:
        each.answers = [failure] * 9
    with pytest.raises(type(failure)):
        await Route(fleet, Care(4)).post(PATH, b"{}", may_repeat=False)

    assert sum(len(each.posted) for each in fleet) == expected


async def test_an_earlier_response_is_looked_for_also_where_it_may_not_be_repeated(
    fleet: list[FakeUpstream],
) -> None:
    fleet[0].answers = [UpstreamRejected("not found", 404, "response_id")]
    fleet[1].answers = [FakeAnswer([b"kept"])]

    answer = await Route(fleet).post(PATH, b"{}", may_repeat=False)
    assert await answer.read() == b"kept"


async def test_without_a_budget_nothing_is_tried_again_but_what_another_has_is_looked_for(
    fleet: list[FakeUpstream],
) -> None:
    care = Care(4)
    while care.budget.withdraw():
        pass
    fleet[0].answers = [REFUSED]
    with pytest.raises(UpstreamUnavailable):
        await read(Route(fleet, care))
    assert [len(each.posted) for each in fleet] == [1, 0, 0]

    fleet[0].answers = [UpstreamRejected("not found", 404, "response_id")]
    fleet[1].answers = [FakeAnswer([b"kept"])]
    assert await read(Route(fleet, care)) == b"kept"


async def test_nothing_is_waited_for_that_is_longer_than_what_is_left(
    fleet: list[FakeUpstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.routing.left_s", lambda: 0.0)
    fleet[0].answers = [REFUSED]
    with pytest.raises(UpstreamUnavailable, match="refused"):
        await read(Route(fleet, Care(4)))

    assert [len(each.posted) for each in fleet] == [1, 0, 0]


class TestABreaker:
    async def test_that_is_open_has_its_server_passed_over(self, fleet: list[FakeUpstream]) -> None:
        care = Care(1, Breakers(1))
        care.breakers.of(fleet[0]).failed(TAKEN)
        fleet[1].answers = [FakeAnswer([b"ok"])]

        assert await read(Route(fleet, care)) == b"ok"
        assert [len(each.posted) for each in fleet] == [0, 1, 0]

    async def test_of_each_server_that_is_open_refuses_at_once_and_says_for_how_long(
        self, fleet: list[FakeUpstream]
    ) -> None:
        care = Care(9, Breakers(1))
        for each in fleet:
            care.breakers.of(each).failed(TAKEN)
        with pytest.raises(UpstreamUnavailable, match="failed 1 times in a row") as refused:
            await read(Route(fleet, care))

        assert 7.4 < (refused.value.retry_after_s or 0) <= 12.5
        assert [len(each.posted) for each in fleet] == [0, 0, 0]

    async def test_that_opens_ends_the_attempts(self, fleet: list[FakeUpstream]) -> None:
        fleet[0].answers = [NOT_READY] * 9
        with pytest.raises(UpstreamUnavailable, match="not ready"):
            await read(Route(fleet[:1], Care(9, Breakers(2))))

        assert len(fleet[0].posted) == 2

    async def test_counts_an_answer_that_breaks_off_after_its_first_byte(
        self, fleet: list[FakeUpstream]
    ) -> None:
        care = Care(1, Breakers(1))
        fleet[0].answers = [FakeAnswer([b"half"], UpstreamBroken("killed"))]
        with pytest.raises(UpstreamBroken):
            await read(Route(fleet, care))

        assert not care.breakers.of(fleet[0]).may_be_asked

    @pytest.mark.parametrize("is_failure", [True, False])
    async def test_counts_a_request_that_was_given_up_only_where_its_time_was_over(
        self, monkeypatch: pytest.MonkeyPatch, is_failure: bool
    ) -> None:
        class Hanging(FakeUpstream):
            async def post(self, path: str, content: bytes) -> UpstreamAnswer:
                await asyncio.sleep(60)
                return await super().post(path, content)

        monkeypatch.setattr("gateway.routing.had_its_time", lambda: is_failure)
        care, hanging = Care(1, Breakers(1)), Hanging()
        asked = asyncio.create_task(read(Route([hanging], care)))
        await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

        assert care.breakers.of(hanging).may_be_asked is not is_failure


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
        await read(Route(fleet, Care(3)))

    assert [len(each.posted) for each in fleet] == [1, 0, 0]


@pytest.mark.parametrize("failure", [UpstreamRejected("died", 500), UpstreamBroken("broke off")])
async def test_one_server_alone_is_not_asked_again_for_what_it_failed_at(
    fleet: list[FakeUpstream], failure: UpstreamFailure
) -> None:
    fleet[0].answers = [failure]
    with pytest.raises(type(failure)):
        await read(Route(fleet[:1], Care(3)))

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

        assert 0.2 < loop.time() - began < 10

    @pytest.mark.parametrize("wait_s", [0.0, 0.3])
    async def test_a_server_that_does_not_say_what_it_serves_is_waited_for_no_longer_either(
        self, wait_s: float
    ) -> None:
        class Hanging(FakeUpstream):
            async def models(self) -> list[ServedModel]:
                await asyncio.sleep(60)
                return []

        began = asyncio.get_running_loop().time()
        with pytest.raises(UpstreamUnavailable, match="does not say what it serves"):
            await Models([Hanging()], poll_interval_s=1, wait_s=wait_s).loaded("default")

        assert asyncio.get_running_loop().time() - began < 10

    async def test_nobody_is_told_of_a_look_that_fails_when_all_have_left(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Slow(FakeUpstream):
            async def models(self) -> list[ServedModel]:
                await asyncio.sleep(0.05)
                raise UpstreamUnavailable("away")

        waiting = asyncio.create_task(Models([Slow()], poll_interval_s=1, wait_s=5).loaded("m"))
        await asyncio.sleep(0.01)
        waiting.cancel()
        del waiting
        await asyncio.sleep(0.1)
        gc.collect()

        assert "never retrieved" not in caplog.text

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

        assert loop.time() - began < 10


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
