"""Joins a question with the hits found for it, after a template that operators can replace."""

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
            self._template = environment.from_string(path.read_text(encoding="utf-8"))
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
                "title": hit.title,
                "source": hit.source,
                "heading_path": hit.heading_path,
                "text": hit.text,
            }
            for number, hit in enumerate(hits, start=1)
        ]
        numbered.reverse()
        sources = list(dict.fromkeys(str(hit["source"]) for hit in numbered))
        return self._template.render(question=question, hits=numbered, sources=sources).strip()
