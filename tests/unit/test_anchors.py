"""What leads to the heading above a chunk, from the page or the Markdown file to the index."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.chunking import Chunker, ChunkerSettings
from indexer.chunking.anchors import matched, slugs
from indexer.engines.local import Pipeline
from indexer.run import Rules, Run
from tests.unit.index_fakes import FakeDocument, FakeDocuments, FakeEncoder, FakeWriter, tools
from tests.unit.parsing_samples import parsed

# Sections of one such sentence are too long to be in one chunk.
LIVE = "They live in the mountains of Peru."
EAT = "They eat grass and drink very little."
CHUNKER = Chunker(ChunkerSettings(size=50, overlap_percent=0))


def led_to(document: str, suffix: str = ".md") -> list[tuple[str, str]]:
    """The last line and the anchor of each span."""
    content = parsed(document, suffix)
    spans = CHUNKER.split(
        title="", text=content.text, anchors=content.anchors, has_slugs=content.has_slugs
    )
    return [(span.text.splitlines()[-1], span.anchor) for span in spans]


def page(body: str) -> list[tuple[str, str]]:
    return led_to(f"<html><body><main>{body}</main></body></html>", ".html")


# What GitHub makes of these, as github-slugger's tests have it.
@pytest.mark.parametrize(
    ("heading", "slug"),
    [
        ("Hello", "hello"),
        ("Installing Milvus 2.4", "installing-milvus-24"),
        ("What's next?", "whats-next"),
        ("Get & Scalar Query", "get--scalar-query"),
        ("M, `efConstruction` and *ef*", "m-efconstruction-and-ef"),
        ("IVF_FLAT", "ivf_flat"),
        ("a - b", "a---b"),
        ("[The guide](https://example.org)", "the-guide"),
        ("Привет 你好", "привет-你好"),
        ("हिन्दी", "हिन्दी"),
        ("😄 emoji", "-emoji"),
        ("Größe", "größe"),
        ("x² + y", "x--y"),
        ("Title {#custom-id}", "custom-id"),
        ("Title {#custom_id_ .class key=1} ##", "custom_id_"),
        ("Title {: #custom }", "custom"),
        ("Braces {id}", "braces-id"),
    ],
)
def test_the_anchor_of_a_markdown_heading_is_that_of_github(heading: str, slug: str) -> None:
    assert led_to(f"# Top\n\n{LIVE}\n\n## {heading}\n\n{EAT}")[-1] == (EAT, slug)


def test_an_underlined_heading_has_one_too() -> None:
    text = f"One two\n=======\n\n{LIVE}\n\nThree {{#four}}\n-----\n\n{EAT}"

    assert led_to(text) == [(LIVE, "one-two"), (EAT, "four")]


def test_headings_with_the_same_words_are_numbered() -> None:
    assert slugs([(words, words) for words in ("A", "a", "A 1", "B", "a", "A")]) == [
        *("a", "a-1", "a-1-1", "b", "a-2", "a-3")
    ]


@given(st.lists(st.sampled_from(["a", "A", "a 1", "a-1", "b", "", "?", "a 1 1"]), max_size=12))
def test_no_two_headings_have_one_anchor(headings: list[str]) -> None:
    found = slugs([(words, words) for words in headings])

    assert len(set(found)) == len(found) == len(headings)


def test_the_anchor_is_that_of_the_innermost_heading_right_above() -> None:
    text = f"{LIVE}\n\n# A\n\n## B\n\n{EAT}\n\n### C\n\n{LIVE} {LIVE}\n\n## D\n\n{EAT}"

    assert [anchor for _, anchor in led_to(text)] == ["", "b", "c", "c", "d"]


def test_a_comment_in_code_is_no_heading() -> None:
    assert led_to(f"# A\n\n```\n# A\n```\n\n# A\n\n{EAT}")[-1] == (EAT, "a-1")


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ('<h2 id="Food-2">Food</h2>', "Food-2"),
        ('<h2><span class="headline" id="food">Food</span></h2>', "food"),
        ('<h2><a name="food"></a>Food</h2>', "food"),
        ('<a id="food"></a><h2>Food</h2>', "food"),
        ('<a name="food"></a><!-- - --><span></span><h2>Food</h2>', "food"),
        ('<section id="food"><h2>Food<a href="#food">¶</a></h2></section>', "food"),
        ('<section id="all"><h2 id="food">Food</h2></section>', "food"),
        ('<div id="x"><span id="y"></span><h2>Food</h2></div>', "x"),
        ('<section id="x"><p>Text.</p><h2>Food</h2></section>', ""),
        ('<section id="x">Text <h2>Food</h2></section>', ""),
        ('<p id="x">Text.</p><h2>Food</h2>', ""),
        ('<h2 id="not one">Food</h2>', ""),
        ("<h2>Food</h2>", ""),
        ('<h2 id="list-t">List&lt;T&gt;</h2>', "list-t"),
        ('<h2 id="ef">The <code>ef_search</code> &amp; <em>M*</em></h2>', "ef"),
        ('<h2 id="größe">Größe</h2>', "größe"),
    ],
)
def test_the_anchor_of_a_heading_on_a_page_is_an_id_that_leads_to_it(
    heading: str, anchor: str
) -> None:
    found = page(f'<h1 id="top">Llamas</h1><p>{LIVE}</p>{heading}<p>{EAT}</p>')

    assert found[0] == (LIVE, "top")
    assert found[-1] == (EAT, anchor)


def test_headings_with_the_same_words_keep_their_own_ids() -> None:
    found = page(
        f'<h1>A</h1><p>{LIVE}</p><h2 id="a">Setup</h2><p>{LIVE}</p><h2>Setup</h2><p>{EAT}</p>'
        f'<h2 id="c">Setup</h2><p>{EAT}</p>'
    )

    assert found == [(LIVE, ""), (LIVE, "a"), (EAT, ""), (EAT, "c")]


def test_an_id_is_no_part_of_the_text() -> None:
    document = parsed('<main><h2 id="here">Food</h2><p>Grass.</p></main>', ".html")

    assert document.text.strip() == "## Food\n\nGrass."


def test_where_one_of_several_equal_headings_was_left_out_none_is_sure() -> None:
    stated = [("Setup", "a"), ("Food", "f"), ("Setup", "b"), ("More", "m")]

    assert matched(["Setup", "Food"], stated) == ["", "f"]
    assert matched(["Food", "More"], stated) == ["f", "m"]
    assert matched(["Setup", "Setup", "More"], stated) == ["a", "b", "m"]
    assert matched(["Setup", "Another", "Setup", "More"], stated) == ["a", "", "b", "m"]
    assert matched([], stated) == matched([], []) == []
    assert matched(["Setup"], []) == [""]


def test_an_article_that_statistics_tell_from_the_rest_has_anchors_too() -> None:
    prose = "".join(
        f"<p>The llama is a domesticated camelid of South America, kept as a pack animal by "
        f"Andean cultures since before Columbus, as paragraph {number} tells.</p>"
        for number in range(8)
    )
    links = "".join(f'<li><a href="/{n}">Another story, number {n}</a></li>' for n in range(40))
    found = led_to(
        f'<html><body><h1 id="top">Llamas</h1>{prose}<h2 id="food">Food</h2>{prose}'
        f"<ul>{links}</ul></body></html>",
        ".html",
    )

    assert {anchor for _, anchor in found} == {"top", "food"}
    assert all(
        first <= second for first, second in pairwise(anchor == "food" for _, anchor in found)
    )


@pytest.mark.parametrize("suffix", [".txt", ".rst", ".py"])
def test_other_formats_have_no_anchors(suffix: str) -> None:
    assert [anchor for _, anchor in led_to("# Llamas\n\nThey live.\n", suffix)] == [""]


def test_the_anchor_is_stored_and_left_out_where_it_is_too_long(
    writer: FakeWriter, encoder: FakeEncoder
) -> None:
    used = tools(writer, encoder)
    documents = [FakeDocument("a.md", f"# Bread\n\n{LIVE}\n\n# A {{#{'x' * 5000}}}\n\n{EAT}")]
    run = Run(
        used,
        Pipeline(used),
        Rules(tenants=["default"], default_tenant="default"),
        search=lambda _: lambda *_: [],
    )
    with writer.lease(60) as lease:
        run.execute(FakeDocuments(documents), run=lease.run, on_document=lambda _: None)

    assert [row.anchor for row in writer.rows()] == ["bread", ""]
