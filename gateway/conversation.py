"""What retrieval, prompt and budget know of a request, whatever API it came in.

Each API has a package of its own with a `Conversation` that reads its requests and an `AnswerShape`
that writes its answers. Everything that is not touched stays byte for byte.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, ClassVar, Protocol

import msgspec

from gateway.body import Body
from gateway.citations import Grounding
from gateway.errors import InvalidRequest
from gateway.retrieval.options import RetrievalOptions, read_options
from gateway.turns import Entry, Said, without

MIN_TOKENS = "min_tokens"
NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class Asked(msgspec.Struct, frozen=True):
    """What a request says beside its body."""

    model: str | None = None
    """The model that its path names; it counts before the body's."""
    retrieval: str | None = None
    """Its header about retrieval: JSON, as the field `retrieval` is."""


class AnswerShape(Protocol):
    """An answer in the API that the request came in."""

    def whole(self, body: bytes) -> bytes:
        """VLLM's whole answer with context and citations. Raises UpstreamFailure."""

    def events(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """VLLM's stream with context and citations; one that breaks off ends with an error."""

    def failed(self, failure: Exception) -> bytes:
        """The event that ends such a stream where it breaks off."""

    def reply(self, text: str, model: str) -> bytes:
        """A whole answer that no model writes: a refusal, or what a dry run found."""

    def reply_events(self, text: str, model: str) -> AsyncIterator[bytes]:
        """The same as a stream."""


class Conversation(ABC):
    """A request that a model is to answer."""

    path: ClassVar[str]
    """Where vLLM takes such requests, below /v1."""
    prompt_field: ClassVar[str] = "messages"
    """Where the prompt stands, for errors about its length."""
    stream_ending: ClassVar[bytes] = b""
    """What stands in the last event of a complete stream; answers without one are not cached."""
    answer_fields: ClassVar[tuple[str, ...]] = ("max_tokens",)
    """What says how long an answer may be, what vLLM looks at first first; none asks for none."""
    usual_answer: ClassVar[int | None] = None
    """Tokens of an answer where the request says nothing; None is what the model can."""
    tells_usage_if_asked: ClassVar[bool] = False
    """Whether a stream tells what it used only where `stream_options` ask for that."""
    grounded_by_default: ClassVar[bool] = True
    """Whether a request that says nothing about retrieval is answered from documents."""

    def __init__(self, content: bytes, asked: Asked) -> None:
        """Raises InvalidRequest and FilterInvalid, naming the field that is wrong."""
        self.body = Body(content)
        self.model: str = asked.model or self.body.required("model", str)
        self.stream: bool = bool(self.body.get("stream", bool | None))
        self.retrieval: RetrievalOptions = read_options(
            self.body, asked.retrieval, asks=not self.grounded_by_default
        )
        self.added: dict[str, Any] = {}
        """Fields for vLLM that the client did not send, or that stand for what it sent."""

    @property
    @abstractmethod
    def question(self) -> str:
        """What is searched for: the text of the last user turn; empty where there is none.

        Asked for only where the answer is to stand on documents.
        """

    def param(self, option: str) -> str:
        """What the request calls an option of retrieval, for errors that name it."""
        return f"retrieval.{option}"

    @property
    def may_repeat(self) -> bool:
        """Whether it does no harm when two servers answer the same request."""
        return True

    @property
    def wants_json(self) -> bool:
        """Whether the answer is to be JSON, as text or after a schema."""
        return False

    @property
    def tools(self) -> bytes:
        """The client's tools as they came; empty where there are none."""
        return self.body.raw("tools")

    @property
    def truncated_to(self) -> int | None:
        """Tokens that vLLM cuts a longer prompt to, because the client asked for that."""
        found: int | None = self.body.lenient("truncate_prompt_tokens", int)
        return found

    @property
    def exchanges(self) -> list[list[int]]:
        """What may be forgotten, oldest first: places of messages that belong together.

        A turn of the user and all that answers it, tool calls and their results included. System
        messages are in none, nor is anything from the last turn of the user on.
        """
        return []

    def remembered(self, entries: Sequence[Entry], forgotten: int) -> list[Entry]:
        """`entries`, one for each message, without those of the `forgotten` oldest exchanges."""
        return without(entries, self.exchanges[:forgotten]) if forgotten else list(entries)

    @property
    def bounded(self) -> bool:
        """Whether the prompt is made of the text of messages and tools, and a template's own.

        It is not where there are images, or where the client says something to the template.
        """
        return False

    @property
    def opening(self) -> bytes:
        """What all requests of one conversation begin with: who has read it has it in its cache."""
        return b""

    def temperature(self, default: float) -> float:
        """What the client said, or `default`: at 0 the same request gets the same answer."""
        found: float = self.body.lenient("temperature", float, default)
        return found

    def said_before(self, turns: int) -> list[Said]:  # noqa: ARG002  # of a dialect with turns
        """Up to `turns` turns of user and assistant before the question, oldest first."""
        return []

    @abstractmethod
    def answer_tokens(self, default: int) -> int:
        """How long the answer may get, in tokens: what the client said, or `default`."""

    @property
    def answers(self) -> int:
        """How many are asked for."""
        wanted: int = self.body.lenient("n", int, 1)
        return max(1, wanted)

    def asked_tokens(self) -> Iterator[tuple[str, int]]:
        """Each field that says how long an answer may, or must, be. Raises InvalidRequest."""
        for name in (*self.answer_fields, MIN_TOKENS):
            if (tokens := self.body.get(name, int | None)) is not None:
                yield name, tokens

    def bound_answer(self, most: float) -> None:
        """Have vLLM write `most` tokens at most, where the client names no number."""
        is_named = not all(map(self.body.is_absent, self.answer_fields))
        if self.answer_fields and not is_named:
            self.added[self.answer_fields[0]] = int(min(most, self.usual_answer or most))

    def ask_for_usage(self) -> bool:
        """Have vLLM tell what a stream used; whether the client did not ask for that."""
        if not self.stream or not self.tells_usage_if_asked:
            return False
        try:
            options = self.body.get("stream_options", dict[str, Any] | None) or {}
        except InvalidRequest:  # vLLM refuses it
            return False
        if options.get("include_usage"):
            return False
        # In every chunk it would stand only because of what is added here.
        options.pop("continuous_usage_stats", None)
        self.added["stream_options"] = {**options, "include_usage": True}
        return True

    @abstractmethod
    def messages(self, prompt: str | None = None, forgotten: int = 0) -> list[msgspec.Raw]:
        """The parts of the prompt with `prompt`, if any, where the question stands.

        The `forgotten` oldest exchanges are left out; everything else is as it came.
        """

    @abstractmethod
    def augment(self, prompt: str | None, forgotten: int = 0) -> None:
        """Send `messages(prompt, forgotten)` instead of what came. May be repeated."""

    @abstractmethod
    def tokenization(self, model: str, messages: Sequence[msgspec.Raw]) -> bytes:
        """The body that asks vLLM's /tokenize how long the prompt of `messages` is."""

    @abstractmethod
    def encode(self, model: str, defaults: dict[str, float]) -> bytes:
        """The body for vLLM, with the name that it knows the model by.

        `defaults` fill in what the client did not say.
        """

    @abstractmethod
    def shape(self, grounding: Grounding | None) -> AnswerShape:
        """How its answer is written; without a grounding it is relayed as it is."""
