"""From the bytes of a file to title and Markdown text."""

import pytest

from indexer.errors import DocumentUnusable
from indexer.parsing import FORMATS, Document, outline, parse

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
<form>Subscribe</form></main>
<footer>Copyright notice</footer><script>var tracker = 1</script></body></html>"""

CODE = """```python
from pymilvus import MilvusClient
if 1 < 2 && x:
    y_z = "*"


# no heading
```"""

FURNITURE = [
    *("Brand", "Menu entry", "Bread crumbs", "Copy page", "Copy code", "Related pages"),
    *("Hidden words", "Subscribe", "Copyright notice", "tracker"),
]


def html(text: str, encoding: str = "utf-8") -> Document:
    return parse(text.encode(encoding), ".html")


def markdown(text: str) -> Document:
    return parse(text.encode(), ".md")


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


def test_the_canonical_url_is_the_one_that_the_page_states() -> None:
    assert html(PAGE).canonical_url == "https://example.org/install"
    assert html("<main><p>text</p></main>").canonical_url == ""


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
    menu = "".join(f'<li><a href="/p{n}">Menu entry {n}</a></li>' for n in range(12))
    paragraphs = "".join(
        f"<p>The llama is a domesticated camelid of South America, kept as a pack animal by "
        f"Andean cultures since before Columbus, as paragraph {n} tells.</p>"
        for n in range(6)
    )
    text = html(f"<title>L</title><div><ul>{menu}</ul></div><div>{paragraphs}</div>").text

    assert "Menu entry" not in text
    assert all(f"paragraph {n} tells" in text for n in range(6))


@pytest.mark.parametrize(
    "page", ["", " \n ", "<!-- nothing -->", "<main></main>", "<title>T</title>"]
)
def test_a_page_without_text_is_unusable(page: str) -> None:
    with pytest.raises(DocumentUnusable):
        html(page)


def test_front_matter_gives_the_title_and_is_no_text() -> None:
    document = markdown('---\ntitle: " Guide: One "\ntags: [a]\n---\n# Other\n\nText.\n')

    assert document.title == "Guide: One"
    assert document.text.strip() == "# Other\n\nText."


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("---\nid: 7\n---\n# Heading `code`\n\nx", "Heading code"),
        ("---\ntitle: 2024\n---\nx", "2024"),
        ("---\ntitle: [a]\n---\n# Heading\n\nx", "Heading"),
        ("---\ntitle:\n---\n# Heading\n\nx", "Heading"),
        ("Setext\n======\n\nx", "Setext"),
        ("## Second level\n\n# Late\n\nx", ""),
        ("no heading", ""),
    ],
)
def test_markdown_is_titled_by_front_matter_or_else_by_its_first_heading(
    text: str, title: str
) -> None:
    assert markdown(text).title == title


@pytest.mark.parametrize(
    "text",
    [
        "---\ntitle: a: b\n---\nText.\n",
        "---\n{{ x }}: y\n---\nText.\n",
        "---\n\nText.\n",
        "---\ndate: 2024-02-30\n---\nText.\n",
        '{\n  "a": 1\n}\n---\nText.\n',
    ],
)
def test_broken_front_matter_is_text(text: str) -> None:
    document = markdown(text)

    assert document.title == ""
    assert document.text.strip() == text.strip()


def test_tables_of_markdown_stay() -> None:
    table = "| a | b |\n|---|---|\n| 1 | 2 |"

    assert table in markdown(f"# T\n\n{table}\n").text


def test_what_looks_like_a_heading_in_a_code_block_is_none() -> None:
    text = "```bash\n# comment\n```\n\n    # indented\n\n# Real *one*\n\ntext\n\nSetext\n---\n"

    found = [(heading.level, heading.text, text[heading.start :][:4]) for heading in outline(text)]

    assert found == [(1, "Real one", "# Re"), (2, "Setext", "Sete")]
    assert markdown(text).title == "Real one"


def test_headings_are_placed_by_character_and_not_by_byte() -> None:
    text = "Übergrößen 漢字 🦙\n\n# Größe\n"

    [heading] = outline(text)

    assert text[heading.start :] == "# Größe\n"


@pytest.mark.parametrize("suffix", [".txt", ".md"])
def test_line_ends_of_every_kind_become_line_feeds(suffix: str) -> None:
    assert parse(b"one\r\ntwo\rthree\nfour", suffix).text == "one\ntwo\nthree\nfour"


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_a_byte_order_mark_is_no_text(suffix: str) -> None:
    text = parse("# Größe\n\nText".encode("utf-8-sig"), suffix).text

    assert "\ufeff" not in text
    assert "Größe" in text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_known_by_its_mark(encoding: str) -> None:
    text = "Hello wörld, this is text.\r\nSecond line."

    assert parse(f"\ufeff{text}".encode(encoding), ".txt").text == text.replace("\r\n", "\n")


def test_windows_1252_is_recognised() -> None:
    text = "Die Größe der Straße in Köln überrascht viele. „Schön“, sagte er, für 5 €. " * 9

    assert parse(text.encode("windows-1252"), ".txt").text == text


def test_a_short_text_in_windows_1252_is_not_taken_for_a_baltic_one() -> None:
    text = "The café serves naïve résumés to the façade. It costs “five”, not six. " * 3

    assert parse(text.encode("windows-1252"), ".txt").text == text


def test_a_page_that_states_its_encoding_is_taken_at_its_word() -> None:
    page = '<head><meta charset="windows-1252"></head><main><p>„Größe“: 5 €</p></main>'

    assert html(page, "windows-1252").text.strip() == "„Größe“: 5 €"


@pytest.mark.parametrize("suffix", sorted(FORMATS))
@pytest.mark.parametrize(
    "content",
    [b"", b" \n\t", b"text\0with a zero", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256))],
    ids=["empty", "blank", "zero", "png"],
)
def test_what_holds_no_text_is_unusable(content: bytes, suffix: str) -> None:
    with pytest.raises(DocumentUnusable):
        parse(content, suffix)


@pytest.mark.parametrize("suffix", [".MD", ".Html", ".TXT"])
def test_the_case_of_a_suffix_does_not_matter(suffix: str) -> None:
    assert "text" in parse(b"<main>text</main>", suffix).text
