"""A chat request from body to answer: ground, generate, cite. Knows no HTTP server."""

import msgspec

from gateway.conversation import Conversation
from gateway.errors import InvalidRequest, UpstreamRejected
from gateway.grounding import Grounder
from gateway.models import DEFAULT_MODEL, Models
from gateway.relay import Grounding
from gateway.replies import Reply
from gateway.settings import GatewaySettings
from gateway.stages import Stages
from gateway.upstream import Upstream, UpstreamAnswer

PATH = "/chat/completions"


class ChatAnswer(msgspec.Struct, frozen=True):
    """An answer that is to be handed on."""

    body: UpstreamAnswer | Reply
    """vLLM's, not read yet, or one that needs no model."""
    stream: bool
    grounding: Grounding | None
    """None where retrieval was off: the answer is relayed as it is."""
    stages_s: dict[str, float]
    """Seconds that each stage took before vLLM was asked."""


class Chat:
    """Answers chat requests."""

    def __init__(
        self, settings: GatewaySettings, upstream: Upstream, models: Models, grounder: Grounder
    ) -> None:
        self._upstream = upstream
        self._models = models
        self._grounder = grounder
        self._refusal = settings.refusal
        self._defaults = {"temperature": settings.temperature, "top_p": settings.top_p}

    async def answer(self, body: bytes) -> ChatAnswer:
        """Ask vLLM, with context if it is wanted; the caller closes the answer.

        Raises GatewayFailure, IndexFailure and FilterInvalid.
        """
        stages = Stages()
        try:
            return await self._answer(Conversation(body), stages)
        except UpstreamRejected as exc:
            conversation = Conversation(body)
            if exc.status != 404 or conversation.model not in (None, DEFAULT_MODEL):
                raise
            # The model was swapped after we last looked: "default" means the new one, which may
            # read less.
            await self._models.refresh()
            return await self._answer(conversation, stages)

    async def _answer(self, conversation: Conversation, stages: Stages) -> ChatAnswer:
        model = await self._models.loaded(conversation.model)
        grounding: Grounding | None = None
        if self._grounder.wanted(conversation):
            ground = await self._grounder.ground(conversation, model, stages)
            grounding = ground.grounding
            if conversation.retrieval.dry_run or ground.refuses:
                text = "" if conversation.retrieval.dry_run else self._refusal
                reply = Reply(text, model.name, grounding, conversation.wants_usage)
                return ChatAnswer(reply, conversation.stream, grounding, stages.seconds)
        elif conversation.retrieval.dry_run:
            raise InvalidRequest(
                "There is nothing to try: retrieval is off, or no message of the user has a text.",
                "retrieval.dry_run",
            )
        request = conversation.encode(model.name, self._defaults)
        answer = await self._upstream.post(PATH, request)
        return ChatAnswer(answer, conversation.stream, grounding, stages.seconds)
