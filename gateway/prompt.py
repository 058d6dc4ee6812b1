"""Joins a question with the hits found for it, after a template that operators can replace.

What comes from documents is made harmless before the template sees it: it is data, and can
neither close the passage that it stands in nor begin a message of its own. That holds for every
template. The question is the client's own and stays as it is.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from indexer.index.records import Hit

_SAMPLE = Hit(
    chunk_id="",
    document_id="",
    source="source",
    title="title",
    heading_path="",
    start=0,
    end=4,
    text="text",
    score=1.0,
)

_JINJA = re.compile(r"\{#.*?#\}|\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_TAG = re.compile(r"</?([A-Za-z][\w:-]*)")
_LINE_END = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\0-\x08\x0e-\x1f\x7f-\x9f"  # C0 and C1, but for what is the end of a line somewhere, and tabs
    "\u202a-\u202e\u2066-\u2069"  # letters in another order than they are shown in
    "\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb"  # joiners and marks that show nothing
    "\U000e0000-\U000e0fff"  # tags and variation selectors: whole hidden texts
    "\ud800-\udfff]"  # halves of characters, which no request can carry
)
_QUOTES = str.maketrans({'"': "”", "'": "’"})  # noqa: RUF001  # look like quotes, and close nothing

_BARRED = r"[|\uff5c]\S|[^\s<>|\uff5c]{1,64}[|\uff5c][^\s<>]{0,64}>"
"""Llama 3, ChatML, Phi, GPT-OSS, Cohere <|im_start|>; DeepSeek <｜User｜>; Gemma 4 <turn|>."""  # noqa: RUF001
_NAMED = r"""/?(?:\w{1,20}:)?(?:
    s|bos|eos|pad|unk|mask|sep|cls|sop|eop|eod|eoh|eoa|escape|role|UNK|CLS|SEP|PAD|MASK
    |[A-Z]{2,12}(?:_[A-Z]{2,12}){0,2}_TOKEN|SPECIAL_\d+|extra_id_\d+|unused_?\d+|reserved_\d+
    |think\w{0,20}|tools?|tool_\w{1,40}|\w{0,20}function_calls?|function_\w{1,40}|arg_\w{1,20}
    |(?:start|end)_\w{1,40}|\w{1,40}_(?:start|end|token)|im_\w{1,20}|longcat_\w{1,40}
    |image|img|video|audio|IMG_CONTEXT
    |fim_\w{1,20}|repo_?name|file_?name|file_sep|gh_stars|empty_output
    |(?:issue|jupyter|commit)_\w{1,20}
)>"""
"""Llama 2 and Mistral <s>; Gemma <start_of_turn>; Qwen <tool_call>; SmolLM and StarCoder
<file_sep>; Seed <seed:bos>; what stands for pictures; <think>, behind which an answer begins."""
_BRACKETED = r"""/?(?:
    INST|SYS|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_\w{1,20}|ARGS|CALL_ID|THINK|MODEL_SETTINGS
    |IMG|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO|PREFIX|MIDDLE|SUFFIX|REFERENCE_DOC_\d+
    |BOS|EOS|EOT|PAD|UNK|CLS|SEP|[gs]?MASK|@BOS@
    )\]|\|[^\s\[\]|]{1,40}\|\]|e~\["""
"""Mistral [INST]; GLM [gMASK]; EXAONE [|user|]; MiniMax [e~[."""
_CONTROL = re.compile(
    rf"<(?={_BARRED}|{_NAMED}|</?SYS>>|\#\#)|\[(?={_BRACKETED})|\](?=~!?b[\[\]])", re.VERBOSE
)
"""The bracket that a control token of a chat template begins with. Tokenizers read those in the
text of a message as well, so that a document could end a message and begin another."""


class BadTemplate(ValueError):
    """The template cannot be used; raised at start, not at the first request."""


class PromptTemplate:
    """A Jinja template with the variables `question`, `hits` and `sources`."""

    def __init__(self, path: Path) -> None:
        """Read and try the template. Raises BadTemplate."""
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False
        )
        try:
            text = path.read_text(encoding="utf-8")
            self._delimiter = _delimiter(text)
            self._template = environment.from_string(text)
            self.render("question", [_SAMPLE])
        except Exception as exc:
            raise BadTemplate(f"the prompt template {path} cannot be used: {exc}") from exc

    def render(self, question: str, hits: Sequence[Hit]) -> str:
        """The text that takes the question's place. `hits` are best first, numbered from 1.

        The template gets them best last: what stands nearest to the question counts most.
        """
        numbered = [
            {
                "number": number,
                "title": self._label(hit.title),
                "source": self._label(hit.source),
                "heading_path": self._label(hit.heading_path),
                "text": self._harmless(hit.text),
            }
            for number, hit in enumerate(hits, start=1)
        ]
        numbered.reverse()
        sources = list(dict.fromkeys(str(hit["source"]) for hit in numbered))
        return self._template.render(question=question, hits=numbered, sources=sources).strip()

    def _label(self, text: str) -> str:
        """`text` on one line and without straight quotes: it can stand in an attribute."""
        return " ".join(self._harmless(text).split()).translate(_QUOTES)

    def _harmless(self, text: str) -> str:
        """`text` without what is hidden in it, and without what the model takes for structure.

        A space behind a bracket is all that happens to a control token, so that code and prose
        about such tokens stay readable.
        """
        visible = _INVISIBLE.sub("", _LINE_END.sub("\n", text))
        if self._delimiter is not None:
            visible = self._delimiter.sub("‹", visible)  # noqa: RUF001  # looks like a tag, is none
        return _CONTROL.sub(r"\g<0> ", visible)


def _delimiter(template: str) -> re.Pattern[str] | None:
    """The bracket of each tag that `template` itself writes, such as those around passages."""
    names = sorted(set(_TAG.findall(_JINJA.sub(" ", template))))
    if not names:
        return None
    named = "|".join(map(re.escape, names))
    return re.compile(rf"<(?=\s{{0,8}}/?\s{{0,8}}(?:{named})\b)", re.IGNORECASE)
