"""The prompt that takes the question's place."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.prompt import BadTemplate, PromptTemplate
from gateway.settings import GatewaySettings
from indexer.index.records import Hit

MakeTemplate = Callable[[str], PromptTemplate]
LISTED = "{% for hit in hits %}{{ hit.number }}={{ hit.text }};{% endfor %}"


@pytest.fixture
def template(tmp_path: Path) -> MakeTemplate:
    def make(text: str) -> PromptTemplate:
        path = tmp_path / "prompt.j2"
        path.write_text(text, encoding="utf-8")
        return PromptTemplate(path)

    return make


@pytest.fixture
def shipped(settings: GatewaySettings) -> PromptTemplate:
    return PromptTemplate(settings.prompt_template)


def test_the_best_hit_stands_last_and_keeps_number_one(
    template: MakeTemplate, hits: list[Hit]
) -> None:
    rendered = template(LISTED).render("q", hits)

    assert rendered == "3=Llamas drink little.;2=GEO is high.;1=Llamas eat grass.;"


def test_sources_are_told_once_each_in_the_order_of_the_hits(
    template: MakeTemplate, hits: list[Hit]
) -> None:
    rendered = template("{{ sources | join(' ') }}").render("q", hits)

    assert rendered == "https://example.org/guide/llamas.html docs/orbit.md"


def test_every_field_that_the_documentation_names_can_be_used(
    template: MakeTemplate, hits: list[Hit]
) -> None:
    text = (
        "{% for hit in hits %}{{ hit.title }}|{{ hit.source }}|{{ hit.heading_path }}{% endfor %}"
    )

    assert template(text).render("q", hits[:1]) == (
        "Llamas|https://example.org/guide/llamas.html|Llamas > Food"
    )


def test_the_shipped_template_has_question_hits_and_sources(
    shipped: PromptTemplate, hits: list[Hit]
) -> None:
    rendered = shipped.render("What do llamas eat?", hits)

    assert rendered.endswith("Question: What do llamas eat?")
    assert re.findall(r'<passage number="(\d)"', rendered) == ["3", "2", "1"]
    assert rendered.count("\n- https://example.org/guide/llamas.html\n") == 1
    assert "\nLlamas eat grass.\n</passage>" in rendered
    assert 'section="Llamas > Food"' in rendered


def test_the_shipped_template_leaves_no_empty_section(
    shipped: PromptTemplate, make_hit: Callable[..., Hit]
) -> None:
    assert "section=" not in shipped.render("q", [make_hit(heading_path="")])


@pytest.mark.parametrize(
    "hostile", ["{{ 7 * 7 }}", "{% for x in hits %}x{% endfor %}", "{# note #}", "{{ undefined }}"]
)
def test_template_syntax_in_a_document_or_a_question_is_text(
    shipped: PromptTemplate, make_hit: Callable[..., Hit], hostile: str
) -> None:
    rendered = shipped.render(
        f"question {hostile}", [make_hit(text=f"text {hostile}", title=f"title {hostile}")]
    )

    assert f"Question: question {hostile}" in rendered
    assert f"\ntext {hostile}\n" in rendered
    assert f"title {hostile}" in rendered


def test_nothing_is_escaped_as_if_it_were_html(
    shipped: PromptTemplate, make_hit: Callable[..., Hit]
) -> None:
    text = "if a < b && c > d: print(\"x\", 'y')"

    assert text in shipped.render(text, [make_hit(text=text)])


@pytest.mark.parametrize(
    "text",
    [
        "{{ question",
        "{% for hit in hits %}",
        "{{ no_such_variable }}",
        "{{ question | no_such_filter }}",
        "{{ question.__class__.__mro__ }}",
        "{{ hits.append(1) }}",
        "{% include 'other.j2' %}",
        "{{ 1 / 0 }}",
        "{{ hits + 1 }}",
        "{% for hit in hits %}{{ hit.txt }}{% endfor %}",
    ],
)
def test_a_template_that_cannot_work_is_refused_at_start(template: MakeTemplate, text: str) -> None:
    with pytest.raises(BadTemplate, match=r"prompt\.j2 cannot be used: "):
        template(text)


def test_a_template_that_is_not_there_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(BadTemplate, match=r"gone\.j2"):
        PromptTemplate(tmp_path / "gone.j2")


def test_a_template_that_is_not_utf_8_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "latin.j2").write_bytes("größe".encode("latin-1"))

    with pytest.raises(BadTemplate, match=r"latin\.j2"):
        PromptTemplate(tmp_path / "latin.j2")
