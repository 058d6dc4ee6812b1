"""What holds for every format, and for plain text and source code."""

import subprocess
import sys

import pytest

from indexer.documents import Content, Document
from indexer.errors import DocumentUnusable
from indexer.parsing import FORMATS, MAX_CHARACTERS, parse, plain
from tests.unit.parsing_samples import parsed

ONE_OF_EACH = sorted({module: suffix for suffix, module in FORMATS.items()}.values())
TEXT_FORMATS = sorted(
    suffix
    for suffix, module in FORMATS.items()
    if module in {"plain", "markdown_file", "webpage", "restructured", "delimited"}
)


def test_importing_the_package_imports_no_parser() -> None:
    code = (
        "import sys, indexer.parsing;"
        "print(*(name for name in ('lxml', 'markdown_it', 'yaml', 'chardet', 'docutils',"
        " 'trafilatura', 'pypdfium2', 'openpyxl', 'pptx', 'mammoth') if name in sys.modules))"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert found.stdout.strip() == ""


def test_every_suffix_is_in_lower_case_and_names_a_parser() -> None:
    for suffix in FORMATS:
        assert suffix == f".{suffix[1:].lower()}"
        with pytest.raises(DocumentUnusable, match=r"no text in it|damaged"):
            parsed(b"", suffix)


def test_a_format_that_is_not_known_is_named() -> None:
    with pytest.raises(DocumentUnusable, match=r"its format is not known: '\.exe'"):
        parsed(b"text", ".exe")


@pytest.mark.parametrize("suffix", ONE_OF_EACH)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text\0with a zero",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)),
        b"\x7fELF\x02\x01\x01" + bytes(64),
        b"PK\x03\x04" + bytes(64),
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        bytes((n * n + 7 * n) % 256 for n in range(9999)),
    ],
    ids=["empty", "zero", "png", "elf", "zip", "pdf", "noise"],
)
def test_what_holds_no_text_is_unusable(content: bytes, suffix: str) -> None:
    with pytest.raises(DocumentUnusable) as caught:
        parsed(content, suffix)

    assert "its parser failed" not in str(caught.value)


@pytest.mark.parametrize("suffix", TEXT_FORMATS)
def test_blank_text_is_no_text(suffix: str) -> None:
    with pytest.raises(DocumentUnusable, match="there is no text in it"):
        parsed(b" \n\t\r\n ", suffix)


@pytest.mark.parametrize("suffix", [".txt", ".md", ".log"])
def test_line_ends_of_every_kind_become_line_feeds(suffix: str) -> None:
    assert parsed(b"one\r\ntwo\rthree\nfour", suffix).text == "one\ntwo\nthree\nfour"


def test_the_colours_of_a_log_are_no_sign_of_a_binary() -> None:
    assert "failed" in parsed("\x1b[31mfailed\x1b[0m\n" * 50, ".log").text


def test_a_line_of_two_megabytes_is_a_line() -> None:
    assert len(parsed("word " * 400_000, ".txt").text) == 2_000_000


def test_the_length_of_a_text_is_limited() -> None:
    assert len(parsed("a" * MAX_CHARACTERS, ".txt").text) == MAX_CHARACTERS
    with pytest.raises(DocumentUnusable, match="its text is longer than 20,000,000 characters"):
        parsed("a" * (MAX_CHARACTERS + 1), ".txt")


@pytest.mark.parametrize("part", ["\ud800", "\udbff\udbff", "\0"])
def test_what_utf_8_or_a_database_cannot_hold_is_left_out(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = Document(title=f"a{part}b", text=f"c{part}d", canonical_url=f"e{part}f")
    monkeypatch.setattr(plain, "parse", lambda _: document)

    document = parsed(b"", ".txt")

    for text in (document.title, document.text, document.canonical_url):
        assert text.encode()
        assert part not in text
        assert (text[0], text[-1]) in {("a", "b"), ("c", "d"), ("e", "f")}


def test_a_title_is_one_line_that_can_be_shown() -> None:
    title = parsed("<title>" + "word \n" * 100_000 + "</title><main>x</main>", ".html").title

    assert title.startswith("word word word")
    assert len(title) == 300
    assert title.endswith("…")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (RecursionError(), "it is nested too deeply"),
        (KeyError("x"), "its parser failed: KeyError: 'x'"),
        (ValueError("v" * 9999), "its parser failed: ValueError: vv"),
    ],
)
def test_whatever_a_parser_raises_concerns_this_document(
    failure: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Content) -> Document:
        raise failure

    monkeypatch.setattr(plain, "parse", fail)

    with pytest.raises(DocumentUnusable) as caught:
        parse(Content(data=b"text", format=".txt"))

    assert str(caught.value).startswith(reason)
    assert len(str(caught.value)) <= 300


def test_source_code_is_a_block_in_its_language() -> None:
    code = "# no heading\ndef f() -> None:\n    pass"

    assert parsed(f"\n{code}\n\n", ".py").text == f"```python\n{code}\n```\n"
    assert parsed("key: 1", ".yml").text == "```yaml\nkey: 1\n```\n"


def test_a_fence_in_source_code_does_not_end_the_block() -> None:
    text = parsed('"""\n````\nexample\n````\n"""', ".py").text

    assert text.startswith("`````python\n")
    assert text.endswith("\n`````\n")


def test_minified_code_is_not_for_people() -> None:
    with pytest.raises(DocumentUnusable, match="its lines are too long for code that people read"):
        parsed("function a(b){return b};" * 1000, ".js")
