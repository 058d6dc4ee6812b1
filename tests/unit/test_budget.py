"""What fits into the model's context: exactly what vLLM's count allows, and nothing less."""

import logging
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.budget import Budget, Fitted, likely_tokens, most_tokens
from gateway.chat.request import ChatRequest
from gateway.errors import (
    ContextLengthExceeded,
    UpstreamBroken,
    UpstreamFailure,
    UpstreamRejected,
    UpstreamUnavailable,
)
from gateway.models import Loaded
from gateway.prompt import PromptTemplate
from gateway.routing import Route
from gateway.upstream import Count, Upstream
from indexer.index.records import Hit

pytestmark = pytest.mark.anyio

TEMPLATE = PromptTemplate(Path(__file__).parents[2] / "gateway" / "prompts" / "answer.j2")
DEFAULT_ROOM = 256
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


class Tokenizer(Upstream):
    """vLLM with a word for a token, four more for each message, and seven for the template."""

    def __init__(self, max_model_len: int) -> None:
        self.max_model_len = max_model_len
        self.failure: UpstreamFailure | None = None
        self.asked: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        return "http://vllm.test/v1/"

    async def tokenize(self, content: bytes) -> Count:
        body = msgspec.json.decode(content, type=dict[str, Any])
        self.asked.append(body)
        if self.failure is not None:
            raise self.failure
        return Count(words(body), self.max_model_len)


def words(body: dict[str, Any]) -> int:
    messages: int = sum(4 + len(str(message["content"]).split()) for message in body["messages"])
    return messages + len(str(body.get("tools", "")).split()) + 7


def hit(words: int, name: str = "c") -> Hit:
    return Hit(
        chunk_id=name, document_id="d", source="s.md", title="T", heading_path="", start=0,
        end=1, text=" ".join(["word"] * words), score=0.5,
    )  # fmt: skip


def asking(question: str = "What?", history: list[Any] | None = None, **fields: Any) -> ChatRequest:
    messages = [*(history or []), {"role": "user", "content": question}]
    return ChatRequest(msgspec.json.encode({"model": "m", "messages": messages, **fields}))


def past(*sizes: int) -> list[dict[str, str]]:
    """Exchanges of two messages, of so many words each."""
    roles = ("user", "assistant")
    return [{"role": role, "content": "old " * size} for size in sizes for role in roles]


def budget(*, trim_history: bool = False) -> Budget:
    return Budget(TEMPLATE, answer_tokens=DEFAULT_ROOM, trim_history=trim_history)


async def fit(
    vllm: Tokenizer, conversation: ChatRequest, hits: list[Hit], *, trim_history: bool = False
) -> Fitted:
    model = Loaded("m", Route([vllm]), vllm.max_model_len)
    return await budget(trim_history=trim_history).fit(conversation, hits, model)


def sent(conversation: ChatRequest, fitted: Fitted) -> dict[str, Any]:
    """What vLLM gets when `fitted` is done to `conversation`."""
    conversation.augment(fitted.prompt, fitted.forgotten)
    return msgspec.json.decode(conversation.encode("m", {}), type=dict[str, Any])


class Case(NamedTuple):
    """A request, what was found for it, and the model."""

    hits: list[Hit]
    history: list[dict[str, str]]
    fields: dict[str, Any]
    question: str
    max_model_len: int
    trim_history: bool

    @property
    def room(self) -> int:
        return max(1, int(self.fields.get("max_tokens", DEFAULT_ROOM)))

    def conversation(self) -> ChatRequest:
        return asking(self.question, self.history, **self.fields)

    def tokens(self, kept: int, forgotten: int) -> int:
        of = self.conversation()
        prompt = TEMPLATE.render(of.question, self.hits[:kept]) if kept else None
        messages = [msgspec.json.decode(message) for message in of.messages(prompt, forgotten)]
        return words({**self.fields, "messages": messages})

    def expected(self) -> tuple[int, int] | None:
        """How many hits stay and how many exchanges leave, by trying everything; None: too long."""
        limit = self.max_model_len
        forgettable = len(self.conversation().exchanges) if self.trim_history else 0

        def most(forgotten: int) -> int:
            kept = range(len(self.hits), 0, -1)
            return next((n for n in kept if self.tokens(n, forgotten) + self.room <= limit), 0)

        for forgotten in range(forgettable + 1):
            if (kept := most(forgotten)) > 0:
                return kept, forgotten
        rooms = [self.room, 1] if forgettable else [1]
        for room in rooms:
            for forgotten in range(forgettable + 1):
                if self.tokens(0, forgotten) + room <= limit:
                    return 0, forgotten
        return None


cases = st.builds(
    Case,
    hits=st.lists(st.integers(0, 300), max_size=12).map(
        lambda sizes: [hit(size, f"c{place}") for place, size in enumerate(sizes)]
    ),
    history=st.lists(st.integers(0, 400), max_size=6).map(lambda sizes: past(*sizes)),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "max_tokens": st.integers(0, 1500),
            "tools": st.integers(1, 100).map(lambda n: [{"d": "t " * n}]),
        },
    ),
    question=st.integers(1, 300).map(lambda n: "why " * n),
    max_model_len=st.sampled_from([1000, 1000, 500, 2048, 4096]) | st.integers(50, 6000),
    trim_history=st.booleans(),
)


async def assert_exactly_what_fits_is_sent(case: Case) -> None:
    vllm = Tokenizer(case.max_model_len)
    conversation = case.conversation()
    expected = case.expected()
    if expected is None:
        with pytest.raises(ContextLengthExceeded) as refused:
            await fit(vllm, conversation, case.hits, trim_history=case.trim_history)
        assert str(case.tokens(0, 0)) in str(refused.value)
        assert str(case.max_model_len) in str(refused.value)
        return
    fitted = await fit(vllm, conversation, case.hits, trim_history=case.trim_history)
    body = sent(conversation, fitted)
    kept, forgotten = expected

    assert words(body) < case.max_model_len
    assert fitted.hits == case.hits[:kept]
    assert fitted.hits_left_out == len(case.hits) - kept
    assert fitted.forgotten == forgotten
    assert fitted.messages_left_out == 2 * forgotten
    assert body["messages"][:-1] == case.history[2 * forgotten :]
    assert body["messages"][-1]["content"].strip().endswith(case.question.strip())
    assert (fitted.prompt is None) == (kept == 0)


@settings(max_examples=200)
@given(cases)
async def test_exactly_what_fits_is_sent_in_order_and_what_is_left_out_is_said(case: Case) -> None:
    await assert_exactly_what_fits_is_sent(case)


@settings(max_examples=200)
@given(cases, st.integers(0, 12), st.integers(0, 2), st.booleans(), st.sampled_from([-1, 0, 1]))
async def test_it_is_exact_to_the_token(
    case: Case, kept: int, forgotten: int, bare: bool, beyond: int
) -> None:
    room = 1 if bare else case.room
    length = case.tokens(min(kept, len(case.hits)), forgotten) + room + beyond
    await assert_exactly_what_fits_is_sent(case._replace(max_model_len=length))


async def test_the_best_of_many_hits_are_found_with_few_questions() -> None:
    vllm = Tokenizer(1000)
    fitted = await fit(vllm, asking(), [hit(50)] * 50)

    assert 0 < len(fitted.hits) < 50
    assert len(vllm.asked) <= 8


async def test_vllm_is_not_asked_where_everything_fits_whatever_the_tokenizer() -> None:
    vllm = Tokenizer(16384)
    fitted = await fit(vllm, asking(history=past(100), tools=[{"a": 1}]), [hit(200), hit(200)])

    assert len(fitted.hits) == 2
    assert vllm.asked == []


@pytest.mark.parametrize("text", ["word " * 3000, "\u0958" * 1200, "🦙" * 1200])
async def test_vllm_is_asked_where_another_tokenizer_might_need_more(text: str) -> None:
    vllm = Tokenizer(6500)
    await fit(vllm, asking(text), [])

    assert len(vllm.asked) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"chat_template": "x"},
        {"chat_template_kwargs": {"a": 1}},
        {"documents": [{"text": "t"}]},
        {"messages": [{"role": "user", "content": [IMAGE, {"type": "text", "text": "a"}]}]},
    ],
)  # fmt: skip
async def test_vllm_is_always_asked_where_bytes_say_nothing_about_tokens(
    fields: dict[str, Any],
) -> None:
    vllm = Tokenizer(100_000)
    await fit(vllm, asking(**fields), [hit(1)])

    assert len(vllm.asked) == 1


async def test_the_model_that_is_loaded_when_it_counts_decides() -> None:
    """It was swapped after it was looked up."""
    vllm = Tokenizer(300)
    fitted = await budget().fit(asking("word " * 100), [hit(300)], Loaded("m", Route([vllm]), 2500))

    assert fitted.hits == []


async def test_a_server_that_does_not_tell_its_length_is_asked() -> None:
    vllm = Tokenizer(500)
    fitted = await budget().fit(asking(), [hit(50), hit(400)], Loaded("m", Route([vllm]), None))

    assert [len(found.text.split()) for found in fitted.hits] == [50]


async def test_a_minimum_that_the_client_asks_for_has_room_beside_the_hits() -> None:
    vllm = Tokenizer(1000)
    few = await fit(vllm, asking(min_tokens=700), [hit(50)] * 10)
    many = await fit(vllm, asking(), [hit(50)] * 10)

    assert 0 < len(few.hits) < len(many.hits)


async def test_without_the_setting_history_stays_and_is_too_long_as_openai_words_it() -> None:
    with pytest.raises(ContextLengthExceeded) as refused:
        await fit(Tokenizer(1000), asking(history=past(600)), [])

    assert refused.value.param == "messages"
    assert str(refused.value) == (
        "This model's maximum context length is 1000 tokens. However, your messages resulted in "
        "1220 tokens. Please reduce the length of the messages."
    )


async def test_a_prompt_that_the_client_wants_cut_is_never_too_long() -> None:
    conversation = asking("why " * 2000, truncate_prompt_tokens=500)

    assert (await fit(Tokenizer(1000), conversation, [hit(1)])).prompt is None


async def test_history_gives_way_to_the_best_hit_and_the_rest_fills_what_is_free() -> None:
    fitted = await fit(
        Tokenizer(1000), asking(history=past(300, 5)), [hit(100)] * 9, trim_history=True
    )

    assert (fitted.forgotten, fitted.messages_left_out) == (1, 2)
    assert 1 < len(fitted.hits) < 9


@pytest.mark.parametrize(
    "failure",
    [
        UpstreamRejected("no such path", 404),
        UpstreamRejected("gone", 500),
        UpstreamBroken("silent"),
    ],
)
async def test_where_nothing_is_counted_a_careful_estimate_decides_and_the_log_says_so_once(
    failure: UpstreamFailure, caplog: pytest.LogCaptureFixture
) -> None:
    vllm = Tokenizer(1000)
    vllm.failure = failure
    fitting = budget()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            fitted = await fitting.fit(asking(), [hit(60)] * 20, Loaded("m", Route([vllm]), 1000))

    assert 0 < len(fitted.hits) < 20
    assert words(sent(asking(), fitted)) + DEFAULT_ROOM <= 1000
    assert len(vllm.asked) == 3
    assert [str(failure) in record.getMessage() for record in caplog.records] == [True]


async def test_an_estimate_refuses_nothing_nor_is_a_request_that_vllm_refuses_told_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    vllm = Tokenizer(1000)
    vllm.failure = UpstreamRejected("tools make no sense", 400)

    assert (await fit(vllm, asking("word " * 5000, tools=5), [hit(1)])).prompt is None
    assert caplog.records == []


async def test_a_model_server_that_is_away_is_not_estimated() -> None:
    vllm = Tokenizer(1000)
    vllm.failure = UpstreamUnavailable("away")
    with pytest.raises(UpstreamUnavailable):
        await fit(vllm, asking(), [hit(1)])


def raw(content: str) -> list[msgspec.Raw]:
    return [msgspec.Raw(msgspec.json.encode({"role": "user", "content": content}))]


@given(st.text(max_size=300))
def test_no_tokenizer_over_bytes_makes_more_tokens_than_the_upper_bound(text: str) -> None:
    assert most_tokens(raw(text), b"") >= len(text.encode()) + 2048


def test_marks_without_end_are_bounded_without_bringing_them_into_an_order() -> None:
    text = "a" + "\u0301" * 40_000 + "\u0327" * 40_000
    began = time.process_time()
    assert most_tokens(raw(text), b"") >= len(text.encode()) + 2048
    assert time.process_time() - began < 2


def test_what_is_too_long_by_its_bytes_is_brought_into_no_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forms: list[str] = []
    normalize = unicodedata.normalize

    def counted(form: Literal["NFC"], text: str) -> str:
        forms.append(form)
        return normalize(form, text)

    monkeypatch.setattr(unicodedata, "normalize", counted)
    long = raw("\u0958" * 1000)

    assert most_tokens(long, b"", 5000) > 5000
    assert forms == []
    assert most_tokens(long, b"", 5100) > 5100
    assert forms


ESTIMATES: list[tuple[str, Callable[[str], float]]] = [
    ("The index is rebuilt beside the old one. " * 50, lambda text: len(text) / 4),
    ("索引在旧索引旁边重建。" * 50, lambda text: len(text) * 1.4),
    ("def f(x):\n    return x[0] + 1\n" * 50, lambda text: len(text) / 3.2),
]


@pytest.mark.parametrize(("text", "usual"), ESTIMATES, ids=["english", "chinese", "code"])
def test_an_estimate_is_above_what_usual_tokenizers_make_and_below_twice_that(
    text: str, usual: Callable[[str], float]
) -> None:
    assert usual(text) < likely_tokens(raw(text), b"") < 2 * usual(text)


def test_a_picture_in_the_request_is_estimated_by_itself() -> None:
    picture = raw("data:image/png;base64," + "iVBORw0KGgo=" * 10_000)

    assert 900 < likely_tokens(picture, b"") < 1100


def test_vllm_counts_what_it_would_generate_from() -> None:
    rendered: dict[str, Any] = {
        "tools": [{"type": "function"}],
        "add_generation_prompt": False,
        "continue_final_message": True,
        "add_special_tokens": True,
        "chat_template": "t",
        "media_io_kwargs": {"image": {}},
        "mm_processor_kwargs": {"a": 1},
    }
    sent_alone: dict[str, Any] = {
        "temperature": 1,
        "stream": True,
        "max_tokens": 5,
        "retrieval": True,
    }
    of = asking("p", **rendered, **sent_alone)
    body = msgspec.json.decode(of.tokenization("served", of.messages()))

    assert body == {**rendered, "model": "served", "messages": [{"role": "user", "content": "p"}]}


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, None),
        ({"chat_template_kwargs": {"a": 1}}, {"a": 1}),
        ({"documents": [{"text": "t"}]}, {"documents": [{"text": "t"}]}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low", "enable_thinking": True}),
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none", "enable_thinking": False}),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}},
            {"reasoning_effort": "low", "enable_thinking": False},
        ),
        ({"reasoning_effort": None, "documents": None}, None),
        ({"chat_template_kwargs": 5}, None),
    ],
)
def test_what_chat_requests_have_fields_for_reaches_the_template_as_options(
    fields: dict[str, Any], options: dict[str, Any] | None
) -> None:
    of = asking(**fields)
    body = msgspec.json.decode(of.tokenization("served", of.messages()))

    assert body.get("chat_template_kwargs") == options
