"""Token ids: which ones are taken for this tokenizer's own, and what text they are."""

from collections.abc import Sequence

import pytest

from indexer.index.errors import TokensInvalid
from indexer.index.tokens import texts_of_tokens

CLS, SEP, UNK = 0, 1, 2
WORDS = ["[CLS]", "[SEP]", "[UNK]", "##s", "##ing", " ", *(f"word{n}" for n in range(6, 50))]


class Tokenizer:
    """A word is an id; a piece that begins with ## is glued to the word before."""

    all_special_ids = (CLS, SEP, UNK)
    unk_token_id = UNK

    def __len__(self) -> int:
        return len(WORDS)

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(WORDS[each] for each in ids).replace(" ##", "")

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        known = {word: number for number, word in enumerate(WORDS)}
        return [known.get(word, UNK) for word in text.split()]


def text_of(*ids: int, max_tokens: int = 0) -> str:
    [text] = texts_of_tokens(Tokenizer(), [ids], max_tokens)
    return text


def test_ids_become_text_and_those_that_frame_it_are_left_out() -> None:
    assert text_of(10, 11, 10) == "word10 word11 word10"
    assert text_of(CLS, 10, 11, SEP) == "word10 word11"


def test_a_word_that_the_tokenizer_did_not_know_stays_unknown() -> None:
    assert text_of(10, UNK, 11) == "word10 [UNK] word11"


def test_what_the_model_would_not_read_is_cut_off() -> None:
    assert text_of(*range(10, 40), max_tokens=3) == "word10 word11 word12"


@pytest.mark.parametrize("wrong", [50, 100_256, -1])
def test_an_id_that_the_tokenizer_does_not_have_is_named_with_its_array(wrong: int) -> None:
    with pytest.raises(TokensInvalid, match=rf"^{wrong} is no token id .*has 50\.") as refused:
        texts_of_tokens(Tokenizer(), [[10], [11], [12, wrong]])

    assert refused.value.place == 2
    assert "check_embedding_ctx_length=False" in str(refused.value)


def test_ids_of_another_tokenizer_are_seen_where_they_make_other_words() -> None:
    with pytest.raises(TokensInvalid, match="make no text of this model") as refused:
        texts_of_tokens(Tokenizer(), [[10, 11], [10, 3, 4, 12]])

    assert refused.value.place == 1
    assert "check_embedding_ctx_length=False" in str(refused.value)


def test_an_array_that_was_cut_in_the_middle_of_a_word_is_taken() -> None:
    assert text_of(4, *range(10, 20)).startswith("##ing word10 ")


@pytest.mark.parametrize("ids", [[CLS, SEP], [5]])
def test_ids_without_text_are_refused(ids: list[int]) -> None:
    with pytest.raises(TokensInvalid, match="no text"):
        texts_of_tokens(Tokenizer(), [ids])


def test_a_model_whose_tokenizer_is_of_another_kind_takes_text_alone() -> None:
    with pytest.raises(TokensInvalid, match="takes text alone"):
        texts_of_tokens(object(), [[1]])
