"""Chunks and what the encoder reads: no passage is longer, whatever the document holds."""

import pickle
import string
import time
from bisect import bisect_right
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from indexer.chunking import Chunker, ChunkerSettings, Span, layout, passage
from indexer.chunking.layout import Layout
from indexer.chunking.sizes import Tokens
from indexer.index.passages import text_alone

PREFIX = "passage: "
TITLE = "A handbook of the llama, its food and its children"


def word_pieces() -> Tokenizer:
    """Like the tokenizer of BERT: what it does not know, however long, is one token."""
    characters = string.ascii_lowercase + string.digits + string.punctuation
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "llama", "sentence", "passage"]
    vocabulary = [*words, *characters, *(f"##{character}" for character in characters)]
    tokenizer = Tokenizer(
        models.WordPiece(
            {word: place for place, word in enumerate(vocabulary)},
            unk_token="[UNK]",
            max_input_chars_per_word=100,
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_truncation(20)  # as models are shipped, with padding as well
    tokenizer.enable_padding(length=20)
    return tokenizer


def byte_pairs() -> Tokenizer:
    """Like the tokenizers of the GPT family, with no merges: each byte is a token."""
    vocabulary = {byte: place for place, byte in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


TOKENIZERS = {"word pieces": word_pieces(), "byte pairs": byte_pairs()}


def unlimited(tokenizer: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


COUNTERS = {name: unlimited(tokenizer) for name, tokenizer in TOKENIZERS.items()}


def count(name: str, text: str) -> int:
    return len(COUNTERS[name].encode(text).ids)


PIECES = [
    "word " * 40,
    "One sentence. And another one! Is it so? " * 5,
    "大羊驼是一种驯化的骆驼科动物。它们生活在南美洲。" * 8,
    "라마는 남아메리카의 동물이다. " * 10,
    "Ламы живут в Андах. " * 10,
    "🦙👩‍👩‍👧 \u0301 " * 20,
    "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo0NTY3ODkrLw" * 12,
    "\n".join(["QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo0NTY3ODkrLw=="] * 8),
    "x" * 700,
    "." * 400,
    "```python\n" + "\n".join(f"value_{n} = compute({n})" for n in range(20)) + "\n```",
    "~~~\nnever closed",
    "    indented()\n    code()",
    "| a | b |\n|---|---|\n" + "\n".join(f"| {n} | row {n} |" for n in range(20)),
    "|" + " long cell |" * 60 + "\n|---|\n| short |",
    "# Heading",
    "## " + "A heading that is very long " * 12,
    "Underlined\n==========",
    "\n\n".join(f"{'#' * (1 + n % 6)} Level {n}" for n in range(20)),
    "- item\n  - below it\n    - and below that\n\n      with a paragraph",
    "> quoted\n>> twice\n> | a | b |\n> |---|---|\n> | 1 | 2 |",
    "<div>\n  <p>markup</p>\n</div>",
    "[link](address) `code` **bold** \\* &amp;",
    "---",
    " \t\u00a0\u2003 ",
    "\r\rold\rline ends\r\n",
    "\0\x0b\x0c\x85\u2028",
]
SYNTAX = st.text(alphabet="#`~|->*_=[]()! \n\t\r12.ab大é", max_size=300)
DOCUMENTS = st.lists(
    st.one_of(st.sampled_from(PIECES), SYNTAX, st.text(max_size=200)), max_size=8
).flatmap(lambda pieces: st.sampled_from(["\n\n", "\n", " "]).map(lambda gap: gap.join(pieces)))


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("unit", ["characters", "tokens"])
@settings(max_examples=40)
@given(
    with_headings=st.booleans(),
    text=DOCUMENTS,
    size=st.sampled_from([32, 100, 512]),
    max_tokens=st.sampled_from([128, 300]),
    overlap_percent=st.sampled_from([0, 10, 50]),
)
def test_whatever_the_document_holds(
    name: str,
    unit: str,
    with_headings: bool,
    text: str,
    size: int,
    overlap_percent: int,
    max_tokens: int,
) -> None:
    chunker = Chunker(
        ChunkerSettings(
            size=size,
            overlap_percent=overlap_percent,
            unit="tokens" if unit == "tokens" else "characters",
            tokenizer=TOKENIZERS[name].to_str(),
            max_tokens=max_tokens,
            passage_prefix=PREFIX,
            with_headings=with_headings,
        )
    )
    embedded = passage if with_headings else text_alone

    spans = chunker.split(title=TITLE, text=text)

    covered: set[int] = set()
    for span in spans:
        assert text[span.start : span.end] == span.text
        assert span.text.strip()
        assert count(name, PREFIX + embedded(TITLE, span.heading_path, span.text)) <= max_tokens
        covered.update(range(span.start, span.end))
    if unit == "characters":
        assert max((len(span.text) for span in spans), default=0) <= size
    else:  # the byte pairs put a space of their own before each text
        lengths = (
            len(COUNTERS[name].encode(span.text, add_special_tokens=False)) for span in spans
        )
        assert max(lengths, default=0) <= size + 1
    for one, next_ in pairwise(spans):
        assert one.start < next_.start
        assert one.end < next_.end
    headings = {
        place for found in Layout.of(text).headings for place in range(found.start, found.end)
    }
    left_out = "".join(text[place] for place in set(range(len(text))) - covered - headings)
    assert left_out.translate(str.maketrans("", "", "-*_=~`|:>#+")).strip() == ""


@settings(max_examples=100)
@given(
    text=DOCUMENTS,
    size=st.sampled_from([64, 100, 512]),
    overlap_percent=st.sampled_from([0, 10, 50]),
)
def test_what_fits_is_not_cut(text: str, size: int, overlap_percent: int) -> None:
    chunker = Chunker(ChunkerSettings(size=size, overlap_percent=overlap_percent))
    cuts = Layout.of(text).cuts

    for span in chunker.split(title="", text=text):
        for place in (span.start, span.end):
            first = bisect_right(cuts, place) - 1
            block = text[max(0, cuts[first]) : cuts[min(first + 1, len(cuts) - 1)]]
            before, after = text[cuts[first] : place], block[place - cuts[first] :]
            if before.strip() and after.strip():
                assert len(block.strip()) > size


def in_tokens(tokenizer: str, size: int, **more: Any) -> Chunker:
    settings = ChunkerSettings(
        size=size, overlap_percent=10, unit="tokens", tokenizer=TOKENIZERS[tokenizer].to_str()
    )
    return Chunker(msgspec.structs.replace(settings, **more))


def test_a_size_in_tokens_is_kept_and_filled() -> None:
    text = "The llama the sentence. " * 500
    spans = in_tokens("word pieces", 64).split(title="", text=text)
    lengths = [
        len(COUNTERS["word pieces"].encode(span.text, add_special_tokens=False)) for span in spans
    ]

    assert max(lengths) <= 64
    assert min(lengths[:-1]) >= 60


def test_overlap_is_a_share_of_the_size_in_tokens() -> None:
    text = "The llama the sentence. " * 500
    spans = in_tokens("word pieces", 100).split(title="", text=text)
    shared = [one.end - next_.start for one, next_ in pairwise(spans)]
    two_sentences = 10  # tokens, a tenth of the size

    assert set(shared) == {len("The llama the sentence. " * 2) - 1}
    assert count("word pieces", "The llama the sentence. " * 2) - 2 == two_sentences


def test_what_a_tokenizer_takes_for_one_word_is_cut_all_the_same() -> None:
    spans = in_tokens("word pieces", 64).split(title="", text="x" * 50_000)

    assert max(len(span.text) for span in spans) <= 64 * 16


def test_a_piece_of_a_word_is_counted_by_itself() -> None:
    text = "x" * 120  # one token, since it is longer than any word that the tokenizer knows
    size = Tokens(COUNTERS["word pieces"], size=32, overlap=0)

    assert size.excess(text, 0, 120) == 1 / 32
    assert size.excess(text, 40, 120) == 80 / 32


def test_no_chunk_is_longer_than_what_milvus_stores() -> None:
    settings = ChunkerSettings(size=60_000, overlap_percent=0)
    spans = Chunker(settings).split(title="", text="羊" * 70_000)

    assert max(len(span.text.encode()) for span in spans) <= 65_535


def test_headings_make_room_for_the_text_outermost_first() -> None:
    text = "".join(f"{'#' * n} Level {n} with many words\n\n" for n in range(1, 7)) + "word " * 300
    chunker = in_tokens("byte pairs", 400, max_tokens=150)

    paths = {span.heading_path for span in chunker.split(title="", text=text)}

    assert paths == {"Level 6 with many words"}


def test_a_path_is_no_longer_than_what_is_stored_of_it() -> None:
    text = "".join(f"{'#' * n} {'🦙' * 5_000}\n\n" for n in range(1, 7)) + "Text."
    (span,) = Chunker(ChunkerSettings(size=512, overlap_percent=0)).split(title="", text=text)

    assert 3_000 < len(span.heading_path.encode()) < 4_096


def test_the_path_is_whole_where_there_is_room() -> None:
    text = "# One\n\n## Two\n\n" + "word " * 300
    spans = in_tokens("byte pairs", 400, max_tokens=400).split(title="T", text=text)

    assert {span.heading_path for span in spans} == {"One > Two"}
    assert max(len(span.text) for span in spans) > 300


def test_a_size_in_tokens_needs_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="tokenizer"):
        Chunker(ChunkerSettings(size=64, overlap_percent=0, unit="tokens"))


def test_a_prefix_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        in_tokens("byte pairs", 64, max_tokens=20, passage_prefix="a prefix longer than that")


def test_settings_can_go_to_another_process() -> None:
    settings = ChunkerSettings(
        size=64, overlap_percent=10, tokenizer=TOKENIZERS["word pieces"].to_str(), max_tokens=128
    )
    copy = pickle.loads(pickle.dumps(settings))

    assert copy == settings
    assert Chunker(copy).split(title="", text="One.") == [Span(0, "One.", "")]


def test_the_description_holds_no_tokenizer() -> None:
    assert len(in_tokens("byte pairs", 64, max_tokens=128).description) < 120


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        "word and more, " * 140_000,
        "x" * 2_000_000,
        ">" * 20_000 + " deep",
        "- " * 20_000 + "deep",
        "\n".join("  " * depth + "- deep" for depth in range(1_000)),
        "# " + "[" * 20_000 + "\n\ntext",
        "|a|b|\n|-|-|\n" + "|1|2|\n" * 50_000,
        "```\n" + "x = 1\n" * 50_000,
        "\n\n".join("## h\n\ntext" for _ in range(5_000)),
        " " * 1_000_000 + "text" + "\n" * 1_000_000,
    ],
    ids=[
        *("a long line", "a long word", "quotes", "items", "nested list", "brackets"),
        *("table", "code", "headings", "space"),
    ],
)
def test_a_hostile_text_takes_seconds(text: str) -> None:
    settings = ChunkerSettings(size=512, overlap_percent=10)
    began = time.process_time()

    spans = Chunker(settings).split(title="", text=text)

    assert spans
    assert time.process_time() - began < 20


def test_nesting_too_deep_for_the_parser_is_cut_as_plain_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_deep(_: str) -> None:
        raise RecursionError

    monkeypatch.setattr(layout._BLOCKS, "parse", too_deep)
    text = "# One\n\n" + "Two words. " * 30 + "\n\n" + "Three. " * 8
    spans = Chunker(ChunkerSettings(size=64, overlap_percent=0)).split(title="", text=text)

    assert spans[-1].text == ("Three. " * 8).strip()
    assert {span.heading_path for span in spans} == {""}
    assert " ".join(span.text for span in spans).split() == text.split()
