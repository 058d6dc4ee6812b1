"""Reads reStructuredText, Sphinx's included. Knows docutils, not Sphinx itself."""

import re
from collections.abc import Callable
from typing import Any, ClassVar

from docutils import nodes
from docutils.core import publish_parts
from docutils.parsers.rst import Directive, directives, roles
from docutils.parsers.rst.languages import en

from indexer.documents import Content, Document
from indexer.parsing import MAX_CHARACTERS
from indexer.parsing.decoding import decode
from indexer.parsing.html_to_text import to_markdown, tree
from indexer.parsing.markdown import first_title


def parse(content: Content) -> Document:
    """The text as Markdown. Nothing is read from other files, whatever it includes.

    Raises DocumentUnusable when it is binary.
    """
    text = decode(content.data)
    _admit_unknown_names(text)
    html = publish_parts(text, writer="html5", settings_overrides=_SETTINGS)["html_body"]
    page = tree(html)
    for block in page.xpath("//pre[starts-with(@class, 'code ')]/code"):
        block.set("class", f"language-{block.getparent().get('class').split()[1]}")
    for literal in page.xpath("//span[contains(@class, 'literal')]"):
        literal.tag = "code"
    markdown = to_markdown(page)
    return Document(title=first_title(markdown), text=markdown)


def _admit_unknown_names(text: str) -> None:
    """Registers what docutils does not know, for it leaves out the content of such directives."""
    for name in {found.lower() for found in _DIRECTIVE.findall(text)}:
        if name in _WITHOUT_TEXT:
            directives.register_directive(name, _Dropped)
        elif name in _CODE:
            directives.register_directive(name, _Code)
        elif name not in en.directives or name == _CLASS_OF_SPHINX:
            directives.register_directive(name, _Transparent)
    for name in {"".join(found).lower() for found in _ROLE.findall(text)}:
        if name not in en.roles:
            roles.register_local_role(name, _words_of_role)


class _AnyOption(dict[str, Callable[[str], Any]]):
    def __missing__(self, option: str) -> Callable[[str], Any]:
        return directives.unchanged


class _Transparent(Directive):
    """What it is applied to, such as a signature, and the text inside it."""

    optional_arguments: ClassVar[int] = 1
    final_argument_whitespace: ClassVar[bool] = True
    option_spec: ClassVar[dict[str, Callable[[str], Any]]] = _AnyOption(
        noindex=directives.unchanged
    )
    has_content: ClassVar[bool] = True

    def run(self) -> list[nodes.Node]:
        """The argument as a paragraph, and what the content holds."""
        container = nodes.container()
        for argument in self.arguments:
            said = f"{_CHANGES.get(self.name.lower(), '')} {argument}".lstrip()
            inline, _ = self.state.inline_text(said, self.lineno)
            container += nodes.paragraph("", "", *inline)
        self.state.nested_parse(self.content, self.content_offset, container)
        return [container]


class _Dropped(_Transparent):
    """Instructions to Sphinx, with nothing to read in them."""

    def run(self) -> list[nodes.Node]:
        """Nothing."""
        return []


class _Code(_Transparent):
    """A code block, with the options of Sphinx that docutils refuses."""

    def run(self) -> list[nodes.Node]:
        """The block, in the language that the argument names."""
        code = "\n".join(self.content)
        return [nodes.literal_block(code, code, classes=["code", *self.arguments])]


def _words_of_role(
    _name: str,
    _source: str,
    text: str,
    *_more: object,
) -> tuple[list[Any], list[Any]]:
    """The title of a reference, or else its target, as code if it is one word."""
    words = nodes.unescape(text)
    titled = _TITLED.fullmatch(words)
    if titled:
        return [nodes.Text(titled[1])], []
    words = words.lstrip("!~")
    return [nodes.Text(words) if " " in words else nodes.literal(words, words)], []


_DIRECTIVE = re.compile(r"^[ \t]*\.\. (?:\|[^|\n]+\| )?([\w:.+-]*\w)::", re.MULTILINE)
_ROLE = re.compile(r":([\w:.+-]*\w):(?=`)|(?<=`):([\w:.+-]*\w):")
_TITLED = re.compile(r"(.*?)\s*<[^<>]*>", re.DOTALL)
_CLASS_OF_SPHINX = "class"  # describes a class; docutils' own sets an attribute of HTML
_CHANGES = {
    "deprecated": "Deprecated since version",
    "versionadded": "Added in version",
    "versionchanged": "Changed in version",
}
_CODE = frozenset({"code", "code-block", "sourcecode"})
_WITHOUT_TEXT = frozenset(
    {
        *(
            "audit-event",
            "codeauthor",
            "contents",
            "currentmodule",
            "default-domain",
            "default-role",
        ),
        *("highlight", "include", "index", "literalinclude", "meta", "module", "py:currentmodule"),
        *("py:module", "sectionauthor", "sectnum", "tabularcolumns", "toctree"),
    }
)
_SETTINGS = {
    "_disable_config": True,  # no docutils.conf of the folder that the run is started in
    "doctitle_xform": False,  # a single section is a section, no subtitle
    "file_insertion_enabled": False,
    "halt_level": 5,
    "initial_header_level": 1,
    "input_encoding": "unicode",
    "line_length_limit": MAX_CHARACTERS,
    "math_output": "LaTeX",
    "raw_enabled": False,
    "report_level": 5,
    "stylesheet_path": "",
    "syntax_highlight": "none",
}
