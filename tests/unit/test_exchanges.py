"""What ends a request before its time, in the order that a server may tell it in."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.errors import GatewayStopping
from gateway.exchanges import Exchanges, exchange_of
from gateway.heartbeats import COMMENT, Heartbeat

pytestmark = pytest.mark.anyio

Message = dict[str, Any]
WHOLE: Message = {"type": "http.request", "body": b"{}", "more_body": False}
BEGUN: Message = {"type": "http.request", "body": b"{", "more_body": True}
LEFT: Message = {"type": "http.disconnect"}
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b"", "more_body": False}
STOPPING = GatewayStopping("it ends")


class Client:
    """What a server hands to an application, and gets from it."""

    def __init__(self, *said: Message) -> None:
        self.said: asyncio.Queue[Message] = asyncio.Queue()
        for message in said:
            self.say(message)
        self.heard: list[Message] = []
        self.scope: Any = None

    def say(self, message: Message) -> None:
        self.said.put_nowait(message)

    async def send(self, message: Message) -> None:
        self.heard.append(message)


class Handler:
    """An application that does what a test says, and remembers how it ended."""

    def __init__(self, work: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self._work = work
        self.outcome = "none"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._work(scope, receive, send)
            self.outcome = "done"
        except asyncio.CancelledError:
            self.outcome = "cancelled"
            raise


async def served(
    handler: Handler, client: Client, exchanges: Exchanges | None = None, method: str = "POST"
) -> "asyncio.Task[None]":
    """The task of a request, as far as it gets by itself."""
    app: Any = (exchanges or Exchanges()).middleware(handler)
    scope: Any = {"type": "http", "method": method, "headers": []}
    client.scope = scope
    task: asyncio.Task[None] = asyncio.create_task(app(scope, client.said.get, client.send))
    await asyncio.sleep(0.01)
    return task


async def waits(_: Any, receive: Any, __: Any) -> None:
    await receive()
    await asyncio.sleep(60)


async def test_a_client_that_leaves_ends_what_is_done_for_it() -> None:
    client, handler = Client(WHOLE), Handler(waits)
    task = await served(handler, client)
    client.say(LEFT)
    await asyncio.wait_for(task, 10)

    assert (handler.outcome, client.heard) == ("cancelled", [])


async def test_it_does_so_in_the_middle_of_a_body() -> None:
    async def reads(_: Any, receive: Any, __: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    client, handler = Client(BEGUN, BEGUN), Handler(reads)
    task = await served(handler, client)
    client.say(LEFT)
    await asyncio.wait_for(task, 10)

    assert handler.outcome == "cancelled"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_it_does_so_where_nobody_reads_a_body(method: str) -> None:
    async def sleeps(*_: Any) -> None:
        await asyncio.sleep(60)

    client, handler = Client(WHOLE), Handler(sleeps)
    task = await served(handler, client, method=method)
    client.say(LEFT)
    await asyncio.wait_for(task, 10)

    assert handler.outcome == "cancelled"


async def test_what_goes_on_after_the_answer_is_left_alone() -> None:
    async def answers(_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(LAST)
        assert await receive() == LEFT
        await asyncio.sleep(0.02)

    client, handler = Client(WHOLE), Handler(answers)
    task = await served(handler, client)
    client.say(LEFT)  # as a server says when the answer is complete
    await asyncio.wait_for(task, 10)

    assert handler.outcome == "done"


async def test_an_end_before_the_answer_is_raised_for_who_makes_a_response_of_it() -> None:
    exchanges, client = Exchanges(), Client(WHOLE)
    task = await served(Handler(waits), client, exchanges)
    exchanges.end(STOPPING)

    with pytest.raises(GatewayStopping):
        await asyncio.wait_for(task, 10)
    assert task.cancelling() == 0


async def test_an_end_in_a_stream_is_its_last_event() -> None:
    async def streams(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        exchange_of(scope).tell = lambda failure: f"error: {failure}".encode()
        await send(START)
        await asyncio.sleep(60)

    exchanges, client = Exchanges(), Client(WHOLE)
    task = await served(Handler(streams), client, exchanges)
    exchanges.end(STOPPING)
    await asyncio.wait_for(task, 10)

    assert [message.get("body") for message in client.heard] == [None, b"error: it ends", b""]
    assert client.heard[-1] == LAST


async def test_an_end_among_bytes_leaves_them_incomplete() -> None:
    async def downloads(_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await asyncio.sleep(60)

    exchanges, client = Exchanges(), Client(WHOLE)
    task = await served(Handler(downloads), client, exchanges)
    exchanges.end(STOPPING)
    await asyncio.wait_for(task, 10)

    assert client.heard == [START]


async def test_a_cancellation_by_somebody_else_stays_one() -> None:
    task = await served(Handler(waits), Client(WHOLE))
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_answers_of_a_gateway_that_drains_close_their_connections() -> None:
    async def answers(_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START | {"headers": [(b"a", b"b")]})
        await send(LAST)

    exchanges, client = Exchanges(), Client(WHOLE)
    exchanges.are_draining = True
    await (await served(Handler(answers), client, exchanges))

    assert client.heard[0]["headers"] == [(b"a", b"b"), (b"connection", b"close")]


async def test_nothing_is_left_of_a_request_for_the_garbage_collector() -> None:
    left: list[weakref.ref[Any]] = []

    async def answers(scope: Any, receive: Any, send: Any) -> None:
        left.append(weakref.ref(exchange_of(scope)))
        await receive()
        await send(START)
        await send(LAST)

    gc.disable()
    try:
        # A server's own functions lead to the scope of the request.
        client = Client(WHOLE)
        task = await served(Handler(answers), client)
        await task
        await asyncio.sleep(0)
        del task, client
        assert left[0]() is None
    finally:
        gc.enable()


async def test_a_heartbeat_never_comes_twice_for_one_silence_nor_while_a_client_does_not_read() -> (
    None
):
    heard: list[bytes] = []
    may_go = asyncio.Event()
    may_go.set()

    async def send(message: Any) -> None:
        await may_go.wait()
        heard.append(message["body"])

    heart = Heartbeat(send, 0.1)
    await heart.send(b"one")
    await asyncio.sleep(0.15)
    assert heard == [b"one", COMMENT]
    may_go.clear()
    blocked = asyncio.create_task(heart.send(b"two"))
    await asyncio.sleep(0.5)
    may_go.set()
    await blocked
    assert heard == [b"one", COMMENT, b"two"]
    await asyncio.sleep(0.15)
    heart.stop()
    await asyncio.sleep(0.3)
    assert heard == [b"one", COMMENT, b"two", COMMENT]


async def test_a_piece_that_comes_while_a_comment_waits_comes_behind_it() -> None:
    heard: list[bytes] = []
    may_go = asyncio.Event()

    async def send(message: Any) -> None:
        await may_go.wait()
        heard.append(message["body"])

    heart = Heartbeat(send, 0.05)
    await asyncio.sleep(0.3)
    blocked = asyncio.create_task(heart.send(b"piece"))
    await asyncio.sleep(0.2)
    may_go.set()
    await blocked
    heart.stop()
    assert heard == [COMMENT, b"piece"]
