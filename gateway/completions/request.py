"""A completion request. Reads its prompt; everything else stays as it came."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec

from gateway.body import COUNT, UNREADABLE
from gateway.citations import Grounding
from gateway.completions.answer import CompletionShape
from gateway.conversation import Asked, Conversation
from gateway.errors import InvalidRequest
from gateway.events import DONE

MAX_TOKENS = 16
"""How long an answer gets where the request does not say, in OpenAI's API and in vLLM."""
_OPENING_BYTES = 1024
"""So much of a prompt tells which others begin like it: vLLM keeps them in blocks of tokens."""
_ADDED = ("add_special_tokens",)
"""What else than its text decides how long a prompt is."""


class CompletionRequest(Conversation):
    """A completion request, with every field that is not touched kept byte for byte."""

    path = "/completions"
    usual_answer = MAX_TOKENS
    tells_usage_if_asked = True
    stream_ending = DONE
    grounded_by_default = False

    def __init__(self, content: bytes, asked: Asked = Asked()) -> None:  # noqa: B008  # immutable
        """Raises InvalidRequest when `content` is no JSON object with a model and a prompt."""
        super().__init__(content, asked)
        if self.body.is_absent("prompt") and self.body.is_absent("prompt_embeds"):
            raise InvalidRequest("Missing required parameter: 'prompt'.", "prompt")
        self.body.get("n", COUNT)
        self._prompt: str | None = None
        """What is sent instead of the prompt that came, if anything is."""

    @property
    def question(self) -> str:
        """The prompt. Raises InvalidRequest for one that cannot be searched for.

        So an answer that is to stand on documents never comes without them.
        """
        if self._text is None or not self._text.strip():
            raise InvalidRequest(
                "Invalid value for 'prompt': with retrieval it must be one string that is not "
                "empty. Send each of several prompts by itself, and text instead of token ids.",
                "prompt",
            )
        return self._text.strip()

    @cached_property
    def _text(self) -> str | None:
        """The prompt where it is one string."""
        try:
            match msgspec.json.decode(self.body.raw("prompt")):
                case str(text) | [str(text)]:
                    return text
        except UNREADABLE:
            pass
        return None

    @property
    def wants_json(self) -> bool:
        """Whether the answer is to be JSON, as text or after a schema."""
        wanted = self.body.lenient("response_format", dict[str, Any], {})
        return wanted.get("type") in ("json_object", "json_schema")

    @property
    def bounded(self) -> bool:
        """Whether the prompt is text alone."""
        return self._text is not None

    @property
    def opening(self) -> bytes:
        """The beginning of the prompt."""
        return self.body.raw("prompt")[:_OPENING_BYTES]

    @property
    def answers(self) -> int:
        """How many are asked for: so many for each of several prompts."""
        prompts: list[Any] = self.body.lenient("prompt", list[Any], [])
        several = [each for each in prompts if isinstance(each, str | list)]
        return super().answers * max(1, len(several))

    def answer_tokens(self, default: int) -> int:  # noqa: ARG002  # this API has one of its own
        """How long the answer may get, in tokens."""
        most: int = self.body.lenient("max_tokens", int, MAX_TOKENS)
        least: int = self.body.lenient("min_tokens", int, 0)
        return max(most, least, 1)

    def messages(
        self,
        prompt: str | None = None,
        forgotten: int = 0,  # noqa: ARG002  # there is no history
    ) -> list[msgspec.Raw]:
        """The prompt, and what is to follow the answer, where the request says that."""
        said = self.body.raw("prompt") if prompt is None else msgspec.json.encode(prompt)
        after = [] if self.body.is_absent("suffix") else [self.body.fields["suffix"]]
        return [msgspec.Raw(said), *after]

    def augment(self, prompt: str | None, forgotten: int = 0) -> None:  # noqa: ARG002
        """Send `prompt` instead of what came. May be repeated."""
        self._prompt = prompt

    def tokenization(self, model: str, messages: Sequence[msgspec.Raw]) -> bytes:
        """The body that asks vLLM's /tokenize how long `messages` are."""
        texts = [msgspec.json.decode(part) for part in messages]
        flat = [each for text in texts for each in (text if isinstance(text, list) else [text])]
        fields = {name: self.body.fields[name] for name in _ADDED if name in self.body.fields}
        return msgspec.json.encode({**fields, "model": model, "prompt": "".join(map(str, flat))})

    def encode(self, model: str, defaults: dict[str, float]) -> bytes:
        """The body for vLLM, with the name that it knows the model by.

        `defaults` fill in what the client did not say where the prompt has documents in it; a
        request without them goes to vLLM as it came.
        """
        fields: dict[str, Any] = {**self.body.fields, **self.added, "model": model}
        if self._prompt is not None:
            fields = {**defaults, **fields, "prompt": self._prompt}
        fields.pop("retrieval", None)
        return msgspec.json.encode(fields)

    def shape(self, grounding: Grounding | None) -> CompletionShape:
        """How its answer is written."""
        options = self.body.lenient("stream_options", dict[str, Any], {})
        return CompletionShape(
            grounding,
            wants_usage=options.get("include_usage") is True,
            echoed=self._echoed,
        )

    @property
    def _echoed(self) -> str:
        """What stands in each text before the answer."""
        # With token ids vLLM repeats the ids instead of the text.
        with_ids = self.body.lenient("return_token_ids", bool, False)
        if with_ids or not self.body.lenient("echo", bool, False):
            return ""
        return (self._text if self._prompt is None else self._prompt) or ""
