"""How much a request may bring, looked at once for all APIs, before anything else is done with it.

Fields are known by their names. What they mean, and whether they may stand there, others say.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from gateway.errors import InvalidRequest
from gateway.media import WITH_PARTS, Media, parsed_hosts
from gateway.settings.bounds import REFUSED_FIELDS, BoundsSettings
from gateway.settings.lists import listed
from gateway.strict_json import strict

_MESSAGES = ("messages", "input", "previous_input_messages")
_INSTRUCTIONS = ("system", "instructions")
_PARTS = (*WITH_PARTS, "tool_calls")
_TEXTS = (
    *(*_MESSAGES, *_INSTRUCTIONS),
    *("prompt", "suffix", "query", "documents"),
)
_WITH_TEXTS = ("content", "text", "output", "thinking")
_TEMPLATES_OWN = ("chat_template", "tokenize")
"""Arguments of what renders a prompt, which are no variables of a template."""

Check = Callable[[Any, str], None]


class Bounds:
    """Looks after bodies that are JSON objects."""

    def __init__(self, settings: BoundsSettings) -> None:
        self._most = settings
        self._refused = frozenset(REFUSED_FIELDS) - {*listed(settings.allowed_fields)}
        self._media = Media(parsed_hosts(settings.media_hosts), self._refused)
        tokens = partial(_check_length, settings.max_logit_bias)
        grammar = partial(_check_bytes, settings.max_grammar_bytes)
        self._checks: dict[str, Check] = {
            **dict.fromkeys(("n", "best_of"), self._check_choices),
            **dict.fromkeys(("stop", "stop_sequences", "bad_words"), self._check_stops),
            **dict.fromkeys(("logprobs", "top_logprobs", "prompt_logprobs"), self._check_logprobs),
            **dict.fromkeys(("logit_bias", "stop_token_ids"), tokens),
            **dict.fromkeys(("allowed_token_ids", "logprob_token_ids"), tokens),
            **dict.fromkeys(("response_format", "structured_outputs"), grammar),
            **dict.fromkeys(("text", "output_config"), grammar),
            "tools": self._check_tools,
            "chat_template_kwargs": _check_template,
            **dict.fromkeys(self._refused, _refuse),
        }

    def check(self, content: bytes) -> None:
        """Raises InvalidRequest for a body that brings too much of something, naming the field."""
        said = strict(
            content,
            most_nested=self._most.max_nesting,
            most_whitespace_bytes=self._most.max_whitespace_bytes,
            most_objects=self._most.max_objects,
        )
        self._check_parts(said)
        for name, value in said.items():
            if (check := self._checks.get(name)) is not None:
                check(value, name)
        if isinstance(said.get("prompt"), list):
            self._check_prompts(said)
        if len(content) > self._most.max_text_chars:
            self._check_text(said)

    def _check_parts(self, said: dict[str, Any]) -> None:
        most, parts = self._most.max_parts, 0
        for place, entry in self._entries(said):
            if isinstance(entry, dict):
                for name in _PARTS:
                    _check_length(self._most.max_content_parts, entry.get(name), f"{place}.{name}")
            parts += _parts(entry, most - parts)
            if parts > most:
                raise _too_much(place, f"with it the request has more than {most} parts")
            self._media.check(entry, place)

    def _entries(self, said: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """What may have parts, messages and instructions, and where it stands."""
        for name in _MESSAGES:
            messages = said.get(name)
            if not isinstance(messages, list) or not isinstance(next(iter(messages), None), dict):
                continue  # one text, or texts or tokens to embed
            _check_length(self._most.max_messages, messages, name)
            for at, message in enumerate(messages):
                # What is text alone, which most are, has nothing to look after.
                if not isinstance(message, dict) or len(message) > 2 or not _is_said(message):
                    yield f"{name}[{at}]", message
        for name in _INSTRUCTIONS:
            if isinstance(said.get(name), dict | list):
                yield name, said[name]

    def _check_choices(self, said: Any, name: str) -> None:
        if said is not None and not (_is_number(said) and said <= self._most.max_choices):
            raise _too_much(name, f"it is no number up to {self._most.max_choices}")

    def _check_prompts(self, said: dict[str, Any]) -> None:
        """Texts, or token ids; each is answered `n` times."""
        prompts, most = said["prompt"], self._most.max_choices
        if not prompts or not isinstance(prompts[0], str | list):
            return
        wanted = [said.get(name) for name in ("n", "best_of")]
        each = max((many for many in wanted if isinstance(many, int | float)), default=1)
        if len(prompts) * max(each, 1) > most:
            raise _too_much("prompt", f"with n it asks for more than {most} answers")

    def _check_stops(self, said: Any, name: str) -> None:
        texts = said if isinstance(said, list) else [said]
        _check_length(self._most.max_stops, texts, name)
        longest = self._most.max_stop_chars
        if any(isinstance(text, str) and len(text) > longest for text in texts):
            raise _too_much(name, f"one has more than {longest} characters")

    def _check_logprobs(self, said: Any, name: str) -> None:
        # vLLM takes -1 for every token that there is.
        if said is not None and not (_is_number(said) and 0 <= said <= self._most.max_logprobs):
            raise _too_much(name, f"it is no number from 0 to {self._most.max_logprobs}")

    def _check_tools(self, said: Any, name: str) -> None:
        _check_length(self._most.max_tools, said, name)
        for at, tool in enumerate(said if isinstance(said, list) else ()):
            if isinstance(tool, dict):
                for field in self._refused.intersection(tool):
                    _refuse(tool, f"{name}[{at}].{field}")
        _check_bytes(self._most.max_tools_bytes, said, name)

    def _check_text(self, said: dict[str, Any]) -> None:
        most, chars = self._most.max_text_chars, 0
        for name in _TEXTS:
            chars += _chars(said.get(name))
            if chars > most:
                raise _too_much(name, f"the request has more than {most} characters of text")


def _is_number(said: Any) -> bool:
    """Whether it is one, true and false included: vLLM takes the digits in a text for one, too."""
    return isinstance(said, int | float)


def _is_said(message: dict[str, Any]) -> bool:
    return isinstance(message.get("content"), str) and "role" in message


def _check_length(most: int, said: Any, name: str) -> None:
    if isinstance(said, list | dict) and len(said) > most:
        raise _too_much(name, f"there are more than {most}")


def _check_bytes(most: int, said: Any, name: str) -> None:
    if said is not None and len(msgspec.json.encode(said)) > most:
        raise _too_much(name, f"it has more than {most} bytes")


def _check_template(said: Any, name: str) -> None:
    for each in _TEMPLATES_OWN:
        if isinstance(said, dict) and each in said:
            place = f"{name}.{each}"
            raise InvalidRequest(f"{place!r} is no variable of a template.", place)


def _refuse(_: Any, name: str) -> None:
    raise InvalidRequest(
        f"{name!r} is not taken here. Who runs this gateway may allow it: see "
        "GROUNDSERVE_ALLOWED_FIELDS.",
        name,
    )


def _parts(said: Any, most: int) -> int:
    """How many parts there are in a message or in instructions, parts of parts included.

    Stops above `most`.
    """
    parts = 0
    left = [said]
    while left and parts <= most:
        each = left.pop()
        if isinstance(each, list):
            parts += len(each)
            left += each if parts <= most else ()
        elif isinstance(each, dict):
            inside = [each[name] for name in _PARTS if name in each]
            parts += sum(isinstance(part, dict) for part in inside)
            left += inside
    return parts


def _chars(said: Any) -> int:
    """Characters of text in messages, parts, or lists of texts; data of images is none."""
    chars = 0
    left = [said]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            each = [each[name] for name in _WITH_TEXTS if name in each]
        elif not isinstance(each, list):
            each = [each]
        kinds = {*map(type, each)}  # there may be millions, of token ids
        if str in kinds:
            texts = each if kinds == {str} else [text for text in each if isinstance(text, str)]
            chars += sum(map(len, texts))
        if not kinds.isdisjoint((dict, list)):
            left += [inside for inside in each if isinstance(inside, dict | list)]
    return chars


def _too_much(name: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for {name!r}: {reason}.", name)
