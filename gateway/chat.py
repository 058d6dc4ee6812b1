"""A chat request from body to answer: ground, generate, cite. Knows no HTTP server."""

import msgspec

from gateway.conversation import Conversation
from gateway.errors import UpstreamRejected
from gateway.grounding import Grounder
from gateway.models import DEFAULT_MODEL, Loaded, Models
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
        conversation = Conversation(body)
        stages = Stages()
        model = await self._models.loaded(conversation.model)
        if not self._grounder.wanted(conversation):
            answer = await self._generate(conversation, model)
            return ChatAnswer(answer, conversation.stream, None, stages.seconds)
        ground = await self._grounder.ground(conversation, model, stages)
        grounding = ground.grounding
        if conversation.retrieval.dry_run or ground.refuses:
            text = "" if conversation.retrieval.dry_run else self._refusal
            reply = Reply(text, model.name, grounding)
            return ChatAnswer(reply, conversation.stream, grounding, stages.seconds)
        answer = await self._generate(conversation, model)
        return ChatAnswer(answer, conversation.stream, grounding, stages.seconds)

    async def _generate(self, conversation: Conversation, model: Loaded) -> UpstreamAnswer:
        try:
            return await self._upstream.post(PATH, conversation.encode(model.name, self._defaults))
        except UpstreamRejected as exc:
            if exc.status != 404 or conversation.model not in (None, DEFAULT_MODEL):
                raise
            # The model was swapped after we last looked: "default" means the new one.
            await self._models.refresh()
            swapped = await self._models.loaded(conversation.model)
            body = conversation.encode(swapped.name, self._defaults)
            return await self._upstream.post(PATH, body)
