"""A request from body to answer: name the model, ground, generate, cite.

Knows no HTTP server, and nothing of any API in particular.
"""

from collections.abc import AsyncIterator
from functools import partial

import msgspec

from gateway.access.request_guard import RequestGuard
from gateway.answer_cache import AnswerCache, Keep, KeptAnswer, kept
from gateway.conversation import AnswerShape, Conversation
from gateway.deadline import entered
from gateway.degraded import Part
from gateway.errors import RESPONSE_ID, InvalidRequest, UpstreamRejected
from gateway.grounding import Grounder
from gateway.metering import Meter, bound_answer, charged
from gateway.models import Loaded, Models
from gateway.names import DEFAULT_MODEL, named
from gateway.settings import GatewaySettings
from gateway.stages import Stages
from gateway.upstream_answer import UpstreamAnswer


class Answer:
    """An answer that is to be handed on: vLLM's, not read yet, or one that needs no model."""

    def __init__(  # noqa: PLR0913 - whoever is told of the answer has a keyword
        self,
        body: UpstreamAnswer | str,
        shape: AnswerShape,
        model: str = "",
        *,
        keep: Keep | None = None,
        ending: bytes = b"",
        meter: Meter | None = None,
        away: tuple[Part, ...] = (),
    ) -> None:
        """A text is the whole answer; `model` is named in it.

        What vLLM says is handed to `keep` once it is complete; a stream is, with `ending` in it.
        `meter` is told what it used. It was made without the parts that are `away`.
        """
        self.away = away
        self._body = body
        self._shape = shape
        self._model = model
        self._keep = keep
        self._ending = ending
        self._meter = meter
        if meter is not None and isinstance(body, str):
            meter.nothing()

    @property
    def was_kept(self) -> bool:
        """Whether it is out of the cache."""
        return isinstance(self._body, KeptAnswer)

    async def whole(self) -> bytes:
        """All of it; nothing is left open. Raises UpstreamFailure."""
        if isinstance(self._body, str):
            return self._shape.reply(self._body, self._model)
        entered("answer")
        try:
            body = await self._body.read()
        finally:
            await self._body.close()
        if self._meter is not None:
            self._meter.whole(body)
        whole = self._shape.whole(body)
        if self._keep is not None:
            self._keep(body)
        return whole

    def events(self) -> AsyncIterator[bytes]:
        """The same as the events of a stream."""
        if isinstance(self._body, str):
            return self._shape.reply_events(self._body, self._model)
        chunks = self._body.chunks()
        if self._keep is not None:
            chunks = kept(chunks, self._keep, self._ending)
        if self._meter is not None:
            chunks = self._meter.stream(chunks)
        return self._shape.events(chunks)

    def failed(self, failure: Exception) -> bytes:
        """The event that ends such a stream where it breaks off."""
        return self._shape.failed(failure)

    async def close(self) -> None:
        """Let go of vLLM, wherever the answer is."""
        if isinstance(self._body, UpstreamAnswer):
            await self._body.close()


class Answers:
    """Answers requests."""

    def __init__(
        self,
        settings: GatewaySettings,
        models: Models,
        grounder: Grounder,
        cache: AnswerCache,
        guard: RequestGuard,
    ) -> None:
        self._models = models
        self._grounder = grounder
        self._cache = cache
        self._guard = guard
        self._refusal = settings.refusal
        self._answer_tokens = settings.answer_tokens
        self._defaults = {"temperature": settings.temperature, "top_p": settings.top_p}

    async def answer(self, conversation: Conversation, stages: Stages) -> Answer:
        """Ask vLLM, with context if it is wanted; the caller closes the answer.

        Raises GatewayFailure, IndexFailure and FilterInvalid.
        """
        meter = await charged(conversation, self._answer_tokens)
        self._guard.guard(conversation.body)
        name = named(conversation.model, self._models.aliases)
        if conversation.retrieval.enabled is None and name.retrieval is not None:
            conversation.retrieval = msgspec.structs.replace(
                conversation.retrieval, enabled=name.retrieval
            )
        try:
            return await self._answer(conversation, stages, meter)
        except UpstreamRejected as exc:
            exc.prompt_field = conversation.prompt_field
            is_swap = exc.status == 404 and exc.param != RESPONSE_ID
            if not is_swap or name.model != DEFAULT_MODEL:
                raise
            # The model was swapped after we last looked: "default" means the new one, which may
            # read less.
            await self._models.refresh()
            conversation.augment(None)
            return await self._answer(conversation, stages, meter)

    async def _answer(
        self, conversation: Conversation, stages: Stages, meter: Meter | None
    ) -> Answer:
        model = await self._models.loaded(conversation.model, lambda: conversation.opening)
        shape, index = conversation.shape(None), ""
        away: tuple[Part, ...] = ()
        if self._grounder.wanted(conversation):
            ground = await self._grounder.ground(conversation, model, stages)
            shape, index = conversation.shape(ground.grounding), ground.index
            away = ground.away
            if conversation.retrieval.dry_run or ground.refuses:
                text = "" if conversation.retrieval.dry_run else self._refusal
                return Answer(text, shape, model.name, meter=meter)
        elif conversation.retrieval.dry_run:
            raise InvalidRequest(
                "There is nothing to try: retrieval is off, or no message of the user has a text.",
                "retrieval.dry_run",
            )
        bound_answer(conversation, model.max_model_len)
        request = conversation.encode(model.name, self._defaults)
        # An answer without context must not be given when there is some again.
        key = None if away else self._key(conversation, model, request, index)
        if key is not None and (known := self._cache.get(key)) is not None:
            return Answer(known, shape, meter=meter)
        with stages.measure("first_token"):
            body = await model.route.post(
                conversation.path,
                request,
                is_stream=conversation.stream,
                may_repeat=conversation.may_repeat,
            )
        keep = None if key is None else partial(self._cache.keep, key)
        ending = conversation.stream_ending
        return Answer(body, shape, keep=keep, ending=ending, meter=meter, away=away)

    def _key(
        self, conversation: Conversation, model: Loaded, request: bytes, index: str
    ) -> bytes | None:
        """The key of the answer in the cache; None where it is not kept."""
        is_kept = (
            self._cache.is_on
            and conversation.stream_ending
            and conversation.temperature(self._defaults["temperature"]) == 0
        )
        return self._cache.key(model, conversation.path, request, index) if is_kept else None


def server_timing(stages: Stages) -> str:
    """The header of that name: milliseconds of each stage (W3C Server Timing)."""
    return ", ".join(
        f"{stage};dur={milliseconds:.1f}" for stage, milliseconds in stages.milliseconds().items()
    )
