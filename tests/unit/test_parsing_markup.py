"""Markdown with its front matter, and reStructuredText."""

import json

import pytest

from indexer.documents import Document
from indexer.errors import DocumentUnusable
from tests.unit.parsing_samples import parsed


def markdown(text: str) -> Document:
    return parsed(text, ".md")


def rst(text: str) -> Document:
    return parsed(text, ".rst")


def test_front_matter_gives_the_title_and_is_no_text() -> None:
    document = markdown('---\ntitle: " Guide: One "\ntags: [a]\n---\n# Other\n\nText.\n')

    assert document.title == "Guide: One"
    assert document.text.strip() == "# Other\n\nText."
    assert document.attributes == {"tags": ["a"]}


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("---\nid: 7\n---\n# Heading `code`\n\nx", "Heading code"),
        ("---\ntitle: 2024\n---\nx", "2024"),
        ("---\ntitle: [a]\n---\n# Heading\n\nx", "Heading"),
        ("---\ntitle:\n---\n# Heading\n\nx", "Heading"),
        ("Setext\n======\n\nx", "Setext"),
        ("## Second level\n\n# Late\n\nx", ""),
        ("```bash\n# comment\n```\n\n    # indented\n\n# Real *one*\n\nx", "Real one"),
        ("no heading", ""),
    ],
)
def test_markdown_is_titled_by_front_matter_or_else_by_its_first_heading(
    text: str, title: str
) -> None:
    assert markdown(text).title == title


def test_attributes_are_json_whatever_front_matter_holds() -> None:
    document = markdown(
        "---\ndate: 2024-05-01\nupdated: 2024-05-01 12:30:00\nratio: .nan\nlimit: .inf\n"
        "tags: !!set {a}\nnested: {deep: [1, 2.5, true, null]}\n7: seven\nbytes: !!binary aGk=\n"
        "---\nText.\n"
    )

    assert json.loads(json.dumps(document.attributes, allow_nan=False)) == {
        "7": "seven",
        "bytes": "b'hi'",
        "date": "2024-05-01",
        "limit": "inf",
        "nested": {"deep": [1, 2.5, True, None]},
        "ratio": "nan",
        "tags": {"a": None} if isinstance(document.attributes["tags"], dict) else ["a"],
        "updated": "2024-05-01T12:30:00",
    }


def test_front_matter_in_toml_is_read_too() -> None:
    document = markdown('+++\ntitle = "Guide"\ndate = 2024-05-01\n[menu]\nweight = 3\n+++\nText.\n')

    assert document.title == "Guide"
    assert document.attributes == {"date": "2024-05-01", "menu": {"weight": 3}}
    assert document.text.strip() == "Text."


@pytest.mark.parametrize(
    "text",
    [
        "---\ntitle: a: b\n---\nText.\n",
        "---\n{{ x }}: y\n---\nText.\n",
        "---\n\nText.\n",
        "---\ndate: 2024-02-30\n---\nText.\n",
        "---\nx: !!python/object/apply:os.system [echo]\n---\nText.\n",
        "---\nx: " + "9" * 9999 + "\n---\nText.\n",
        "---\na: &a [*a]\n---\nText.\n",
        "---\nx: " + "[" * 4_000 + "\n---\nText.\n",
        "---\n- a\n- b\n---\nText.\n",
        "+++\ntitle = \n+++\nText.\n",
        "+++\nx = " + "[" * 20_000 + "\n+++\nText.\n",
        '{\n  "a": 1\n}\n---\nText.\n',
    ],
)
def test_broken_front_matter_is_text(text: str) -> None:
    document = markdown(text)

    assert document.title == ""
    assert document.attributes == {}
    assert document.text.strip() == text.strip()


def test_front_matter_whose_aliases_stand_for_a_billion_values_is_text() -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{f'*a{n - 1},' * 10}]" for n in range(1, 12))]

    document = markdown("---\n" + "\n".join(lines) + "\n---\nText.\n")

    assert document.attributes == {}


def test_a_title_is_not_repeated_among_the_attributes() -> None:
    assert markdown("---\ntitle: T\nauthor: A\n---\nx").attributes == {"author": "A"}


def test_tables_of_markdown_stay() -> None:
    table = "| a | b |\n|---|---|\n| 1 | 2 |"

    assert table in markdown(f"# T\n\n{table}\n").text


def test_the_module_lines_at_the_top_of_mdx_are_no_text() -> None:
    top = "---\nid: 1\n---\n\nimport Tabs from '@theme/Tabs';\nexport const x = 1\n\n"

    document = parsed(f"{top}# T\n\nimport it\n", ".mdx")

    assert document.text.strip() == "# T\n\nimport it"
    assert document.title == "T"


GUIDE = """
Guide
=====

.. contents::
.. toctree::
   :maxdepth: 2

   install

Install
-------

See :ref:`the guide <guide>`, :py:class:`~pkg.Thing` and ``a_b``.

.. code-block:: python
   :linenos:

   # no heading
   x = 1

.. class:: Client(uri, *, timeout=3)

   Talks to *Milvus*.

   .. versionadded:: 3.2
      The *timeout*.

.. tabs::

   .. tab:: Docker

      Pull it.

.. note:: Be careful.

====  =====
Name  Range
====  =====
M     2-9
====  =====
"""


def test_restructured_text_keeps_headings_code_tables_and_notes() -> None:
    document = rst(GUIDE)

    assert document.title == "Guide"
    assert document.text.startswith("# Guide\n\n## Install\n\n")
    assert "```python\n# no heading\nx = 1\n```" in document.text
    assert "| Name | Range |\n| --- | --- |\n| M | 2-9 |" in document.text
    assert "Be careful." in document.text


def test_roles_and_directives_of_sphinx_are_read_and_its_instructions_are_not() -> None:
    text = rst(GUIDE).text

    assert "See the guide, `pkg.Thing` and `a_b`." in text
    assert "Client(uri, *, timeout=3)" in text
    assert "Talks to *Milvus*." in text
    assert "Added in version 3.2" in text
    assert "Docker" in text
    assert "Pull it." in text
    assert "maxdepth" not in text
    assert "install\n" not in text


@pytest.mark.parametrize(
    "directive",
    [
        ".. include:: {path}",
        ".. raw:: html\n   :file: {path}",
        ".. csv-table:: T\n   :file: {path}",
        ".. literalinclude:: {path}",
        ".. code-block:: text\n   :file: {path}",
    ],
)
def test_restructured_text_reads_no_other_file(directive: str) -> None:
    text = f"Before.\n\n{directive.format(path=__file__)}\n\nAfter.\n"

    found = rst(text).text

    assert "Before." in found
    assert "After." in found
    assert "pytest" not in found


def test_raw_html_of_restructured_text_is_left_out() -> None:
    text = rst("Before.\n\n.. raw:: html\n\n   <script>alert(1)</script>\n\nAfter.\n").text

    assert "alert" not in text


def test_a_paragraph_on_one_long_line_is_read() -> None:
    assert len(rst("word " * 40_000).text) >= 199_000


def test_substitutions_that_stand_for_a_billion_words_fail_alone() -> None:
    lines = [f".. |s{n}| replace:: {f'|s{n + 1}| ' * 9}" for n in range(9)]

    with pytest.raises(DocumentUnusable):
        rst("\n".join([*lines, "", "|s0|", ""]))
