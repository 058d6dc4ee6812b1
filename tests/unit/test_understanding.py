"""From the last turn to what is searched for, with a model that may do anything."""

import asyncio
import time
from typing import Any

import msgspec
import pytest

from gateway.access.request_guard import RequestGuard
from gateway.chat.request import ChatRequest
from gateway.conversation import Conversation
from gateway.errors import UpstreamBroken, UpstreamFailure, UpstreamRejected, UpstreamUnavailable
from gateway.models import Loaded
from gateway.routing import Route
from gateway.understanding import (
    QUESTION_CHARS,
    TURN_CHARS,
    Understanding,
    Understood,
    leans_on_history,
    searched,
)
from gateway.upstream_answer import UpstreamAnswer
from indexer.index.terms import Terms
from tests.unit.conftest import FakeAnswer, FakeUpstream

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("acting")]

FOLLOW_UP = "and how large should it be?"
ALONE = "How large should the buffer pool of MySQL be on a dedicated server?"
HISTORY = [
    {"role": "user", "content": "What is the buffer pool of MySQL?"},
    {"role": "assistant", "content": "It caches tables and indexes [1]."},
]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


class SlowUpstream(FakeUpstream):
    """Takes its time with every answer, and remembers whether it was let go."""

    cancelled = False

    async def post(self, path: str, content: bytes) -> UpstreamAnswer:
        self.posted.append((path, content))
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError("nobody waits so long")


def completion(text: str | None, finish_reason: str = "stop") -> FakeAnswer:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": finish_reason}
    return FakeAnswer([msgspec.json.encode({"choices": [choice]})])


def talk(question: Any, history: list[Any] | None = None) -> Conversation:
    messages = [*(HISTORY if history is None else history), {"role": "user", "content": question}]
    return ChatRequest(msgspec.json.encode({"model": "default", "messages": messages}))


async def understood(
    upstream: FakeUpstream, conversation: Conversation, count: int = 1, timeout_s: float = 5
) -> Understood:
    model = Loaded("org/model-a", Route([upstream]), 4096)
    return await Understanding(timeout_s, RequestGuard("acme")).queries(conversation, model, count)


def asked(upstream: FakeUpstream) -> dict[str, Any]:
    [(path, body)] = upstream.posted
    assert path == "/chat/completions"
    return msgspec.json.decode(body, type=dict[str, Any])


async def test_a_follow_up_is_put_so_that_it_stands_alone(upstream: FakeUpstream) -> None:
    answer = completion(ALONE)
    upstream.answers = [answer]

    assert await understood(upstream, talk(FOLLOW_UP)) == Understood([ALONE])
    body = asked(upstream)
    assert body["model"] == "org/model-a"
    assert body["temperature"] == 0
    assert body["max_tokens"] < 200
    told = body["messages"][-1]["content"]
    assert told.index(HISTORY[0]["content"]) < told.index(HISTORY[1]["content"])
    assert told.index(HISTORY[1]["content"]) < told.index(FOLLOW_UP)
    assert answer.closed == 1


@pytest.mark.parametrize(
    ("question", "history"),
    [(FOLLOW_UP, []), (ALONE, HISTORY), (ALONE, [])],
    ids=["no history", "stands alone", "neither"],
)
async def test_a_question_that_needs_no_history_costs_no_model(
    upstream: FakeUpstream, question: str, history: list[Any]
) -> None:
    assert await understood(upstream, talk(question, history)) == Understood([question])
    assert upstream.posted == []


async def test_a_time_limit_of_zero_never_asks_the_model(upstream: FakeUpstream) -> None:
    found = await understood(upstream, talk(FOLLOW_UP), count=3, timeout_s=0)

    assert found == Understood([FOLLOW_UP])
    assert upstream.posted == []


async def test_a_model_that_takes_too_long_is_not_waited_for() -> None:
    upstream = SlowUpstream("org/model-a")
    found = await understood(upstream, talk(FOLLOW_UP), timeout_s=0.01)

    assert found == Understood([FOLLOW_UP], "the model took longer than 0.01 s")
    assert upstream.cancelled


@pytest.mark.parametrize(
    "failure",
    [UpstreamUnavailable("away"), UpstreamRejected("too long", 400), UpstreamBroken("silent")],
)
async def test_a_model_that_fails_leaves_the_question_as_it_was(
    upstream: FakeUpstream, failure: UpstreamFailure
) -> None:
    upstream.answers = [failure]

    assert await understood(upstream, talk(FOLLOW_UP)) == Understood([FOLLOW_UP], str(failure))


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"{}", b'{"choices":[]}', b'{"choices":[{}]}', b"\xff",
     b'{"choices":[{"message":null}]}', b'{"choices":[{"message":{"content":["a"]}}]}',
     b'{"x":' + b"[" * 100_000],
)  # fmt: skip
async def test_an_answer_that_makes_no_sense_leaves_the_question_as_it_was(
    upstream: FakeUpstream, body: bytes
) -> None:
    answer = FakeAnswer([body])
    upstream.answers = [answer]
    found = await understood(upstream, talk(FOLLOW_UP))

    assert found.queries == [FOLLOW_UP]
    assert found.fallback
    assert answer.closed == 1


async def test_an_answer_that_breaks_off_leaves_the_question_as_it_was(
    upstream: FakeUpstream,
) -> None:
    answer = FakeAnswer([b'{"choices"'], UpstreamBroken("broke off"))
    upstream.answers = [answer]

    assert (await understood(upstream, talk(FOLLOW_UP))).fallback == "broke off"
    assert answer.closed == 1


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        " \n\n ",
        '"..."',
        "---",
        "Here is the question:",
        f"The buffer pool should be {'very ' * 40}large.",
        "<think>The user wants to know",
        "<think>\nShort thoughts\n</think>",
    ],
)
async def test_an_answer_that_is_no_query_leaves_the_question_as_it_was(
    upstream: FakeUpstream, text: str | None
) -> None:
    upstream.answers = [completion(text)]
    found = await understood(upstream, talk(FOLLOW_UP))

    assert found == Understood([FOLLOW_UP], "the model gave no query")


async def test_an_answer_that_was_cut_off_is_not_searched_for(upstream: FakeUpstream) -> None:
    upstream.answers = [completion("How large should the buf", "length")]

    assert (await understood(upstream, talk(FOLLOW_UP))).queries == [FOLLOW_UP]


@pytest.mark.parametrize(
    "text",
    [
        f"  {ALONE}\n",
        f'"{ALONE}"',
        f"1. {ALONE}",
        f"- {ALONE}",
        f"Query: {ALONE}",
        f"Last question: {ALONE}",
        f"Rewritten question: “{ALONE}”",
        f"Sure, here is the rewritten question:\n\n{ALONE}",
        f"<think>\nWhat is it?\n</think>\n\n{ALONE}",
        f"{ALONE}\nIt should be about 70 % of memory.",
    ],
)
async def test_what_stands_around_a_query_is_taken_away(upstream: FakeUpstream, text: str) -> None:
    upstream.answers = [completion(text)]

    assert (await understood(upstream, talk(FOLLOW_UP))).queries == [ALONE]


async def test_spaces_in_what_the_model_says_take_no_time(upstream: FakeUpstream) -> None:
    upstream.answers = [completion(f"a{' ' * 50_000}b\n{ALONE}")]
    began = time.process_time()

    assert (await understood(upstream, talk(FOLLOW_UP))).queries == [ALONE]
    assert time.process_time() - began < 2


@pytest.mark.parametrize("query", ["3.5 mm jack of the X2", "-5 °C in Milvus", "What is 1.2.3?"])
async def test_a_number_at_the_start_of_a_query_is_no_decoration(
    upstream: FakeUpstream, query: str
) -> None:
    upstream.answers = [completion(query)]

    assert (await understood(upstream, talk(FOLLOW_UP))).queries == [query]


async def test_a_long_question_may_become_a_long_query(upstream: FakeUpstream) -> None:
    question = f"And how does it behave {'in the rain and ' * 20}in the snow?"
    query = question.replace("it", "the llama")
    upstream.answers = [completion(query)]

    assert (await understood(upstream, talk(question))).queries == [query]
    assert asked(upstream)["max_tokens"] > len(query) // 4


async def test_of_a_question_without_end_the_beginning_is_searched_with(
    upstream: FakeUpstream,
) -> None:
    question = "zq " * 1_000_000
    found = await understood(upstream, talk(question))
    assert found.queries == [question[:QUESTION_CHARS]]

    upstream.answers = [completion(ALONE)]
    assert (await understood(upstream, talk(f"And {question}"))).queries == [ALONE]
    assert len(upstream.posted[0][1]) < 2 * QUESTION_CHARS


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("what " * QUESTION_CHARS, QUESTION_CHARS),
        ("라마는 풀을 " * QUESTION_CHARS, QUESTION_CHARS),
        ("\ufdfa" * QUESTION_CHARS, QUESTION_CHARS // 8),
    ],
    ids=["english", "korean", "a ligature of eighteen"],
)
def test_what_is_searched_with_has_few_words(text: str, most: int) -> None:
    assert searched(text) == text[:most]
    assert len(Terms("none")(searched(text))) <= 3 * QUESTION_CHARS


async def test_several_queries_are_the_question_and_other_ways_to_put_it(
    upstream: FakeUpstream,
) -> None:
    upstream.answers = [completion(f"1. One way\n2. Another way\n{ALONE}\n3. A third way\n4. More")]
    found = await understood(upstream, talk(ALONE), count=3)

    assert found.queries == [ALONE, "One way", "Another way"]
    assert "What is the buffer pool" not in asked(upstream)["messages"][-1]["content"]


async def test_several_queries_for_a_follow_up_all_stand_alone(upstream: FakeUpstream) -> None:
    upstream.answers = [completion("One way\nOne way\nAnother way")]
    found = await understood(upstream, talk(FOLLOW_UP), count=3)

    assert found.queries == ["One way", "Another way"]


async def test_images_and_tool_results_in_the_messages_are_passed_over(
    upstream: FakeUpstream,
) -> None:
    history = [
        {"role": "system", "content": "Be secret."},
        {"role": "user", "content": [IMAGE, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "secret result"},
        {"role": "assistant", "content": "It is a llama."},
        {"role": "user", "content": [IMAGE]},
    ]  # fmt: skip
    upstream.answers = [completion("What do llamas eat?")]
    conversation = talk([{"type": "text", "text": "and what does it eat?"}, IMAGE], history)
    before = list(conversation.messages())

    assert (await understood(upstream, conversation)).queries == ["What do llamas eat?"]
    told = asked(upstream)["messages"][-1]["content"]
    assert "user: What is this?\nassistant: It is a llama.\n" in told
    assert "secret" not in told
    assert "base64" not in told
    assert conversation.messages() == before


async def test_long_turns_are_shown_in_part(upstream: FakeUpstream) -> None:
    history = [{"role": "user", "content": "x" * 10 * TURN_CHARS}] * 20
    upstream.answers = [completion(ALONE)]
    await understood(upstream, talk(FOLLOW_UP, history))

    assert len(asked(upstream)["messages"][-1]["content"]) < 7 * TURN_CHARS


@pytest.mark.parametrize(
    ("question", "leans"),
    [
        (FOLLOW_UP, True),
        ("What about the larger model on two machines?", True),
        ("How do I configure the one you mentioned on a server?", True),
        ("Why?", True),
        ("Und wie groß?", True),
        ("那么它有多大?", True),
        (ALONE, False),
        ("Wie groß sollte der Zwischenspeicher einer Datenbank sein?", False),
    ],
)
def test_what_leans_on_the_turns_before_it(question: str, leans: bool) -> None:
    assert leans_on_history(question) is leans


async def test_a_question_keeps_its_language(upstream: FakeUpstream) -> None:
    query = "Wie groß sollte der Puffer von MySQL sein?"
    upstream.answers = [completion(query)]
    found = await understood(upstream, talk("Und wie groß?"))

    assert found.queries == [query]
    assert "language" in asked(upstream)["messages"][0]["content"]
