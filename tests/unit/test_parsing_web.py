"""From a web page to its main content."""

import pytest

from indexer.documents import Document
from indexer.errors import DocumentUnusable
from tests.unit.parsing_samples import parsed

PAGE = """<!doctype html><html><head><title>Install | Site</title>
<link rel="canonical" href=" https://example.org/install "></head><body>
<header><a href="/">Brand</a></header>
<nav><ul><li><a href="/a">Menu entry</a></li></ul></nav>
<main><nav class="crumbs">Bread crumbs</nav><button>Copy page</button>
<h1>Install <code>milvus</code></h1>
<p>See <a href="/x">the guide</a> first.</p>
<div class="highlight"><button>Copy code</button><pre><code class="language-python"><span
class="k">from</span> <span class="nn">pymilvus</span> <span class="k">import</span> MilvusClient
<span class="k">if</span> 1 &lt; 2 &amp;&amp; x:
    <span class="n">y_z</span> <span class="o">=</span> <span class="s">"*"</span>


<span class="c"># no heading</span></code></pre></div>
<table><thead><tr><th>Name</th><th>Range</th></tr></thead>
<tbody><tr><td>M</td><td>(2, 2048)</td></tr>
<tr><td>ef</td><td>[top_k, 32768]</td></tr></tbody></table>
<h2>Next</h2><p>Text.</p><aside>Related pages</aside><p hidden>Hidden words</p>
<iframe src="/player">Player</iframe><form>Subscribe <input value="mail"></form></main>
<footer>Copyright notice</footer><script>var tracker = 1</script></body></html>"""

CODE = """```python
from pymilvus import MilvusClient
if 1 < 2 && x:
    y_z = "*"


# no heading
```"""

FURNITURE = [
    *("Brand", "Menu entry", "Bread crumbs", "Copy page", "Copy code", "Related pages"),
    *("Hidden words", "Subscribe", "Copyright notice", "tracker", "player"),
]

MENU = "".join(f'<li><a href="/p{n}">Menu entry {n}</a></li>' for n in range(12))
PROSE = [
    f"The llama is a domesticated camelid of South America, kept as a pack animal by Andean "
    f"cultures since before Columbus, as paragraph {n} tells."
    for n in range(6)
]
LAST = "So much for the llama, which is not the only camelid that people keep in these mountains."
PARAGRAPHS = "".join(f"<p>{text}</p>" for text in PROSE)
READ_ALSO = "".join(
    f'<li><a href="/r{n}">Another story that has nothing to do with it, number {n}</a></li>'
    for n in range(9)
)
SNIPPET = "<pre><code>llama --herd 7\n    --pack</code></pre>"
VALUES = "<table><tr><th>Load</th><th>Days</th></tr><tr><td>30 kg</td><td>12</td></tr></table>"


def html(text: str) -> Document:
    return parsed(text, ".html")


def test_code_in_a_page_stays_character_for_character_through_its_highlighting() -> None:
    assert CODE in html(PAGE).text


@pytest.mark.parametrize("furniture", FURNITURE)
def test_furniture_of_a_page_with_landmarks_is_dropped(furniture: str) -> None:
    assert furniture in PAGE
    assert furniture not in html(PAGE).text


def test_tables_and_the_words_of_links_stay() -> None:
    text = html(PAGE).text

    assert "| M | (2, 2048) |\n| ef | [top_k, 32768] |" in text
    assert "See the guide first." in text


@pytest.mark.parametrize(
    ("href", "url"),
    [
        (" https://example.org/install ", "https://example.org/install"),
        ("HTTP://example.org/", "HTTP://example.org/"),
        ("/install", ""),
        ("javascript:alert(1)", ""),
        ("https:///", ""),
        ("", ""),
    ],
)
def test_the_canonical_url_is_the_one_that_the_page_states_if_it_is_one(
    href: str, url: str
) -> None:
    page = f'<link rel="canonical" href="{href}"><main><p>text</p></main>'

    assert html(page).canonical_url == url


@pytest.mark.parametrize(
    ("page", "title"),
    [
        (PAGE, "Install milvus"),
        ("<title>\n Page\n title </title><main><h2>Sub</h2><p>x</p></main>", "Page title"),
        ("<title>Page</title><main><h2>Sub</h2><h1>Late</h1></main>", "Page"),
        ("<main><p>no title at all</p></main>", ""),
    ],
)
def test_a_page_is_titled_by_its_first_h1_or_else_by_its_title_element(
    page: str, title: str
) -> None:
    assert html(page).title == title


def test_the_main_role_counts_like_the_element() -> None:
    text = html('<div>outside</div><div role="main"><p>inside</p></div>').text

    assert text.strip() == "inside"


def test_one_article_is_the_main_region_where_no_main_is_marked() -> None:
    text = html("<div>outside</div><article><p>inside</p></article>").text

    assert text.strip() == "inside"


def test_a_page_with_landmarks_but_no_main_region_keeps_all_but_its_furniture() -> None:
    page = "<nav>Menu entry</nav><div><h1>T</h1><pre>code</pre><p>x</p></div><footer>F</footer>"

    assert html(page).text.strip() == "# T\n\n```\ncode\n```\n\nx"


def test_a_page_without_landmarks_loses_its_menu_by_statistics() -> None:
    text = html(f"<title>L</title><div><ul>{MENU}</ul></div><div>{PARAGRAPHS}</div>").text

    assert "Menu entry" not in text
    assert all(paragraph in text for paragraph in PROSE)


def test_code_and_tables_come_through_the_statistics_word_for_word_and_in_their_place() -> None:
    page = f"<div><ul>{MENU}</ul></div><div>{PARAGRAPHS}{SNIPPET}{VALUES}<p>{LAST}</p></div>"

    text = html(page).text

    assert "Menu entry" not in text
    code = "```\nllama --herd 7\n    --pack\n```"
    table = "| Load | Days |\n| --- | --- |\n| 30 kg | 12 |"
    assert f"{PROSE[5]}\n\n{code}\n\n{table}\n\n{LAST}" in text


@pytest.mark.parametrize(
    "claim",
    [
        '<meta property="og:type" content="article">',
        '<meta property="article:published_time" content="2024-05-01">',
        '<script type="application/ld+json">{"@type": "NewsArticle"}</script>',
    ],
)
def test_a_region_of_an_article_is_cleared_of_other_stories(claim: str) -> None:
    more = f"<h3>Read also</h3><ul>{READ_ALSO}</ul>"
    body = f"<nav>M</nav><main><h1>Llamas</h1>{PARAGRAPHS}{more}</main>"

    text = html(f"<head>{claim}</head><body>{body}</body>").text

    assert all(paragraph in text for paragraph in PROSE)
    assert "Another story" not in text
    assert "Another story" in html(f"<body>{body}</body>").text


def test_a_region_with_code_is_taken_whole_even_if_it_calls_itself_an_article() -> None:
    note = "<p>Note.</p>"
    head = '<meta property="og:type" content="article">'

    text = html(f"<head>{head}</head><main><h1>T</h1>{note}{SNIPPET}</main>").text

    assert "Note." in text
    assert "llama --herd 7" in text


def test_a_manual_without_landmarks_and_with_few_links_is_taken_whole() -> None:
    entries = "".join(f"<dt>--option-{n}</dt><dd>Does {n} things.</dd>" for n in range(20))

    text = html(f"<body><h2>Options</h2><dl>{entries}</dl></body>").text

    assert all(f"--option-{n}" in text and f"Does {n} things." in text for n in range(20))


def test_a_form_around_the_whole_page_is_no_furniture() -> None:
    text = html(f"<body><form action='/x'><main>{PARAGRAPHS}</main></form></body>").text

    assert PROSE[0] in text


def test_a_page_of_many_thousand_rows_is_not_judged_by_statistics() -> None:
    rows = "".join(f"<tr><td><a href='/{n}'>row {n}</a></td></tr>" for n in range(7_000))

    assert "row 6999" in html(f"<table>{rows}</table>").text


def test_formatting_that_is_never_closed_is_read() -> None:
    page = "".join(f"<p><font><b>Paragraph {n}.</p>" for n in range(400))

    text = html(page).text

    assert "Paragraph 0." in text
    assert "Paragraph 399." in text


@pytest.mark.parametrize(
    "page", ["", " \n ", "<!-- nothing -->", "<main></main>", "<title>T</title>", "<p>&nbsp;</p>"]
)
def test_a_page_without_text_is_unusable(page: str) -> None:
    with pytest.raises(DocumentUnusable):
        html(page)


def test_numbers_of_characters_that_do_not_exist_are_harmless() -> None:
    text = html("<main>a&#xD800;b&#xDFFF;c&#x110000;d&#0;e</main>").text

    assert text.encode()
    assert [letter for letter in text if letter.isascii() and letter.isalpha()] == list("abcde")


def test_entities_that_a_page_declares_are_not_expanded_and_the_declaration_is_no_text() -> None:
    head = '<!DOCTYPE html [<!ENTITY a "aaaa"><!ENTITY b SYSTEM "file:///etc/hosts">]>'

    text = parsed(f"<?xml version='1.0'?>{head}<html><body>x &a; &b;</body></html>", ".xhtml").text

    assert text.strip() == "x &a; &b;"
