"""From a conversation to what its answer stands on, and what is told about that."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from gateway.access.request_guard import RequestGuard
from gateway.budget import Budget
from gateway.chat.request import ChatRequest
from gateway.conversation import Conversation
from gateway.errors import NothingFound, Overloaded, UpstreamBroken, UpstreamUnavailable
from gateway.grounding import Ground, Grounder
from gateway.models import Loaded
from gateway.prompt import PromptTemplate
from gateway.retrieval.catalogue import Catalogue
from gateway.retrieval.retriever import Retriever
from gateway.routing import Route
from gateway.settings import GatewaySettings
from gateway.stages import Stages
from gateway.understanding import Understanding
from gateway.uploads import Uploads
from gateway.upstream import Count
from indexer.index.errors import (
    EncoderUnavailable,
    EncodingFailed,
    FilterInvalid,
    FingerprintMismatch,
    IndexRefused,
    IndexUnavailable,
    KnowledgeBaseMissing,
)
from indexer.index.records import Hit
from tests.searching import searching
from tests.unit.conftest import FakeReader, FakeUpstream, MakeHit
from tests.unit.index_fakes import FakeEncoder

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("acting")]

TEMPLATE = PromptTemplate(Path(__file__).parents[2] / "gateway" / "prompts" / "answer.j2")
ASKED = "How much grass do llamas eat a day?"


class Counting(FakeUpstream):
    """vLLM that has a token for each word."""

    async def tokenize(self, content: bytes) -> Count:
        messages = msgspec.json.decode(content)["messages"]
        return Count(sum(len(each["content"].split()) for each in messages), 4096)


def asking(retrieval: Any = None, content: Any = ASKED) -> Conversation:
    body = {
        "model": "default",
        "messages": [{"role": "user", "content": content}],
        "retrieval": retrieval,
    }
    return ChatRequest(msgspec.json.encode(body))


@pytest.fixture
async def grounded(reader: FakeReader, encoder: FakeEncoder) -> AsyncIterator[Callable[..., Any]]:
    """What a conversation is grounded in, with these settings."""
    model = Loaded("org/model-a", Route([Counting("org/model-a")]), 4096)
    async with searching(reader, lambda: encoder) as retriever:

        async def ground(conversation: Conversation, **settings: Any) -> Ground:
            grounder = grounding_by(GatewaySettings(**settings), retriever)
            return await grounder.ground(conversation, model, Stages())

        yield ground


def grounding_by(settings: GatewaySettings, retriever: Retriever) -> Grounder:
    return Grounder(
        settings,
        retriever,
        Catalogue(settings.all_knowledge_bases, Uploads(None)),
        Understanding(5, RequestGuard("acme")),
        Budget(TEMPLATE, answer_tokens=1, trim_history=False),
    )


def told(ground: Ground) -> dict[str, tuple[bool, str]]:
    candidates = ground.grounding.details["retrieval"]["candidates"]
    return {each["chunk_id"]: (each["kept"], each["reason"]) for each in candidates}


async def test_hits_become_the_prompt_and_the_answers_grounding(
    grounded: Any, hits: Sequence[Hit]
) -> None:
    conversation = asking()
    ground = await grounded(conversation)

    assert list(ground.grounding.hits) == list(hits[:2])
    assert (ground.grounding.question, ground.grounding.details) == (ASKED, {})
    assert not ground.refuses
    [message] = conversation.messages()
    sent = msgspec.json.decode(conversation.encode("m", {}))["messages"][0]["content"]
    assert msgspec.json.decode(message)["content"] == ASKED
    assert all(hit.text in sent for hit in hits[:2])


async def test_a_candidate_is_kept_where_its_text_is_given_and_else_there_is_a_reason(
    grounded: Any, reader: FakeReader, make_hit: MakeHit
) -> None:
    text = "Llamas eat grass. They also eat hay. Water they need little."
    reader.hits = [
        make_hit(chunk_id="a", start=0, end=36, text=text[:36], score=0.9),
        make_hit(chunk_id="b", start=37, end=60, text=text[37:], score=0.8, ordinal=2),
        make_hit(chunk_id="c", start=18, end=60, text=text[18:], score=0.7, ordinal=1),
        make_hit(chunk_id="d", document_id="d2", text=text[:36], score=0.6),
        make_hit(chunk_id="e", document_id="d3", text="Orbits are high.", score=0.1),
    ]
    ground = await grounded(asking({"explain": True, "max_num_results": 3, "score_threshold": 0.2}))

    [given] = ground.grounding.hits
    assert (given.chunk_id, given.text) == ("a", text)
    assert told(ground) == {
        "a": (True, ""),
        "b": (True, ""),
        "c": (True, "joined to a better one that it overlaps"),
        "d": (False, "says the same as a better one"),
        "e": (False, "its score is below 0.2"),
    }


async def test_hits_that_neighbours_made_one_are_both_kept(
    grounded: Any, reader: FakeReader, make_hit: MakeHit
) -> None:
    chunks = [
        make_hit(chunk_id=f"n{n}", ordinal=n, start=20 * n, end=20 * n + 12,
                 text=f"Chunk {n} text.", score=0.9 - n / 10)
        for n in range(3)
    ]  # fmt: skip
    reader.hits, reader.around = [chunks[0], chunks[2]], chunks
    ground = await grounded(asking({"explain": True, "neighbours": 1}))

    [given] = ground.grounding.hits
    assert (given.chunk_id, given.chunks) == ("n0", 3)
    assert told(ground) == {"n0": (True, ""), "n2": (True, "")}


async def test_what_has_no_room_is_told_with_and_without_an_explanation(
    grounded: Any, reader: FakeReader, make_hit: MakeHit
) -> None:
    reader.hits = [
        make_hit(chunk_id="a", document_id="a", text="Llamas eat grass."),
        make_hit(chunk_id="b", document_id="b", text="word " * 5000, score=0.1),
    ]
    explained = await grounded(asking({"explain": True}))
    plain = await grounded(asking())

    assert told(explained) == {"a": (True, ""), "b": (False, "there is no room for it")}
    assert explained.grounding.details["left_out"] == {"hits": 1}
    assert plain.grounding.details == {"left_out": {"hits": 1}}


async def test_a_refusal_leaves_the_conversation_as_it_was(
    grounded: Any, reader: FakeReader
) -> None:
    reader.hits = []
    conversation = asking()
    ground = await grounded(conversation, when_nothing_found="refuse")

    assert ground.refuses
    assert list(ground.grounding.hits) == []
    assert msgspec.json.decode(conversation.encode("m", {}))["messages"][0]["content"] == ASKED


async def test_nothing_found_fails_only_where_that_is_wanted(
    grounded: Any, reader: FakeReader
) -> None:
    reader.hits = []
    with pytest.raises(NothingFound):
        await grounded(asking(), when_nothing_found="fail")

    assert not (await grounded(asking({"in_scope": False}), when_nothing_found="fail")).refuses


async def test_what_is_found_never_refuses(grounded: Any) -> None:
    for in_scope in (True, "refuse", "fail"):
        assert not (await grounded(asking({"in_scope": in_scope}))).refuses


async def test_a_filter_that_is_none_is_refused_before_anything_is_asked(
    grounded: Any, reader: FakeReader, encoder: FakeEncoder
) -> None:
    with pytest.raises(FilterInvalid):
        await grounded(asking({"filters": {"type": "eq"}}))

    assert (reader.searches, encoder.calls) == ([], [])


@pytest.mark.parametrize(
    ("retrieval", "content", "enabled", "wanted"),
    [
        (None, ASKED, True, True),
        (None, ASKED, False, False),
        (True, ASKED, False, True),
        (False, ASKED, True, False),
        ({"enabled": True}, ASKED, False, True),
        ({"max_num_results": 1}, ASKED, False, False),
        (True, [{"type": "image_url", "image_url": {"url": "x"}}], True, False),
        (True, "  ", True, False),
    ],
)
async def test_whether_an_answer_is_to_stand_on_documents(
    reader: FakeReader,
    encoder: FakeEncoder,
    retrieval: Any,
    content: Any,
    enabled: bool,
    wanted: bool,
) -> None:
    async with searching(reader, lambda: encoder) as retriever:
        grounder = grounding_by(GatewaySettings(retrieval=enabled), retriever)

        assert grounder.wanted(asking(retrieval, content)) is wanted


AWAY = IndexUnavailable("Milvus is away")
DEGRADE = {"when_unavailable": "degrade"}


def counted(part: str) -> float:
    return REGISTRY.get_sample_value("groundserve_degraded_total", {"part": part}) or 0.0


@pytest.mark.parametrize("by_setting", [True, False])
async def test_without_milvus_the_question_stays_as_it_was_and_that_is_told(
    grounded: Any, reader: FakeReader, by_setting: bool
) -> None:
    reader.failure, before = AWAY, counted("milvus")
    conversation = asking(None if by_setting else DEGRADE)
    ground = await grounded(conversation, **(DEGRADE if by_setting else {}))

    assert (ground.away, ground.refuses, list(ground.grounding.hits)) == (("milvus",), False, [])
    assert list(ground.grounding.context()["degraded"]) == ["milvus"]
    assert msgspec.json.decode(conversation.encode("m", {}))["messages"][0]["content"] == ASKED
    assert not ground.grounding.was_searched
    assert counted("milvus") == before + 1


async def test_without_the_encoder_it_is_the_encoder_that_is_told(
    grounded: Any, encoder: FakeEncoder
) -> None:
    encoder.failure = EncodingFailed("out of memory")

    assert (await grounded(asking(DEGRADE))).away == ("encoder",)


@pytest.mark.parametrize(
    ("retrieval", "settings"),
    [
        (None, {}),
        ({"when_unavailable": "fail"}, DEGRADE),
        (DEGRADE | {"in_scope": True}, {}),
        (DEGRADE | {"in_scope": "fail"}, {}),
        (DEGRADE | {"dry_run": True}, {}),
        (DEGRADE, {"when_nothing_found": "refuse"}),
    ],
)
async def test_who_did_not_agree_to_that_gets_an_error(
    grounded: Any, reader: FakeReader, retrieval: Any, settings: dict[str, Any]
) -> None:
    reader.failure, before = AWAY, counted("milvus")
    with pytest.raises(IndexUnavailable):
        await grounded(asking(retrieval), **settings)

    assert counted("milvus") == before


@pytest.mark.parametrize(
    "failure",
    [
        FilterInvalid("no"),
        KnowledgeBaseMissing("no alias"),
        FingerprintMismatch("another"),
        IndexRefused("no"),
        Overloaded("later"),
    ],
)
async def test_what_is_no_outage_is_an_error_whoever_agreed(
    grounded: Any, reader: FakeReader, failure: Exception
) -> None:
    reader.search_failures = [failure, failure]
    with pytest.raises(type(failure)):
        await grounded(asking(DEGRADE))


class Away:
    """A reranker that fails."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    async def start(self) -> None:
        pass

    def check(self) -> None:
        pass

    async def scores(self, question: str, passages: Sequence[str], *_: object) -> list[float]:  # noqa: ARG002
        raise self.failure

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "failure", [UpstreamUnavailable("a"), UpstreamBroken("b"), EncoderUnavailable("c")]
)
async def test_without_the_reranker_the_hits_are_as_they_were_found(
    reader: FakeReader, encoder: FakeEncoder, hits: Sequence[Hit], failure: Exception
) -> None:
    model = Loaded("org/model-a", Route([Counting("org/model-a")]), 4096)
    async with searching(reader, lambda: encoder, reranker=Away(failure)) as retriever:
        grounder = grounding_by(GatewaySettings(), retriever)
        ground = await grounder.ground(asking(DEGRADE), model, Stages())
        with pytest.raises(type(failure)):
            await grounder.ground(asking(), model, Stages())

    assert list(ground.grounding.hits) == list(hits[:2])
    assert (ground.away, ground.grounding.was_searched) == (("reranker",), True)
