"""Finds out which encoding bytes are in. Knows bytes and scripts, not formats."""

import codecs
import re
import unicodedata
from collections.abc import Iterator

import chardet

from indexer.errors import DocumentUnusable


def decode(data: bytes, declared: str = "") -> str:
    """The text in `data`, with line feeds as line ends.

    Tried in turn: the byte order mark, UTF-16 without one, UTF-8, the encoding that the
    document has `declared`, and statistics. A declaration is the author's, or some template's:
    bytes that are UTF-8 are so by no accident, whatever they declare.
    Raises DocumentUnusable for what is no text.
    """
    if data.startswith(_BINARY_STARTS):
        raise DocumentUnusable("it is binary")
    text = _decoded(data, declared)
    if "\0" in text or _share_of_controls(text[:_SAMPLE_BYTES]) > _CONTROLS_OF_A_BINARY:
        raise DocumentUnusable("it is binary")
    return _LINE_END.sub("\n", text)


def _decoded(data: bytes, declared: str) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    wide = _utf_16_without_mark(data)
    if wide:
        return data.decode(wide, "replace")
    if _SHIFT_OF_ISO_2022_JP.search(data[:_SAMPLE_BYTES]):
        return data.decode("iso2022_jp", "replace")
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    if _is_damaged_utf_8(data):
        return data.decode(errors="replace")
    for encoding in _candidates(data, _known(declared)):
        text = _strictly(data, encoding)
        if text is not None:
            return text
    raise DocumentUnusable("it is not text in any known encoding")


def _strictly(data: bytes, encoding: str) -> str | None:
    """None as well for what the encoding allows but nobody writes: C1 controls in a text."""
    try:
        text = data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None
    return None if _C1_CONTROL.search(text) else text


def _known(declared: str) -> str:
    """The encoding that browsers use for a declaration, empty for none or one not known.

    See the labels at encoding.spec.whatwg.org: most stand for a superset of what they name.
    """
    try:
        name = codecs.lookup(declared.strip()).name
    except (LookupError, ValueError):
        return ""
    return _SUPERSETS.get(name, name) if _LEGACY.match(name) else ""


def _candidates(data: bytes, declared: str) -> Iterator[str]:
    """What is declared, then what statistics say; Western Europe's where they are not sure.

    Only for a Western encoding do statistics come first, when they are sure: nearly all bytes
    decode under it, and it is what templates declare whatever they are filled with.
    """
    sample = data[:_SAMPLE_BYTES]
    if declared == "cp1252":
        words = b" ".join(_WORD_BEYOND_ASCII.findall(sample))  # not the markup around them
        guessed, confidence = _guess(words)
        if confidence >= _SURE:
            yield guessed
    if declared:
        yield declared
    guessed, confidence = _guess(sample)
    if confidence < _UNSURE and _looks_western(sample):
        yield "cp1252"
    yield guessed
    yield "cp1252"


def _guess(sample: bytes) -> tuple[str, float]:
    """What chardet takes it for, and how sure it is, from 0 to 1."""
    found = chardet.detect(sample, include_encodings=_ENCODINGS)
    return _known(found["encoding"] or ""), found["confidence"]


def _looks_western(sample: bytes) -> bool:
    """Few letters beyond ASCII, and no signs of Polish or Turkish misread as a Western language."""
    text = sample.decode("cp1252", "replace")
    foreign = sum(1 for character in text if character > "\x7f" and character.isalpha())
    return foreign <= len(text) * _WESTERN_SHARE and not _MISREAD.search(text)


def _is_damaged_utf_8(data: bytes) -> bool:
    """Whether a few wrong bytes spoil what is UTF-8 otherwise: a cut end, a pasted line."""
    sample = data[:_SAMPLE_BYTES].decode(errors="replace")
    wrong = sample.count("\N{REPLACEMENT CHARACTER}")
    right = sum(1 for character in sample if character > "\x7f") - wrong
    return right > _RIGHT_FOR_ONE_WRONG * wrong


def _utf_16_without_mark(data: bytes) -> str:
    """The byte order by which `data` reads as text in UTF-16; empty if by none.

    Letters of one script share their high byte, and only one of the two orders yields
    characters that exist, with the spaces or full stops that any text has.
    """
    sample = data[: _SAMPLE_BYTES & ~1]
    if len(data) % 2 or (b"\0" not in sample and _is_utf_8(sample)):
        return ""
    shares = {order: _share_of_common(sample, order) for order in ("utf-16-le", "utf-16-be")}
    best = max(shares, key=lambda order: shares[order])
    return best if shares[best] > _COMMON_IN_A_TEXT else ""


def _share_of_common(sample: bytes, order: str) -> float:
    """Spaces and full stops among the characters; 0 when some are none."""
    try:
        text = sample.decode(order)
    except UnicodeDecodeError:
        return 0.0
    if any(unicodedata.category(c) in _NO_CHARACTER and c not in "\t\n\r\f" for c in set(text)):
        return 0.0
    return sum(text.count(common) for common in _COMMON) / max(1, len(text))


def _is_utf_8(sample: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _share_of_controls(sample: str) -> float:
    return len(_CONTROL.findall(sample)) / max(1, len(sample))


_SAMPLE_BYTES = 1 << 18
_SURE = 0.3
_UNSURE = 0.2
_WESTERN_SHARE = 0.12
_RIGHT_FOR_ONE_WRONG = 10
_COMMON_IN_A_TEXT = 0.005
_CONTROLS_OF_A_BINARY = 0.01

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY_STARTS = (
    b"\x89PNG",
    b"\x7fELF",
    b"PK\x03\x04",
    b"GIF8",
    b"\xff\xd8\xff",
    b"%PDF-",
    b"\x1f\x8b",
)
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
_ENCODINGS = (
    *("windows-1250", "windows-1251", "windows-1252", "windows-1253", "windows-1254"),
    *("windows-1255", "windows-1256", "windows-1257", "windows-1258", "windows-874"),
    *("iso-8859-2", "iso-8859-7", "koi8-r", "koi8-u"),
    *("shift_jis", "cp932", "euc-jp", "gb18030", "big5", "big5hkscs"),
    *("euc-kr", "cp949"),
)
_SHIFT_OF_ISO_2022_JP = re.compile(rb"\x1b\$[@B]")
_LEGACY = re.compile(r"ascii|big5|cp\d|euc|gb|iso|johab|koi8|mac|shift_jis|tis")  # no "rot13"
_NO_CHARACTER = ("Cc", "Cn", "Co", "Cs")
_COMMON = (" ", "\n", "、", "。", "，", "．")  # noqa: RUF001  # no commas of ours
_LINE_END = re.compile(r"\r\n?")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # an escape colours the lines of a log
_WORD_BEYOND_ASCII = re.compile(rb"[^\s<>]*[\x80-\xff][^\s<>]*")
_C1_CONTROL = re.compile(r"[\x80-\x84\x86-\x9f]")  # U+0085 is a line end
_MISREAD = re.compile(r"[ýþð]|[^\W\d_][\xa1-\xac\xae-\xb6\xb8-\xbf\xd7\xf7][^\W\d_]")
