"""A chat request from body to answer: retrieve, augment, generate, cite. Knows no HTTP server."""

import msgspec

from gateway.conversation import Conversation
from gateway.errors import UpstreamRejected
from gateway.models import DEFAULT_MODEL, Models
from gateway.prompt import PromptTemplate
from gateway.relay import Grounding
from gateway.retrieval import Retriever
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream, UpstreamAnswer

PATH = "/chat/completions"


class ChatAnswer(msgspec.Struct, frozen=True):
    """vLLM's answer, not read yet, and what is needed to hand it on."""

    upstream: UpstreamAnswer
    stream: bool
    grounding: Grounding | None
    """None where retrieval was off: the answer is relayed as it is."""
    stages_s: dict[str, float]
    """Seconds that each stage took before vLLM was asked."""


class Chat:
    """Answers chat requests."""

    def __init__(
        self, settings: GatewaySettings, upstream: Upstream, models: Models, retriever: Retriever
    ) -> None:
        """Raises BadTemplate."""
        self._upstream = upstream
        self._models = models
        self._retriever = retriever
        self._template = PromptTemplate(settings.prompt_template)
        self._retrieval = settings.retrieval
        self._max_num_results = settings.max_num_results
        self._defaults = {"temperature": settings.temperature, "top_p": settings.top_p}

    async def answer(self, body: bytes) -> ChatAnswer:
        """Ask vLLM, with context if it is wanted; the caller closes the answer.

        Raises GatewayFailure and IndexFailure: an answer that should stand on documents and
        cannot is no answer.
        """
        conversation = Conversation(body)
        stages_s: dict[str, float] = {}
        grounding = await self._ground(conversation, stages_s)
        answer = await self._generate(conversation)
        return ChatAnswer(answer, conversation.stream, grounding, stages_s)

    async def _ground(
        self, conversation: Conversation, stages_s: dict[str, float]
    ) -> Grounding | None:
        options = conversation.retrieval
        wanted = self._retrieval if options.enabled is None else options.enabled
        question = conversation.question
        if not wanted or not question:
            return None
        found = await self._retriever.retrieve(
            question, options.max_num_results or self._max_num_results
        )
        stages_s |= {"embed": found.embed_s, "search": found.search_s}
        if found.hits:
            conversation.augment(self._template.render(question, found.hits))
        return Grounding(question, found.hits)

    async def _generate(self, conversation: Conversation) -> UpstreamAnswer:
        model = await self._models.resolve(conversation.model)
        try:
            return await self._upstream.post(PATH, conversation.encode(model, self._defaults))
        except UpstreamRejected as exc:
            if exc.status != 404 or conversation.model not in (None, DEFAULT_MODEL):
                raise
            # The model was swapped after we last looked: "default" means the new one.
            await self._models.refresh()
            model = await self._models.resolve(conversation.model)
            return await self._upstream.post(PATH, conversation.encode(model, self._defaults))
