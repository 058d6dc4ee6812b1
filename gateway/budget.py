"""How much of what was found the loaded model can read, by vLLM's own count.

The worst hits leave first. Where that is configured, the oldest exchanges of the conversation
leave before the best hit does. vLLM is asked only where it is not plain that everything fits.
"""

import logging
import math
import re
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec

from gateway.conversation import Conversation
from gateway.errors import (
    ContextLengthExceeded,
    UpstreamBroken,
    UpstreamFailure,
    UpstreamRejected,
)
from gateway.models import Loaded
from gateway.prompt import PromptTemplate
from indexer.index.records import Hit
from indexer.index.stream_safe import stream_safe

_LEAST_ANSWER = 1
"""Tokens that vLLM must be able to write; without them it refuses a prompt."""
_TEMPLATE_TOKENS = 2048
"""More than any chat template known to us adds to messages: some have a system prompt of 1,200."""
_INLINE_FILE = re.compile(rb"data:[\w.+/-]*;base64,[A-Za-z0-9+/=\\]*")
_FILE_TOKENS = 1000
_BEYOND_ASCII = bytes(range(128, 256))
_NFC_LONGER = 3
"""Times as many bytes as NFC may make of a text (Unicode Standard Annex #15, section 11)."""

_log = logging.getLogger(__name__)


class Fitted(msgspec.Struct, frozen=True):
    """What the model is given, and what had to leave."""

    hits: Sequence[Hit]
    """Best first."""
    prompt: str | None
    """What takes the question's place; None where no hit stays."""
    forgotten: int = 0
    """How many of the oldest exchanges leave."""
    hits_left_out: int = 0
    messages_left_out: int = 0
    tokens: int | None = None
    """Of the whole prompt, as vLLM counts; None where it need not be asked."""


class Budget:
    """Fits hits, and history if configured, into the context of the model that is loaded."""

    def __init__(
        self,
        template: PromptTemplate,
        *,
        answer_tokens: int,
        trim_history: bool,
    ) -> None:
        """`answer_tokens` are left free for an answer whose length the client does not limit."""
        self._template = template
        self._answer_tokens = answer_tokens
        self._trim_history = trim_history
        self._said_that_it_estimates = False

    async def fit(self, conversation: Conversation, hits: Sequence[Hit], model: Loaded) -> Fitted:
        """As many of `hits`, best first, as fit beside the messages and the answer.

        Raises ContextLengthExceeded when the messages are too long with nothing of ours among
        them, UpstreamUnavailable.
        """
        trial = _Trial(conversation, hits, model, self._template)
        room = conversation.answer_tokens(self._answer_tokens)
        kept = await trial.most_hits(0, room)
        forgotten = 0
        if not kept:
            forgotten = await self._least_forgotten(trial, conversation, room)
            kept = await trial.most_hits(forgotten, room) if forgotten else 0
        self._say_once(trial.failure)
        left = conversation.exchanges[:forgotten] if forgotten else []
        return Fitted(
            hits[:kept],
            trial.prompt(kept),
            forgotten,
            len(hits) - kept,
            sum(map(len, left)),
            trial.counted(kept, forgotten),
        )

    async def _least_forgotten(self, trial: "_Trial", conversation: Conversation, room: int) -> int:
        """How many exchanges must leave for the best hit, or at least for the messages alone."""
        forgettable = len(conversation.exchanges) if self._trim_history else 0
        wishes = [(0, _LEAST_ANSWER)]
        if forgettable:
            wishes = [(min(1, len(trial.hits)), room), (0, room), *wishes]
        for kept, wanted in wishes:
            least = await _fewest(forgettable, partial(trial.fits, kept, wanted))
            if least is not None:
                return least
        if trial.failure is None and conversation.truncated_to is None:
            raise ContextLengthExceeded(
                trial.max_model_len or 0, await trial.tokens(0, 0), conversation.prompt_field
            )
        return 0  # an estimate refuses nothing: vLLM does

    def _say_once(self, failure: UpstreamFailure | None) -> None:
        refused = isinstance(failure, UpstreamRejected) and failure.status in (400, 422)
        if failure is None or refused or self._said_that_it_estimates:
            return
        self._said_that_it_estimates = True
        _log.warning("prompts are fitted by an estimate: tokens were not counted (%s)", failure)


class _Trial:
    """Candidates for one prompt, each counted at most once."""

    def __init__(
        self,
        conversation: Conversation,
        hits: Sequence[Hit],
        model: Loaded,
        template: PromptTemplate,
    ) -> None:
        self.max_model_len = model.max_model_len
        self.failure: UpstreamFailure | None = None
        """Why lengths are estimated, where they are."""
        self._conversation = conversation
        self.hits = hits
        self._model = model
        self._template = template
        self._prompts: dict[int, str | None] = {0: None}
        self._counted: dict[tuple[int, int], int] = {}

    def prompt(self, kept: int) -> str | None:
        """The prompt with the best `kept` hits; None without any."""
        if kept not in self._prompts:
            question = self._conversation.question
            self._prompts[kept] = self._template.render(question, self.hits[:kept])
        return self._prompts[kept]

    async def most_hits(self, forgotten: int, room: int) -> int:
        """How many hits fit, beside `room` tokens, when `forgotten` exchanges are left out."""
        if not self.hits:
            return 0

        async def fits(left_out: int) -> bool:
            return await self.fits(len(self.hits) - left_out, room, forgotten)

        left_out = await _fewest(len(self.hits) - 1, fits)
        return 0 if left_out is None else len(self.hits) - left_out

    async def fits(self, kept: int, room: int, forgotten: int) -> bool:
        """Whether the best `kept` hits, without the oldest exchanges, leave `room` tokens free."""
        if self.max_model_len is not None and self._conversation.bounded:
            free = self.max_model_len - room
            messages = self._messages(kept, forgotten)
            if most_tokens(messages, self._conversation.tools, free) <= free:
                return True
        tokens = await self.tokens(kept, forgotten)
        return self.max_model_len is None or tokens + room <= self.max_model_len

    async def tokens(self, kept: int, forgotten: int) -> int:
        """The length of such a prompt, by vLLM's count or, where there is a failure, estimated."""
        if (kept, forgotten) not in self._counted:
            messages = self._messages(kept, forgotten)
            self._counted[kept, forgotten] = await self._count(messages)
        return self._counted[kept, forgotten]

    def counted(self, kept: int, forgotten: int) -> int | None:
        """The length of such a prompt, where vLLM was asked for it."""
        return None if self.failure else self._counted.get((kept, forgotten))

    async def _count(self, messages: list[msgspec.Raw]) -> int:
        if self.failure is None:
            try:
                count = await self._model.route.tokenize(
                    self._conversation.tokenization(self._model.name, messages)
                )
            except (UpstreamRejected, UpstreamBroken) as exc:
                self.failure = exc
            else:
                # Of this moment: the model may have been swapped since it was looked up.
                self.max_model_len = count.max_model_len
                return count.tokens
        return likely_tokens(messages, self._conversation.tools)

    def _messages(self, kept: int, forgotten: int) -> list[msgspec.Raw]:
        return self._conversation.messages(self.prompt(kept), forgotten)


def most_tokens(messages: Sequence[msgspec.Raw], tools: bytes, enough: float = math.inf) -> int:
    """More tokens than any tokenizer makes of these, with any chat template known to us.

    Byte-level BPE makes no more tokens than bytes. Tools count twice: templates indent them. Where
    there are more than `enough`, how many more is not looked at.
    """
    parts = [bytes(part) for part in (*messages, tools, tools)]
    least = sum(map(len, parts)) + _TEMPLATE_TOKENS
    return least if least > enough else sum(map(_most_bytes, parts)) + _TEMPLATE_TOKENS


def likely_tokens(messages: Sequence[msgspec.Raw], tools: bytes) -> int:
    """A careful guess: three bytes a token, and two tokens for a character of three bytes."""
    tokens = 0.0
    for part in (*messages, tools):
        text, files = _INLINE_FILE.subn(b"", bytes(part))
        others = len(text) - len(text.translate(None, _BEYOND_ASCII))
        tokens += (len(text) - others) / 3 + others / 1.5 + files * _FILE_TOKENS
    return math.ceil(tokens)


def _most_bytes(raw: bytes) -> int:
    if raw.isascii():
        return len(raw)
    # Some tokenizers do this first, and it can make a text longer.
    text = raw.decode(errors="replace")
    if stream_safe(text) != text:  # it would take long
        return _NFC_LONGER * len(raw)
    return max(len(raw), len(unicodedata.normalize("NFC", text).encode()))


async def _fewest(most: int, enough: Callable[[int], Awaitable[bool]]) -> int | None:
    """The least number up to `most` that is enough; None where not even `most` is.

    A number above one that is enough must be enough too.
    """
    if await enough(0):
        return 0
    if most == 0 or not await enough(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if await enough(middle):
            high = middle
        else:
            low = middle
    return high
